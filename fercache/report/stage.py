"""The stage: collects what a project folder contains, and writes the page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from fercache.data.manifest import read_manifest
from fercache.files import write_text
from fercache.report.findings import collect_findings
from fercache.report.page import page

log = logging.getLogger(__name__)


def report(
    manifest: Path,
    folder: Path,
    out: Path | None = None,
    *,
    split: str = "validation",
    videos: Sequence[str] = (),
    task: str | None = None,
) -> Path:
    """Write one HTML page of the predictions, ensembles and runs in `folder`; returns its path, by default in there.

    `videos`: whose time lines are shown; without any, those with the best, the middle and the worst accuracy.
    """
    target = out or folder / "report.html"
    write_text(target, page(collect_findings(folder, read_manifest(manifest, task), split, videos)))
    log.info("%s: %d kB", target, target.stat().st_size // 1000)
    return target
