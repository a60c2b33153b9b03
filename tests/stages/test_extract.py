"""Extraction: stopped and gone on with, in parts, with broken frames and full disks; and looking into its cache."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from support.extraction import LENGTHS, assert_same, make_set
from support.frames import write_video

from fercache.cache.journal import Journal, journals
from fercache.cache.provenance import PROVENANCE_FILE
from fercache.cache.reader import Cache
from fercache.cli import main
from fercache.config import ExtractConfig
from fercache.data.affwild2 import build_manifest
from fercache.data.manifest import write_manifest
from fercache.data.shards import Shard
from fercache.errors import CacheError, ConfigError, DataError, Stopped
from fercache.models.backends import BACKENDS
from fercache.stages.extract import extract, plan_extraction
from fercache.stages.extract.engine import Extractor
from fercache.stages.extract.run import Extraction
from fercache.tasks import TASKS
from fercache.tools.caches import cache_info, pack_cache, verify_cache

SETTINGS = ExtractConfig(image_size=48, backend="eager", precision="fp32", dtype="float32", batch_size=4, workers=0)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return make_set(tmp_path_factory.mktemp("data"))


def run(manifest, cache, settings=SETTINGS, **given) -> Path:
    return extract(manifest, "none", cache, settings, **given)


@pytest.fixture(scope="module")
def undisturbed(manifest, tmp_path_factory) -> Path:
    return run(manifest, tmp_path_factory.mktemp("undisturbed") / "cache")


@pytest.fixture
def computed(caplog):
    """How many frames the last extraction computed."""
    caplog.set_level(logging.INFO, "fercache")

    def count() -> int:
        lengths = [record.args[0] for record in caplog.records if record.msg.startswith("%d frames in")]
        return lengths[-1] if lengths else 0

    return count


@pytest.fixture
def stopping(monkeypatch):
    """Sends a signal after so many batches."""

    def after(batches: int, number: int) -> None:
        save, seen = Extraction.save, []

        def counted(self, result):
            save(self, result)
            seen.append(result)
            if len(seen) == batches:
                signal.raise_signal(number)

        monkeypatch.setattr(Extraction, "save", counted)

    yield after
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("batches", "number"), [(1, signal.SIGTERM), (2, signal.SIGINT), (3, signal.SIGUSR1), (4, signal.SIGTERM)]
)
def test_a_stop_keeps_all_that_was_computed(
    manifest, undisturbed, tmp_path, stopping, monkeypatch, computed, batches, number
):
    stopping(batches, number)
    with pytest.raises(Stopped):
        run(manifest, tmp_path / "cache")
    # The batch that was begun when the signal came is finished, too.
    done = computed()
    assert done == 4 * (batches + 1)
    monkeypatch.undo()
    run(manifest, tmp_path / "cache")
    assert computed() == sum(LENGTHS.values()) - done
    assert_same(tmp_path / "cache", undisturbed)


def test_a_stop_behind_the_last_batch_loses_nothing(manifest, undisturbed, tmp_path, stopping, monkeypatch, computed):
    stopping(5, signal.SIGTERM)
    with pytest.raises(Stopped):
        run(manifest, tmp_path / "cache")
    monkeypatch.undo()
    run(manifest, tmp_path / "cache")
    assert_same(tmp_path / "cache", undisturbed)


def test_videos_that_another_process_finishes_meanwhile_are_passed_over(
    manifest, undisturbed, tmp_path, monkeypatch, computed
):
    run_network = Extractor.run

    def and_another_was_faster(self, batches, stop):
        shutil.copy(undisturbed / "b.h5", tmp_path / "cache")
        return run_network(self, batches, stop)

    monkeypatch.setattr(Extractor, "run", and_another_was_faster)
    run(manifest, tmp_path / "cache")
    assert computed() == 3 + 1 + 6
    assert_same(tmp_path / "cache", undisturbed)


def test_a_video_that_another_process_finishes_while_it_is_computed_is_kept(
    manifest, undisturbed, tmp_path, monkeypatch
):
    """Its journals are gone then, and with them the rows that this process counted on."""
    write, cache = Extraction._write, tmp_path / "cache"

    def and_another_was_faster(self, video):
        if video.video.video_id == "b":
            shutil.copy(undisturbed / "b.h5", cache)
            before.append((cache / "b.h5").stat().st_ino)
        write(self, video)

    before = []
    monkeypatch.setattr(Extraction, "_write", and_another_was_faster)
    run(manifest, cache)
    assert [(cache / "b.h5").stat().st_ino] == before
    assert_same(cache, undisturbed)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_make_the_whole_together(manifest, undisturbed, tmp_path, count):
    for number in range(1, count + 1):
        run(manifest, tmp_path / "cache", shard=Shard(number, count))
    assert_same(tmp_path / "cache", undisturbed)


@pytest.fixture
def broken(tmp_path) -> Path:
    """A manifest whose video b lacks two frames that can be read, and c its only one."""
    manifest = make_set(tmp_path)
    for video, frame in (("b", 5), ("b", 9), ("c", 1)):
        (tmp_path / "set" / "cropped_aligned" / video / f"{frame:05}.jpg").write_bytes(b"no image")
    return manifest


def test_only_the_bad_frames_are_done_once_they_are_mended(broken, tmp_path, undisturbed, computed):
    with pytest.raises(DataError) as caught:
        run(broken, tmp_path / "cache")
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["b", "b", "c"]
    assert "b/00005.jpg: is not an image" in lines[0] and "b/00009.jpg" in lines[1]
    assert sorted(path.stem for path in (tmp_path / "cache").glob("*.h5")) == ["a", "d"]
    make_set(tmp_path)
    run(broken, tmp_path / "cache")
    # The journal of c was tied to the first frame's file, which is another now.
    assert computed() == 2 + 1
    assert_same(tmp_path / "cache", undisturbed)


def test_bad_frames_may_be_skipped(broken, tmp_path, undisturbed, computed, caplog):
    skip = replace(SETTINGS, bad_frames="skip")
    cache = Cache(run(broken, tmp_path / "cache", skip))
    assert "3 frames could not be decoded and were skipped" in caplog.text and "b/00009.jpg" in caplog.text
    assert cache.skipped("b").tolist() == [5, 9] and cache.skipped("c").tolist() == [1]
    assert len(cache.frame("c")) == 0 and set(cache.frame("b")) == {1, 4, *range(6, 9), *range(10, 14)}
    np.testing.assert_array_equal(cache.read("b").embedding[2], Cache(undisturbed).read("b").embedding[3])
    checked = verify_cache(tmp_path / "cache", broken)
    assert checked.clean and checked.videos == 4, str(checked)
    assert cache_info(tmp_path / "cache").skipped == 3
    # The next call finds nothing to do, whatever it thinks of bad frames.
    run(broken, tmp_path / "cache")
    assert computed() == sum(LENGTHS.values()) - 3


def test_other_images_under_the_same_names_are_refused(manifest, undisturbed, tmp_path):
    other = make_set(tmp_path)
    first = tmp_path / "set" / "cropped_aligned" / "b" / "00001.jpg"
    shutil.copy(first.with_name("00004.jpg"), first)
    with pytest.raises(CacheError, match=r"b\.h5: was made from another image than .*00001\.jpg: another data set"):
        run(other, undisturbed)
    checked = verify_cache(undisturbed, other)
    assert not checked.clean and list(checked.findings) == ["b"]


def test_another_backend_is_refused(manifest, undisturbed):
    with pytest.raises(CacheError, match="was begun with backend eager, found compile"):
        run(manifest, undisturbed, replace(SETTINGS, backend="compile"))


def test_a_packed_cache_is_not_added_to(manifest, undisturbed, tmp_path):
    packed = pack_cache(undisturbed, tmp_path / "p.h5")
    with pytest.raises(CacheError, match="a packed cache is not added to"):
        run(manifest, packed)


def test_the_plan_counts_and_writes_nothing(manifest, undisturbed, tmp_path, stopping, monkeypatch):
    plan = plan_extraction(manifest, "none", tmp_path / "cache", SETTINGS)
    assert (plan.setup.videos, plan.setup.frames, plan.setup.missing_frames) == (4, 21, 21)
    assert plan.frames_per_s > 0 and plan.fits and not (tmp_path / "cache").exists()
    stopping(3, signal.SIGTERM)
    with pytest.raises(Stopped):
        run(manifest, tmp_path / "cache")
    monkeypatch.undo()
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "cache").iterdir())
    plan = plan_extraction(manifest, "none", tmp_path / "cache", SETTINGS)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "cache").iterdir()) == before
    assert (plan.setup.missing_frames, len(plan.setup.missing)) == (5, 1)
    assert "frames   21, of which 16 are done" in str(plan) and "videos   4, of which 3 are done" in str(plan)
    finished = plan_extraction(manifest, "none", undisturbed, SETTINGS)
    assert finished.bytes_needed == 0 and finished.frames_per_s is None


def test_the_plan_tells_the_disk_needed(manifest, tmp_path):
    plan = plan_extraction(manifest, "none", tmp_path / "cache", SETTINGS)
    run(manifest, tmp_path / "cache")
    written = sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.h5"))
    # The longest video is counted twice: its journal lies there while its file is written.
    assert written <= plan.bytes_needed <= written + 11 * (2048 * 4 + 4) + 4 * 6000
    assert "TOO LITTLE" in str(replace(plan, bytes_free=plan.bytes_needed - 1))


def test_a_full_disk_leaves_what_is_whole(manifest, tmp_path):
    """A limit on the size of files stands for the disk's: video b does not fit."""
    words = [
        "extract",
        "--manifest",
        manifest,
        "--weights",
        "none",
        "--cache",
        tmp_path / "cache",
        "--set",
        "workers=0",
    ]
    words += ["--backend", "eager", "--dtype", "float32", "--batch-size", "4", "--set", "image_size=48"]
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (70_000,) * 2)\n"
    code += "sys.argv = ['fercache', *sys.argv[1:]]\nfrom fercache.cli import main; main()"
    answer = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    assert answer.returncode == 1 and "Traceback" not in answer.stderr
    assert "b.h5" in answer.stderr and "cannot be written: File too large" in answer.stderr
    assert [path.name for path in (tmp_path / "cache").glob("*.h5")] == ["a.h5"]
    assert not verify_cache(tmp_path / "cache").findings
    # Once there is room, it goes on with the rows that were saved.
    extract(manifest, "none", tmp_path / "cache", replace(SETTINGS, precision="auto"))
    assert verify_cache(tmp_path / "cache", manifest).clean and not journals(tmp_path / "cache")


