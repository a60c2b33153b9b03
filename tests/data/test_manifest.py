from __future__ import annotations

import shutil

import numpy as np
import pytest
from support.frames import write_video

from fercache.data.affwild2 import build_manifest, group_of, read_lengths
from fercache.data.manifest import check_video_id, read_manifest, write_manifest
from fercache.errors import ConfigError, DataError
from fercache.tasks import TASKS

EXPR = TASKS["expr"]


def made(root, path, lengths=None):
    manifest, account = build_manifest(root, EXPR, lengths)
    write_manifest(path, manifest)
    return manifest, account


def test_a_root_becomes_rows(small_root, tmp_path):
    path = tmp_path / "m.csv"
    manifest, _ = made(small_root, path)
    rows = {v.video_id: (v.split, v.num_frames, v.group, v.labels_path is not None) for v in manifest.videos}
    assert rows == {
        "a": ("train", 12, "a", True),
        "b_left": ("train", 8, "b", True),
        "t": ("test", 4, "t", False),
        "v": ("validation", 11, "v", True),
    }
    assert read_manifest(path, frames=True) == manifest


def test_a_manifest_may_move_together_with_its_root(small_root, tmp_path):
    made(small_root, tmp_path / "m.csv")
    shutil.move(tmp_path / "set", tmp_path / "elsewhere" / "set")
    shutil.move(tmp_path / "m.csv", tmp_path / "elsewhere" / "m.csv")
    assert len(read_manifest(tmp_path / "elsewhere" / "m.csv", frames=True).videos) == 4


def test_what_disagrees_is_reconciled_by_the_rule_and_told(tmp_path):
    root = tmp_path / "set"
    write_video(root, "more_images", range(1, 8), [0] * 5)
    write_video(root, "more_lines", range(1, 4), [0] * 9)
    write_video(root, "unlabelled", range(1, 4))
    write_video(root, "known", range(1, 4))
    write_video(root, "no_images", [], [0] * 6)
    shutil.rmtree(root / "cropped_aligned" / "no_images")
    manifest, account = build_manifest(root, EXPR, {"known": 10, "more_lines": 8})
    assert {v.video_id: v.num_frames for v in manifest.videos} == {
        "more_images": 5,
        "more_lines": 9,
        "unlabelled": 3,
        "known": 10,
        "no_images": 6,
    }
    text = "\n".join(account.lines(manifest))
    for words in (
        "more_images (2 beyond 5)",
        "more_lines (9 lines, 8 in --lengths)",
        "guess from the last image (--lengths can name it): unlabelled",
        "without a frames folder; they count as videos without a face: no_images",
        "annotations/EXPR_Set/Validation_Set",
        "14 frames with a face (8 of them labelled), 19 without",
    ):
        assert words in text, text


def test_lengths_are_found_by_recording_too(tmp_path):
    write_video(tmp_path, "x_left", range(1, 4))
    write_video(tmp_path, "x_right", range(1, 3))
    manifest, _ = build_manifest(tmp_path, EXPR, {"x": 30}, allow_unlabelled=True)
    assert [v.num_frames for v in manifest.videos] == [30, 30]
    assert [v.group for v in manifest.videos] == ["x", "x"]


@pytest.mark.parametrize(("video", "group"), [("x", "x"), ("x_left", "x"), ("y_right", "y"), ("_left", "_left")])
def test_groups(video, group):
    assert group_of(video) == group


def test_a_recording_in_two_splits_is_told(tmp_path):
    write_video(tmp_path, "x_left", [1], [0])
    write_video(tmp_path, "x_right", [1], [0], "Validation_Set")
    _, account = build_manifest(tmp_path, EXPR)
    assert account.groups_shared == ["x (train, validation)"]


def test_a_video_with_all_images_beyond_its_labels_has_no_face(tmp_path):
    write_video(tmp_path, "x", [7, 8], [0] * 5)
    manifest, account = build_manifest(tmp_path, EXPR)
    assert manifest.videos[0].frames_dir is None and account.beyond == ["x (2 beyond 5)"]


def test_a_video_in_both_sets_is_refused(tmp_path):
    write_video(tmp_path, "x", [1], [0])
    write_video(tmp_path, "x", [1], [0], "Validation_Set")
    with pytest.raises(DataError, match="video x is in Train_Set too"):
        build_manifest(tmp_path, EXPR)


def test_challenge_folders_of_later_years(tmp_path):
    write_video(tmp_path, "x", [1, 2], [0, 4])
    (tmp_path / "annotations" / "EXPR_Set").rename(tmp_path / "annotations" / "EXPR_Classification_Challenge")
    manifest, _ = build_manifest(tmp_path, EXPR)
    assert manifest.videos[0].split == "train"


