"""The commands of SLURM."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fercache.cli.command import STAGES, TYPED_CONFIG, ConfigCommand
from fercache.cli.options import PATH, Command, json_option
from fercache.cli.text import echo
from fercache.cluster.launchers import LAUNCHERS
from fercache.config import Config
from fercache.tools.names import NAMES

if TYPE_CHECKING:
    from fercache.cluster.submission import SubmitOptions

NAMES["slurm.launcher"] = lambda: LAUNCHERS
READS = ("task", "seed", "threads", "manifest", "cache", "out", *STAGES)


@click.group("slurm")
def slurm_group() -> None:
    """Run the full pipeline as SLURM jobs.

    Plan what it takes, submit it, and follow its progress.
    """


def submission_options(command: Command) -> Command:
    """The options of both `plan` and `submit`."""
    command = click.argument("flags", nargs=-1, type=click.UNPROCESSED, metavar="[-- SBATCH FLAGS...]")(command)
    command = click.option(
        "--flags",
        "stage_flags",
        multiple=True,
        metavar="STAGE=FLAG",
        help="An sbatch flag for the jobs of one stage, as in extract=--gres=gpu:1; may be repeated.",
    )(command)
    command = click.option(
        "--stages", metavar="NAMES", help="Only these stages, as in finetune,extract.  [default: all that is missing]"
    )(command)
    return click.option(
        "--template", type=PATH, metavar="FILE", help="Lines for the beginning of each script, as slurm.template."
    )(command)


def _submit_options(
    stages: str | None, template: Path | None, flags: tuple[str, ...], stage_flags: tuple[str, ...]
) -> SubmitOptions:
    from fercache.cluster.submission import SubmitOptions

    names = [name.strip() for name in stages.split(",")] if stages else []
    return SubmitOptions(names, template, flags, stage_flags)


def _submit_command(
    template: Path | None = None, stage_flags: tuple[str, ...] = (), flags: tuple[str, ...] = ()
) -> str:
    """The command that submits what is missing, with the config of the command that runs."""
    source, sets = click.get_current_context().meta[TYPED_CONFIG]
    words = ["fercache", "slurm", "submit", *(("-c", source) if source else ())]
    words += ["--template", str(template)] if template else []
    words += [word for text in sets for word in ("--set", text)]
    words += [word for text in stage_flags for word in ("--flags", text)]
    return shlex.join([*words, *(("--", *flags) if flags else ())])


@slurm_group.command(
    cls=ConfigCommand,
    section="slurm",
    reads=READS,
    examples=("fercache slurm plan -c abaw2021_expr", "srun --gres=gpu:1 fercache slurm plan --probe"),
)
@submission_options
@click.option("--probe", is_flag=True, help="Measure the speed of this machine on a few batches of each stage.")
@json_option
def plan(
    flags: tuple[str, ...],
    stage_flags: tuple[str, ...],
    stages: str | None,
    template: Path | None,
    probe: bool,
    as_json: bool,
    config: Config,
) -> None:
    """Print what would be submitted, its hours and disk space.

    Nothing is queued or written. Hours come from the rates in the config (slurm.extract.frames_per_s), or from
    --probe, which should run on a machine like those of the jobs.
    """
    from fercache.cluster.plan import plan_submission
    from fercache.cluster.submission import prepare_submission

    prepared = prepare_submission(config, _submit_options(stages, template, flags, stage_flags), settle=False)
    measured = {}
    if probe:
        from fercache.pipeline.probe import probe as measure

        measured = measure(prepared.config, prepared.config.slurm.heads)
    result = plan_submission(prepared, measured)
    echo(json.dumps(result.as_plain(), indent=2) if as_json else result)


@slurm_group.command(
    cls=ConfigCommand,
    section="slurm",
    reads=READS,
    examples=("fercache slurm submit -c abaw2021_expr -- --partition=gpu --account=faces",),
)
@submission_options
def submit(
    flags: tuple[str, ...],
    stage_flags: tuple[str, ...],
    stages: str | None,
    template: Path | None,
    config: Config,
) -> None:
    """Submit the pipeline, or what is missing of it.

    sbatch flags after -- go to every job. What is done or in the queue is not submitted again.
    """
    from fercache.cluster.submit import submit as send

    again = _submit_command(template, stage_flags, flags)
    echo(send(config, _submit_options(stages, template, flags, stage_flags), again))


@slurm_group.command(
    cls=ConfigCommand, section="slurm", reads=READS, examples=("fercache slurm status -c abaw2021_expr",)
)
@json_option
def status(as_json: bool, config: Config) -> None:
    """Print the state of each job.

    Done, running, waiting or failed, with the reason and the command that resumes.
    """
    from fercache.cluster.status import status as look

    states = look(config, _submit_command())
    echo(json.dumps(states.as_plain(), indent=2) if as_json else states)
