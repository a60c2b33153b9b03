"""One video on disk: its annotations and its folder of frames."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from fercache.data.annotations import write_annotation
from fercache.data.layouts import FRAMES, SETS
from fercache.files import PARTIAL
from fercache.synth.camera import Camera
from fercache.synth.person import Person, sample_person
from fercache.synth.scene import Scene
from fercache.synth.settings import PlannedVideo, SynthSettings, seed_of
from fercache.synth.timeline import Timeline, make_timeline
from fercache.synth.timing import Track
from fercache.tasks import EXPRESSIONS, TASKS


def draw_video(out: Path, settings: SynthSettings, video: PlannedVideo) -> Counter[str]:
    """Write a video's annotations, then its folder of frames, which appears whole; an existing one is kept.

    Returns how many frames it has as "frames", as "no_face", "unlabelled", and of each expression.
    """
    timeline = make_timeline(settings, video)
    folder = out / FRAMES / video.name
    counts = Counter(frames=int(timeline.face.sum()), no_face=int((~timeline.face).sum()))
    if video.split in SETS:  # the test split has no annotations, as in the challenge
        _write_annotations(out, video, timeline)
        counts.update("unlabelled" if label < 0 else EXPRESSIONS[label] for label in timeline.expression)
    if not folder.exists():
        _write_frames(folder, settings, video, timeline)
    return counts


def person_of(settings: SynthSettings, video: PlannedVideo) -> Person:
    """Who is seen in a video; two people of one recording share the room."""
    person, other = (
        sample_person(seed_of(settings, "person", video.split, video.person, side)) for side in (video.side, 0)
    )
    return dataclasses.replace(person, background=other.background)


def _write_annotations(out: Path, video: PlannedVideo, timeline: Timeline) -> None:
    for name, labels in (("expr", timeline.expression), ("au", timeline.action_units)):
        folder = out / "annotations" / f"{TASKS[name].track}_Set" / SETS[video.split]
        write_annotation(folder / f"{video.name}.txt", TASKS[name], labels)


def _write_frames(folder: Path, settings: SynthSettings, video: PlannedVideo, timeline: Timeline) -> None:
    camera = Camera(Track(video.rng(settings, "camera"), video.num_frames, settings.fps), settings.image_size)
    rng = video.rng(settings, "scene")
    scene = Scene(person_of(settings, video), timeline, camera, settings.image_size, rng)
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
