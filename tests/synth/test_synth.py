import dataclasses
import hashlib
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fercache.data.annotations import read_annotation
from fercache.data.frames import list_frames
from fercache.errors import ConfigError, DataError
from fercache.synth import SynthSettings, contact_sheet, synthesise
from fercache.synth import transitions as tr
from fercache.synth.episodes import FREQUENCY, Episode, deal_in_turn, steady_episodes
from fercache.synth.face import Face
from fercache.synth.person import sample_person
from fercache.synth.settings import PlannedVideo, plan_videos
from fercache.synth.timeline import AU_THRESHOLD, expression_labels, make_timeline
from fercache.synth.timing import APEX, OFFSET, ONSET, TOTAL_S, minimum_jerk
from fercache.synth.units import NUM_LABELLED, PROTOTYPES, UNITS, prototype
from fercache.synth.writer import person_of
from fercache.tasks import EXPRESSIONS, TASKS

SMALL = SynthSettings(seed=3, train=3, validation=2, test=2, seconds=3, fps=6, image_size=64)
FOLDERS = {"train": "Train_Set", "validation": "Validation_Set"}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return synthesise(tmp_path_factory.mktemp("synth") / "out", SMALL)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def lengths(folder: Path) -> dict[str, int]:
    header, *rows = (folder / "lengths.csv").read_text().splitlines()
    assert header == "video_id,frames"
    return {name: int(frames) for name, frames in (row.split(",") for row in rows)}


def test_bytes_do_not_depend_on_workers(made, tmp_path):
    assert digests(synthesise(tmp_path / "two", SMALL, workers=2)) == digests(made)


def test_other_seed_gives_other_frames_and_labels(made, tmp_path):
    other = digests(synthesise(tmp_path / "other", dataclasses.replace(SMALL, seed=4)))
    mine = digests(made)
    frames = [name for name in mine if name.endswith(".jpg") and name in other]
    assert frames
    assert all(mine[name] != other[name] for name in frames)


def test_video_does_not_depend_on_number_of_others(made, tmp_path):
    more = synthesise(tmp_path / "more", dataclasses.replace(SMALL, train=1, validation=3, test=0))
    for name in ("cropped_aligned/train_000", "cropped_aligned/validation_001_right"):
        assert digests(more / name) == digests(made / name)
    label = "annotations/AU_Set/Validation_Set/validation_001_right.txt"
    assert (more / label).read_bytes() == (made / label).read_bytes()


def test_layout_and_lengths(made):
    videos = plan_videos(SMALL)
    assert lengths(made) == {video.name: video.num_frames for video in videos}
    assert {path.name for path in (made / "cropped_aligned").iterdir()} == {video.name for video in videos}
    for video in videos:
        frames = list_frames(made / "cropped_aligned" / video.name)
        assert frames.frame[-1] <= video.num_frames
        names = [Path(path).name for path in frames.paths]
        assert names == [f"{number:05d}.jpg" for number in frames.frame]
        with Image.open(frames.paths[0]) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (64, 64), "RGB")
        for name in ("expr", "au"):
            task = TASKS[name]
            file = (
                made / "annotations" / f"{task.track}_Set" / FOLDERS.get(video.split, "Test_Set") / f"{video.name}.txt"
            )
            if video.split == "test":
                assert not file.exists()
            else:
                assert len(read_annotation(file, task)) == video.num_frames
    assert not list(made.rglob("*partial*"))
    assert (made / "contact_sheet.png").exists()


def test_frames_exist_exactly_where_a_face_is(tmp_path):
    settings = dataclasses.replace(SMALL, train=8, validation=0, test=0)
    out = synthesise(tmp_path / "out", settings)
    missing = 0
    for video in plan_videos(settings):
        timeline = make_timeline(settings, video)
        number = list_frames(out / "cropped_aligned" / video.name).frame
        assert number.tolist() == (np.flatnonzero(timeline.face) + 1).tolist()
        expression = read_annotation(out / f"annotations/EXPR_Set/Train_Set/{video.name}.txt", TASKS["expr"])
        units = read_annotation(out / f"annotations/AU_Set/Train_Set/{video.name}.txt", TASKS["au"])
        assert (expression[~timeline.face] == -1).all()
        assert (units[~timeline.face] == -1).all()
        missing += int((~timeline.face).sum())
    assert missing > 0
    assert json.loads((out / "synth.json").read_text())["counts"]["no_face"] == missing


