"""The loop over epochs: steps, validation, checkpoints, going on after a stop or a kill."""

from __future__ import annotations

import inspect
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fercache import runtime
from fercache.config import TrainingConfig
from fercache.errors import RunError, Stopped
from fercache.models.checkpoint import load_checkpoint, save_checkpoint
from fercache.rundir import RunDir
from fercache.training.engine import Batches, LossSum, NotFiniteError, Trainer
from fercache.training.losses import Criterion
from fercache.training.schedule import learning_rate

log = logging.getLogger(__name__)

Scores = dict[str, float]
"""Names and values of an epoch's validation; `score` is the one that decides."""
GPU_LOOK = 10
"""Steps between looks at the losses on a GPU, which must not wait for them."""


@dataclass(frozen=True)
class Fit:
    """All that a training is made of."""

    network: nn.Module
    steps: int
    """Steps of an epoch."""
    batches: Callable[[int, int], Batches]
    """Epoch and step (from 0) -> this rank's training batches of the epoch, in its own order, from that step on."""
    validate: Callable[[Callable[[], None]], Scores]
    """Scores the network; calls what it is given between its batches, on all ranks alike."""
    describe: Callable[[torch.Tensor], list[str]]
    """Places of training samples -> their names."""
    criterion: Criterion
    settings: TrainingConfig
    precision: str
    seed: int
    kind: str
    """Kind of the checkpoint."""
    header: dict[str, Any]
    """What the checkpoint says beside the tensors."""
    lr_scale: Callable[[str], float] = lambda _name: 1.0
    """A parameter's name -> its share of the learning rate."""


@dataclass
class _Place:
    """How far the training is: the epochs that are done, and the steps of the next one."""

    history: list[dict[str, Any]] = field(default_factory=list)
    step: int = 0
    total: float = 0.0
    """Summed loss of those steps, over all ranks."""
    weight: float = 0.0
    seconds: float = 0.0
    """Time that the epoch has taken, in all calls that worked on it."""


def fit(plan: Fit, run: RunDir, ranks: runtime.Ranks, stop: runtime.StopFlag) -> None:
    """Train to the last epoch, or on from `last.pt`; leaves `best.pt`, `last.pt` and `metrics.jsonl` in the run.

    The random numbers of a step depend on seed, epoch, step and rank alone, and `last.pt` is saved
    within an epoch too, so that a stopped run gives the bits of an undisturbed one. A signal to any
    rank, noted in its `stop`, raises Stopped on all, with everything saved, before the next step.
    RunError as soon as a loss is not finite, naming the batch's samples: what follows would be lost time.
    """
    if any(parameter.requires_grad for parameter in plan.network.parameters()):
        _Loop(plan, run, ranks, stop).train()
    else:
        _keep(plan, run, ranks, stop)


def _keep(plan: Fit, run: RunDir, ranks: runtime.Ranks, stop: runtime.StopFlag) -> None:
    """A run of a network in which nothing is to be trained: its scores, once, and its files."""
    scores = plan.validate(lambda: _stop_all(ranks, stop))
    history = [{"epoch": 1, **scores}]
    if ranks.first:
        save_checkpoint(run.best, plan.kind, _content(plan, history))
        run.write_metrics(history)
    ranks.same()
    log.info("nothing to train: %s", _in_words(scores))


