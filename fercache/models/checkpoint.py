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

FORMAT = "fercache-checkpoint 1"
FRAME, HEAD, END_TO_END, BACKBONE = "frame", "head", "end-to-end", "backbone"
"""Kinds of network a checkpoint holds; a backbone is a frame network's without its classifier, and end-to-end is a
backbone with a head over its embeddings."""
_ALWAYS = ("task", "select", "train_prior", "model", "history")
_OF_HEAD = ("head", "window", "embedding_dim", "precision")
REQUIRED = {
    BACKBONE: ("architecture", "preprocessing", "model", "digest", "source"),
    FRAME: (*_ALWAYS, "architecture", "preprocessing"),
    HEAD: (*_ALWAYS, *_OF_HEAD, "provenance"),
    END_TO_END: (*_ALWAYS, *_OF_HEAD, "architecture", "preprocessing"),
}
"""What each kind says beside its tensors."""


def _is_count(most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 1 <= value <= most


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
        lambda value: _is_count(MOST_WINDOW)(value) and value % 2 == 1,
        f"an odd number from 1 to {MOST_WINDOW}",
    ),
    "embedding_dim": (_is_count(1 << 16), f"a number from 1 to {1 << 16}"),
    "model": (_are_tensors, "named tensors"),
}
"""What some of that must be, for a file that others may have made: whether it is so, and in words."""


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
    except OSError as error:
        if not error.errno:
            raise WeightsError(f"{path}: is damaged or cut off ({type(error).__name__} in reading it)") from error
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: is not a file of tensors saved by torch; it holds other Python objects or is damaged,"
            " and was not opened, since a pickle can run code"
        ) from error
    # What torch raises on a file cut off depends on where the cut is.
    except Exception as error:
        raise WeightsError(f"{path}: is damaged or cut off ({type(error).__name__} in reading it)") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds {type(content).__name__}, expected named tensors")
    return content


def _check_archive(path: Path) -> None:
    """Raise WeightsError where a part of a zip file, as torch saves, is not what was written: torch does not look."""
    if not zipfile.is_zipfile(path):  # torch's older format, which has no checksum
        return
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise WeightsError(f"{path}: is damaged: its part {damaged} has another checksum than it records")


def save_checkpoint(path: Path, kind: str, values: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    with replacing(path) as temporary:
        try:
            torch.save({"format": FORMAT, "kind": kind, **values}, temporary)
        except RuntimeError as error:
            if "PytorchStreamWriter" not in str(error) and "unexpected pos" not in str(error):
                raise
            # torch's words for a full disk
            raise RunError(f"{path}: cannot be written: {str(error).splitlines()[0]}") from error


def load_checkpoint(path: Path, *kinds: str) -> dict[str, Any]:
    """A checkpoint of fercache, of one of `kinds` where any are given; WeightsError otherwise."""
    return check_content(path, load_tensors(path), *kinds)


def check_content(path: Path, content: Mapping[str, Any], *kinds: str) -> dict[str, Any]:
    """`content`, read from `path`, as a checkpoint; WeightsError where it is none, or not of `kinds`."""
    if content.get("format") != FORMAT:
        raise WeightsError(f"{path}: is no checkpoint of fercache (expected format {FORMAT!r})")
    found = content.get("kind")
    if kinds and found not in kinds:
        raise WeightsError(f"{path}: holds a {found} network, expected a {' or '.join(kinds)} network")
    missing = [key for key in REQUIRED.get(found, ()) if key not in content]
    problems = [f"{path}: is damaged: it has no {key!r}" for key in missing]
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
    """The checkpoint that a run folder offers to other stages, its `best.pt`; a file is taken as it is.

    RunError for a run that is not finished: a later epoch may be its best.
    """
    if path.is_file():
        return load_checkpoint(path, *kinds)
    run = RunDir(path)
    if not run.best.exists():
        raise RunError(f"{path}: is no run with a finished epoch: it has no {run.best.name}")
    wanted = run.recorded().get("epochs") if run.config.exists() else None
    if isinstance(wanted, int) and run.epochs_done() < wanted:
        raise RunError(
            f"{path}: is not finished: it has {run.epochs_done()} of {wanted} epochs; the command that trains it goes"
            f" on, and the file {run.best} is taken as it is"
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
        total.update(tensor.flatten().view(torch.uint8).numpy())
    return total.hexdigest()
