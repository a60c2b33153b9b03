"""HDF5 files whose structure is not what fercache writes: refused before anything is read, here or elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.caches import MADE_BY, predictions, write
from support.system import needs_mount

from fercache.cache import hdf5_video
from fercache.cache.mapped import MappedRows
from fercache.cache.pack import pack
from fercache.cache.predictions import read_predictions, write_predictions
from fercache.cache.provenance import PROVENANCE_FILE, CacheRecord, begin_record
from fercache.cache.reader import Cache
from fercache.cache.rows import all_finite
from fercache.cache.verify import check_before_use
from fercache.errors import CacheError


@pytest.fixture
def cache(tmp_path):
    begin_record(tmp_path / "cache", CacheRecord(MADE_BY, {"backend": "eager"}))
    return Cache(tmp_path / "cache")


def replaced(file, name, **dataset):
    del file[name]
    file.create_dataset(name, **dataset)


def external_link(file, name, secret):
    del file[name]
    with h5py.File(secret, "w") as other:
        other["x"] = np.arange(3, dtype=np.int32)
    file[name] = h5py.ExternalLink(str(secret), "/x")


def link_to_a_pipe(file, name, secret):
    del file[name]
    os.mkfifo(secret)
    file[name] = h5py.ExternalLink(str(secret), "/x")


def soft_link(file, name, secret):
    file.move(name, f"{name}2")
    file[name] = h5py.SoftLink(f"{file[f'{name}2'].name}")


def external_storage(file, name, secret):
    secret.write_bytes(bytes(10_000))
    data = file[name]
    shape, dtype, size = data.shape, data.dtype, data.size * data.dtype.itemsize
    replaced(file, name, shape=shape, dtype=dtype, external=[(str(secret), 0, size)])


def virtual(file, name, secret):
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    layout = h5py.VirtualLayout(shape, dtype)
    layout[:] = h5py.VirtualSource(str(secret), "x", shape)
    file.create_virtual_dataset(name, layout)


def enormous(file, name, secret):
    replaced(file, name, shape=(4 << 40, *file[name].shape[1:]), dtype=file[name].dtype)


def compressed(file, name, secret):
    replaced(file, name, data=file[name][:], compression="gzip")


def text(file, name, secret):
    replaced(file, name, data=[b"x"] * len(file[name]))


def in_one_more_dimension(file, name, secret):
    replaced(file, name, data=file[name][:][..., None])


def group(file, name, secret):
    del file[name]
    file.create_group(name)


def missing(file, name, secret):
    del file[name]


CHANGES = [
    *(external_link, link_to_a_pipe, soft_link, external_storage, virtual, enormous, compressed, text),
    *(in_one_more_dimension, group, missing),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["frame", "embedding", "logits"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_video_of_another_structure_is_refused(cache, tmp_path, change, name, packed):
    write(cache)
    path = cache.file("v")
    if packed:
        path = tmp_path / "packed.h5"
        pack(cache, ["v"], path)
    with h5py.File(path, "a") as file:
        change(file, name, tmp_path / "secret")
    with pytest.raises(CacheError, match=rf"{path}: is damaged: /{name}"):
        reader = Cache(path) if packed else cache
        reader.frame("v")
    with pytest.raises(CacheError, match=rf"{path}: is damaged: /{name}"):
        MappedRows(Cache(path) if packed else cache, ["v"])


@pytest.mark.parametrize("packed", [False, True])
def test_a_reader_that_has_looked_at_a_file_looks_again_when_it_has_changed(cache, tmp_path, packed):
    write(cache)
    pack(cache, ["v"], tmp_path / "packed.h5")
    reader = Cache(tmp_path / "packed.h5") if packed else cache
    assert len(reader.frame("v")) == 3
    with h5py.File(reader.file("v"), "a") as file:
        soft_link(file, "embedding", None)
    with pytest.raises(CacheError, match="/embedding is a link to elsewhere"):
        reader.frame("v")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        *((change, name) for change in CHANGES for name in ("b/frame", "b/logits")),
        *((change, "b") for change in (external_link, link_to_a_pipe, soft_link, missing)),
    ],
)
def test_predictions_of_another_structure_are_refused(tmp_path, change, name):
    path = tmp_path / "p.h5"
    write_predictions(path, predictions())
    with h5py.File(path, "a") as file:
        change(file, name, tmp_path / "secret")
    with pytest.raises(CacheError, match=rf"{path}: (is damaged: /{name}|was changed)"):
        read_predictions(path)


@pytest.mark.parametrize("values", [[3, 2, 1], [0, 1, 2], [1, 1, 2], [-5, 1, 2], [1, 2, 2**31 - 1]])
def test_frame_numbers_that_cannot_be(cache, values):
    write(cache)
    with h5py.File(cache.file("v"), "a") as file:
        file["frame"][:] = values
    with pytest.raises(CacheError, match="video v: /frame: the frame numbers do not ascend from 1 to at most 99999999"):
        cache.frame("v")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", 3),
        ("model", np.zeros(2)),
        ("train_prior", "x"),
        ("train_prior", np.zeros((7, 2))),
        ("select", "worst"),
    ],
)
def test_attributes_of_another_kind_are_refused(tmp_path, name, value):
    path = tmp_path / "p.h5"
    write_predictions(path, predictions())
    with h5py.File(path, "a") as file:
        file.attrs[name] = value
    with pytest.raises(CacheError, match=rf"{path}: .*{name}"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("split", "test"), ("model", "n"), ("cache", "d"), ("train_prior", np.full(7, 0.1)), ("select", "last")],
)
def test_changed_attributes_are_refused(tmp_path, name, value):
    path = tmp_path / "p.h5"
    write_predictions(path, predictions())
    with h5py.File(path, "a") as file:
        file.attrs[name] = value
    with pytest.raises(CacheError, match="was changed or damaged since it was written"):
        read_predictions(path)


def test_changed_logits_and_missing_videos_are_refused(tmp_path):
    path = tmp_path / "p.h5"
    for change in (lambda file: file["b/logits"].__setitem__((1, 2), 0.25), lambda file: file.__delitem__("a")):
        write_predictions(path, predictions())
        with h5py.File(path, "a") as file:
            change(file)
        with pytest.raises(CacheError, match="was changed or damaged since it was written"):
            read_predictions(path)


def test_predictions_of_an_earlier_version_are_refused_with_what_to_do(tmp_path):
    path = tmp_path / "p.h5"
    write_predictions(path, predictions())
    with h5py.File(path, "a") as file:
        file.attrs["format"] = "fercache-predictions 1"
    with pytest.raises(CacheError, match="is of an earlier version without a checksum; remove it and predict again"):
        read_predictions(path)


def test_pipes_and_devices_are_no_caches(cache, tmp_path):
    for path in (cache.file("v"), tmp_path / "p.h5"):
        os.mkfifo(path)
    with pytest.raises(CacheError, match="is a named pipe, expected a regular file"):
        cache.frame("v")
    with pytest.raises(CacheError, match="is a named pipe, expected a regular file"):
        read_predictions(tmp_path / "p.h5")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"fields": {"a": ' + "[" * 5000, "1", '{"fields": 3, "fingerprint": 4}']
)
def test_a_record_that_is_none_is_refused(tmp_path, text):
    (tmp_path / PROVENANCE_FILE).write_text(text)
    with pytest.raises(CacheError, match="is no provenance record"):
        Cache(tmp_path)


def flip(path, dataset):
    """Change a byte of a dataset's first value."""
    with h5py.File(path, "r") as file:
        offset = file[dataset].id.get_offset()
    data = bytearray(path.read_bytes())
    data[offset + 1] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("dataset", ["embedding", "logits", "frame"])
