"""fercache's own checkpoints: tensors and plain values, so that they load with `weights_only=True`."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fercache.errors import RunError, WeightsError, raise_problems
from fercache.files import replacing
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
TYPES = {"architecture": str, "preprocessing": dict, "model": dict, "history": list, "train_prior": list}
"""What some of that must be, for a file that others may have made."""


def load_tensors(path: Path) -> dict[str, Any]:
    """What torch saved in `path`, tensors and plain values only; nothing in the file is executed.

    Raises WeightsError naming the file where it is missing, cut off, or a pickle of anything else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: is not a file of tensors saved by torch; it holds other Python objects or is damaged,"
            " and was not opened, since a pickle can run code"
        ) from error
    # What torch raises on a file cut off depends on where the cut is.
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise WeightsError(f"{path}: is damaged or cut off ({type(error).__name__} in reading it)") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds {type(content).__name__}, expected named tensors")
    return content


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
        f"{path}: is damaged: {key!r} is {type(content[key]).__name__}, expected {kind.__name__}"
        for key, kind in TYPES.items()
        if key in content and not isinstance(content[key], kind)
    ]
    raise_problems(problems, WeightsError)
    return dict(content)


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
