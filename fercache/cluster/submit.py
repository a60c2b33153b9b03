"""The graph of jobs, given to SLURM at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fercache.cluster import slurm
from fercache.cluster.jobs import LOGS, Job, array, checked, flags, graph, script
from fercache.cluster.record import Record, Submitted
from fercache.cluster.situation import Situation
from fercache.config import Config, as_plain, load_config
from fercache.errors import ConfigError, FercacheError, RunError, raise_problems
from fercache.files import write_text
from fercache.pipeline import project
from fercache.rundir import RunDir

log = logging.getLogger(__name__)

ENDING_S = 60
"""How long jobs that are just ending are waited for."""
CHANGES_NOTHING = ("slurm.", "reproduce.", "synth.", "finetune.workers", "extract.workers", "threads")
"""Settings that may be others while jobs of an earlier submission are in the queue."""


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
        more = [*self.stage_flags.get(job.section, ()), *self.flags]
        found = flags(job, self.config, self.logs, more)
        if job.shards is not None:
            found.insert(0, array(self.situation.lost(job.name), self.config.slurm.at_once))
        return found


def prepare(
    config: Config,
    *,
    stages: Sequence[str] = (),
    template: Path | None = None,
    flags: Sequence[str] = (),
    stage_flags: Sequence[str] = (),
) -> Prepared:
    """Check what is to be submitted in the current folder; nothing is written.

    `stages`: those alone; nothing means all. `stage_flags`: STAGE=FLAG. ConfigError and RunError for all problems at
    once.
    """
    config = checked(config)
    out = Path(str(config.out))
    record = Record.read(out)
    folder = record.folder(max((job.submission for job in record.jobs), default=0) + 1)
    jobs = graph(config, ("-c", str(folder / "config.yaml")))
    known = {job.section for job in jobs}
    more = _by_stage(stage_flags, known)
    chosen = {stage.replace("-", "_") for stage in stages} or known
    unknown = [f"--stages: found {name!r}, expected some of {', '.join(sorted(known))}" for name in chosen - known]
    raise_problems(unknown, ConfigError)
    found = _settled(jobs, record)
    wanted = tuple(job for job in jobs if job.section in chosen and found.lost(job.name))
    problems = [*_unmet(wanted, jobs, found), *_changed(config, jobs, found)]
    raise_problems(problems, RunError)
    path = template or (Path(config.slurm.template) if config.slurm.template else None)
    return Prepared(config, folder, out / LOGS, found, wanted, _read(path), flags, more)


def submit(prepared: Prepared) -> list[Submitted]:
    """Give the jobs to SLURM, each with what it waits for; all or none.

    Jobs of earlier submissions that wait for what has failed are taken out of the queue before. FercacheError where a
    job is refused: those before it are cancelled then.
    """
    situation = prepared.situation
    slurm.check_arrays([job.shards for job in prepared.jobs if job.shards])
    if situation.dead:
        slurm.cancel(sorted(situation.dead))
        log.info("cancelled, since they wait for what has failed: %s", ", ".join(map(str, sorted(situation.dead))))
    if not prepared.jobs:
        return []
    write_text(prepared.folder / "config.yaml", project.as_yaml(prepared.config))
    record, submitted = situation.record, []
    submission = int(prepared.folder.name)
    try:
        for job in prepared.jobs:
            (prepared.logs / job.name).mkdir(parents=True, exist_ok=True)
            path = prepared.folder / f"{job.name}.sh"
            write_text(path, prepared.script(job))
            needed = _dependencies(job, situation, submitted)
            waits = [f"--dependency=afterok:{':'.join(needed)}"] if needed else []
            number = slurm.submit([*waits, *prepared.flags_of(job)], str(path))
            after = tuple(dict.fromkeys(int(one.partition("_")[0]) for one in needed))
            submitted.append(Submitted(job.name, number, situation.lost(job.name), job.shards, after, submission))
            record = record.written([*situation.record.jobs, *submitted])
    except BaseException as error:
        _take_back(submitted, record, situation.record, error)
        raise
    return submitted


def _take_back(submitted: list[Submitted], record: Record, before: Record, error: BaseException) -> None:
    """Cancel the jobs that were submitted before something failed, and say so."""
    if not submitted:
        return
    numbers = [job.number for job in submitted]
    words = f"the {len(numbers)} jobs submitted before it ({', '.join(map(str, numbers))})"
    try:
        slurm.cancel(numbers)
    except FercacheError as other:
        raise RunError(f"{error}; {words} could not be cancelled: {other}") from error
    record.written(before.jobs)
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


def _settled(jobs: Sequence[Job], record: Record) -> Situation:
    """How the jobs stand, once none is just ending: only then is it known whether it is done."""
    numbers = [job.number for job in record.jobs]
    until = time.monotonic() + ENDING_S
    while True:
        queue = slurm.queued(numbers)
        if time.monotonic() > until or all(job.state != "COMPLETING" for job in queue):
            return Situation(jobs, Path(), record, queue)
        time.sleep(1)


def _by_stage(texts: Sequence[str], known: set[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    problems = []
    for text in texts:
        stage, equals, flag = text.partition("=")
        if not equals or stage.replace("-", "_") not in known or not flag.startswith("-"):
            problems.append(
                f"--flags: found {text!r}, expected STAGE=FLAG, as in extract=--gres=gpu:1, with a stage of"
                f" {', '.join(sorted(known))}"
            )
        found.setdefault(stage.replace("-", "_"), []).append(flag)
    raise_problems(problems, ConfigError)
    return found


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
            if situation.lost(name) and name not in coming:
                yield f"{job.name}: needs {name}, which is not done, and is neither submitted nor among the stages"


def _changed(config: Config, jobs: Sequence[Job], situation: Situation) -> Iterator[str]:
    """Settings that are others now than those of what is done or in the queue, and would be passed over."""
    now = as_plain(config)
    for number in sorted({job.submission for tasks in situation.live.values() for job, _ in tasks.values()}):
        path = situation.record.folder(number) / "config.yaml"
        found = project.differences(as_plain(load_config(str(path))), now)
        if words := project.in_words(one for one in found if not one[0].startswith(CHANGES_NOTHING)):
            yield f"{path}: jobs with other settings are in the queue ({words}); let them end, or scancel them"
    for name, tasks in situation.live.items():
        others = {job.shards for job, _ in tasks.values()} - {situation.jobs[name].shards}
        if others:
            yield f"slurm.shards: jobs that deal the videos into {others.pop()} parts are in the queue; scancel them"
    for job in jobs:
        if job.step.settings is not None and not situation.left[job.name]:
            run = RunDir(Path(str(job.step.output)).parent)
            if words := project.in_words(run.changed(job.step.settings)):
                yield f"{run.path}: is done with other settings ({words}); keep them, or remove it"


def told(prepared: Prepared, submitted: Sequence[Submitted]) -> str:
    """What was submitted, in a table, and what was not."""
    situation = prepared.situation
    by_name = {job.name: job for job in submitted}
    rows = []
    for name in situation.jobs:
        live = situation.live[name]
        if name in by_name:
            job = by_name[name]
            count = f", {len(job.tasks)} tasks" if job.shards else ""
            rows.append((name, f"job {job.number}{count}" + (f", after {_list(job.after)}" if job.after else "")))
        elif live:
            rows.append((name, f"in the queue already: job {_list({job.number for job, _ in live.values()})}"))
        else:
            rows.append((name, "left out" if situation.left[name] else "done"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {words}" for name, words in rows)


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