def test_two_people_share_recording_and_length(made):
    pairs = [name.removesuffix("_left") for name in lengths(made) if name.endswith("_left")]
    assert pairs == ["train_001", "validation_001", "test_001"]
    for name in pairs:
        assert lengths(made)[f"{name}_left"] == lengths(made)[f"{name}_right"]
    left, right = (video for video in plan_videos(SMALL) if video.name.startswith("train_001"))
    assert person_of(SMALL, left).skin != person_of(SMALL, right).skin
    assert person_of(SMALL, left).background == person_of(SMALL, right).background


def test_people_of_splits_are_disjoint(made):
    settings = SynthSettings(train=10, validation=10, test=10)
    faces: dict[str, set] = {"train": set(), "validation": set(), "test": set()}
    for video in plan_videos(settings):
        faces[video.split].add(person_of(settings, video).texture_seed)
    for one, other in itertools.combinations(faces, 2):
        assert not faces[one] & faces[other]
    # One in five recordings shows someone again: fewer people than videos.
    assert len(faces["train"]) == sum(video.split == "train" for video in plan_videos(settings)) - 2
    people = json.loads((made / "synth.json").read_text())["people"]
    assert len({name.split("-")[0] for name in people.values()}) == 3


def test_expression_label_by_hand():
    # Samples at 0, 0.5, ... 3 s of 1 s onset, 1 s apex, 1 s offset: 0, 1/2, 1, 1, 1, 1/2, 0 of the peak.
    assert minimum_jerk(np.asarray([-1, 0, 0.5, 1, 2])).tolist() == [0, 0, 0.5, 1, 1]
    episode = Episode("Fear", 0.0, 1.0, 1.0, 1.0, peak=1.0, variant=0)
    assert expression_labels([episode], 7, 2.0).tolist() == [0, 3, 3, 3, 3, 3, 0]
    weak = dataclasses.replace(episode, peak=0.5)
    assert expression_labels([weak], 7, 2.0).tolist() == [0, 0, 3, 3, 3, 0, 0]


@pytest.mark.parametrize("setting", ["steady", "transitions"])
def test_labels_agree_with_action_units(setting):
    settings = SynthSettings(setting, train=12, validation=0, test=0)
    shown = dict.fromkeys(EXPRESSIONS, 0)
    for video in plan_videos(settings):
        timeline = make_timeline(settings, video)
        annotated = timeline.action_units >= 0
        active = timeline.units[:, :NUM_LABELLED] > AU_THRESHOLD
        assert (timeline.action_units == active)[annotated].all()
        # A frame's expression is one whose units are there: AU12 in a smile, and in nothing else of "steady".
        smiling = timeline.units[:, UNITS.index("AU12")] > AU_THRESHOLD
        smiles = ("Happiness",) if setting == "steady" else ("Happiness", "Sadness")
        for expression in EXPRESSIONS[1:]:
            frames = timeline.expression == EXPRESSIONS.index(expression)
            assert (smiling[frames] == (expression in smiles)).all()
            shown[expression] += int(frames.sum())
    assert min(shown[expression] for expression in EXPRESSIONS[1:]) > 0


def test_labels_are_missing_in_places():
    settings = SynthSettings(train=20, validation=0, test=0)
    timelines = [make_timeline(settings, video) for video in plan_videos(settings)]
    seen = [timeline.expression[timeline.face] for timeline in timelines]
    assert 0.01 < np.mean(np.concatenate(seen) == -1) < 0.2
    units = np.concatenate([timeline.action_units[timeline.face] for timeline in timelines])
    partly = (units == -1).any(axis=1) & (units != -1).any(axis=1)
    assert partly.any()


