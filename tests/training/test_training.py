from __future__ import annotations

import json
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from fercache.config import TrainingConfig
from fercache.data.datasets import EpochOrder
from fercache.errors import RunError, Stopped
from fercache.models.checkpoint import load_checkpoint
from fercache.rundir import RunDir
from fercache.tasks import TASKS
from fercache.training.augment import crop, random_boxes
from fercache.training.engine import infer, train_epoch
from fercache.training.fit import Fit, fit
from fercache.training.losses import get_criterion


def test_cross_entropy_leaves_out_what_does_not_count():
    criterion = get_criterion(TASKS["expr"])
    logits = torch.zeros(2, 3, 7)
    logits[0, 0, 4] = math.log(6)  # p = 6/12 = 1/2 for class 4
    labels = torch.tensor([[4, -1, -1], [-1, 0, -1]], dtype=torch.int8)
    assert criterion(logits, labels).item() == pytest.approx((math.log(2) + math.log(7)) / 2)


def test_binary_cross_entropy_leaves_out_single_elements():
    criterion = get_criterion(TASKS["au"])
    logits, labels = torch.zeros(2, 12), torch.full((2, 12), -1, dtype=torch.int8)
    logits[0, 3], labels[0, 3] = math.log(3), 1
    labels[1, 0] = 0
    assert criterion(logits, labels).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


def test_boxes_stay_in_the_frame_and_in_the_scale():
    boxes = random_boxes(2000, (0.2, 1.0), True, torch.Generator().manual_seed(0))
    width, height = boxes[:, 0, 0].abs(), boxes[:, 1, 1]
    assert (boxes[:, 0, 2].abs() + width <= 1 + 1e-6).all() and (boxes[:, 1, 2].abs() + height <= 1 + 1e-6).all()
    area, ratio = width * height, width / height
    assert area.min() > 0.15 and area.max() <= 1 and 0.55 < area.mean() < 0.62
    assert ratio.min() >= 3 / 4 - 1e-6 and ratio.max() <= 4 / 3 + 1e-6
    assert 0.45 < (boxes[:, 0, 0] < 0).float().mean() < 0.55


def test_the_whole_frame_is_the_frame():
    frames = torch.randint(0, 256, (3, 3, 20, 20), dtype=torch.uint8)
    boxes = random_boxes(3, (1.0, 1.0), False, torch.Generator())
    torch.testing.assert_close(crop(frames, boxes, 20), frames.float(), rtol=0, atol=1e-3)
    boxes[:, 0, 0] = -1
    torch.testing.assert_close(crop(frames, boxes, 20), frames.flip(3).float(), rtol=0, atol=1e-3)
    as_list = crop([frames[0], frames[1, :, :10]], boxes[:2], 20)
    torch.testing.assert_close(as_list[:1], crop(frames[:1], boxes[:1], 20))


def test_a_crop_by_hand():
    frames = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4).expand(1, 3, 4, 4)
    box = torch.tensor([[[0.5, 0, 0.5], [0, 0.5, -0.5]]])  # the upper right quarter
    assert crop(frames, box, 2)[0, 0].tolist() == [[2, 3], [6, 7]]


class Noisy(nn.Module):
    """A network with dropout, so that a wrong state of the random numbers shows."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 7))

    def forward(self, x):
        return self.layers(x)


X = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def plan(epochs=4, lr=0.1, stop_at=None, **settings):
    torch.manual_seed(0)
    network, order = Noisy(), EpochOrder(40, 1)

    def batches(epoch):
        if epoch == stop_at:
            raise Stopped("SIGTERM")
        order.epoch = epoch
        return ((X[part], Y[part]) for part in torch.tensor(list(order)).split(8))

    def validate():
        logits = infer(network, [(X, Y)], nullcontext)
        return {"score": float((logits.argmax(1) == Y.numpy()).mean())}

    chosen = TrainingConfig(epochs=epochs, lr=lr, milestones=(2,), **settings)
    return Fit(network, batches, validate, get_criterion(TASKS["expr"]), chosen, "fp32", 7, "test", {"task": "expr"})


def weights(run):
    return load_checkpoint(run.last)["model"]


def test_training_learns_and_leaves_a_whole_run(tmp_path):
    run = RunDir(tmp_path)
    fit(plan(), run)
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["lr"] for line in lines] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    assert lines[-1]["score"] > 0.8 and lines[-1]["loss"] < lines[0]["loss"]
    best = load_checkpoint(run.best)
    assert len(best["history"]) == 1 + int(np.argmax([line["score"] for line in lines]))
    assert best["select"] == "best" and "optimizer" not in best


def test_a_stopped_run_gives_the_bits_of_an_undisturbed_one(tmp_path):
    whole, stopped = RunDir(tmp_path / "whole"), RunDir(tmp_path / "stopped")
    fit(plan(), whole)
    for epoch in (1, 3):
        with pytest.raises(Stopped):
            fit(plan(stop_at=epoch), stopped)
        assert stopped.epochs_done() == epoch
    fit(plan(), stopped)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(stopped)[name]), name
    seconds = [[{**json.loads(line), "seconds": 0} for line in r.metrics.open()] for r in (whole, stopped)]
    assert seconds[0] == seconds[1]


def test_select_last_keeps_the_last_epoch(tmp_path):
    fit(plan(select="last"), RunDir(tmp_path))
    assert len(load_checkpoint(RunDir(tmp_path).best)["history"]) == 4


def test_a_loss_that_is_not_finite_stops(tmp_path):
    with pytest.raises(RunError, match=r"the loss of step \d+ is (inf|nan)"):
        fit(plan(lr=1e30), RunDir(tmp_path))
    assert not RunDir(tmp_path).best.exists()


def test_the_mean_loss_is_that_of_a_sample():
    network, criterion = Noisy(), get_criterion(TASKS["expr"])
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-9)
    network.layers[2].p = 0.0
    batches = [(X[:30], Y[:30]), (X[30:], Y[30:])]
    loss = train_epoch(network, batches, criterion, optimizer, nullcontext, lambda: None)
    assert loss == pytest.approx(criterion(network(X), Y).item(), rel=1e-5)
