"""A synthetic data set of expressive faces, as videos in the layout of Aff-Wild2.

Drawn faces move by action units. `settings` plans the videos; `episodes` and `transitions` say which expressions come
when, `units` what they are, `timing` how long they take and from which sources; `timeline` is all that is annotated.
`person`, `skin`, `hair`, `creases`, `eyes`, `mouth` and `face` draw one face, `camera` and `scene` a frame of it.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fercache.data.layouts import FRAMES
from fercache.documents import read_json
from fercache.errors import ConfigError, DataError
from fercache.files import refuse_other_contents, write_text
from fercache.synth.settings import PlannedVideo, SynthSettings, plan_videos
from fercache.synth.sheet import contact_sheet
from fercache.synth.writer import draw_video
from fercache.tasks import EXPRESSIONS

__all__ = ["SynthSettings", "contact_sheet", "synthesise"]

RECORD = "synth.json"
LENGTHS = "lengths.csv"
CONTACT_SHEET = "contact_sheet.png"

logger = logging.getLogger(__name__)


def synthesise(out: Path, settings: SynthSettings, workers: int = 1) -> Path:
    """Write the data set to `out` and return `out`; the bytes do not depend on `workers`.

    A complete data set with the same settings is left as it is, an interrupted one is completed. Raises DataError where
    `out` holds anything else.
    """
    if workers < 1:
        raise ConfigError(f"workers: {workers} must be 1 or more")
    if _is_complete(out, settings):
        logger.info("%s: is complete with these settings; nothing to do", out)
        return out
    videos = plan_videos(settings)
    _write_record(out, settings, complete=False)
    rows = "".join(f"{video.name},{video.num_frames}\n" for video in videos)
    write_text(out / LENGTHS, "video_id,frames\n" + rows)
    (out / FRAMES).mkdir(exist_ok=True)
    counts = _write_all(out, settings, videos, workers)
    contact_sheet(out / CONTACT_SHEET, settings)
    # A name for each person that no other person of any split has.
    people = {video.name: f"{video.split}-{video.person:03d}-{video.side}" for video in videos}
    _write_record(out, settings, counts=counts, people=people, complete=True)
    logger.info("%s: wrote %s", out, json.dumps(counts))
    return out


def _is_complete(out: Path, settings: SynthSettings) -> bool:
    """Whether `out` is this very data set; DataError where it contains something that is not a part of it."""
    try:
        record = read_json(out / RECORD)
    except (OSError, ValueError):
        refuse_other_contents(out, f"a data set made by fercache ({RECORD})", DataError)
        return False
    record = record if isinstance(record, dict) else {}
    expected = settings.record()
    differing = [
        f"{key} {record.get(key)!r} (not {expected[key]!r})" for key in expected if record.get(key) != expected[key]
    ]
    if differing:
        raise DataError(
            f"{out}: contains a data set made with other settings: {', '.join(differing)};"
            " choose another folder, or remove this one"
        )
    return bool(record.get("complete"))


def _write_all(out: Path, settings: SynthSettings, videos: list[PlannedVideo], workers: int) -> dict[str, Any]:
    """Write every video, in this process or in `workers` others; returns totals over all."""
    task = partial(draw_video, out, settings)
    progress = partial(tqdm, total=len(videos), desc="synth", unit="video", disable=None)
    total: Counter[str] = Counter()
    if workers == 1:
        for counts in progress(map(task, videos)):
            total.update(counts)
    else:
        # "spawn" everywhere: forking a process that has threads (torch, a progress bar) may hang.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            for counts in progress(pool.map(task, videos)):
                total.update(counts)
    kinds = {kind: total[kind] for kind in ("frames", "no_face", "unlabelled")}
    return {"videos": len(videos), **kinds, "labels": {name: total[name] for name in EXPRESSIONS}}


def _write_record(out: Path, settings: SynthSettings, **more: object) -> None:
    write_text(out / RECORD, json.dumps({**settings.record(), **more}, indent=2) + "\n")