def test_classes_are_unbalanced_in_stated_order():
    settings = SynthSettings(train=72, validation=0, test=0)
    counts = np.zeros(len(EXPRESSIONS), dtype=int)
    for video in plan_videos(settings):
        labels = make_timeline(settings, video).expression
        counts += np.bincount(labels[labels >= 0], minlength=len(EXPRESSIONS))
    frames = dict(zip(EXPRESSIONS, counts.tolist(), strict=True))
    order = ["Neutral", "Happiness", "Sadness", "Surprise"]
    assert sorted(frames, key=frames.get, reverse=True)[:4] == order
    assert min(frames, key=frames.get) == "Fear"


def test_small_set_has_most_classes():
    for seed in range(5):
        settings = SynthSettings(seed=seed, train=12, validation=6, test=2, seconds=4, fps=10)
        for split in ("train", "validation"):
            labels = [
                make_timeline(settings, video).expression for video in plan_videos(settings) if video.split == split
            ]
            assert len(set(np.concatenate(labels).tolist()) - {-1}) >= 6


def test_deal_keeps_rates_over_a_block():
    size = sum(FREQUENCY.values())
    kinds = [
        kind
        for number in range(size // 2)
        for kind in deal_in_turn(SMALL, PlannedVideo("v", "train", number, 0, 0, 1), FREQUENCY, 2)
    ]
    assert {kind: kinds.count(kind) for kind in FREQUENCY} == FREQUENCY
    assert set(kinds[: len(FREQUENCY)]) == set(FREQUENCY)


def end(episode: Episode) -> float:
    return episode.start + episode.onset + episode.apex + episode.offset


def test_episodes_keep_to_published_durations():
    settings = SynthSettings(train=40, validation=0, test=0)
    for video in plan_videos(settings):
        episodes = steady_episodes(settings, video, np.random.default_rng(video.number))
        assert all(end(before) <= after.start for before, after in itertools.pairwise(episodes))
        assert end(episodes[-1]) <= video.num_frames / settings.fps
        for episode in episodes:
            assert ONSET.low <= episode.onset <= ONSET.high
            assert OFFSET.low <= episode.offset <= OFFSET.high
            assert episode.apex <= APEX.high
            assert TOTAL_S[0] <= end(episode) - episode.start <= TOTAL_S[1] + 1e-9


def test_prototypes_give_distinct_expressions():
    sets = {
        name: {
            frozenset(np.flatnonzero(prototype(name, i)[:NUM_LABELLED] > AU_THRESHOLD)) for i in range(len(variants))
        }
        for name, variants in PROTOTYPES.items()
    }
    for one, other in itertools.combinations(EXPRESSIONS, 2):
        assert not sets[one] & sets[other]


def test_drawn_expressions_differ_within_a_person():
    face = Face(sample_person(np.random.SeedSequence(1)))
    still = (0.0, 0.0)
    pictures = {name: np.asarray(face.draw(prototype(name), still, 0.0)[0], dtype=float) for name in EXPRESSIONS}
    for one, other in itertools.combinations(EXPRESSIONS, 2):
        changed = np.abs(pictures[one] - pictures[other]).max(axis=2) > 20
        assert changed.mean() > 0.01
    again = np.asarray(face.draw(prototype("Neutral"), still, 0.0)[0])
    assert (again == pictures["Neutral"]).all()


def one_ramp(fps: float = 30.0) -> tuple[tr.Ramp, np.ndarray, np.ndarray, int]:
    """One episode, its true intensity, its labels, and the video's length."""
    settings = SynthSettings("transitions", seconds=3, fps=fps)
    video = next(iter(plan_videos(settings)))
    (ramp,) = tr.ramps(settings, video, np.random.default_rng(0))
    labels = tr.ramp_labels([ramp], video.num_frames)
    return ramp, ramp.intensity(video.num_frames), labels, video.num_frames


def test_transitions_hide_the_class_from_single_frames_and_order_blind_windows():
    ramp, intensity, labels, num_frames = one_ramp()
    rising, falling, _ = (EXPRESSIONS.index(name) if isinstance(name, str) else name for name in tr.PAIRS[ramp.pair])
    first, second = np.flatnonzero(labels == rising), np.flatnonzero(labels == falling)
    assert len(first) == len(second) > 5
    np.testing.assert_allclose(np.sort(intensity[first]), np.sort(intensity[second]))
    padded = np.pad(intensity, 4)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 9)
    assert len(windows) == num_frames
    for blind in (np.mean, np.max, np.std):
        np.testing.assert_allclose(np.sort(blind(windows[first], axis=1)), np.sort(blind(windows[second], axis=1)))
    # As sets of frames the windows are the same one by one; only their order differs.
    np.testing.assert_allclose(windows[first], windows[second[::-1], ::-1])


