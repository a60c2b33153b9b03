"""What the graph of jobs would take, before anything is queued."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fercache.cache.rows import FILE_BYTES, Shape
from fercache.cluster.jobs import ClusterJob
from fercache.cluster.submission import Submission
from fercache.config import Config, JobConfig
from fercache.data.manifest import Manifest, Video, read_manifest
from fercache.data.shards import frames_of, imbalance
from fercache.errors import FercacheError
from fercache.files import nearest
from fercache.models.backbones import backbone_of_arch
from fercache.models.heads import HEADS, head_numbers
from fercache.pipeline.steps import NO_FILE, extraction_shards
from fercache.results.wording import as_table

PATIENCE_S = 2.0
"""How long the scheduler may take to say how large arrays may be."""
FORWARD_SHARE = 1 / 3
"""Time of a forward pass without gradients, as a share of a training step's."""
TIMED_STAGES = ("finetune", "extract", "train_temporal")
"""Those that take hours."""
CHECKPOINT_COPIES = 5
"""best.pt has a network's numbers once, last.pt twice, and there are two of last.pt while it is written."""


@dataclass(frozen=True)
class PlannedShard:
    """A shard of the extraction."""

    videos: int
    frames: int
    """At most: frames without a face are counted, too."""
    videos_done: int


@dataclass(frozen=True)
class PlannedJob:
    """A job, and what it would take."""

    name: str
    after: tuple[str, ...]
    tasks: int
    """Of its array, or 1."""
    to_submit: int
    """Tasks of this submission."""
    state: str
    """Its progress."""
    hours: float | None
    """That its longest task still takes, at most; None where no rate is known, or it takes minutes."""
    hours_of_all: float | None
    """The sum over its tasks."""
    command: str
    script: str


@dataclass(frozen=True)
class PlannedDisk:
    """What is written to one folder."""

    folder: str
    bytes_needed: int
    """Beside what exists; files that are replaced count twice."""
    bytes_free: int
    disk: int
    """Number of the disk that the folder is on."""


@dataclass(frozen=True)
class ClusterPlan:
    """What the graph would take."""

    videos: int
    frames: int
    parts: tuple[PlannedShard, ...]
    imbalance: float
    jobs: tuple[PlannedJob, ...]
    disks: tuple[PlannedDisk, ...]
    rates: Mapping[str, float]
    """Frames (train_temporal: windows) a second of one job, by stage."""
    warnings: tuple[str, ...]

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        sections = (
            [f"{self.videos} videos of {self.frames} frames, with and without a face"],
            self._job_lines(),
            self._shard_lines(),
            self._cost_lines(),
            *([f"# {job.name}", job.command, job.script.rstrip("\n")] for job in self.jobs if job.to_submit),
        )
        return "\n\n".join("\n".join(lines) for lines in sections)

    def _job_lines(self) -> list[str]:
        rows = []
        for job in self.jobs:
            hours = "-" if job.hours is None else f"{job.hours:.2f}"
            rows.append((job.name, str(job.tasks), str(job.to_submit), hours, job.state))
        table = as_table(("job", "tasks", "now", "hours", "so far"), rows)
        after = ["after", *(", ".join(job.after) for job in self.jobs)]
        return [f"{line}  {names}" for line, names in zip(table, after, strict=True)]

    def _shard_lines(self) -> list[str]:
        lines = []
        for number, shard in enumerate(self.parts, start=1):
            done = f", {shard.videos_done} done" if shard.videos_done else ""
            lines.append(f"shard {number}: {shard.videos} videos, {shard.frames} frames{done}")
        return [*lines, f"the longest shard is {self.imbalance:.1%} longer than the mean"]

    def _cost_lines(self) -> list[str]:
        several = [job for job in self.jobs if job.tasks > 1 and job.hours_of_all is not None]
        lines = [f"{job.name}: {job.hours_of_all:.2f} hours, all tasks together" for job in several]
        for disk in self.disks:
            on_disk = sum(other.bytes_needed for other in self.disks if other.disk == disk.disk)
            short = "" if on_disk <= disk.bytes_free else ": TOO LITTLE"
            lines.append(f"{disk.folder}: {disk.bytes_needed / 1e9:.2f} GB, {disk.bytes_free / 1e9:.2f} GB free{short}")
        for stage, rate in self.rates.items():
            lines.append(f"{stage}: {rate:.1f} {'windows' if stage == 'train_temporal' else 'frames'}/s a job")
        return [*lines, *self.warnings]


