"""The graph of jobs, given to SLURM at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fercache import runtime
from fercache.cluster import slurm
from fercache.cluster.jobs import LOGS, Job, array, check_flags, checked, flags, graph, script
from fercache.cluster.record import Record, Submitted
from fercache.cluster.situation import Situation
from fercache.config import Config, as_plain, load_config
from fercache.data.manifest import read_manifest
from fercache.errors import ConfigError, FercacheError, RunError, raise_problems
from fercache.files import write_text
from fercache.pipeline.project import config_as_yaml
from fercache.pipeline.staleness import config_differences
from fercache.rundir import describe_differences

log = logging.getLogger(__name__)

ENDING_S = 60
"""How long jobs that are just ending are waited for."""
CHANGES_NOTHING = ("slurm.", "reproduce.", "synth.", "finetune.workers", "extract.workers", "threads")
"""Settings that may be others while jobs of an earlier submission are in the queue."""


@dataclass(frozen=True)
class Given:
    """What the command line says beside the config."""

    stages: Sequence[str] = ()
    """Those alone; nothing means all."""
    template: Path | None = None
    """Instead of `slurm.template`."""
    flags: Sequence[str] = ()
    """Of sbatch, for every job."""
    stage_flags: Sequence[str] = ()
    """STAGE=FLAG."""


@dataclass(frozen=True)
class Prepared:
    """What is to be submitted, with everything that was given checked."""

    config: Config
    folder: Path
    """Of this submission's config and scripts."""
    logs: Path
    situation: Situation
    jobs: tuple[Job, ...]
    """Those of which something is to be submitted, each behind those that it needs."""
    template: str
    flags: Sequence[str]
    """For every job."""
    stage_flags: Mapping[str, Sequence[str]]

    def script(self, job: Job) -> str:
        """The text that SLURM is given."""
        return script(job, self.config, self.template, self.logs)

    def flags_of(self, job: Job) -> list[str]:
        """The flags of sbatch, without the dependency."""
        more = [*self.flags, *self.stage_flags.get(job.section, ())]
        found = flags(job, self.config, self.logs, self.situation.record.mark, more)
        if job.shards is not None:
            found.insert(0, array(self.situation.to_submit(job.name), self.config.slurm.at_once))
        return found


def prepare(config: Config, given: Given, *, settle: bool = True) -> Prepared:
    """Check what is to be submitted in the current folder; nothing is written.

    `settle`: wait for jobs that are just ending, of which it is not known yet whether they are done. ConfigError,
    DataError and RunError for all problems of a kind at once.
    """
    config = checked(config)
    # The label files and frames are for the jobs to look at.
    read_manifest(Path(str(config.manifest)), config.task, files=False)
    out = Path(str(config.out))
    record = Record.read(out)
    folder = record.folder(max((job.submission for job in record.jobs), default=0) + 1)
    jobs = graph(config, ("-c", str(folder / "config.yaml")))
    known = {job.section for job in jobs}
    chosen = {stage.replace("-", "_") for stage in given.stages} or known
    unknown = [f"--stages: found {name!r}, expected some of {', '.join(sorted(known))}" for name in chosen - known]
    raise_problems(unknown, ConfigError)
    more = _by_stage(given.stage_flags, known)
    _check_flags(config, given, more)
    path = given.template or (Path(config.slurm.template) if config.slurm.template else None)
    template = _read(path)
    situation = _situation(jobs, record, settle)
    wanted = tuple(job for job in jobs if job.section in chosen and situation.to_submit(job.name))
    problems = [*_unmet(wanted, jobs, situation), *_unfit(jobs), *_changed(config, situation)]
    raise_problems(problems, RunError)
    return Prepared(config, folder, out / LOGS, situation, wanted, template, given.flags, more)


def submit(config: Config, given: Given, command: str) -> str:
    """Give the jobs to SLURM, each with what it waits for, all or none; returns what was done with each.

    Jobs of earlier submissions that wait for what has failed are replaced. `command` is what goes on with what is
    missing, as `status` says later. Raises as `prepare`; FercacheError where a job is refused: those before it are
    cancelled then.
    """
    config = checked(config)
    with Record.read(Path(str(config.out))).alone(), runtime.stop_signals() as stop:
        prepared = prepare(config, given)
        situation = prepared.situation
        slurm.check_arrays([job.shards for job in prepared.jobs if job.shards])
        replaced = sorted({number for job in prepared.jobs for number in situation.dead[job.name]})
        submitted = _submit(prepared, command, stop) if prepared.jobs else []
        if replaced:
            slurm.cancel(replaced)
            log.info("cancelled, since they wait for what has failed or changed: %s", _list(replaced))
    return _told(situation, submitted)


def _submit(prepared: Prepared, command: str, stop: runtime.StopFlag) -> list[Submitted]:
    situation = prepared.situation
    write_text(prepared.folder / "config.yaml", config_as_yaml(prepared.config))
    record, submitted = situation.record, []
    try:
        for job in prepared.jobs:
            stop.check()
            submitted.append(_submit_one(job, prepared, submitted))
            record = record.written([*situation.record.jobs, *submitted], command)
        stop.check()
    except BaseException as error:
        _take_back(submitted, situation.record, error)
        raise
    return submitted


def _submit_one(job: Job, prepared: Prepared, before: Sequence[Submitted]) -> Submitted:
    (prepared.logs / job.name).mkdir(parents=True, exist_ok=True)
    path = prepared.folder / f"{job.name}.sh"
    write_text(path, prepared.script(job))
    after = _dependencies(job, prepared.situation, before)
    waits = [f"--dependency=afterok:{':'.join(after)}"] if after else []
    number = slurm.submit([*waits, *prepared.flags_of(job)], str(path))
    tasks = prepared.situation.to_submit(job.name)
    return Submitted(job.name, number, tasks, job.shards, tuple(after), int(prepared.folder.name))


