"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fercache.errors import FercacheError

PARTIAL = ".partial"
"""Ending of files that are being written; one that a kill left behind is never read."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is synced to disk and takes `path`'s place.

    The temporary name is this call's own, so that two processes may write the same file: the last
    one to finish wins, and what is read is always one of them, whole. On an exception the
    temporary file is removed and `path` is as it was. FercacheError where `path` cannot be written.
    """
    check_target(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent)
    except OSError as error:
        raise FercacheError(f"{path}: cannot be written: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        # mkstemp makes files private; what is finished gets the permissions any new file would.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def check_target(path: Path) -> None:
    """Raise FercacheError where `path` cannot be a file: it is a folder, or lies under a file."""
    if path.is_dir():
        raise FercacheError(f"{path}: is a folder, expected the name of a file to write")
    check_folder_target(path.parent)


def check_folder_target(folder: Path) -> None:
    """Raise FercacheError where `folder` cannot be a folder: it, or one above it, is a file."""
    file = next((place for place in (folder, *folder.parents) if place.exists() and not place.is_dir()), None)
    if file is not None:
        raise FercacheError(f"{file}: is a file, expected a folder")


def contents(folder: Path) -> list[str]:
    """Names in `folder`, [] where it does not exist; what a kill left half written does not count."""
    check_folder_target(folder)
    if not folder.exists():
        return []
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.endswith(PARTIAL))


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8, newlines as given) whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    # The process's umask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
