"""What is to be submitted, with everything checked before anything is queued."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fercache.cluster.jobs import LOGS, ClusterJob, checked_config, job_graph
from fercache.cluster.launcher import JobRequest, JobState, Launcher
from fercache.cluster.launchers import get_launcher
from fercache.cluster.queue import QueueState
from fercache.cluster.record import SubmissionRecord
from fercache.config import Config, as_plain, load_config
from fercache.data.manifest import read_manifest
from fercache.errors import ConfigError, RunError, raise_problems
from fercache.pipeline.staleness import config_differences
from fercache.rundir import describe_differences

SETTLE_S = 60
"""How long to wait for jobs that are just ending."""
CHANGES_NOTHING = ("slurm.", "reproduce.", "synth.", "finetune.workers", "extract.workers", "threads")
"""Settings that may change while jobs of an earlier submission are in the queue."""


@dataclass(frozen=True)
class SubmitOptions:
    """What the command line adds to the config."""

    stages: Sequence[str] = ()
    """Only these; () means all."""
    template: Path | None = None
    """Instead of `slurm.template`."""
    flags: Sequence[str] = ()
    """The scheduler's, for every job."""
    stage_flags: Sequence[str] = ()
    """STAGE=FLAG."""


@dataclass(frozen=True)
class Submission:
    """What is to be submitted, checked."""

    config: Config
    launcher: Launcher
    folder: Path
    """For the config and the scripts."""
    state: QueueState
    jobs: tuple[ClusterJob, ...]
    """Those with tasks to submit, each behind those that it needs."""
    header: str
    """The user's lines for the beginning of each script."""
    flags: Mapping[str, Sequence[str]]
    """Of the command line, by section."""

    def request(self, job: ClusterJob, after: Sequence[str] = ()) -> JobRequest:
        """A job as the launcher is asked for it; `after`: the numbers that it waits for."""
        slurm = self.config.slurm
        return JobRequest(
            name=job.name + self.state.record.mark,
            command=(*slurm.python, "-m", "fercache", *job.step.command),
            resources=job.resources,
            script=self.folder / f"{job.name}.sh",
            logs=Path(str(self.config.out), LOGS, job.name),
            after=tuple(after),
            tasks=self.state.to_submit(job.name),
            shards=job.shards,
            at_once=slurm.at_once,
            header=self.header,
            flags=(*slurm.flags, *job.resources.flags, *self.flags[job.section]),
        )

    def check_arrays(self, patience_s: float | None = None) -> None:
        """Raise FercacheError where an array is too large for the cluster, or that is not known in time."""
        if largest := max((job.shards or 0 for job in self.jobs), default=0):
            self.launcher.check_array(largest, patience_s)


def prepare_submission(config: Config, options: SubmitOptions, *, settle: bool = True) -> Submission:
    """Check what is to be submitted in the current folder; nothing is written.

    `settle`: wait for jobs that are just ending, whose outputs may not be complete. ConfigError, DataError or RunError
    with all problems of a kind.
    """
    config = checked_config(config)
    launcher = get_launcher(config.slurm.launcher)
    read_manifest(Path(str(config.manifest)), config.task, files=False)  # its files are checked by the jobs
    record = SubmissionRecord.read(Path(str(config.out)))
    folder = record.next_folder()
    jobs = job_graph(config, ("-c", str(folder / "config.yaml")))
    flags = _flags_by_section(options, jobs)
    chosen = {stage.replace("-", "_") for stage in options.stages} or flags.keys()
    unknown = [f"--stages: found {name!r}, expected some of {_known(flags)}" for name in chosen - flags.keys()]
    raise_problems([*unknown, *_bad_flags(config, launcher, options, flags)], ConfigError)
    header = _read_header(options.template or config.slurm.template)
    state = _queue_state(jobs, record, launcher, SETTLE_S if settle else 0)
    wanted = tuple(job for job in jobs if job.section in chosen and state.to_submit(job.name))
    stale = [reason for job in jobs if (reason := job.stale())]
    raise_problems([*_missing_inputs(wanted, state), *stale, *_changed_settings(config, state)], RunError)
    return Submission(config, launcher, folder, state, wanted, header, flags)


