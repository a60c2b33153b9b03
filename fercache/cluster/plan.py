"""What the graph of jobs would take, before anything is queued."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fercache.cluster import slurm
from fercache.cluster.jobs import Job
from fercache.cluster.submit import Prepared
from fercache.config import Config, JobConfig
from fercache.data.manifest import Manifest, read_manifest
from fercache.data.shards import deal, frames_of, imbalance
from fercache.errors import FercacheError

FORWARD_SHARE = 1 / 3
"""Of the time of a training step that a pass without its gradient takes."""
FILE_BYTES = 6000
"""Of a video's file beside its rows."""


@dataclass(frozen=True)
class Size:
    """What a network makes others as large as."""

    embedding_dim: int
    numbers: int
    """In its checkpoint, beside those of its classifier."""


NETWORKS = {"resnet50": Size(2048, 23_561_205), "vggface": Size(4096, 134_260_544)}
"""By `finetune.arch`."""
HEADS = {
    "gru": (768, 5_323_783),
    "transformer": (768, 14_183_431),
    "linear": (0, 0),
    "mean": (0, 0),
}
"""Numbers in a head's checkpoint: so many for each of the embedding's, and the rest."""


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
    bytes_free: int


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
            short = "" if disk.bytes_needed <= disk.bytes_free else ": TOO LITTLE"
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
    config, situation = prepared.config, prepared.situation
    data = read_manifest(Path(str(config.manifest)), config.task, files=False)
    shards = deal(data.videos, config.slurm.shards)
    loads = [sum(map(frames_of, shard)) for shard in shards]
    rates = _rates(config, measured)
    seconds = _seconds(config, data, rates)
    jobs, parts = [], ()
    coming = {job.name: job for job in prepared.jobs}
    for job in situation.jobs.values():
        lost = situation.lost(job.name) if job.name in coming else ()
        if job.step.parts is not None and job.shards is not None:
            found = job.step.parts(Path(), job.shards)
            parts = tuple(map(_part, shards, loads, [progress.done for progress in found]))
        state = job.state(Path())
        total = seconds.get(job.section)
        hours = None if total is None else total * (1 - state.done / max(1, state.total)) / 3600
        share = max(loads) / max(1, sum(loads)) if job.shards else 1.0
        jobs.append(
            PlannedJob(
                job.name,
                job.after,
                job.shards or 1,
                len(lost),
                str(state),
                None if hours is None else hours * share,
                hours,
                _command(job, prepared) if lost else "",
                prepared.script(job) if lost else "",
            )
        )
    return Plan(
        len(data.videos),
        sum(map(frames_of, data.videos)),
        parts,
        imbalance(shards),
        tuple(jobs),
        _disks(config, data),
        rates,
        tuple(_warnings(prepared, rates)),
    )


def _part(videos: Sequence[object], frames: int, done: int) -> Part:
    return Part(len(videos), frames, done)


def _command(job: Job, prepared: Prepared) -> str:
    """The call of sbatch; what it waits for is known when the jobs before have their numbers."""
    needed = [name for name in job.after if prepared.situation.left[name]]
    waits = [f"--dependency=afterok:<{','.join(needed)}>"] if needed else []
    return shlex.join(
        ["sbatch", "--parsable", *waits, *prepared.flags_of(job), str(prepared.folder / f"{job.name}.sh")]
    )


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


def _seconds(config: Config, data: Manifest, rates: Mapping[str, float]) -> dict[str, float]:
    """What the work of each stage takes at most, in one job; the others take minutes."""
    train, validation = (sum(map(frames_of, data.split(name))) for name in ("train", "validation"))
    first, second = config.finetune, config.train_temporal
    samples = {
        "finetune": first.epochs * (train / first.every_nth_frame + validation * FORWARD_SHARE),
        "extract": sum(map(frames_of, data.videos)),
        "train_temporal": second.epochs * (train / second.stride + validation * FORWARD_SHARE),
    }
    return {stage: count / rates[stage] for stage, count in samples.items() if stage in rates}


def _disks(config: Config, data: Manifest) -> tuple[Disk, ...]:
    size = NETWORKS[config.finetune.arch or "resnet50"]
    classes = len(data.task.classes)
    width = 2 if config.extract.dtype == "float16" else 4
    frames = sum(map(frames_of, data.videos))
    rows = size.embedding_dim * width + 4 * classes + 4
    # The longest video lies there twice while it is made; how many at a time is up to the cluster: all parts.
    longest = sorted(map(frames_of, data.videos), reverse=True)[: config.slurm.shards]
    cache = rows * (frames + sum(longest)) + FILE_BYTES * len(data.videos)
    heads = [per * size.embedding_dim + rest for per, rest in map(HEADS.__getitem__, config.slurm.heads)]
    numbers = size.numbers + sum(heads) * max(1, len(config.slurm.seeds))
    # best.pt has them once, last.pt twice, and while it is written there are two of it.
    checkpoints = 4 * numbers * 5
    wanted = ((str(config.cache), cache), (str(config.out), checkpoints))
    return tuple(Disk(folder, needed, _free(Path(folder))) for folder, needed in wanted)


def _free(folder: Path) -> int:
    place = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(place).free


def _warnings(prepared: Prepared, rates: Mapping[str, float]) -> list[str]:
    lacking = [stage for stage in ("finetune", "extract", "train_temporal") if stage not in rates]
    found = []
    if lacking:
        found.append(f"hours of {', '.join(lacking)}: not known; --probe measures, or set slurm.STAGE.frames_per_s")
    try:
        slurm.check_arrays([job.shards for job in prepared.jobs if job.shards])
    except FercacheError as error:
        found.append(str(error))
    return found