@pytest.mark.parametrize("fps", [10.0, 30.0])
def test_transitions_show_the_class_in_order(fps):
    settings = SynthSettings("transitions", train=18, validation=0, test=0, fps=fps)
    rise = {EXPRESSIONS.index(pair[0]) for pair in tr.PAIRS.values()}
    fall = {EXPRESSIONS.index(pair[1]) for pair in tr.PAIRS.values()}
    changes = {1: [], -1: []}
    intensities = {1: [], -1: []}
    for video in plan_videos(settings):
        timeline = make_timeline(settings, video)
        total = timeline.units.max(axis=1)
        for frame in range(4, video.num_frames - 4):
            direction = int(timeline.expression[frame] in rise) - int(timeline.expression[frame] in fall)
            if direction:
                changes[direction].append(float(total[frame + 4] - total[frame - 4]))
                intensities[direction].append(float(total[frame]))
    assert min(changes[1]) > 10 * tr.JITTER
    assert max(changes[-1]) < -10 * tr.JITTER
    # The paired classes' intensities have one distribution, up to sampling and to labels left out at random.
    levels = np.linspace(0.05, 0.95, 19)
    gap = np.quantile(intensities[1], levels) - np.quantile(intensities[-1], levels)
    assert np.abs(gap).max() < 0.06


def test_contact_sheet_has_one_column_an_expression(tmp_path):
    for setting, columns in (("steady", 7), ("transitions", 4)):
        path = contact_sheet(tmp_path / f"{setting}.png", dataclasses.replace(SMALL, setting=setting, fps=10), people=2)
        with Image.open(path) as image:
            assert image.size[0] == 64 * columns
            assert image.size[1] > 2 * 64


def test_complete_set_is_left_alone(made, caplog):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    with caplog.at_level("INFO"):
        assert synthesise(made, SMALL) == made
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before
    assert "nothing to do" in caplog.text


def test_an_interrupted_set_is_completed(made, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(made, out)
    record = json.loads((out / "synth.json").read_text())
    (out / "synth.json").write_text(json.dumps({**record, "complete": False}))
    shutil.rmtree(out / "cropped_aligned" / "train_002")
    stale = out / "cropped_aligned" / ".train_002.partial"
    stale.mkdir()
    (stale / "00001.jpg").write_bytes(b"half")
    synthesise(out, SMALL)
    assert (stale / "00001.jpg").exists()  # another process may be drawing there
    shutil.rmtree(stale)
    assert digests(out) == digests(made)


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=str(tmp_path)):
        synthesise(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_set_of_other_settings_is_refused(made):
    with pytest.raises(DataError, match=r"seed 3 \(not 9\)"):
        synthesise(made, dataclasses.replace(SMALL, seed=9))


def test_all_settings_errors_are_reported_at_once():
    with pytest.raises(ConfigError, match="setting: found 'slow', expected steady or transitions"):
        SynthSettings("slow")
    with pytest.raises(ConfigError) as caught:
        SynthSettings(train=-1, fps=0, image_size=4)
    for key in ("train", "fps", "image_size"):
        assert f"{key}: found" in str(caught.value)
    with pytest.raises(ConfigError, match="fps: found 6, expected from 5"):
        SynthSettings("transitions", fps=6)
    with pytest.raises(ConfigError, match="one split above 0"):
        SynthSettings(train=0, validation=0, test=0)


def test_workers_must_be_positive(tmp_path):
    with pytest.raises(ConfigError, match="workers"):
        synthesise(tmp_path / "out", SMALL, workers=0)
    assert not (tmp_path / "out").exists()