def test_verify_names_and_removes_what_is_broken(manifest, undisturbed, tmp_path):
    cache = Path(shutil.copytree(undisturbed, tmp_path / "cache"))
    with h5py.File(cache / "a.h5", "a") as file:
        file["embedding"][0, 0] += 1
    os.truncate(cache / "d.h5", 1000)
    (cache / "c.h5").unlink()
    write_video(tmp_path / "set", "a", [1])
    checked = verify_cache(cache, manifest)
    assert sorted(checked.findings) == ["a", "d"] and checked.missing == ("c",) and not checked.clean
    assert "another checksum" in str(checked) and "video c is missing" in str(checked)
    assert "1 of 3 videos are whole" in str(checked)
    assert sorted(path.name for path in cache.glob("*.h5")) == ["a.h5", "b.h5", "d.h5"]
    checked = verify_cache(cache, fix=True)
    assert checked.clean and "2 broken files removed" in str(checked)
    assert [path.name for path in cache.glob("*.h5")] == ["b.h5"]
    run(manifest, cache)
    assert_same(cache, undisturbed)


def test_only_damage_is_removed(undisturbed, tmp_path):
    """Frames that are gone, and files of others, are told and left alone."""
    manifest = make_set(tmp_path)
    cache = Path(shutil.copytree(undisturbed, tmp_path / "cache"))
    shutil.copy(cache / "a.h5", cache / "e.h5")
    for image in (tmp_path / "set" / "cropped_aligned" / "b").iterdir():
        image.unlink()
    before = sorted(path.name for path in cache.iterdir())
    checked = verify_cache(cache, manifest, fix=True)
    assert sorted(checked.findings) == ["b", "e"] and not checked.removed and not checked.clean
    assert sorted(path.name for path in cache.iterdir()) == before