def _flags_by_section(options: SubmitOptions, jobs: Sequence[ClusterJob]) -> dict[str, list[str]]:
    """The command line's flags for the jobs of each section; ConfigError for texts that are not STAGE=FLAG."""
    flags = {job.section: list(options.flags) for job in jobs}
    problems = []
    for text in options.stage_flags:
        stage, equals, flag = text.partition("=")
        if equals and (section := stage.replace("-", "_")) in flags:
            flags[section].append(flag)
        else:
            problems.append(
                f"--flags: found {text!r}, expected STAGE=FLAG, as in extract=--gres=gpu:1, with a stage of"
                f" {_known(flags)}"
            )
    raise_problems(problems, ConfigError)
    return flags


def _known(flags: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(sorted(flags))


def _bad_flags(
    config: Config, launcher: Launcher, options: SubmitOptions, flags: Mapping[str, Sequence[str]]
) -> list[str]:
    slurm, count = config.slurm, len(options.flags)
    sources = {"slurm.flags": slurm.flags, "flags behind --": options.flags}
    for section, words in flags.items():
        sources[f"slurm.{section}.flags"] = getattr(slurm, section).flags
        sources[f"--flags {section}"] = words[count:]
    return launcher.problems(Path(str(config.out)), sources)


def _read_header(template: Path | str | None) -> str:
    if template is None:
        return ""
    try:
        return Path(template).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{template}: the template cannot be read: {error}") from error


def _queue_state(
    jobs: Sequence[ClusterJob], record: SubmissionRecord, launcher: Launcher, patience_s: float
) -> QueueState:
    """The state of the queue; RunError for jobs of the project that are in it but not in the record."""
    until = time.monotonic() + patience_s
    # A first plan needs no scheduler.
    queue = launcher.states() if record.jobs or patience_s else []
    while time.monotonic() < until and any(
        job.state == JobState.ENDING and job.name.endswith(record.mark) for job in queue
    ):
        time.sleep(1)
        queue = launcher.states()
    state = QueueState(jobs, record, queue)
    numbers = " ".join(str(number) for number, _ in state.unrecorded)
    problems = [
        f"job {number}: {name} of this project is in the queue but not in {record.path}; cancel {numbers}, or wait"
        for number, name in state.unrecorded
    ]
    raise_problems(problems, RunError)
    return state


def _missing_inputs(wanted: Sequence[ClusterJob], state: QueueState) -> Iterator[str]:
    """What jobs need that does not exist and that no job makes."""
    outputs = {job.step.output for job in state.jobs.values()}
    coming = {job.name for job in wanted}
    for job in wanted:
        for name in job.step.inputs:
            if name not in outputs and not Path(name).exists():
                yield f"{job.name}: needs {name}, which does not exist"
        for name in job.after:
            if name not in coming and not set(state.unfinished[name]) <= state.active[name].keys():
                yield f"{job.name}: needs {name}, which is not done, and is neither submitted nor among the stages"


def _changed_settings(config: Config, state: QueueState) -> Iterator[str]:
    """Settings that differ from those of the jobs in the queue."""
    active = {name: [record for record, _ in tasks.values()] for name, tasks in state.active.items()}
    for number in sorted({record.submission for records in active.values() for record in records}):
        path = state.record.folder(number) / "config.yaml"
        differences = [
            difference
            for difference in config_differences(as_plain(load_config(str(path))), as_plain(config))
            if not difference.key.startswith(CHANGES_NOTHING)
        ]
        if differences:
            words = describe_differences(differences)
            yield f"{path}: jobs with different settings are in the queue ({words}); let them end, or cancel them"
    for name, records in active.items():
        for shards in {record.shards for record in records} - {state.jobs[name].shards}:
            yield f"slurm.shards: jobs that deal the videos into {shards} shards are in the queue; cancel them"
