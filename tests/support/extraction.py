"""A data set to extract, and caches that must be equal."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from fercache.data.affwild2 import build_manifest
from fercache.data.manifest import write_manifest
from fercache.tasks import TASKS
from support.frames import write_video

LENGTHS = {"a": 3, "b": 11, "c": 1, "d": 6}


def make_set(folder: Path, lengths=None) -> Path:
    """Videos with a gap behind their first frame; returns the manifest."""
    for video, length in (lengths or LENGTHS).items():
        write_video(folder / "set", video, [1, *range(4, length + 3)])
    manifest, _ = build_manifest(folder / "set", TASKS["expr"], allow_unlabelled=True)
    write_manifest(folder / "m.csv", manifest)
    return folder / "m.csv"


def assert_same(cache: Path, expected: Path) -> None:
    """Every dataset of every file is equal, the checksums too, and nothing half done lies there."""
    names = sorted(path.name for path in expected.iterdir())
    assert sorted(path.name for path in cache.iterdir()) == names
    for name in names:
        if name.endswith(".h5"):
            with h5py.File(cache / name) as one, h5py.File(expected / name) as other:
                assert set(one) == set(other) and one.attrs["checksum"] == other.attrs["checksum"]
                for dataset in one:
                    np.testing.assert_array_equal(one[dataset][:], other[dataset][:])