def test_a_changed_byte_is_seen_before_use(cache, dataset):
    for video in ("a", "v"):
        write(cache, video)
    check_before_use(cache, ["a", "v"], embedding=True)
    flip(cache.file("v"), dataset)
    with pytest.raises(CacheError, match=r"v\.h5: .*; `fercache cache verify --fix` removes such files"):
        check_before_use(cache, ["a", "v"], embedding=True)
    if dataset == "embedding":  # which is not read here
        check_before_use(cache, ["a", "v"], embedding=False)
    else:
        with pytest.raises(CacheError, match=r"v\.h5"):
            check_before_use(cache, ["a", "v"], embedding=False)


def test_a_file_is_verified_once_a_process(cache, monkeypatch):
    looked_at = []
    monkeypatch.setattr(hdf5_video, "content_checksum", lambda *given: looked_at.append(1) or given[1].checksum)
    write(cache)
    for _ in range(3):
        check_before_use(cache, ["v"], embedding=True)
    assert len(looked_at) == 1


def test_files_without_the_second_checksum_are_read_whole(cache):
    write(cache)
    with h5py.File(cache.file("v"), "a") as file:
        del file.attrs["checksum_beside"]
    check_before_use(cache, ["v"], embedding=False)
    flip(cache.file("v"), "embedding")
    with pytest.raises(CacheError, match="another checksum"):
        check_before_use(cache, ["v"], embedding=False)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_finite_values_are_told_from_all_others(dtype):
    largest = np.finfo(dtype).max
    values = np.array([[0.0, -0.0, largest], [-largest, np.finfo(dtype).tiny, 1]], dtype)
    assert all_finite(values) and all_finite(values[:0])
    for value in (np.nan, -np.nan, np.inf, -np.inf):
        values[1, 2] = value
        assert not all_finite(values)


