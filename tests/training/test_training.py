from __future__ import annotations

import math
import os
import signal
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from support.runs import metrics
from torch import nn

from fercache.config import TrainingConfig
from fercache.data.datasets import EpochBatches
from fercache.errors import ConfigError, RunError, Stopped
from fercache.models.checkpoint import load_checkpoint
from fercache.rundir import RunDir
from fercache.runtime import Ranks, stop_signals
from fercache.tasks import TASKS
from fercache.training.augment import crop, random_boxes
from fercache.training.engine import Batch, LossSum, NotFiniteError, infer
from fercache.training.fit import fit
from fercache.training.losses import class_balanced_weights, make_criterion, positive_weights
from fercache.training.schedule import learning_rate
from fercache.training.start import TrainingJob

PLAIN = TrainingConfig()


def mean_loss(criterion, logits, labels):
    return criterion.total(logits, labels).item() / criterion.weight(labels)


def test_cross_entropy_leaves_out_what_does_not_count():
    logits = torch.zeros(2, 3, 7)
    logits[0, 0, 4] = math.log(6)  # p = 6/12 = 1/2 for class 4
    labels = torch.tensor([[4, -1, -1], [-1, 0, -1]], dtype=torch.int8)
    criterion = make_criterion(TASKS["expr"], PLAIN, labels.numpy())
    assert criterion.weight(labels) == 2
    assert mean_loss(criterion, logits, labels) == pytest.approx((math.log(2) + math.log(7)) / 2)


def test_binary_cross_entropy_leaves_out_single_elements():
    logits, labels = torch.zeros(2, 12), torch.full((2, 12), -1, dtype=torch.int8)
    logits[0, 3], labels[0, 3] = math.log(3), 1
    labels[1, 0] = 0
    criterion = make_criterion(TASKS["au"], PLAIN, labels.numpy())
    assert criterion.weight(labels) == 2
    assert mean_loss(criterion, logits, labels) == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


def test_a_masked_element_has_no_gradient():
    logits = torch.zeros(1, 12, requires_grad=True)
    labels = torch.full((1, 12), -1, dtype=torch.int8)
    labels[0, 5] = 1
    make_criterion(TASKS["au"], PLAIN, labels.numpy()).total(logits, labels).backward()
    assert logits.grad[0].tolist() == [0.0] * 5 + [-0.5] + [0.0] * 6


def test_class_balanced_weights_by_hand():
    labels = np.array([0, 0, 0, 1, -1])
    weights = class_balanced_weights(labels, 3, 0.5)
    raw = [0.5 / (1 - 0.125), 0.5 / 0.5]  # (1 - 1/2) / (1 - 1/2^n) for n = 3 and n = 1
    assert weights.tolist() == pytest.approx([2 * raw[0] / sum(raw), 2 * raw[1] / sum(raw), 0])
    assert class_balanced_weights(labels, 3, 1.0).tolist() == pytest.approx([0.5, 1.5, 0])
    assert class_balanced_weights(labels, 3, 0.0).tolist() == [1, 1, 0]


def test_balanced_classes_weigh_the_same_in_the_loss():
    labels = torch.tensor([0, 0, 0, 1])
    criterion = make_criterion(TASKS["expr"], TrainingConfig(class_balance=1.0), labels.numpy())
    logits = torch.zeros(4, 7)
    logits[:, 0] = math.log(6)  # 1/2 for class 0, 1/12 for the others
    assert criterion.weight(labels) == pytest.approx(3)
    assert mean_loss(criterion, logits, labels) == pytest.approx((math.log(2) + math.log(12)) / 2)


def test_label_smoothing_by_hand():
    logits = torch.zeros(1, 7)
    logits[0, 2] = math.log(6)
    criterion = make_criterion(TASKS["expr"], TrainingConfig(label_smoothing=0.7), np.array([2]))
    expected = (0.3 + 0.1) * math.log(2) + 6 * 0.1 * math.log(12)
    assert mean_loss(criterion, logits, torch.tensor([2])) == pytest.approx(expected)
    units, labels = torch.full((1, 12), math.log(3)), torch.ones(1, 12)
    criterion = make_criterion(TASKS["au"], TrainingConfig(label_smoothing=0.2), labels.numpy())
    assert mean_loss(criterion, units, labels) == pytest.approx(0.9 * math.log(4 / 3) + 0.1 * math.log(4))


def test_positive_weights_by_hand():
    labels = np.array([[1, 0, 1], [0, 0, -1], [0, 0, 1], [0, -1, -1]])
    assert positive_weights(labels).tolist() == [3, 1, 1]
    many = np.full((4, 12), -1)
    many[:, :3] = labels
    criterion = make_criterion(TASKS["au"], TrainingConfig(positive_weights=True), many)
    # The first unit's four elements at logit 0: one present, which weighs 3, and three absent.
    column = torch.full((4, 12), -1)
    column[:, 0] = torch.from_numpy(labels[:, 0])
    assert criterion.total(torch.zeros(4, 12), column).item() == pytest.approx((3 + 3) * math.log(2))


