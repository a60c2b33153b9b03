"""Pickled numpy arrays, read without running anything that the file names.

The first PyTorch port of the VGGFace2 networks is a pickle that Python 2 wrote. A pickle is a program that calls what
it names. This unpickler knows the few names by which numpy arrays are rebuilt, and refuses every other. Even those do
not stand for numpy's own functions, which trust the state that they are handed, but for functions that check it.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fercache.errors import WeightsError
from fercache.files import open_regular

TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""The first object in files that torch wrote before it took to zip archives."""
NUMBERS = re.compile(r"[<>=|]?[fiu][1248]")
MOST_OBJECTS = 1 << 20
"""That a pickle may number; the unpickler takes memory for a number before it is used."""
BROKEN = (
    *(EOFError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, ImportError),
    *(MemoryError, OverflowError, RecursionError),
)
"""What Python's unpickler raises on bytes that are no pickle, or one cut off."""


def read_numpy_pickle(path: Path) -> dict[str, np.ndarray] | int:
    """The arrays of a pickle by name, or a number, where the file is torch's (`TORCH_MAGIC`).

    Raises WeightsError naming the file for every other content. Nothing in it is executed.
    """
    try:
        with open_regular(path) as file:
            _check_numbering(file)
            file.seek(0)
            content = _ArrayUnpickler(file, encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: is not a file of tensors: {' '.join(str(error).split())}; it holds other Python objects or is"
            " damaged, and was not opened, since a pickle can run code"
        ) from error
    except BROKEN as error:
        raise WeightsError(f"{path}: is damaged, cut off or no weights file ({type(error).__name__})") from error
    if isinstance(content, int):
        return content
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds {type(content).__name__}, expected named arrays")
    others = [
        str(key)
        for key, value in content.items()
        if not (isinstance(key, str) and isinstance(value, _Array) and value.value is not None)
    ]
    if others:
        raise WeightsError(f"{path}: {', '.join(others[:5])}: expected arrays, found something else")
    return {key: array.value for key, array in content.items()}


def _check_numbering(file: BinaryIO) -> None:
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(str(argument)) > MOST_OBJECTS:
            raise pickle.UnpicklingError(f"it numbers an object {argument}")


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler of containers, text, numbers and numpy arrays."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """What a name in the pickle stands for; UnpicklingError for every name that is not allowed."""
        allowed = _ALLOWED.get((module.replace("numpy._core", "numpy.core"), name))
        if allowed is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return allowed


class _Dtype:
    """A type of numbers; a pickle gives it by name, and its byte order after that."""

    def __init__(self, name: str) -> None:
        self.name, self.order = name.lstrip("<>=|"), "="

    def __setstate__(self, state: tuple) -> None:
        self.order = _text(state[1])

    def numpy(self) -> np.dtype:
        """The type; ValueError where it is no plain number."""
        name = self.order + self.name
        if not NUMBERS.fullmatch(name):
            raise ValueError(f"an array of type {name!r}, expected numbers")
        return np.dtype(name)


class _Array:
    """An array; a pickle gives its shape, type and bytes after it is made."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, columns_first, data = state
        self.fill(data, dtype, shape, "F" if columns_first else "C")

    def fill(self, data: bytes | str, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
        """Make the array of its bytes, which have to be as many as the shape says: no memory beyond them is taken."""
        if isinstance(data, str):  # of Python 2
            data = data.encode("latin1")
        if not isinstance(data, (bytes, bytearray)):
            raise TypeError(f"an array of {type(data).__name__}, expected bytes")
        self.value = np.frombuffer(data, dtype.numpy()).reshape(
            tuple(map(int, shape)), order="F" if order == "F" else "C"
        )
        return self


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _encode(text: str, encoding: str) -> bytes:
    # How Python 3 writes bytes in protocols that Python 2 reads.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding!r}")
    return text.encode("latin1")


def _only_named(*_: object) -> None:
    raise pickle.UnpicklingError("it calls numpy.ndarray")


class _Allowed:
    """What the pickle gets for an allowed name: it can be called, but neither changed nor looked into."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: object) -> Any:  # noqa: ANN401 - what the function returns
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it changes what it names")


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _Allowed(lambda *_: _Array()),
    ("numpy.core.numeric", "_frombuffer"): _Allowed(
        lambda data, dtype, shape, order: _Array().fill(data, dtype, shape, _text(order))
    ),
    ("numpy", "ndarray"): _Allowed(_only_named),  # an argument of _reconstruct
    ("numpy", "dtype"): _Allowed(lambda name, *_: _Dtype(_text(name))),
    ("collections", "OrderedDict"): _Allowed(lambda *items: dict(*items)),
    ("_codecs", "encode"): _Allowed(_encode),
    ("__builtin__", "bytes"): _Allowed(lambda: b""),  # how those protocols write no bytes at all
}