class _Loop:
    """A training under way."""

    def __init__(self, plan: Fit, run: RunDir, ranks: runtime.Ranks, stop: runtime.StopFlag) -> None:
        self.plan, self.run, self.ranks, self.stop = plan, run, ranks, stop
        settings, device = plan.settings, runtime.device()
        self.trainer = _trainer(plan, ranks.count)
        self.look = 1 if device.type == "cpu" else GPU_LOOK
        self.place = self._go_on()
        if settings.compile:
            plan.network.compile()
        if ranks.count > 1:
            self.trainer = _over_ranks(self.trainer, device)
        self.began = self.saved = time.monotonic()

    def train(self) -> None:
        """All epochs that are left."""
        plan, settings = self.plan, self.plan.settings
        for epoch in range(len(self.place.history), settings.epochs):
            self.began = time.monotonic() - self.place.seconds
            loss = self._train_epoch(epoch)
            self._share_statistics()
            try:
                scores = plan.validate(lambda: _stop_all(self.ranks, self.stop))
            except Stopped:
                self._save_within()
                raise
            line = {
                "epoch": epoch + 1,
                "lr": learning_rate(settings, epoch * plan.steps, plan.steps),
                "loss": loss,
                **scores,
                "seconds": round(time.monotonic() - self.began, 1),
            }
            self.place = _Place([*self.place.history, line])
            self._save_epoch()
            said = (epoch + 1, settings.epochs, loss, _in_words(scores), line["seconds"])
            log.info("epoch %d of %d: loss %.4f, %s (%.0f s)", *said)

    def _train_epoch(self, epoch: int) -> float:
        """The steps of an epoch that are left; returns the mean loss of all of them."""
        plan, place = self.plan, self.place
        plan.network.train()
        # One rank brings along what a stopped call had summed up over all.
        before = (place.total, place.weight) if self.ranks.first else (0.0, 0.0)
        losses = LossSum(self.look, *before)
        try:
            for batch in plan.batches(epoch, place.step):
                weight = plan.criterion.weight(batch.labels)
                common, stopping, saving = self.ranks.sums([weight, self.stop.signal is not None, self._is_due()])
                if stopping or saving:
                    self._note(losses)
                    self._save_within()
                if stopping:
                    raise _stopped(self.ranks, self.stop)
                runtime.seed_everything(plan.seed, epoch, place.step, self.ranks.rank)
                lr = learning_rate(plan.settings, epoch * plan.steps + place.step, plan.steps)
                total = self.trainer.step(batch, lr, common)
                place.step += 1
                losses.add(place.step, batch.index, total, weight)
            self._note(losses)
        except NotFiniteError as error:
            names = "\n".join(plan.describe(error.index))
            raise RunError(
                f"epoch {epoch + 1}: {error}: lower the learning rate, clip the gradient or compute in fp32;"
                f" its batch:\n{names}"
            ) from error
        return place.total / place.weight

    def _note(self, losses: LossSum) -> None:
        """Bring the sums over all ranks into the place."""
        losses.settle()
        self.place.total, self.place.weight = self.ranks.sums([losses.total, losses.weight])

    def _is_due(self) -> bool:
        """Whether the first rank is to save within the epoch."""
        return self.ranks.first and time.monotonic() - self.saved >= 60 * self.plan.settings.save_minutes

    def _share_statistics(self) -> None:
        """Give all ranks the first one's batch-norm statistics, which are those that are saved."""
        if self.ranks.count > 1:
            for buffer in self.plan.network.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def _go_on(self) -> _Place:
        """Take up the state of `last.pt` where there is one."""
        if not self.ranks.same(self.run.last.exists()):
            return _Place()
        state = load_checkpoint(self.run.last, self.plan.kind)
        try:
            self.plan.network.load_state_dict(state["model"])
            self.trainer.optimizer.load_state_dict(state["optimizer"])
            self.trainer.scaler.load_state_dict(state["scaler"])
            place = _Place(state["history"], **state["place"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"{self.run.last}: does not fit this run: {str(error).splitlines()[0]}") from error
        epochs, steps = self.plan.settings.epochs, self.plan.steps
        within = f" and step {place.step} of {steps} of the next" if place.step else ""
        log.info("%s: resuming after epoch %d of %d%s", self.run.path, len(place.history), epochs, within)
        if self.ranks.first:
            self.run.write_metrics(place.history)
        return place

    def _save_epoch(self) -> None:
        """Write an epoch's checkpoints; `best.pt` first, since a run goes on from what `last.pt` says."""
        history = self.place.history
        scores = [line["score"] for line in history]
        if self.ranks.first and (
            self.plan.settings.select == "last" or scores[-1] > max(scores[:-1], default=float("-inf"))
        ):
            save_checkpoint(self.run.best, self.plan.kind, _content(self.plan, history))
        self._save_last()
        if self.ranks.first:
            self.run.write_metrics(history)
        self.ranks.same()

    def _save_within(self) -> None:
        """Save in the midst of an epoch."""
        self.place.seconds = time.monotonic() - self.began
        self._save_last()

    def _save_last(self) -> None:
        """Write all that the training goes on from."""
        if self.ranks.first:
            place = {key: value for key, value in vars(self.place).items() if key != "history"}
            state = {
                "optimizer": self.trainer.optimizer.state_dict(),
                "scaler": self.trainer.scaler.state_dict(),
                "place": place,
            }
            save_checkpoint(self.run.last, self.plan.kind, {**_content(self.plan, self.place.history), **state})
        self.saved = time.monotonic()
        # The others must not read what is not written yet; nor end, since torchrun then ends the first, too.
        self.ranks.same()


def measure(plan: Fit, steps: int) -> float:
    """Samples a second that this process learns from, over so many steps behind a first one; nothing is kept."""
    trainer, samples, began = _trainer(plan, 1), 0, 0.0
    plan.network.train()
    epochs = itertools.chain(plan.batches(0, 0), plan.batches(1, 0))
    for step, batch in zip(range(steps + 1), epochs, strict=False):
        float(trainer.step(batch, plan.settings.lr, max(1.0, plan.criterion.weight(batch.labels))))
        if step == 0:
            began = time.monotonic()
        else:
            samples += len(batch.index)
    return samples / (time.monotonic() - began)


def _trainer(plan: Fit, ranks: int) -> Trainer:
    settings = plan.settings
    scaler = torch.amp.GradScaler(runtime.device().type, enabled=plan.precision == "fp16")
    return Trainer(
        plan.network,
        plan.criterion,
        _optimizer(plan),
        lambda: runtime.autocast(plan.precision),
        scaler,
        settings.clip_norm,
        ranks,
    )


def _optimizer(plan: Fit) -> torch.optim.Optimizer:
    settings, groups = plan.settings, _groups(plan)
    if settings.optimizer == "adamw":
        betas = (settings.momentum, 0.999)
        return torch.optim.AdamW(groups, settings.lr, betas=betas, weight_decay=settings.weight_decay)
    return torch.optim.SGD(groups, settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


def _content(plan: Fit, history: list[dict[str, Any]]) -> dict[str, Any]:
    """What a checkpoint holds for other stages."""
    model = {name: tensor.detach().cpu() for name, tensor in plan.network.state_dict().items()}
    return {**plan.header, "select": plan.settings.select, "model": model, "history": history}


def _groups(plan: Fit) -> list[dict[str, Any]]:
    """The parameters that learn, by their share of the learning rate."""
    by_scale: dict[float, list[nn.Parameter]] = {}
    for name, parameter in plan.network.named_parameters():
        if parameter.requires_grad:
            by_scale.setdefault(plan.lr_scale(name), []).append(parameter)
    return [{"params": parameters, "lr_scale": scale} for scale, parameters in by_scale.items()]


def _stop_all(ranks: runtime.Ranks, stop: runtime.StopFlag) -> None:
    """Raise Stopped on all ranks when a signal came to any."""
    if ranks.sums([stop.signal is not None])[0]:
        raise _stopped(ranks, stop)


def _stopped(ranks: runtime.Ranks, stop: runtime.StopFlag) -> Stopped:
    """The stop by the signal that came to any rank; one to end for good outweighs USR1. All ranks must call it."""
    names = {name for name in ranks.each(stop.signal) if name}
    return Stopped(min(names, key=lambda name: name == "SIGUSR1"))


def _in_words(scores: Scores) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())


def _over_ranks(trainer: Trainer, device: torch.device) -> Trainer:
    """The same with gradients averaged over the ranks; each keeps its own batch-norm statistics within an epoch."""
    # The setting's name changed in torch, and the old one warns.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    own_buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    network = DistributedDataParallel(
        trainer.network,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **{own_buffers: False},
    )
    return replace(trainer, network=network)