@pytest.mark.parametrize(
    ("task", "setting", "words"),
    [
        ("au", {"class_balance": 0.9}, "class_balance: task au has the loss"),
        ("expr", {"positive_weights": True}, "positive_weights: task expr has the loss"),
    ],
)
def test_a_setting_of_the_other_kind_of_task_is_refused(task, setting, words):
    with pytest.raises(ConfigError, match=words):
        make_criterion(TASKS[task], TrainingConfig(**setting), np.zeros((1, 12), int))


def test_the_steps_of_the_paper():
    rates = [learning_rate(PLAIN, step, 100) for step in (0, 199, 200, 399, 400, 799, 800, 999)]
    assert rates == pytest.approx([5e-4, 5e-4, 5e-5, 5e-5, 5e-6, 5e-6, 5e-7, 5e-7])


def test_warm_up_and_cosine_by_hand():
    settings = TrainingConfig(epochs=4, lr=1.0, schedule="cosine", warmup=1.0)
    rates = [learning_rate(settings, step, 4) for step in range(16)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4] == pytest.approx(1.0) and rates[10] == pytest.approx(0.5)
    assert rates[4:] == sorted(rates[4:], reverse=True) and 0 < rates[15] < 0.02
    steps = TrainingConfig(epochs=4, lr=1.0, milestones=(1,), warmup=0.5)
    assert [learning_rate(steps, step, 4) for step in (0, 1, 2, 4)] == pytest.approx([0.5, 1.0, 1.0, 0.1])


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


X = torch.randn(41, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


class Samples:
    """41 samples in 6 steps; `on_step` and `on_check` are called before each step and validation batch."""

    def __init__(self, on_step, on_check):
        self.order, self.on_step, self.on_check = EpochBatches(41, 8, 1), on_step, on_check
        self.steps = self.order.steps

    def batches(self, epoch, first_step):
        for step, part in enumerate(map(torch.tensor, self.order.start(epoch, first_step)), start=first_step):
            self.on_step(epoch, step)
            yield Batch(part, X[part], Y[part])

    def names(self, index):
        return [f"sample {number}" for number in index]

    def validate(self, network, check):
        self.on_check()
        logits = infer(network, [Batch(torch.arange(41), X, Y)], nullcontext, check)
        return {"score": float((logits.argmax(1) == Y.numpy()).mean())}


def noisy():
    torch.manual_seed(0)
    return Noisy()


def train(run, network=None, on_step=lambda epoch, step: None, on_check=lambda: None, epochs=4, lr=0.1, **settings):
    chosen = TrainingConfig(epochs=epochs, lr=lr, batch_size=8, **{"milestones": (2,), **settings})
    criterion = make_criterion(TASKS["expr"], chosen, Y.numpy())
    network, data = network or noisy(), Samples(on_step, on_check)
    with stop_signals() as stop:
        job = TrainingJob(run, chosen, seed=7, threads=1, precision="fp32", ranks=Ranks(), stop=stop)
        fit(job, network, criterion, data, kind="test", header={"task": "expr"})


def weights(run):
    return load_checkpoint(run.last)["model"]


def test_training_learns_and_leaves_a_whole_run(tmp_path):
    run = RunDir(tmp_path)
    train(run)
    lines = metrics(run.path)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["lr"] for line in lines] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    assert lines[-1]["score"] > 0.8 and lines[-1]["loss"] < lines[0]["loss"]
    best = load_checkpoint(run.best)
    assert len(best["history"]) == 1 + int(np.argmax([line["score"] for line in lines]))
    assert best["select"] == "best" and "optimizer" not in best


def stop_at(epoch, step):
    """Sends this process a signal before that step, as a scheduler would."""

    def on_step(*place):
        if place == (epoch, step):
            os.kill(os.getpid(), signal.SIGUSR1)

    return on_step


class Killed(Exception):
    """Ends the training where a kill -9 would: nothing is saved on the way out."""


def kill_at(epoch, step):
    def on_step(*place):
        if place == (epoch, step):
            raise Killed

    return on_step