def test_empty_folders_and_bad_labels_come_at_once(tmp_path):
    write_video(tmp_path, "empty", [], [0])
    write_video(tmp_path, "bad", [1], [0])
    (tmp_path / "annotations" / "EXPR_Set" / "Train_Set" / "bad.txt").write_text("no header\n")
    with pytest.raises(DataError) as caught:
        build_manifest(tmp_path, EXPR)
    assert "empty: is empty, expected frames named 00001.jpg on" in str(caught.value)
    assert "bad.txt: line 1: the header is 'no header'" in str(caught.value)


def test_lengths_file(tmp_path):
    path = tmp_path / "l.csv"
    path.write_text("video_id,frames\nx,10\ny, 3\n")
    assert read_lengths(path) == {"x": 10, "y": 3}
    path.write_text("x,0\ny\n")
    with pytest.raises(DataError, match=r"line 1(.|\n)*line 2"):
        read_lengths(path)


GOOD = "# fercache-manifest 1\n# task: expr\n# root: .\nvideo_id,split,frames_dir,labels_path,num_frames,group\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x\n", "line 1: found 'x', expected '# fercache-manifest 1'"),
        (GOOD.replace("# task: expr\n", ""), "'# task: ...' is missing"),
        (GOOD.replace("expr", "smile"), "'smile' is not a task"),
        (GOOD.replace("split,", ""), "the columns are"),
        (GOOD, "contains no video"),
        (GOOD + "x,train,,,3\n", "line 5: found 5 fields, expected 6"),
        (GOOD + "x,training,,,3,x\n", "line 5: split: found 'training', expected one of train, validation, test"),
        (GOOD + "x,train,,,many,x\n", "line 5: num_frames: found 'many'"),
        (GOOD + f"x,train,,,{'9' * 5000},x\n", "num_frames: found '999"),
        (GOOD + "../x,train,,,3,x\n", "line 5: video_id '../x': expected a plain name"),
        (GOOD + "a/b,train,,,3,x\n", "line 5: video_id 'a/b'"),
        (GOOD + "x,train,,,3,x\nx,train,,,3,x\n", "duplicate video_id x"),
        (GOOD + "x,train,nowhere,,3,x\n", "the frames folder nowhere does not exist"),
        (GOOD + "x,train,,nowhere.txt,3,x\n", "the label file nowhere.txt does not exist"),
    ],
)
def test_bad_manifests_are_named(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_manifest(path, frames=True)
    assert words.replace("folder nowhere", f"folder {tmp_path}/nowhere").replace(
        "file nowhere.txt", f"file {tmp_path}/nowhere.txt"
    ) in str(caught.value)
    assert str(path) in str(caught.value)


def test_all_bad_rows_come_at_once(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(GOOD + "../x,train,,,3,x\ny,no,,,3,x\nz,train,nowhere,nowhere.txt,3,x\n")
    with pytest.raises(DataError) as caught:
        read_manifest(path, frames=True)
    assert len(str(caught.value).splitlines()) == 4


def test_another_task_is_refused(small_root, tmp_path):
    made(small_root, tmp_path / "m.csv")
    with pytest.raises(ConfigError, match="task expr, but the task asked for is au"):
        read_manifest(tmp_path / "m.csv", "au")


def test_a_folder_without_frames_is_refused_when_they_are_read(small_root, tmp_path):
    manifest, _ = made(small_root, tmp_path / "m.csv")
    video = manifest.split("validation")[0]
    for image in video.frames_dir.iterdir():
        image.unlink()
    with pytest.raises(DataError, match=r"video v: found no frame from 1 to 11, expected files named 00001.jpg on"):
        video.frames()


def test_labels_are_cut_or_filled_to_the_length(small_root, tmp_path):
    path = tmp_path / "m.csv"
    made(small_root, path)
    path.write_text(path.read_text().replace("a.txt,12", "a.txt,14").replace("b_left.txt,8", "b_left.txt,3"))
    manifest = read_manifest(path)
    assert manifest.videos[0].labels(EXPR).tolist() == [0] * 6 + [4] * 6 + [-1, -1]
    assert manifest.videos[1].labels(EXPR).tolist() == [1, 2, 3]
    np.testing.assert_array_equal(manifest.videos[1].frames().frame, [1, 2, 3])


@pytest.mark.parametrize("video_id", ["", ".", "..", "a/b", "a\\b", "..a", ".hidden", "a\0", "#a", "a\udcff"])
def test_ids_that_could_leave_the_folder(video_id):
    with pytest.raises(DataError, match="plain name"):
        check_video_id(video_id)
