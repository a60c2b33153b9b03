"""The run folder of a training: its files' names, and who may write into it."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fercache.documents import parse_yaml
from fercache.errors import RunError
from fercache.files import PARTIAL, read_text, refuse_other_contents, write_text

log = logging.getLogger(__name__)


PLACES = ("manifest", "cache", "weights", "weights_format", "init", "workers", "save_minutes")
"""Values that are recorded and change no result: where things lay (their digests stand beside), who decoded."""


RESOLVED = ("arch", "image_size")
"""Settings that may be nothing, and are recorded as what the weights say."""


SEAL = "# A record, not to be edited; SHA-256 of all below: "
"""First line of a run's record, and its digest behind it."""


MAY_CHANGE = {"threads": "the last bits differ", "ranks": "batch norm sees other parts of a step"}
"""Values of the machine with which a run may go on otherwise, and what that does to it."""


@dataclass(frozen=True)
class RunDir:
    """The files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """All resolved values, as YAML."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """A JSON line an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def last(self) -> Path:
        """The checkpoint that a stopped run goes on from."""
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        """The checkpoint that other stages read."""
        return self.path / "best.pt"

    @property
    def environment(self) -> Path:
        """Versions, commit, seed, threads, host, as JSON."""
        return self.path / "environment.json"

    def recorded(self) -> dict[str, Any]:
        """The resolved values of the run that is here already; {} where there is none.

        Raises RunError where the folder holds something else.
        """
        if not self.config.exists():
            refuse_other_contents(self.path, f"a run ({self.config.name})", RunError)
            return {}
        try:
            values = parse_yaml(_unsealed(read_text(self.config)))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.config}: cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict):
            raise RunError(f"{self.config}: found {type(values).__name__}, expected keys with values")
        return values

    def begin(self, values: dict[str, Any], environment: dict[str, Any]) -> None:
        """Start a run with these resolved values, or make sure that the one here has the same.

        Places may differ, since what lies there is compared by its digest. Another number of
        threads or ranks is only warned of. A run without anything saved has nothing to lose, and begins
        anew.
        """
        before = self.recorded() if self.last.exists() or self.best.exists() else {}
        if not before:
            self.recorded()  # refuses a folder that is no run's
            write_text(self.config, _sealed(yaml.safe_dump(values, sort_keys=False)))
        for left in self.path.glob(f".*{PARTIAL}"):
            left.unlink(missing_ok=True)
        if not self.environment.exists():
            write_text(self.environment, json.dumps(environment, indent=2) + "\n")
        if not before:
            return
        differing = [key for key in {**values, **before} if values.get(key) != before.get(key) and key not in PLACES]
        for key in [key for key in MAY_CHANGE if key in differing]:
            differing.remove(key)
            found = (self.path, key, before.get(key), values[key], MAY_CHANGE[key])
            log.warning("%s: begun with %s %s, resuming with %s: %s", *found)
        if differing:
            found = "; ".join(f"{key} is {before.get(key)!r} there, {values.get(key)!r} here" for key in differing)
            raise RunError(
                f"{self.path}: contains a different run ({found}); choose another folder, or remove this one"
            )

    def changed(self, settings: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
        """The settings that are others in the record of this run, if it has anything saved: key, there, here.

        Places are left out, and what was resolved from nothing or `auto`.
        """
        recorded = self.recorded() if self.last.exists() or self.best.exists() else {}
        return [
            (key, recorded[key], here)
            for key, here in settings.items()
            if key in recorded
            and key not in PLACES
            and recorded[key] != here
            and not (here == "auto" or (here is None and key in RESOLVED))
        ]

    def write_metrics(self, epochs: list[dict[str, Any]]) -> None:
        """Write the lines of all epochs so far."""
        write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in epochs))

    def finished(self, epochs: int) -> bool:
        """Whether all epochs are done and the result is there."""
        return self.best.exists() and self.epochs_done() >= epochs

    def epochs_done(self) -> int:
        """Epochs whose metrics are written."""
        return len(self.metrics.read_text(encoding="utf-8").splitlines()) if self.metrics.exists() else 0


def _sealed(text: str) -> str:
    """A record with a first line by which a change is seen."""
    return f"{SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def _unsealed(text: str) -> str:
    """What was sealed; ValueError where it, or its seal, was changed."""
    if re.match(r"[a-z_]+: ", text):  # as records of earlier versions begin, which have no seal
        return text
    rest = text.partition("\n")[2]
    if _sealed(rest) != text:
        raise ValueError("it was changed or damaged since it was written; train into another folder")
    return rest