def test_rows_that_could_not_be_saved_never_count_as_skipped(manifest, tmp_path, monkeypatch):
    append, calls = Journal.append, []

    def failing(self, part):
        calls.append(part)
        if len(calls) == 3:  # the last part of video b
            time.sleep(0.05)
            raise CacheError("no room for a moment")
        append(self, part)

    monkeypatch.setattr(Journal, "append", failing)
    with pytest.raises(CacheError, match="no room for a moment"):
        run(manifest, tmp_path / "cache")
    monkeypatch.undo()
    assert [path.stem for path in (tmp_path / "cache").glob("*.h5")] in ([], ["a"])
    assert not verify_cache(tmp_path / "cache").findings


def test_a_backend_that_cannot_run_leaves_no_record(manifest, tmp_path, monkeypatch):
    def broken(*_given):
        raise ConfigError("this machine cannot")

    monkeypatch.setitem(BACKENDS, "compile", broken)
    with pytest.raises(ConfigError, match="this machine cannot"):
        run(manifest, tmp_path / "cache", replace(SETTINGS, backend="compile"))
    assert not (tmp_path / "cache").exists()


def test_a_record_that_was_edited_is_refused(manifest, undisturbed, tmp_path):
    cache = Path(shutil.copytree(undisturbed, tmp_path / "cache"))
    content = json.loads((cache / PROVENANCE_FILE).read_text())
    for recorded in ({"backend": "foo", "batch_size": 4}, {"backend": "eager", "batch_size": "x"}, {}):
        (cache / PROVENANCE_FILE).write_text(json.dumps({**content, "recorded": recorded}))
        with pytest.raises(CacheError, match="was edited: recorded has no backend"):
            run(manifest, cache)


