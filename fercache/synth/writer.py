"""One video on disk: its annotations and its folder of frames."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fercache.data.annotations import write_annotation
from fercache.files import PARTIAL
from fercache.synth.camera import make_camera
from fercache.synth.person import Person, sample_person
from fercache.synth.scene import Scene
from fercache.synth.settings import SynthSettings, Video, seed_of
from fercache.synth.timeline import Timeline, make_timeline
from fercache.tasks import TASKS

FRAMES = "cropped_aligned"
ANNOTATIONS = "annotations"
_SET_FOLDERS = {"train": "Train_Set", "validation": "Validation_Set"}
"""Splits with annotations; the test split has none, as in the challenge."""


@dataclass(frozen=True)
class Written:
    """What one video came to."""

    frames: int
    no_face: int
    expressions: list[int]
    """Frames labelled with each expression; empty in the test split."""
    unlabelled: int


def write_video(out: Path, settings: SynthSettings, video: Video) -> Written:
    """Write a video's annotations, then its folder of frames, which appears whole; one that is there is kept."""
    timeline = make_timeline(settings, video)
    _write_annotations(out, video, timeline)
    folder = out / FRAMES / video.name
    if not folder.exists():
        _write_frames(folder, settings, video, timeline)
    labelled = video.split in _SET_FOLDERS
    labels = timeline.expression if labelled else timeline.expression[:0]
    return Written(
        frames=int(timeline.face.sum()),
        no_face=int((~timeline.face).sum()),
        expressions=np.bincount(labels[labels >= 0], minlength=len(TASKS["expr"].classes)).tolist(),
        unlabelled=int((labels < 0).sum()),
    )


def person_of(settings: SynthSettings, video: Video) -> Person:
    """Who is seen in a video; two people of one recording share the room."""
    person = sample_person(seed_of(settings, "person", video.split, video.person, video.side))
    if not video.side:
        return person
    other = sample_person(seed_of(settings, "person", video.split, video.person, 0))
    return dataclasses.replace(person, background=other.background)


def _write_annotations(out: Path, video: Video, timeline: Timeline) -> None:
    if video.split not in _SET_FOLDERS:
        return
    for name, labels in (("expr", timeline.expression), ("au", timeline.action_units)):
        folder = out / ANNOTATIONS / f"{TASKS[name].track}_Set" / _SET_FOLDERS[video.split]
        write_annotation(folder / f"{video.name}.txt", TASKS[name], labels)


def _write_frames(folder: Path, settings: SynthSettings, video: Video, timeline: Timeline) -> None:
    numbers = (video.number, video.side)
    camera_rng = np.random.default_rng(seed_of(settings, "camera", video.split, *numbers))
    scene_rng = np.random.default_rng(seed_of(settings, "scene", video.split, *numbers))
    camera = make_camera(camera_rng, video.num_frames, settings.fps, settings.image_size)
    scene = Scene(person_of(settings, video), timeline, camera, settings.image_size, scene_rng)
    # A folder of this call's own: two processes may draw the same data set.
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=PARTIAL, dir=folder.parent))
    temporary.chmod(folder.parent.stat().st_mode)
    for index in np.flatnonzero(timeline.face).tolist():
        scene.frame(index).save(temporary / f"{index + 1:05d}.jpg", "JPEG", quality=camera.quality)
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(temporary)  # the other process drew the same video first