FULL_DISK = """
import sys, numpy as np
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from support.caches import predictions, MADE_BY, SHAPE
from fercache.cache.predictions import write_predictions
from fercache.cache.provenance import CacheRecord, begin_record
from fercache.cache.reader import Cache
from fercache.cache.rows import Part, Shape
from fercache.cache.writer import write_video
from fercache.errors import FercacheError
disk = Path(sys.argv[1])
rows, number = 200, np.arange(1, 201)
part = Part(np.arange(rows), np.ones((rows, 512), np.float16), np.ones((rows, 7), np.float32))
shape = Shape(512, "float16", 7)
many = predictions(videos={"v": type(predictions().videos["b"])(number, np.ones((200, 7)))})
for name, call in {
    "v.h5": lambda: write_video(disk / "v.h5", MADE_BY, shape, number, np.ones(rows, bool), [part]),
    "p.h5": lambda: write_predictions(disk / "p.h5", many),
}.items():
    try:
        call()
        print("written")
    except FercacheError as error:
        print(str(error).replace(str(disk) + "/", ""), sorted(path.name for path in disk.iterdir()))
"""


@needs_mount
@pytest.mark.parametrize("free_kb", [0, 4, 8, 60])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, free_kb):
    """Really: 1 MB, of which so much is free; the files are of 220 kB and 8 kB."""
    fill = f'dd if=/dev/zero of="$1/fill" bs=1k count={1024 - free_kb} 2>/dev/null'
    script = f'mount -t tmpfs -o size=1m tmpfs "$1" && {fill}; exec "$2" -c "$3" "$1" "$4"'
    here = str(Path(__file__).parents[1])
    command = ["unshare", "--mount", "bash", "-c", script, "-", str(tmp_path), sys.executable, FULL_DISK, here]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    video, predicted = done.stdout.splitlines()
    assert video == "v.h5: cannot be written: No space left on device ['fill']"
    if free_kb < 8:
        assert predicted == "p.h5: cannot be written: No space left on device ['fill']"
    if free_kb == 60:
        assert predicted == "written"
