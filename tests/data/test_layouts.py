"""The layouts in which Aff-Wild2 is handed out and kept: each gives the manifest of the first one, or a sentence."""

from __future__ import annotations

import shutil

import pytest
from support.frames import write_video

from fercache.data.affwild2 import build_manifest
from fercache.errors import DataError
from fercache.tasks import TASKS

EXPR = TASKS["expr"]


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "set"
    write_video(root, "a", range(1, 4), [0, 1, 2])
    write_video(root, "b_left", range(1, 3), [3, -1], "Validation_Set")
    write_video(root, "t", range(1, 3))
    return root


def listed(root, **options):
    manifest, account = build_manifest(root, EXPR, **options)
    rows = [
        (v.video_id, v.split, v.frames_dir and v.frames_dir.name, v.labels_path and v.labels_path.name, v.num_frames)
        for v in manifest.videos
    ]
    return rows, account.lines(manifest)[2]


def in_batches(root):
    for name, batch in (("a", "batch1"), ("b_left", "batch2"), ("t", "batch2")):
        (root / "cropped_aligned" / batch).mkdir(exist_ok=True)
        (root / "cropped_aligned" / name).rename(root / "cropped_aligned" / batch / name)
    return "frames from cropped_aligned/batch1, cropped_aligned/batch2; labels from annotations/EXPR_Set"


def renamed(root):
    (root / "cropped_aligned").rename(root / "cropped_aligned_images")
    return "frames from cropped_aligned_images; labels from annotations/EXPR_Set"


def beside_other_images(root):
    shutil.copytree(root / "cropped_aligned", root / "cropped")
    return "frames from cropped_aligned; labels from annotations/EXPR_Set"


def deep(root):
    (root / "data" / "images").mkdir(parents=True)
    (root / "cropped_aligned").rename(root / "data" / "images" / "cropped_aligned")
    return "frames from data/images/cropped_aligned; labels from annotations/EXPR_Set"


def without_a_name(root):
    for name in ("a", "b_left", "t"):
        (root / "cropped_aligned" / name).rename(root / name)
    (root / "cropped_aligned").rmdir()
    return "frames from .; labels from annotations/EXPR_Set"


def of_the_third_year(root):
    target = root / "Third ABAW Annotations" / "EXPR_Classification_Challenge"
    target.parent.mkdir()
    (root / "annotations" / "EXPR_Set").rename(target)
    (target.parent / "AU_Detection_Challenge" / "Train_Set").mkdir(parents=True)
    return "frames from cropped_aligned; labels from Third ABAW Annotations/EXPR_Classification_Challenge"


def with_a_circle(root):
    (root / "cropped_aligned" / ".hidden").mkdir()
    (root / "annotations" / "again").symlink_to(root)
    return "frames from cropped_aligned; labels from annotations/EXPR_Set"


@pytest.mark.parametrize(
    "change", [in_batches, renamed, beside_other_images, deep, without_a_name, of_the_third_year, with_a_circle]
)
def test_each_layout_gives_the_same_videos(root, change):
    before, _ = listed(root)
    taken = change(root)
    after, line = listed(root)
    assert after == before and len(before) == 3
    assert line == taken


def test_a_video_with_two_folders_of_frames_is_refused_with_both(root):
    for batch in ("batch1", "batch2"):
        shutil.copytree(root / "cropped_aligned" / "a", root / "cropped_aligned" / batch / "a")
    with pytest.raises(DataError) as caught:
        build_manifest(root, EXPR)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2 and all("video a: has two folders of frames" in line for line in lines)
    assert "batch2/a" in lines[1]


def test_two_folders_of_one_track_are_refused_with_both(root):
    shutil.copytree(root / "annotations" / "EXPR_Set", root / "Second ABAW" / "EXPR_Classification_Challenge")
    with pytest.raises(
        DataError, match=r"Second ABAW/EXPR_Classification_Challenge, .*annotations/EXPR_Set: keep only one"
    ):
        build_manifest(root, EXPR)


def test_a_manifest_without_a_labelled_video_has_to_be_asked_for(root):
    shutil.rmtree(root / "annotations")
    with pytest.raises(DataError, match=r"found no annotation of track EXPR; .* --allow-unlabelled lists the videos"):
        build_manifest(root, EXPR)
    rows, line = listed(root, allow_unlabelled=True)
    assert [row[1] for row in rows] == ["test"] * 3
    assert line == "frames from cropped_aligned; labels from nowhere"


def test_a_batch_that_is_empty_is_refused_by_name(root):
    (root / "cropped_aligned" / "batch1").mkdir()
    with pytest.raises(DataError, match="batch1: is empty"):
        build_manifest(root, EXPR)


def test_a_root_without_frames_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        build_manifest(tmp_path / "nowhere", EXPR)
    with pytest.raises(DataError, match="found no folder of frames; expected cropped_aligned/VIDEO/00001"):
        build_manifest(tmp_path, EXPR)
