"""What a cache contains, whether it is whole, and packing it into one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fercache import runtime
from fercache.cache.journal import begun_videos
from fercache.cache.pack import pack
from fercache.cache.reader import Cache
from fercache.cache.verify import Finding, check_video, source_problem
from fercache.data.manifest import Video, read_manifest
from fercache.errors import CacheError, DataError


@dataclass(frozen=True)
class CacheInfo:
    """What a cache contains."""

    cache: Cache
    frames: dict[str, int]
    """Frames of each video that can be read."""
    skipped: int
    """Frames that could not be decoded."""
    bytes: int
    begun: int
    """Videos whose extraction is not finished."""
    problems: tuple[str, ...]
    """Videos that cannot be read."""
    missing: tuple[str, ...]
    """Videos of the manifest that the cache lacks; () without a manifest."""

    def __str__(self) -> str:
        record = self.cache.record
        skipped = f" and {self.skipped} that could not be decoded" if self.skipped else ""
        facts = {
            "videos": len(self.frames),
            "frames": f"{sum(self.frames.values())}{skipped}",
            "size": f"{self.bytes / 1e9:.3f} GB",
            "fingerprint": record.provenance.fingerprint,
        }
        for key, value in {**asdict(record.provenance), **record.recorded}.items():
            facts[key] = value if isinstance(value, str) else json.dumps(value)
        if self.begun:
            facts["begun"] = f"{self.begun} videos that are not finished"
        lines = [f"{self.cache.path}: {self.cache.store.title}"]
        lines += [f"  {name:14} {value}" for name, value in facts.items()]
        lines += [f"cannot be read: {problem}" for problem in self.problems]
        if self.missing:
            lines.append(f"missing, of the manifest's videos: {', '.join(self.missing)}")
        return "\n".join(lines)


def cache_info(cache: Path, manifest: Path | None = None, *, task: str | None = None) -> CacheInfo:
    """What a cache contains, and what it lacks of a manifest; no embeddings are read."""
    reader = Cache(cache)
    video_ids, skipped = reader.video_ids(), 0
    frames: dict[str, int] = {}
    problems: list[str] = []
    for video_id in video_ids:
        try:
            entry = reader.entry(video_id)
        except CacheError as error:
            problems += error.problems
        else:
            frames[video_id], skipped = entry.count, skipped + entry.skipped_count
    return CacheInfo(
        cache=reader,
        frames=frames,
        skipped=skipped,
        bytes=sum(file.stat().st_size for file in {reader.file(video_id) for video_id in video_ids}),
        begun=0 if reader.store.one_file else len(begun_videos(cache)),
        problems=tuple(problems),
        missing=_missing(read_manifest(manifest, task).videos if manifest else (), video_ids),
    )


def _missing(videos: Sequence[Video], video_ids: Sequence[str]) -> tuple[str, ...]:
    cached = set(video_ids)
    return tuple(video.video_id for video in videos if video.video_id not in cached)


@dataclass(frozen=True)
class Verification:
    """What is wrong with a cache."""

    cache: Path
    videos: int
    """That were checked."""
    findings: dict[str, Finding]
    """Of the videos that have problems."""
    missing: tuple[str, ...]
    """Videos of the manifest that the cache lacks."""
    unknown: tuple[str, ...]
    """Videos of the cache that are not in the manifest, which is no fault."""
    removed: tuple[str, ...]
    """Videos whose broken files were removed."""

    @property
    def clean(self) -> bool:
        """Whether nothing is missing and all that remains is whole."""
        return not self.missing and set(self.findings) == set(self.removed)

    def __str__(self) -> str:
        lines = [problem for finding in self.findings.values() for problem in finding.problems]
        lines += [f"{self.cache}: video {video_id} is missing" for video_id in self.missing]
        if self.unknown:
            lines.append(f"not in the manifest: {len(self.unknown)} videos")
        lines.append(f"{self.cache}: {self.videos - len(self.findings)} of {self.videos} videos are whole")
        if self.removed:
            lines.append(f"{len(self.removed)} broken files removed: `fercache extract` makes them again")
        return "\n".join(lines)


def verify_cache(
    cache: Path, manifest: Path | None = None, *, fix: bool = False, task: str | None = None
) -> Verification:
    """Read every row of a cache and check it; with a manifest, compare the frames of its videos' folders, too.

    `fix` removes files that are damaged; files of another cache, out of reach, or at odds with the manifest alone stay.
    CacheError where a packed cache is to be fixed.
    """
    reader = Cache(cache)
    if fix and reader.store.one_file:
        raise CacheError(f"{cache}: is packed, and no video can be removed from it; pack it anew")
    videos = read_manifest(manifest, task, frames=True).videos if manifest else ()
    listed, video_ids = {video.video_id: video for video in videos}, reader.video_ids()
    findings: dict[str, Finding] = {}
    for video_id in runtime.progress(video_ids, "verify"):
        finding = check_video(reader, video_id)
        if not finding.problems and video_id in listed:
            finding = _compare_frames(reader, listed[video_id])
        if finding.problems:
            findings[video_id] = finding
    removed = tuple(video_id for video_id, finding in findings.items() if fix and finding.broken)
    for video_id in removed:
        reader.file(video_id).unlink()
    return Verification(
        cache=cache,
        videos=len(video_ids),
        findings=findings,
        missing=_missing(videos, video_ids),
        unknown=tuple(video_id for video_id in video_ids if video_id not in listed) if manifest else (),
        removed=removed,
    )


def _compare_frames(cache: Cache, video: Video) -> Finding:
    """Compare a cached video with the frames of its folder."""
    try:
        problem = source_problem(cache, video.video_id, video.frames(), video.frames_dir)
    except DataError as error:
        return Finding(error.problems)
    return Finding((problem,) if problem else ())


def pack_cache(cache: Path, out: Path | None = None, manifest: Path | None = None, *, task: str | None = None) -> Path:
    """Write a cache, or a manifest's videos of it, into one file; returns it (`CACHE.h5` unless named)."""
    reader = Cache(cache)
    out = out or cache.resolve().with_name(f"{cache.resolve().name}.h5")
    if out.exists():
        raise CacheError(f"{out}: already exists; choose another name, or remove it")
    video_ids = [video.video_id for video in read_manifest(manifest, task).videos] if manifest else reader.video_ids()
    reader.check(video_ids)
    pack(reader, video_ids, out)
    return out