def assert_same_run(run, whole):
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(run)[name]), name
    assert metrics(run.path) == metrics(whole.path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = RunDir(tmp_path_factory.mktemp("whole"))
    train(run, schedule="cosine", warmup=1.5, clip_norm=0.5)
    return run


RECIPE = {"schedule": "cosine", "warmup": 1.5, "clip_norm": 0.5}


@pytest.mark.parametrize("places", [[(0, 0)], [(0, 5)], [(1, 3), (1, 4), (3, 2)]])
def test_a_stopped_run_gives_the_bits_of_an_undisturbed_one(tmp_path, whole, places):
    run = RunDir(tmp_path)
    for epoch, step in places:
        with pytest.raises(Stopped, match="SIGUSR1"):
            train(run, on_step=stop_at(epoch, step), **RECIPE)
        assert run.epochs_done() == epoch
        # The signal comes while a step's batch is prepared: it is saved before that step.
        assert load_checkpoint(run.last)["place"]["step"] == step
    train(run, **RECIPE)
    assert_same_run(run, whole)


def test_adamw_goes_on_with_its_moments(tmp_path):
    recipe = {"optimizer": "adamw", "lr": 1e-3, "momentum": 0.8}
    undisturbed, run = RunDir(tmp_path / "undisturbed"), RunDir(tmp_path / "run")
    train(undisturbed, **recipe)
    with pytest.raises(Stopped, match="SIGUSR1"):
        train(run, on_step=stop_at(1, 3), **recipe)
    train(run, **recipe)
    assert_same_run(run, undisturbed)


def test_the_first_step_of_adamw_is_the_rate_whatever_the_gradient(tmp_path):
    network, run = noisy(), RunDir(tmp_path)
    before = network.layers[3].bias.detach().clone()
    with pytest.raises(Stopped):
        train(run, network, on_step=stop_at(0, 1), lr=1e-3, optimizer="adamw", weight_decay=0.5)
    step = weights(run)["layers.3.bias"] - before * (1 - 1e-3 * 0.5)
    torch.testing.assert_close(step.abs(), torch.full((7,), 1e-3), rtol=1e-3, atol=0)


def test_a_run_stopped_in_validation_does_not_train_that_epoch_again(tmp_path, whole):
    run, stepped = RunDir(tmp_path), []
    with pytest.raises(Stopped):
        train(run, on_check=lambda: os.kill(os.getpid(), signal.SIGTERM), **RECIPE)
    assert not run.best.exists() and load_checkpoint(run.last)["place"]["step"] == 6
    train(run, on_step=lambda *place: stepped.append(place), **RECIPE)
    assert stepped[0] == (1, 0)
    assert_same_run(run, whole)


@pytest.mark.parametrize(("minutes", "kept"), [(0.0, 2), (10.0, None)])
def test_a_killed_run_goes_on_from_the_last_save(tmp_path, whole, minutes, kept):
    run, stepped = RunDir(tmp_path), []
    with pytest.raises(Killed):
        train(run, on_step=kill_at(0, 3), save_minutes=minutes, **RECIPE)
    assert run.last.exists() == (kept is not None)
    train(run, on_step=lambda *place: stepped.append(place), **RECIPE)
    assert stepped[0] == (0, kept or 0)
    assert_same_run(run, whole)


def test_select_last_keeps_the_last_epoch(tmp_path):
    train(RunDir(tmp_path), select="last")
    assert len(load_checkpoint(RunDir(tmp_path).best)["history"]) == 4


def test_a_loss_that_is_not_finite_stops_and_names_its_batch(tmp_path):
    with pytest.raises(RunError, match=r"epoch 1: the loss of step \d+ is (inf|nan)") as caught:
        train(RunDir(tmp_path), lr=1e30)
    first, *names = str(caught.value).splitlines()
    step = int(first.split("step ")[1].split()[0])
    assert names == [f"sample {place}" for place in list(EpochBatches(41, 8, 1).start(0))[step - 1]]
    assert not RunDir(tmp_path).last.exists()


def test_losses_that_are_looked_at_late_are_named_right():
    losses = LossSum(every=3)
    for step, value in enumerate([1.0, math.nan], start=1):
        losses.add(step, torch.tensor([step]), torch.tensor(value), 2.0)
    with pytest.raises(NotFiniteError, match="step 2 is nan") as caught:
        losses.add(3, torch.tensor([3]), torch.tensor(math.inf), 2.0)
    assert caught.value.index.tolist() == [2]
    losses = LossSum(every=3, total=1.0, weight=1.0)
    losses.add(1, torch.tensor([0]), torch.tensor(4.0), 2.0)
    assert (losses.total, losses.weight) == (1.0, 3.0)
    losses.settle()
    assert (losses.total, losses.weight) == (5.0, 3.0)


def test_the_mean_loss_is_that_of_a_sample(tmp_path):
    network = noisy()
    network.layers[2].p = 0.0
    expected = torch.nn.functional.cross_entropy(network(X), Y).item()
    train(RunDir(tmp_path), network, epochs=1, lr=1e-30)
    assert metrics(RunDir(tmp_path).path)[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_clipping_bounds_the_step(tmp_path):
    for limit in (0.25, None):
        network = noisy()
        before = [p.detach().clone() for p in network.parameters()]
        recipe = {"epochs": 1, "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": limit, "milestones": ()}
        with pytest.raises(Stopped):
            train(RunDir(tmp_path / str(limit)), network, on_step=stop_at(0, 1), **recipe)
        length = sum((a - b).square().sum() for a, b in zip(before, network.parameters(), strict=True)).sqrt()
        assert length.item() == pytest.approx(0.25, rel=1e-4) if limit else length.item() > 0.3


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    run = RunDir(tmp_path)
    train(run, epochs=1)
    other = noisy()
    other.layers[0] = nn.Linear(5, 17)
    with pytest.raises(RunError, match=r"last\.pt: does not fit this run"):
        train(run, other, epochs=2)
