"""A synthetic data set of expressive faces, as videos in the layout of Aff-Wild2.

Drawn faces move by action units; `settings.py` says what can be chosen, `units.py` what the
expressions are, `timing.py` how long they take and from which sources, `transitions.py` what the
second setting means. It stands in for data that may not be passed on: everything in it is drawn.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fercache.documents import read_json
from fercache.errors import ConfigError, DataError
from fercache.files import refuse_other_contents, write_text
from fercache.synth.settings import SynthSettings, Video, plan_videos
from fercache.synth.sheet import contact_sheet
from fercache.synth.writer import FRAMES, Written, write_video
from fercache.tasks import EXPRESSIONS

__all__ = ["SynthSettings", "contact_sheet", "synthesise"]

RECORD = "synth.json"
LENGTHS = "lengths.csv"
CONTACT_SHEET = "contact_sheet.png"

logger = logging.getLogger(__name__)


def synthesise(out: Path, settings: SynthSettings, workers: int = 1) -> Path:
    """Write the data set to `out` and return `out`; the bytes do not depend on `workers`.

    A data set that is there already, made with the same settings, is left as it is; one that was cut
    off is gone on with. Raises DataError where `out` holds anything else.
    """
    if workers < 1:
        raise ConfigError(f"workers: {workers} must be 1 or more")
    if _is_complete(out, settings):
        logger.info("%s: is complete with these settings; nothing to do", out)
        return out
    videos = plan_videos(settings)
    _write_record(out, settings, {"complete": False})
    rows = "".join(f"{video.name},{video.num_frames}\n" for video in videos)
    write_text(out / LENGTHS, "video_id,frames\n" + rows)
    (out / FRAMES).mkdir(exist_ok=True)
    written = _write_all(out, settings, videos, workers)
    contact_sheet(out / CONTACT_SHEET, settings)
    counts = _counts(videos, written)
    _write_record(out, settings, {"counts": counts, "people": _people(videos), "complete": True})
    logger.info("%s: wrote %s", out, json.dumps(counts))
    return out


def _is_complete(out: Path, settings: SynthSettings) -> bool:
    """Whether `out` holds this very data set; DataError where it holds something that is not a part of it."""
    try:
        record = read_json(out / RECORD)
    except (OSError, ValueError):
        refuse_other_contents(out, f"a data set made by fercache ({RECORD})", DataError)
        return False
    wanted = settings.record()
    found = {key: record.get(key) for key in wanted} if isinstance(record, dict) else {}
    if found != wanted:
        differing = ", ".join(
            f"{key} {found.get(key)!r} (not {wanted[key]!r})" for key in wanted if found.get(key) != wanted[key]
        )
        raise DataError(
            f"{out}: contains a data set made with other settings: {differing};"
            " choose another folder, or remove this one"
        )
    return bool(record.get("complete"))


def _write_all(out: Path, settings: SynthSettings, videos: list[Video], workers: int) -> list[Written]:
    """Write every video, in this process or in `workers` others; results in the order of `videos`."""
    task = partial(write_video, out, settings)
    progress = partial(tqdm, total=len(videos), desc="synth", unit="video", disable=None)
    if workers == 1:
        return list(progress(map(task, videos)))
    # "spawn" everywhere: forking a process that has threads (torch, a progress bar) may hang.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(progress(pool.map(task, videos)))


def _write_record(out: Path, settings: SynthSettings, more: dict[str, Any]) -> None:
    write_text(out / RECORD, json.dumps({**settings.record(), **more}, indent=2) + "\n")


def _counts(videos: list[Video], written: list[Written]) -> dict[str, Any]:
    """Totals over all videos."""
    return {
        "videos": len(videos),
        "frames": sum(one.frames for one in written),
        "no_face": sum(one.no_face for one in written),
        "unlabelled": sum(one.unlabelled for one in written),
        "labels": {name: sum(one.expressions[i] for one in written) for i, name in enumerate(EXPRESSIONS)},
    }


def _people(videos: list[Video]) -> dict[str, str]:
    """Who is in each video: a name that no other person of any split has."""
    return {video.name: f"{video.split}-{video.person:03d}-{video.side}" for video in videos}
