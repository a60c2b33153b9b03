"""What is in a cache, whether it is whole, and the cache in one file."""

from __future__ import annotations

import json
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
    """What a cache holds."""

    cache: Cache
    frames: dict[str, int]
    """Video -> frames, for those that can be read."""
    skipped: int
    bytes: int
    begun: int
    """Journals of videos that are not finished."""
    problems: tuple[str, ...]
    """Videos that cannot be read."""
    missing: tuple[str, ...]
    """Of the manifest's videos; () without one."""

    def __str__(self) -> str:
        made_by = self.cache.record
        fields = {**asdict(made_by.provenance), **made_by.recorded}
        lines = [
            f"{self.cache.path}: {self.cache.store.title}",
            f"  videos         {len(self.frames)}",
            f"  frames         {sum(self.frames.values())}"
            + (f" and {self.skipped} that could not be decoded" if self.skipped else ""),
            f"  size           {self.bytes / 1e9:.3f} GB",
            f"  fingerprint    {made_by.provenance.fingerprint}",
            *(f"  {key:14} {value if isinstance(value, str) else json.dumps(value)}" for key, value in fields.items()),
        ]
        if self.begun:
            lines.append(f"  begun          {self.begun} videos that are not finished")
        lines += [f"cannot be read: {problem}" for problem in self.problems]
        if self.missing:
            lines.append(f"missing, of the manifest's videos: {', '.join(self.missing)}")
        return "\n".join(lines)


def cache_info(cache: Path, manifest: Path | None = None, *, task: str | None = None) -> CacheInfo:
    """What the cache holds, and what it lacks of a manifest; the rows themselves are not looked at."""
    reader = Cache(cache)
    frames, skipped, problems = {}, 0, []
    for video_id in reader.video_ids():
        try:
            entry = reader.entry(video_id)
        except CacheError as error:
            problems += error.problems
        else:
            frames[video_id], skipped = entry.count, skipped + entry.skipped_count
    wanted, there = read_manifest(manifest, task).videos if manifest else (), set(reader.video_ids())
    size = sum(file.stat().st_size for file in {reader.file(video_id) for video_id in there})
    return CacheInfo(
        cache=reader,
        frames=frames,
        skipped=skipped,
        bytes=size,
        begun=0 if reader.store.one_file else len(begun_videos(cache)),
        problems=tuple(problems),
        missing=tuple(video.video_id for video in wanted if video.video_id not in there),
    )


@dataclass(frozen=True)
class Verification:
    """What is wrong with a cache."""

    cache: Path
    videos: int
    """That were looked at."""
    findings: dict[str, Finding]
    """Video -> what is wrong with it, for those with which something is."""
    missing: tuple[str, ...]
    """Videos of the manifest that are not there."""
    unknown: tuple[str, ...]
    """Videos that are there and not in the manifest: no fault."""
    removed: tuple[str, ...]
    """Videos whose files were broken and were removed."""

    @property
    def clean(self) -> bool:
        """Whether what there is now can be relied on, and nothing is missing."""
        return not self.missing and set(self.findings) == set(self.removed)

    def __str__(self) -> str:
        lines = [problem for finding in self.findings.values() for problem in finding.problems]
        lines += [f"{self.cache}: video {video_id} is missing" for video_id in self.missing]
        if self.unknown:
            lines.append(f"not in the manifest: {len(self.unknown)} videos")
        good = self.videos - len(self.findings)
        lines.append(f"{self.cache}: {good} of {self.videos} videos are whole")
        if self.removed:
            lines.append(f"{len(self.removed)} broken files removed: `fercache extract` makes them again")
        return "\n".join(lines)


def verify_cache(
    cache: Path, manifest: Path | None = None, *, fix: bool = False, task: str | None = None
) -> Verification:
    """Read every row of a cache and check all that can be checked; with a manifest, its videos' frames too.

    `fix` removes the files that are damaged; those of another cache, those out of reach, and those that only the
    manifest disagrees with stay. CacheError where the cache is packed and is to be fixed.
    """
    reader = Cache(cache)
    if fix and reader.store.one_file:
        raise CacheError(f"{cache}: is packed, and no video can be removed from it; pack it anew")
    wanted = {video.video_id: video for video in _videos(manifest, task)}
    there = reader.video_ids()
    findings: dict[str, Finding] = {}
    for video_id in runtime.progress(there, "verify"):
        finding = check_video(reader, video_id)
        if not finding.problems and video_id in wanted:
            finding = _against_frames(reader, wanted[video_id])
        if finding.problems:
            findings[video_id] = finding
    removed = tuple(video_id for video_id, finding in findings.items() if fix and finding.broken)
    for video_id in removed:
        reader.file(video_id).unlink()
    return Verification(
        cache=cache,
        videos=len(there),
        findings=findings,
        missing=tuple(video_id for video_id in wanted if video_id not in there),
        unknown=tuple(video_id for video_id in there if video_id not in wanted) if manifest else (),
        removed=removed,
    )


def _videos(manifest: Path | None, task: str | None) -> tuple[Video, ...]:
    return read_manifest(manifest, task, frames=True).videos if manifest else ()


def _against_frames(cache: Cache, video: Video) -> Finding:
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
