"""HDF5 files opened, checked and written in one way. A file is trusted only after its structure was checked.

It may come from anywhere: its links may lead out of it, its datasets may claim more than it holds, and its values may
be of any type. Everything that fercache does not write itself is refused.
"""

from __future__ import annotations

import io
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fercache.errors import CacheError
from fercache.files import check_regular, replacing, write_bytes
from fercache.limits import MOST_FRAME

MOST_TEXT = 1 << 20
"""Characters of an attribute."""
METADATA_BYTES = 12_288
"""Room for what HDF5 writes beside the values, in a file of a few datasets."""


class UnreachableError(CacheError):
    """A file that cannot be opened: its content may be whole."""


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """A file for reading; what HDF5 and NumPy raise in the block becomes a CacheError with the file's name.

    UnreachableError where the system cannot open the file, or it is not a regular one.
    """
    try:
        check_regular(path)
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        if error.errno:
            raise UnreachableError(f"{path}: cannot be read: {error.strerror or os.strerror(error.errno)}") from error
        raise CacheError(f"{path}: cannot be read: is damaged or no HDF5 file: {_first_line(error)}") from error
    except (RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError, MemoryError) as error:
        raise CacheError(f"{path}: cannot be read: is damaged: {_first_line(error)}") from error


def file_identity(file: h5py.File) -> tuple[int, ...]:
    """Device, inode, size and time of change of an open file: one of them changes when it is replaced or written to."""
    status = os.fstat(file.id.get_vfd_handle())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def member(path: Path, parent: h5py.Group, name: str, kind: type) -> Any:  # noqa: ANN401 - of the kind
    """A dataset or group inside its parent; CacheError where it is missing, another kind, or a link to elsewhere."""
    where = f"{path}: is damaged: {parent.name.rstrip('/')}/{name}"
    link = parent.get(name, getlink=True)
    if link is None:
        raise CacheError(f"{where} is missing")
    if not isinstance(link, h5py.HardLink):
        raise CacheError(f"{where} is a link to elsewhere, expected a {kind.__name__.lower()}")
    if parent.get(name, getclass=True) is not kind:
        raise CacheError(f"{where} is not a {kind.__name__.lower()}")
    return parent[name]


def dataset(
    path: Path, parent: h5py.Group, name: str, dtype: np.dtype | str, shape: tuple[int | None, ...]
) -> h5py.Dataset:
    """A dataset of this type and shape (None: any length) whose bytes lie in the file in one run; else CacheError."""
    data = member(path, parent, name, h5py.Dataset)
    where = f"{path}: is damaged: {data.name}"
    same_shape = data.ndim == len(shape) and all(
        size in (None, length) for size, length in zip(shape, data.shape, strict=True)
    )
    if data.dtype != np.dtype(dtype) or not same_shape:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise CacheError(f"{where} is {data.dtype} {data.shape}, expected {np.dtype(dtype)} ({sizes})")
    storage = data.id.get_create_plist()
    if storage.get_layout() != h5py.h5d.CONTIGUOUS or storage.get_external_count():
        raise CacheError(f"{where} is chunked, compressed or outside the file, expected one run of bytes")
    size, start = math.prod(data.shape) * data.dtype.itemsize, data.id.get_offset()
    if size and (start is None or start + size > os.path.getsize(path)):
        raise CacheError(f"{where} ends behind the end of the file")
    return data


def text(path: Path, parent: h5py.HLObject, name: str, default: str | None = None) -> str:
    """A text attribute; CacheError where it is missing and has no default, or is no text."""
    if name not in parent.attrs and default is not None:
        return default
    attribute = _attribute(path, parent, name)
    if attribute.shape != () or h5py.check_string_dtype(attribute.dtype) is None:
        raise CacheError(f"{path}: is damaged: attribute {name} is {attribute.dtype} {attribute.shape}, expected text")
    value = parent.attrs[name]
    value = value.decode() if isinstance(value, bytes) else str(value)
    if len(value) > MOST_TEXT:
        raise CacheError(f"{path}: is damaged: attribute {name} has {len(value)} characters, the limit is {MOST_TEXT}")
    return value


def numbers(path: Path, parent: h5py.HLObject, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """An attribute of numbers of this shape; CacheError where it is missing, or something else."""
    attribute = _attribute(path, parent, name)
    if attribute.shape != shape or attribute.dtype.kind not in "biuf":
        actual = f"{attribute.dtype} {attribute.shape}"
        raise CacheError(f"{path}: is damaged: attribute {name} is {actual}, expected numbers {shape}")
    return np.asarray(parent.attrs[name])


def _attribute(path: Path, parent: h5py.HLObject, name: str) -> h5py.h5a.AttrID:
    if name not in parent.attrs:
        raise CacheError(f"{path}: is damaged: attribute {name} is missing")
    return parent.attrs.get_id(name)


def check_frames(where: str, frame: np.ndarray) -> None:
    """Raise CacheError unless frame numbers ascend from 1."""
    if (np.diff(frame, prepend=0) < 1).any() or (len(frame) and frame[-1] > MOST_FRAME):
        raise CacheError(f"{where}: the frame numbers do not ascend from 1 to at most {MOST_FRAME}")


@contextmanager
def in_memory(path: Path) -> Iterator[h5py.File]:
    """A small new file, made in memory and written to `path` when the block ends well; FercacheError if not."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        yield file
    write_bytes(path, content.getvalue())


@contextmanager
def reserved(path: Path, size: int) -> Iterator[h5py.File]:
    """A new file for values of `size` bytes, which takes `path`'s place when the block ends well.

    Its room on the disk is reserved before HDF5 writes, since HDF5 does not survive a full disk; CacheError where
    there is none.
    """
    with replacing(path) as temporary:
        with unwritable(path):
            _reserve(temporary, size + METADATA_BYTES)
            file = h5py.File(temporary, "r+")
        try:
            with unwritable(path):
                yield file
                file.close()
        except BaseException:
            # The file is thrown away, and closing it may fail for the same reason as writing it.
            with suppress(RuntimeError, OSError):
                file.close()
            raise


def _reserve(path: Path, size: int) -> None:
    """Make `path` an HDF5 file without content that has room for `size` bytes."""
    empty = io.BytesIO()
    h5py.File(empty, "w").close()
    with path.open("wb", buffering=0) as file:
        file.write(empty.getvalue())
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, size)


def locking_problem(folder: Path) -> str | None:
    """What HDF5 says where it cannot lock a file in `folder`, by trying; None where it can."""
    with tempfile.TemporaryDirectory(prefix=".fercache-", dir=folder) as temporary:
        path = Path(temporary) / "locked.h5"
        try:
            with h5py.File(path, "w", locking=True) as file:
                file.attrs["x"] = 1
            with h5py.File(path, "r", locking=True):
                return None
        except OSError as error:
            return _first_line(error)


@contextmanager
def unwritable(path: Path) -> Iterator[None]:
    """Errors in writing, of a full disk above all, with the file's name."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else _first_line(error)
        raise CacheError(f"{path}: cannot be written: {reason}") from error