def _take_back(submitted: list[Submitted], before: Record, error: BaseException) -> None:
    """Cancel the jobs that were submitted before something failed, and say so."""
    if not submitted:
        return
    numbers = [job.number for job in submitted]
    words = f"the {len(numbers)} jobs submitted before it ({_list(numbers)})"
    try:
        slurm.cancel(numbers)
    except FercacheError as other:
        raise RunError(f"{error}; {words} could not be cancelled: {other}") from error
    before.written(before.jobs, before.command)
    if isinstance(error, FercacheError):
        raise RunError(f"{error}; {words} are cancelled") from error
    log.error("%s are cancelled", words)


def _dependencies(job: Job, situation: Situation, submitted: Sequence[Submitted]) -> list[str]:
    """What a job waits for, in SLURM's words: jobs of this submission, and tasks that are in the queue already."""
    new = [str(other.number) for other in submitted if other.name in job.after]
    old = [
        f"{other.number}_{task}" if other.shards else str(other.number)
        for name in job.after
        for task, (other, _) in situation.live[name].items()
    ]
    return [*new, *old]


def _situation(jobs: Sequence[Job], record: Record, settle: bool) -> Situation:
    """How the jobs stand. RunError where some are in the queue of which the record knows nothing."""
    until = time.monotonic() + (ENDING_S if settle else 0)
    queue = slurm.queued(record.mark) if record.jobs or settle else []
    while time.monotonic() < until and any(job.state == "COMPLETING" for job in queue):
        time.sleep(1)
        queue = slurm.queued(record.mark)
    found = Situation(jobs, Path(), record, queue)
    numbers = " ".join(str(number) for number, _ in found.strays)
    strays = [
        f"job {number}: {name} of this project is in the queue, and not in {record.path}; scancel {numbers}, or wait"
        for number, name in found.strays
    ]
    raise_problems(strays, RunError)
    return found


def _by_stage(texts: Sequence[str], known: set[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    problems = []
    for text in texts:
        stage, equals, flag = text.partition("=")
        if not equals or stage.replace("-", "_") not in known:
            problems.append(
                f"--flags: found {text!r}, expected STAGE=FLAG, as in extract=--gres=gpu:1, with a stage of"
                f" {', '.join(sorted(known))}"
            )
        found.setdefault(stage.replace("-", "_"), []).append(flag)
    raise_problems(problems, ConfigError)
    return found


def _check_flags(config: Config, given: Given, more: Mapping[str, Sequence[str]]) -> None:
    check_flags("slurm.flags", config.slurm.flags)
    for stage in ("finetune", "extract", "train_temporal", "predict", "ensemble", "report"):
        check_flags(f"slurm.{stage}.flags", getattr(config.slurm, stage).flags)
    check_flags("sbatch's flags", given.flags)
    for stage, words in more.items():
        check_flags(f"--flags {stage}", words)


def _read(template: Path | None) -> str:
    if template is None:
        return ""
    try:
        return template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{template}: the template cannot be read: {error}") from error


def _unmet(wanted: Sequence[Job], jobs: Sequence[Job], situation: Situation) -> Iterator[str]:
    """What jobs need that is neither there nor made by a job."""
    made = {job.step.output for job in jobs}
    coming = {job.name for job in wanted}
    for job in wanted:
        for name in job.step.inputs:
            if name not in made and not Path(name).exists():
                yield f"{job.name}: needs {name}, which is not there"
        for name in job.after:
            lacking = set(situation.unfinished[name]) - set(situation.live[name])
            if lacking and name not in coming:
                yield f"{job.name}: needs {name}, which is not done, and is neither submitted nor among the stages"


def _unfit(jobs: Sequence[Job]) -> Iterator[str]:
    """What is there and was made by other settings, or from something else: it would be passed over, or refused."""
    for job in jobs:
        if reason := job.unfit(Path()):
            yield reason


def _changed(config: Config, situation: Situation) -> Iterator[str]:
    """Settings that are others now than those of the jobs in the queue."""
    now = as_plain(config)
    for number in sorted({job.submission for tasks in situation.live.values() for job, _ in tasks.values()}):
        path = situation.record.folder(number) / "config.yaml"
        found = config_differences(as_plain(load_config(str(path))), now)
        if words := describe_differences([one for one in found if not one.key.startswith(CHANGES_NOTHING)]):
            yield f"{path}: jobs with other settings are in the queue ({words}); let them end, or scancel them"
    for name, tasks in situation.live.items():
        others = {job.shards for job, _ in tasks.values()} - {situation.jobs[name].shards}
        if others:
            yield f"slurm.shards: jobs that deal the videos into {others.pop()} parts are in the queue; scancel them"


def _told(situation: Situation, submitted: Sequence[Submitted]) -> str:
    """What was submitted, in a table, and what was not."""
    by_name = {job.name: job for job in submitted}
    rows = []
    for name, live in situation.live.items():
        if name in by_name:
            job = by_name[name]
            count = f", {len(job.tasks)} tasks" if job.shards else ""
            rows.append((name, f"job {job.number}{count}" + (f", after {', '.join(job.after)}" if job.after else "")))
        elif live:
            rows.append((name, f"in the queue already: job {_list({job.number for job, _ in live.values()})}"))
        else:
            rows.append((name, "left out" if situation.left[name] else "done"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {words}" for name, words in rows)


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