def plan_submission(submission: Submission, measured: Mapping[str, float]) -> ClusterPlan:
    """What `submit` would submit, and what that takes. Nothing is written, and no frame is read.

    `measured`: rates of one process, by stage; a rate in the config wins.
    """
    config = submission.config
    manifest = Path(str(config.manifest))
    data = read_manifest(manifest, config.task, files=False)
    shards = extraction_shards(manifest, Path(str(config.cache)), config.slurm.shards)
    missing = [videos for _, videos in shards]
    rates = _rates(config, measured)
    return ClusterPlan(
        videos=len(data.videos),
        frames=_frames(data.videos),
        parts=tuple(PlannedShard(len(part), _frames(part), len(part) - len(rest)) for part, rest in shards),
        imbalance=imbalance([part for part, _ in shards]),
        jobs=tuple(
            _planned_job(job, submission, _work(job, config, data, missing), rates.get(job.section))
            for job in submission.state.jobs.values()
        ),
        disks=_disks(config, data, [video for videos in missing for video in videos]),
        rates=rates,
        warnings=tuple(_warnings(submission, rates)),
    )


def _planned_job(job: ClusterJob, submission: Submission, work: Sequence[float], rate: float | None) -> PlannedJob:
    """`work`: frames or windows that each task still has to process; `rate`: of those a second."""
    comes = job in submission.jobs
    needed = [name for name in job.after if submission.state.remaining[name]]
    # The numbers of those are not known yet.
    request = submission.request(job, [f"<{','.join(needed)}>"] if needed else [])
    return PlannedJob(
        name=job.name,
        after=job.after,
        tasks=len(job.tasks),
        to_submit=len(request.tasks) if comes else 0,
        state=str(job.progress()),
        hours=None if rate is None else max(work) / rate / 3600,
        hours_of_all=None if rate is None else sum(work) / rate / 3600,
        command=shlex.join(submission.launcher.command(request)) if comes else "",
        script=submission.launcher.script(request) if comes else "",
    )


def _work(job: ClusterJob, config: Config, data: Manifest, missing: Sequence[Sequence[Video]]) -> list[float]:
    """Frames (of heads: windows) that the tasks of a job still have to process, at most; 0 for jobs of minutes."""
    if job.section == "extract":
        return [_frames(videos) for videos in missing]
    if job.section not in TIMED_STAGES:
        return [0.0]
    train = _frames(data.split("train"))
    if job.section == "finetune":
        samples = train / config.finetune.every_nth_frame
    else:
        untrained = any(not HEADS[word].learns for word in job.step.command if word in HEADS)
        samples = 0 if untrained else train / config.train_temporal.stride
    progress = job.progress()
    epochs = max(0, progress.total - progress.done)
    return [epochs * (samples + _frames(data.split("validation")) * FORWARD_SHARE)]


def _frames(videos: Iterable[Video]) -> int:
    return sum(map(frames_of, videos))


def _rates(config: Config, measured: Mapping[str, float]) -> dict[str, float]:
    """Frames or windows a second of a job, by stage; what was measured in one process times its processes."""
    rates = {}
    for stage in TIMED_STAGES:
        resources: JobConfig = getattr(config.slurm, stage)
        if resources.frames_per_s is not None:
            rates[stage] = resources.frames_per_s
        elif stage in measured:
            rates[stage] = measured[stage] * resources.processes
    return rates


def _disks(config: Config, data: Manifest, missing: Sequence[Video]) -> tuple[PlannedDisk, ...]:
    """What is still to be written, by folder."""
    classes = len(data.task.classes)
    backbone = backbone_of_arch(config.finetune.arch)
    row = Shape(backbone.embedding_dim, config.extract.dtype, classes).row_bytes
    # Each shard's video takes its room twice while its file is made: at most, the longest ones.
    longest = sorted(map(frames_of, missing), reverse=True)[: config.slurm.shards]
    cache = row * (_frames(missing) + sum(longest)) + FILE_BYTES * len(missing)
    heads = sum(head_numbers(head, classes, backbone.embedding_dim) for head in config.slurm.heads)
    runs = 4 * (backbone.numbers + heads * max(1, len(config.slurm.seeds))) * CHECKPOINT_COPIES
    return tuple(_disk(folder, needed) for folder, needed in ((str(config.cache), cache), (str(config.out), runs)))


def _disk(folder: str, bytes_needed: int) -> PlannedDisk:
    existing = nearest(Path(folder))
    return PlannedDisk(folder, bytes_needed, shutil.disk_usage(existing).free, existing.stat().st_dev)


def _warnings(submission: Submission, rates: Mapping[str, float]) -> list[str]:
    warnings, finetune = [], submission.config.finetune
    if unknown := [stage for stage in TIMED_STAGES if stage not in rates]:
        warnings.append(f"hours of {', '.join(unknown)}: not known; --probe measures, or set slurm.STAGE.frames_per_s")
    if finetune.arch is None and finetune.weights not in NO_FILE:
        warnings.append("finetune.arch: is not set; disk space is computed for a ResNet50")
    try:
        submission.check_arrays(PATIENCE_S)
    except FercacheError as error:
        warnings.append(str(error))
    return warnings
