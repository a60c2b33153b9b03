"""fercache's own checkpoints: tensors and plain values, so that they load with `weights_only=True`."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fercache.errors import RunError, WeightsError, raise_problems
from fercache.files import check_regular, replacing
from fercache.limits import MOST_WINDOW
from fercache.rundir import RunDir

CHECKPOINT_FORMAT = "fercache-checkpoint 1"
FRAME, HEAD, END_TO_END, BACKBONE = "frame", "head", "end-to-end", "backbone"
"""Kinds of checkpoint: a frame network, a head over cached rows, a backbone with a head over its embeddings, and a
backbone without a classifier."""
_TRAINED = ("task", "select", "train_prior", "model", "history")
_WITH_HEAD = ("head", "window", "embedding_dim", "precision")
REQUIRED = {
    BACKBONE: ("architecture", "preprocessing", "model", "digest", "source"),
    FRAME: (*_TRAINED, "architecture", "preprocessing"),
    HEAD: (*_TRAINED, *_WITH_HEAD, "provenance"),
    END_TO_END: (*_TRAINED, *_WITH_HEAD, "architecture", "preprocessing"),
}
"""The keys of each kind."""


def _is_count(value: Any, most: int) -> bool:  # noqa: ANN401 - of a file
    return type(value) is int and 1 <= value <= most


def _is_prior(value: Any) -> bool:  # noqa: ANN401 - of a file
    return isinstance(value, list) and all(type(share) in (int, float) and 0 <= share <= 1 for share in value)


def _are_tensors(value: Any) -> bool:  # noqa: ANN401 - of a file
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items()
    )


CONDITIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **{key: (lambda value: isinstance(value, str), "text") for key in ("architecture", "head", "task", "digest")},
    **{key: (lambda value: isinstance(value, dict), "keys with values") for key in ("preprocessing", "provenance")},
    "select": (lambda value: value in ("best", "last"), "best or last"),
    "precision": (lambda value: value in ("fp32", "bf16", "fp16"), "fp32, bf16 or fp16"),
    "history": (lambda value: isinstance(value, list), "a list"),
    "train_prior": (_is_prior, "a list of numbers from 0 to 1"),
    "window": (
        lambda value: _is_count(value, MOST_WINDOW) and value % 2 == 1,
        f"an odd number from 1 to {MOST_WINDOW}",
    ),
    "embedding_dim": (lambda value: _is_count(value, 1 << 16), f"a number from 1 to {1 << 16}"),
    "model": (_are_tensors, "named tensors"),
}
"""Key -> whether its value can be right, and what is expected in words: the file may come from anywhere."""


def load_tensors(path: Path) -> dict[str, Any]:
    """What torch saved in `path`, tensors and plain values only; nothing in the file is executed.

    Raises WeightsError naming the file where it is missing, cut off, or a pickle of anything else.
    """
    try:
        check_regular(path)
        _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: is not a file of tensors saved by torch; it holds other Python objects or is damaged,"
            " and was not opened, since a pickle can run code"
        ) from error
    # What torch raises on a file that is cut off depends on where the cut is.
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
        raise WeightsError(f"{path}: is damaged or cut off ({type(error).__name__} in reading it)") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds {type(content).__name__}, expected named tensors")
    return content


def _check_archive(path: Path) -> None:
    """Raise WeightsError where a part of a zip file, as torch saves, has another checksum: torch does not look."""
    if not zipfile.is_zipfile(path):  # torch's older format, which has no checksum
        return
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise WeightsError(f"{path}: is damaged: its part {damaged} has another checksum than it records")


def save_checkpoint(path: Path, kind: str, values: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all; RunError where the disk is full."""
    with replacing(path) as temporary:
        try:
            torch.save({"format": CHECKPOINT_FORMAT, "kind": kind, **values}, temporary)
        except RuntimeError as error:
            # What torch raises on a full disk.
            if "PytorchStreamWriter" not in str(error) and "unexpected pos" not in str(error):
                raise
            raise RunError(f"{path}: cannot be written: {str(error).splitlines()[0]}") from error


def load_checkpoint(path: Path, *kinds: str) -> dict[str, Any]:
    """A checkpoint of fercache; WeightsError where it is none, or of none of `kinds` where any are given."""
    return check_content(path, load_tensors(path), *kinds)


def check_content(path: Path, content: Mapping[str, Any], *kinds: str) -> dict[str, Any]:
    """`content`, read from `path`, as `load_checkpoint` returns it."""
    if content.get("format") != CHECKPOINT_FORMAT:
        raise WeightsError(f"{path}: is no checkpoint of fercache (expected format {CHECKPOINT_FORMAT!r})")
    kind = content.get("kind")
    if kinds and kind not in kinds:
        raise WeightsError(f"{path}: holds a {kind} network, expected a {' or '.join(kinds)} network")
    problems = [f"{path}: is damaged: it has no {key!r}" for key in REQUIRED.get(str(kind), ()) if key not in content]
    problems += [
        f"{path}: is damaged: {key!r} is {_shown(content[key])}, expected {words}"
        for key, (holds, words) in CONDITIONS.items()
        if key in content and not holds(content[key])
    ]
    raise_problems(problems, WeightsError)
    return dict(content)


def _shown(value: Any) -> str:  # noqa: ANN401 - of a file
    return f"{value!r:.60}" if isinstance(value, (str, int, float)) else type(value).__name__


def load_run(path: Path, *kinds: str) -> dict[str, Any]:
    """The checkpoint of a run folder that other stages use, its `best.pt`; a file is taken as it is.

    RunError for a run that is not finished: a later epoch may be its best.
    """
    if path.is_file():
        return load_checkpoint(path, *kinds)
    run = RunDir(path)
    if not run.best.exists():
        raise RunError(f"{path}: is no run with a finished epoch: it has no {run.best.name}")
    epochs = run.recorded().get("epochs") if run.config.exists() else None
    if isinstance(epochs, int) and run.epochs_done() < epochs:
        raise RunError(
            f"{path}: is not finished: it has {run.epochs_done()} of {epochs} epochs; run the command that trains it"
            f" again to finish it, or name the file {run.best}, which is taken as it is"
        )
    return load_checkpoint(run.best, *kinds)


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over the sorted (name, shape, type, bytes) of a network's tensors.

    `num_batches_tracked` is left out: it counts, and changes nothing that the network computes.
    """
    total = hashlib.sha256()
    for name in sorted(tensors):
        if name.endswith("num_batches_tracked"):
            continue
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
