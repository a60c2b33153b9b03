"""Aff-Wild2's folders, turned into a manifest, with an account of all that disagrees.

    ROOT/cropped_aligned/[batch*/]<video>[_left|_right]/00001.jpg
    ROOT/annotations/{EXPR,AU}_Set/{Train_Set,Validation_Set}/<video>.txt     (ABAW 2021)
    ROOT/Third ABAW Annotations/EXPR_Classification_Challenge/...             (from ABAW3 on)

`layouts` says where else they are looked for.

Label lines, image numbers and video lengths of Aff-Wild2 disagree, often by one, sometimes by
thousands. One rule reconciles them: **the length of a video is the number of its label lines, else
the length in `--lengths`, else the number of its last image; images numbered above it are not used,
and frames without an image are frames without a face.**
"""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fercache.data.annotations import read_annotation
from fercache.data.frames import list_frames
from fercache.data.layouts import FRAMES, SETS, find_track, find_videos
from fercache.data.manifest import Manifest, Video, check_video_id
from fercache.errors import DataError, collect_errors, raise_problems
from fercache.files import read_text
from fercache.tasks import Task

log = logging.getLogger(__name__)

SIDES = ("_left", "_right")


@dataclass
class Reconciled:
    """What the folder contains, and where its sources disagree. The lists name videos."""

    images: int = 0
    labelled: int = 0
    """Frames with an image and a label."""
    faceless: int = 0
    """Frames of the videos' lengths without an image."""
    frames_from: list[str] = field(default_factory=list)
    """Folders that hold the videos' folders."""
    labels_from: str = ""
    missing_sets: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)
    """Videos with images numbered above the length."""
    lengths_differ: list[str] = field(default_factory=list)
    """Videos whose length in `--lengths` is not the number of label lines."""
    length_guessed: list[str] = field(default_factory=list)
    """Videos whose length is the last image's number: frames without a face at the end are unknown."""
    without_images: list[str] = field(default_factory=list)
    """Labelled videos without a frames folder."""
    groups_shared: list[str] = field(default_factory=list)
    """Recordings in more than one split."""

    def lines(self, manifest: Manifest) -> list[str]:
        """The account, as lines to print."""
        splits = Counter(video.split for video in manifest.videos)
        counts = ", ".join(f"{splits[split]} {split}" for split in ("train", "validation", "test"))
        shown = [
            f"{len(manifest.videos)} videos ({counts}), task {manifest.task.name}",
            f"{self.images} frames with a face ({self.labelled} of them labelled), {self.faceless} without",
            f"frames from {', '.join(self.frames_from) or 'nowhere'}; labels from {self.labels_from or 'nowhere'}",
        ]
        for what, names in (
            ("folders of the layout that are missing", self.missing_sets),
            ("videos with images beyond their length; those images are not used", self.beyond),
            ("videos whose label lines and --lengths differ; the label lines count", self.lengths_differ),
            ("videos whose length is a guess from the last image (--lengths can name it)", self.length_guessed),
            ("labelled videos without a frames folder; they count as videos without a face", self.without_images),
            ("recordings in more than one split: scores on them mean little", self.groups_shared),
        ):
            if names:
                more = f", ... ({len(names) - 10} more)" if len(names) > 10 else ""
                shown.append(f"{len(names)} {what}: {', '.join(names[:10])}{more}")
        return shown


