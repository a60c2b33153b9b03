"""Pickled numpy arrays, read without running anything that the file names.

The first PyTorch port of the VGGFace2 networks came as a pickle that Python 2 wrote. A pickle is a
program; this reader knows the few names that arrays and containers need, gives it for
each a stand-in of its own that only notes what it is handed, and refuses every other name.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fercache.errors import WeightsError
from fercache.files import open_regular

TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""The first object in files that torch wrote before it took to zip archives."""
NUMBERS = re.compile(r"[<>=|]?[fiu][1248]")
BROKEN = (
    *(EOFError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, ImportError),
    *(MemoryError, OverflowError, RecursionError),
)
"""What Python's unpickler raises on bytes that are no pickle, or one cut off."""


class _Dtype:
    """A type of numbers, noted."""

    def __init__(self, name: object) -> None:
        self.name, self.order = _text(name), "="

    def __setstate__(self, state: tuple) -> None:
        self.order = _text(state[1])

    def numpy(self) -> np.dtype:
        """The type; ValueError where it is no plain number."""
        name = self.order + self.name.lstrip("<>=|")
        if not NUMBERS.fullmatch(name):
            raise ValueError(f"an array of type {name!r}, expected numbers")
        return np.dtype(name)


class _Array:
    """An array, noted; `value` is made of its bytes alone."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, columns_first, raw = state
        self.value = _array(raw, dtype, shape, "F" if columns_first else "C")


class _Reader(pickle.Unpickler):
    """An unpickler that can make containers, text, numbers and the noted arrays."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """The stand-in for a name; UnpicklingError for every name that is not needed."""
        found = _STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return found


def read_numpy_pickle(path: Path) -> dict[str, np.ndarray] | int:
    """The arrays of a pickle by name, or a number, where the file is torch's (`TORCH_MAGIC`).

    Raises WeightsError naming the file for every other content. Nothing in it is executed.
    """
    try:
        with open_regular(path) as file:
            content = _Reader(file, encoding="latin1").load()
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
    others = [str(key) for key, value in content.items() if not (isinstance(key, str) and isinstance(value, _Array))]
    if others:
        raise WeightsError(f"{path}: {', '.join(others[:5])}: expected arrays, found something else")
    return {key: value.value for key, value in content.items()}


def _array(raw: bytes | str, dtype: _Dtype, shape: tuple[int, ...], order: str = "C") -> np.ndarray:
    data = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(data, (bytes, bytearray)):
        raise TypeError(f"an array of {type(data).__name__}, expected bytes")
    return np.frombuffer(data, dtype.numpy()).reshape(tuple(map(int, shape)), order=order)


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


class _StandIn:
    """What the pickle gets for a name: it can be called, and neither changed nor looked into."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *given: object) -> Any:  # noqa: ANN401 - what `make` makes
        return self._make(*given)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it changes what it names")


def _from_buffer(raw: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    made = _Array()
    made.value = _array(raw, dtype, shape, _text(order))
    return made


def _encode(text: str, encoding: str) -> bytes:
    # How Python 3 writes bytes in protocols that Python 2 reads.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding!r}")
    return text.encode("latin1")


def _array_class(*_: object) -> None:
    raise pickle.UnpicklingError("it calls numpy.ndarray")


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _StandIn(lambda *_: _Array()),
    ("numpy.core.numeric", "_frombuffer"): _StandIn(_from_buffer),
    ("numpy", "ndarray"): _StandIn(_array_class),  # only handed to _reconstruct
    ("numpy", "dtype"): _StandIn(lambda name, *_: _Dtype(name)),
    ("collections", "OrderedDict"): _StandIn(lambda *items: dict(*items)),  # which a pickle cannot give attributes
    ("_codecs", "encode"): _StandIn(_encode),
    ("__builtin__", "bytes"): _StandIn(lambda: b""),  # how those protocols write no bytes at all
}
