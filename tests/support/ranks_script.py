"""What tests run under torchrun: `ranks_script.py WHAT OUT`, with one process or several."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fercache import runtime
from fercache.config import TrainingConfig
from fercache.data.datasets import EpochBatches, in_order, share_of
from fercache.errors import RunError
from fercache.rundir import RunDir
from fercache.scoring.metrics import epoch_scores
from fercache.tasks import TASKS
from fercache.training.engine import Batch
from fercache.training.fit import fit
from fercache.training.losses import make_criterion
from fercache.training.start import TrainingJob
from fercache.training.validation import validation_logits

VALIDATED = 23
X = torch.randn(41, 5, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 7, (41,), generator=torch.Generator().manual_seed(1))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 7))

    def forward(self, x):
        return self.layers(x)


class Samples:
    """41 samples in 6 steps, dealt among the ranks; `on_step` is called before each step."""

    def __init__(self, ranks, on_step):
        self.ranks, self.on_step = ranks, on_step
        self.order = EpochBatches(41, 8, 1, ranks.rank, ranks.count)
        self.steps = self.order.steps

    def batches(self, epoch, first_step):
        for step, part in enumerate(map(torch.tensor, self.order.start(epoch, first_step)), start=first_step):
            self.on_step(epoch, step)
            yield Batch(part, X[part], Y[part])

    def names(self, index):
        return list(map(str, index))

    def validate(self, network, check):
        share = share_of(41, self.ranks.rank, self.ranks.count)
        batches = [Batch(torch.tensor(p), X[p], Y[p]) for p in in_order(share, 4)]
        logits = validation_logits(network, batches, 41, "fp32", check, self.names)
        return epoch_scores(TASKS["expr"], logits, Y.numpy())


def run(out, ranks, on_step=lambda epoch, step: None, norm=True):
    torch.manual_seed(0)
    network = Network()
    if not norm:
        network.layers[2] = nn.Identity()
    settings = TrainingConfig(epochs=3, batch_size=8, lr=0.05, clip_norm=1.0, class_balance=0.9)
    criterion = make_criterion(TASKS["expr"], settings, Y.numpy())
    with runtime.stop_signals() as stop:
        job = TrainingJob(RunDir(out), settings, seed=7, threads=1, precision="fp32", ranks=ranks, stop=stop)
        fit(job, network, criterion, Samples(ranks, on_step), kind="test", header={"task": "expr"})


def train(out, ranks):
    run(out, ranks)


def train_without_norm(out, ranks):
    run(out, ranks, norm=False)


def stop_one(out, ranks):
    """A signal that reaches the last rank alone stops all of them in the same step."""

    def on_step(epoch, step):
        if (epoch, step) == (1, 2) and ranks.rank == ranks.count - 1:
            os.kill(os.getpid(), signal.SIGUSR1)

    run(out, ranks, on_step)


def fail_one(out, ranks):
    def on_step(epoch, step):
        if (epoch, step) == (0, 3) and ranks.rank == 1:
            raise RunError("the second rank's disk is full")

    run(out, ranks, on_step)


def score(out, ranks):
    """Scores of given logits on a number of frames that two ranks cannot share evenly."""
    rng = np.random.default_rng(0)
    logits, labels = torch.from_numpy(rng.normal(size=(VALIDATED, 7)).astype("f4")), rng.integers(0, 7, VALIDATED)
    seen = []

    def batches():
        for part in in_order(share_of(VALIDATED, ranks.rank, ranks.count), 4):
            seen.extend(part)
            yield Batch(torch.tensor(part), logits[part], torch.from_numpy(labels[part]))

    gathered = validation_logits(nn.Identity(), batches(), VALIDATED, "fp32", lambda: None, list)
    scores = epoch_scores(TASKS["expr"], gathered, labels)
    (out / f"rank{ranks.rank}.json").write_text(json.dumps({"scores": scores, "seen": seen}))


if __name__ == "__main__":
    from fercache.errors import FercacheError, Stopped

    torch.set_num_threads(1)
    try:
        with runtime.process_group() as own:
            globals()[sys.argv[1]](Path(sys.argv[2]), own)
    except FercacheError as error:
        sys.exit(f"Error: {error}")
    except Stopped as stop:
        print(f"stopped by {stop}", file=sys.stderr, flush=True)
        os._exit(Stopped.EXIT_STATUS)
    os._exit(0)  # as `python -m fercache` does, see there