def read_lengths(path: Path) -> dict[str, int]:
    """Lengths of videos in frames, from a CSV with the columns video_id, frames (a header line is optional)."""
    try:
        rows = list(csv.reader(read_text(path, "utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: the lengths cannot be read: {error}") from error
    lengths: dict[str, int] = {}
    problems = []
    for number, row in enumerate(rows, start=1):
        fields = [cell.strip() for cell in row]
        if not any(fields) or (number == 1 and fields == ["video_id", "frames"]):
            continue
        if len(fields) != 2 or not fields[1].isascii() or not fields[1].isdigit() or int(fields[1]) < 1:
            problems.append(f"{path}: line {number}: found {','.join(row)!r}, expected VIDEO_ID,FRAMES")
        elif lengths.setdefault(fields[0], int(fields[1])) != int(fields[1]):
            problems.append(f"{path}: line {number}: duplicate {fields[0]}, with a different length")
    raise_problems(problems, DataError)
    return lengths


def group_of(video_id: str) -> str:
    """The recording of a video: two people of one recording are X_left and X_right."""
    for side in SIDES:
        if video_id.endswith(side) and video_id != side:
            return video_id.removesuffix(side)
    return video_id


def build_manifest(
    root: Path, task: Task, lengths: Mapping[str, int] | None = None, *, allow_unlabelled: bool = False
) -> tuple[Manifest, Reconciled]:
    """The manifest of an Aff-Wild2 root, and the account of what was reconciled.

    Labelled videos go to their set's split, the others to test. `lengths` are frames by video_id,
    or by recording. Raises DataError with all bad label files, ids and empty folders at once, for a video with two
    folders or two label files, and where no video is labelled, unless that is allowed.
    """
    if not root.is_dir():
        raise DataError(f"{root}: does not exist, or is no folder")
    account = Reconciled()
    labels, folders = collect_errors(lambda: _find_labels(root, task, account), lambda: find_videos(root))
    account.frames_from = sorted({str(folder.parent.relative_to(root)) for folder in folders.values()})
    if not folders:
        raise DataError(f"{root}: found no folder of frames; expected {FRAMES}/VIDEO/00001.jpg and so on below it")
    if not labels and not allow_unlabelled:
        raise DataError(
            f"{root}: found no annotation of track {task.track}; expected them below it as in"
            f" annotations/{task.track}_Set/Train_Set/VIDEO.txt; --allow-unlabelled lists the videos all the same"
        )
    videos: list[Video] = []
    problems: list[str] = []
    for video_id in sorted(folders.keys() | labels.keys()):
        split, labels_path = labels.get(video_id, ("test", None))
        try:
            check_video_id(video_id)
            known_length = (lengths or {}).get(video_id, (lengths or {}).get(group_of(video_id)))
            length, used = _reconcile(video_id, folders.get(video_id), labels_path, known_length, task, account)
        except DataError as error:
            problems += error.problems
            continue
        folder = folders[video_id] if used else None
        videos.append(Video(video_id, split, folder, labels_path, length, group_of(video_id)))
    raise_problems(problems, DataError)
    splits_of: dict[str, set[str]] = {}
    for video in videos:
        splits_of.setdefault(video.group, set()).add(video.split)
    account.groups_shared = [f"{group} ({', '.join(sorted(s))})" for group, s in splits_of.items() if len(s) > 1]
    return Manifest(task, root, tuple(videos)), account


def _find_labels(root: Path, task: Task, account: Reconciled) -> dict[str, tuple[str, Path]]:
    """Split and annotation file of each labelled video."""
    track = find_track(root, task) or root / "annotations" / f"{task.track}_Set"
    account.labels_from = str(track.relative_to(root)) if track.is_dir() else ""
    labels: dict[str, tuple[str, Path]] = {}
    problems = []
    for split, name in SETS.items():
        folder = track / name
        if not folder.is_dir():
            account.missing_sets.append(str(folder.relative_to(root)))
            continue
        for path in sorted(folder.glob("[!.]*.txt")):
            if path.stem in labels:
                problems.append(f"{path}: video {path.stem} is in {SETS[labels[path.stem][0]]} too")
            labels[path.stem] = (split, path)
    raise_problems(problems, DataError)
    return labels


def _reconcile(
    video_id: str,
    folder: Path | None,
    labels_path: Path | None,
    known_length: int | None,
    task: Task,
    account: Reconciled,
) -> tuple[int, int]:
    """The length of a video by the module's rule, and how many images are used; what disagrees goes into `account`."""
    frames = list_frames(folder).frame.tolist() if folder is not None else []
    labels = read_annotation(labels_path, task) if labels_path is not None else None
    if folder is not None and not frames:
        raise DataError(
            f"{folder}: is empty, expected frames named 00001.jpg on;"
            " remove the folder if no face was found in the whole video"
        )
    if labels is not None and len(labels) == 0:
        raise DataError(f"{labels_path}: has no line after the header")
    last = frames[-1] if frames else 0
    length = len(labels) if labels is not None else (known_length or last)
    if folder is None:
        account.without_images.append(video_id)
    if labels is not None and known_length is not None and known_length != length:
        account.lengths_differ.append(f"{video_id} ({length} lines, {known_length} in --lengths)")
    if labels is None and known_length is None:
        account.length_guessed.append(video_id)
    used = [frame for frame in frames if frame <= length]
    if len(used) < len(frames):
        account.beyond.append(f"{video_id} ({len(frames) - len(used)} beyond {length})")
    account.images += len(used)
    account.faceless += length - len(used)
    if labels is not None:
        account.labelled += int(task.labelled(labels)[[frame - 1 for frame in used]].sum())
    return length, len(used)