def test_ids_that_are_too_long_for_files_are_all_named(tmp_path):
    manifest = make_set(tmp_path, {"x" * 200: 1, "y" * 230: 1, "z" * 240: 1})
    with pytest.raises(DataError) as caught:
        run(manifest, tmp_path / "cache")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        f"video_id {letter * count}" for letter, count in (("y", 230), ("z", 240))
    ]
    assert not (tmp_path / "cache").exists()


def test_frames_of_several_sizes_are_extracted_alike(manifest, tmp_path):
    write_video(tmp_path / "set", "a", [1, 2])
    write_video(tmp_path / "set", "b", [1, 2, 3], size=64)
    built, _ = build_manifest(tmp_path / "set", TASKS["expr"], allow_unlabelled=True)
    write_manifest(tmp_path / "m.csv", built)
    together = Cache(run(tmp_path / "m.csv", tmp_path / "cache"))
    alone = Cache(run(tmp_path / "m.csv", tmp_path / "alone", replace(SETTINGS, batch_size=2)))
    for video in ("a", "b"):
        np.testing.assert_allclose(together.read(video).embedding, alone.read(video).embedding, rtol=1e-4, atol=1e-5)


def test_openvino_goes_on_with_the_same_bits(manifest, tmp_path, stopping, monkeypatch):
    pytest.importorskip("openvino")
    settings = replace(SETTINGS, backend="openvino")
    expected = run(manifest, tmp_path / "expected", settings)
    stopping(2, signal.SIGTERM)
    with pytest.raises(Stopped):
        run(manifest, tmp_path / "cache", settings)
    monkeypatch.undo()
    run(manifest, tmp_path / "cache", settings)
    assert_same(tmp_path / "cache", expected)


def test_the_command_line_of_caches(manifest, undisturbed, tmp_path):
    def fercache(*words):
        result = CliRunner().invoke(main, list(map(str, words)))
        assert not result.exception or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    cache = shutil.copytree(undisturbed, tmp_path / "cache")
    assert fercache("cache", "verify", cache, "--manifest", manifest)[0] == 0
    assert "videos         4" in fercache("cache", "info", cache)[1]
    assert fercache("cache", "pack", cache)[0] == 0 and Cache(tmp_path / "cache.h5").has("a")
    os.truncate(cache / "a.h5", 500)
    assert fercache("cache", "verify", cache)[0] == 1
    assert fercache("cache", "verify", cache, "--fix")[0] == 0
    code, output = fercache("cache", "verify", cache, "--manifest", manifest)
    assert code == 1 and "video a is missing" in output
    words = ["extract", "--manifest", manifest, "--weights", "none", "--cache", cache, "--set", "image_size=48"]
    words += ["--set", "workers=0", "--batch-size", "4", "--dtype", "float32", "--precision", "fp32"]
    code, output = fercache(*words, "--plan")
    assert code == 0 and "videos   4, of which 3 are done" in output and not (cache / "a.h5").exists()
    code, output = fercache(*words, "--shard", "5/4")
    assert code == 1 and "expected I/N" in output


def test_info_tells_what_is_there_and_what_is_missing(manifest, undisturbed, tmp_path):
    cache = Path(shutil.copytree(undisturbed, tmp_path / "cache"))
    (cache / "b.h5").unlink()
    os.truncate(cache / "d.h5", 10)
    summary = cache_info(cache, manifest)
    assert summary.frames == {"a": 3, "c": 1} and summary.missing == ("b",)
    assert "d.h5: cannot be read" in str(summary) and "backend        eager" in str(summary)


def test_every_reader_takes_the_packed_form(manifest, undisturbed, tmp_path):
    packed = pack_cache(undisturbed, tmp_path / "p.h5", manifest)
    assert verify_cache(packed, manifest).clean and cache_info(packed).frames == cache_info(undisturbed).frames
    for video in LENGTHS:
        one, other = Cache(packed).read(video), Cache(undisturbed).read(video)
        np.testing.assert_array_equal(one.embedding, other.embedding)
    with pytest.raises(CacheError, match="already exists"):
        pack_cache(undisturbed, packed)
    with pytest.raises(CacheError, match="no video can be removed"):
        verify_cache(packed, fix=True)
    assert packed.with_name(PROVENANCE_FILE).exists() is False
