"""What the graph of jobs would take, before anything is queued."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fercache.cache.rows import FILE_BYTES, Shape
from fercache.cluster import slurm
from fercache.cluster.jobs import Job
from fercache.cluster.submit import Prepared
from fercache.config import Config, JobConfig
from fercache.data.manifest import Manifest, Video, read_manifest
from fercache.data.shards import frames_of, imbalance
from fercache.errors import FercacheError
from fercache.files import nearest
from fercache.models.backbones import backbone_of_arch
from fercache.models.heads import HEADS, head_numbers
from fercache.pipeline import project

PATIENCE_S = 2.0
"""That SLURM has to say how large arrays may be."""
FORWARD_SHARE = 1 / 3
"""Of the time of a training step that a pass without its gradient takes."""


@dataclass(frozen=True)
class Part:
    """A task of the array."""

    videos: int
    frames: int
    """At most: frames without a face are counted, too."""
    videos_done: int


@dataclass(frozen=True)
class PlannedJob:
    """A job with all that is known of it."""

    name: str
    after: tuple[str, ...]
    tasks: int
    """Of its array, or 1."""
    to_submit: int
    """Tasks of this submission."""
    state: str
    """How far it is."""
    hours: float | None
    """That are left, at most, of the longest of its tasks; None where no rate is known, or it is of minutes."""
    hours_of_all: float | None
    """The same, summed over its tasks."""
    command: str
    script: str


@dataclass(frozen=True)
class Disk:
    """What is written to one folder."""

    folder: str
    bytes_needed: int
    """Beside what is there: twice over while files are replaced."""
    bytes_free: int
    disk: int
    """Number of the disk that it is on."""


@dataclass(frozen=True)
class Plan:
    """What the graph would take."""

    videos: int
    frames: int
    parts: tuple[Part, ...]
    imbalance: float
    jobs: tuple[PlannedJob, ...]
    disks: tuple[Disk, ...]
    rates: Mapping[str, float]
    """Frames (train_temporal: windows) a second of one job, by stage."""
    warnings: tuple[str, ...]

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        width = max(len(job.name) for job in self.jobs)
        lines = [f"{self.videos} videos of {self.frames} frames, with and without a face", ""]
        lines.append(f"{'job':<{width}}  {'tasks':>5}  {'now':>5}  {'hours':>8}  {'so far':<18}  after")
        for job in self.jobs:
            hours = "-" if job.hours is None else f"{job.hours:.2f}"
            after = ", ".join(job.after)
            lines.append(
                f"{job.name:<{width}}  {job.tasks:>5}  {job.to_submit:>5}  {hours:>8}  {job.state:<18}  {after}"
            )
        lines.append("")
        for number, part in enumerate(self.parts, start=1):
            done = f", {part.videos_done} done" if part.videos_done else ""
            lines.append(f"part {number}: {part.videos} videos, {part.frames} frames{done}")
        lines += [f"the longest part is {self.imbalance:.1%} longer than the mean", ""]
        several = [job for job in self.jobs if job.tasks > 1 and job.hours_of_all is not None]
        lines += [f"{job.name}: {job.hours_of_all:.2f} hours, all tasks together" for job in several]
        for disk in self.disks:
            together = sum(other.bytes_needed for other in self.disks if other.disk == disk.disk)
            short = "" if together <= disk.bytes_free else ": TOO LITTLE"
            lines.append(f"{disk.folder}: {disk.bytes_needed / 1e9:.2f} GB, {disk.bytes_free / 1e9:.2f} GB free{short}")
        for stage, rate in self.rates.items():
            lines.append(f"{stage}: {rate:.1f} {'windows' if stage == 'train_temporal' else 'frames'}/s a job")
        lines += self.warnings
        for job in self.jobs:
            if job.to_submit:
                lines += ["", f"# {job.name}", job.command, job.script.rstrip("\n")]
        return "\n".join(lines)


def plan(prepared: Prepared, measured: Mapping[str, float]) -> Plan:
    """The plan of what `submit` would submit. `measured`: rates of one process, by stage.

    A rate that the config gives wins. Nothing is written, and no frame is looked at.
    """
    config = prepared.config
    data = read_manifest(Path(str(config.manifest)), config.task, files=False)
    shards = project.videos_left(Path(str(config.manifest)), Path(str(config.cache)), config.slurm.shards)
    rates = _rates(config, measured)
    return Plan(
        videos=len(data.videos),
        frames=_frames(data.videos),
        parts=tuple(Part(len(every), _frames(every), len(every) - len(left)) for every, left in shards),
        imbalance=imbalance([every for every, _ in shards]),
        jobs=tuple(
            _planned(job, prepared, _work(job, config, data, [left for _, left in shards]), rates)
            for job in prepared.situation.jobs.values()
        ),
        disks=_disks(config, data, [video for _, left in shards for video in left]),
        rates=rates,
        warnings=tuple(_warnings(prepared, rates)),
    )


def _planned(job: Job, prepared: Prepared, work: Sequence[float], rates: Mapping[str, float]) -> PlannedJob:
    """`work`: frames or windows of each task that are left, at most."""
    comes = any(job.name == other.name for other in prepared.jobs)
    rate = rates.get(job.section)
    hours = None if rate is None else [count / rate / 3600 for count in work]
    return PlannedJob(
        name=job.name,
        after=job.after,
        tasks=len(job.tasks),
        to_submit=len(prepared.situation.to_submit(job.name)) if comes else 0,
        state=str(job.state(Path())),
        hours=None if hours is None else max(hours),
        hours_of_all=None if hours is None else sum(hours),
        command=_command(job, prepared) if comes else "",
        script=prepared.script(job) if comes else "",
    )


def _work(job: Job, config: Config, data: Manifest, left: Sequence[Sequence[Video]]) -> list[float]:
    """Frames (of heads: windows) that the tasks of a job have to go through yet, at most; of the others nothing."""
    first, second = config.finetune, config.train_temporal
    train, validation = _frames(data.split("train")), _frames(data.split("validation")) * FORWARD_SHARE
    state = job.state(Path())
    epochs = max(0, state.total - state.done)
    if job.section == "finetune":
        return [epochs * (train / first.every_nth_frame + validation)]
    if job.section == "train_temporal":
        untrained = any(not HEADS[word].learns for word in job.step.command if word in HEADS)
        trained = 0 if untrained else train / second.stride
        return [epochs * (trained + validation)]
    return [_frames(part) for part in left] if job.section == "extract" else [0.0]


def _frames(videos: Iterable[Video]) -> int:
    return sum(map(frames_of, videos))


def _command(job: Job, prepared: Prepared) -> str:
    """The call of sbatch; what it waits for is known when the jobs before have their numbers."""
    needed = [name for name in job.after if prepared.situation.left[name]]
    waits = [f"--dependency=afterok:<{','.join(needed)}>"] if needed else []
    script = str(prepared.folder / f"{job.name}.sh")
    return shlex.join(["sbatch", "--parsable", *waits, *prepared.flags_of(job), script])


def _rates(config: Config, measured: Mapping[str, float]) -> dict[str, float]:
    """Frames or windows a second of a job, by stage; what was measured in one process times its processes."""
    found = {}
    for stage in ("finetune", "extract", "train_temporal"):
        asks: JobConfig = getattr(config.slurm, stage)
        if asks.frames_per_s is not None:
            found[stage] = asks.frames_per_s
        elif stage in measured:
            found[stage] = measured[stage] * asks.processes
    return found


def _disks(config: Config, data: Manifest, missing: Sequence[Video]) -> tuple[Disk, ...]:
    """What is written yet, by folder; the two of one disk have to share what is free there."""
    backbone, classes = backbone_of_arch(config.finetune.arch), len(data.task.classes)
    row = Shape(backbone.embedding_dim, config.extract.dtype, classes).row_bytes
    # The longest videos lie there twice while they are made: one for each part at a time.
    longest = sorted(map(frames_of, missing), reverse=True)[: config.slurm.shards]
    cache = row * (_frames(missing) + sum(longest)) + FILE_BYTES * len(missing)
    heads = [head_numbers(name, classes, backbone.embedding_dim) for name in config.slurm.heads]
    numbers = backbone.numbers + sum(heads) * max(1, len(config.slurm.seeds))
    # best.pt has them once, last.pt twice, and while it is written there are two of it.
    wanted = ((str(config.cache), cache), (str(config.out), 4 * numbers * 5))
    return tuple(Disk(folder, needed, *_free(Path(folder))) for folder, needed in wanted)


def _free(folder: Path) -> tuple[int, int]:
    """Bytes that are free where a folder is or will be, and the number of that disk."""
    place = nearest(folder)
    return shutil.disk_usage(place).free, place.stat().st_dev


def _warnings(prepared: Prepared, rates: Mapping[str, float]) -> list[str]:
    lacking = [stage for stage in ("finetune", "extract", "train_temporal") if stage not in rates]
    found = []
    if lacking:
        found.append(f"hours of {', '.join(lacking)}: not known; --probe measures, or set slurm.STAGE.frames_per_s")
    if prepared.config.finetune.arch is None and prepared.config.finetune.weights not in project.GENERATED:
        found.append("finetune.arch: is not set; room is counted as for a ResNet50")
    try:
        slurm.check_arrays([job.shards for job in prepared.jobs if job.shards], PATIENCE_S)
    except FercacheError as error:
        found.append(str(error))
    return found
