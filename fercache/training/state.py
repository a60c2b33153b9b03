"""How far a training is, and its checkpoints: `last.pt`, from which it resumes, and `best.pt`, for other stages."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from fercache.errors import RunError
from fercache.models.checkpoint import load_checkpoint, save_checkpoint
from fercache.training.engine import Learner
from fercache.training.start import TrainingJob

log = logging.getLogger(__name__)

EpochScores = dict[str, float]
"""The scores of a validation by name; `score` is the task's."""


@dataclass
class TrainingState:
    """The finished epochs, and the steps of the next one."""

    history: list[dict[str, Any]] = field(default_factory=list)
    """The metrics of each finished epoch."""
    step: int = 0
    """Steps taken in the epoch."""
    total: float = 0.0
    """Summed loss of those steps, over all ranks."""
    weight: float = 0.0
    """What `total` is to be divided by."""
    seconds: float = 0.0
    """Time that the epoch took in earlier runs."""
    _started: float = field(default_factory=time.monotonic)

    def start_clock(self) -> None:
        """Count an epoch's time from now on, on top of what earlier runs spent on it."""
        self._started = time.monotonic() - self.seconds

    def elapsed(self) -> float:
        """Seconds spent on the epoch so far."""
        return time.monotonic() - self._started

    def finish_epoch(self, metrics: dict[str, Any]) -> None:
        """Add an epoch's metrics, and begin the next epoch."""
        self.history.append(metrics)
        self.step, self.total, self.weight, self.seconds = 0, 0.0, 0.0, 0.0


class Checkpoints:
    """Saving and resuming; all ranks call each method, and the first one writes."""

    def __init__(self, job: TrainingJob, learner: Learner, kind: str, header: dict[str, Any]) -> None:
        self.job, self.learner, self.kind, self.header = job, learner, kind, header
        self._saved_at = time.monotonic()

    def resume(self, steps: int) -> TrainingState:
        """The state in `last.pt`, loaded into network and learner; the beginning where there is no such file.

        `steps`: of an epoch, for the message. RunError where the file is of another network or optimizer.
        """
        run, epochs = self.job.run, self.job.settings.epochs
        if not self.job.ranks.same(run.last.exists()):
            return TrainingState()
        content = load_checkpoint(run.last, self.kind)
        try:
            self.learner.network.load_state_dict(content["model"])
            self.learner.optimizer.load_state_dict(content["optimizer"])
            self.learner.scaler.load_state_dict(content["scaler"])
            state = TrainingState(content["history"], **content["place"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"{run.last}: does not fit this run: {str(error).splitlines()[0]}") from error
        within = f" and step {state.step} of {steps} of the next" if state.step else ""
        log.info("%s: resuming after epoch %d of %d%s", run.path, len(state.history), epochs, within)
        if self.job.ranks.first:
            run.write_metrics(state.history)
        return state

    def due(self) -> bool:
        """Whether it is time to save within the epoch."""
        return time.monotonic() - self._saved_at >= 60 * self.job.settings.save_minutes

    def save_within_epoch(self, state: TrainingState) -> None:
        """Write `last.pt` between two steps."""
        state.seconds = state.elapsed()
        self._save_last(state)

    def save_epoch(self, state: TrainingState) -> None:
        """Write a finished epoch's files: `best.pt` first, since a run resumes after the epoch that `last.pt` names."""
        run = self.job.run
        scores = [metrics["score"] for metrics in state.history]
        improved = scores[-1] > max(scores[:-1], default=float("-inf"))
        if self.job.ranks.first and (self.job.settings.select == "last" or improved):
            save_checkpoint(run.best, self.kind, self._for_other_stages(state.history))
        self._save_last(state)
        if self.job.ranks.first:
            run.write_metrics(state.history)
        self.job.ranks.same()

    def _save_last(self, state: TrainingState) -> None:
        if self.job.ranks.first:
            content = {
                **self._for_other_stages(state.history),
                "optimizer": self.learner.optimizer.state_dict(),
                "scaler": self.learner.scaler.state_dict(),
                "place": {name: getattr(state, name) for name in ("step", "total", "weight", "seconds")},
            }
            save_checkpoint(self.job.run.last, self.kind, content)
        self._saved_at = time.monotonic()
        # The others must not read what is not written yet; nor end, since torchrun then ends the first, too.
        self.job.ranks.same()

    def _for_other_stages(self, history: list[dict[str, Any]]) -> dict[str, Any]:
        return content_for_stages(self.learner.network, self.header, self.job.settings.select, history)


def save_untrained(
    job: TrainingJob, network: nn.Module, kind: str, header: dict[str, Any], scores: EpochScores
) -> None:
    """Write the run of a network in which nothing can be trained."""
    history = [{"epoch": 1, **scores}]
    if job.ranks.first:
        save_checkpoint(job.run.best, kind, content_for_stages(network, header, job.settings.select, history))
        job.run.write_metrics(history)
    job.ranks.same()
    log.info("nothing to train: %s", describe_scores(scores))


def content_for_stages(
    network: nn.Module, header: dict[str, Any], select: str, history: list[dict[str, Any]]
) -> dict[str, Any]:
    """What a checkpoint holds for other stages."""
    model = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    return {**header, "select": select, "model": model, "history": history}


def describe_scores(scores: EpochScores) -> str:
    """Scores as one line."""
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
