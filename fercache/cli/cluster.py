"""The commands of SLURM."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fercache.cli.options import PATH, Command, config_options, read_config
from fercache.cli.text import echo

if TYPE_CHECKING:
    from fercache.cluster.submission import SubmitOptions


@click.group("slurm")
def slurm_group() -> None:
    """Run the whole pipeline as a graph of SLURM's jobs: what it would take, submit it, see how it goes."""


def submission_options(command: Command) -> Command:
    """What `plan` and `submit` take alike."""
    command = click.argument("flags", nargs=-1, type=click.UNPROCESSED, metavar="[-- SBATCH FLAGS...]")(command)
    command = click.option(
        "--flags",
        "stage_flags",
        multiple=True,
        metavar="STAGE=FLAG",
        help="A flag of sbatch for the jobs of one stage, as in extract=--gres=gpu:1; may be repeated.",
    )(command)
    command = click.option(
        "--stages", metavar="NAMES", help="Only these stages, as in finetune,extract; default: all that is missing."
    )(command)
    return click.option(
        "--template", type=PATH, metavar="FILE", help="Lines for the beginning of each script; as slurm.template."
    )(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")


def _given(
    stages: str | None, template: Path | None, flags: tuple[str, ...], stage_flags: tuple[str, ...]
) -> SubmitOptions:
    from fercache.cluster.submission import SubmitOptions

    names = [name.strip() for name in stages.split(",")] if stages else []
    return SubmitOptions(names, template, flags, stage_flags)


def _submit_command(
    config: str | None,
    sets: tuple[str, ...],
    template: Path | None = None,
    stage_flags: tuple[str, ...] = (),
    flags: tuple[str, ...] = (),
) -> str:
    """The command that submits what is missing, as it would be typed."""
    words = ["fercache", "slurm", "submit", *(("-c", config) if config else ())]
    words += ["--template", str(template)] if template else []
    words += [word for text in sets for word in ("--set", text)]
    words += [word for text in stage_flags for word in ("--flags", text)]
    return shlex.join([*words, *(("--", *flags) if flags else ())])


@slurm_group.command()
@submission_options
@click.option("--probe", is_flag=True, help="Measure how fast this machine goes through a few batches of each stage.")
@json_option
@config_options
def plan(
    flags: tuple[str, ...],
    stage_flags: tuple[str, ...],
    stages: str | None,
    template: Path | None,
    probe: bool,
    as_json: bool,
    config: str | None,
    sets: tuple[str, ...],
) -> None:
    """Say what would be submitted, how long it takes, and what room it needs; nothing is queued or written.

    Hours are by the rates in the config, or by --probe, which is to be called on a machine as the jobs get one.
    """
    c = read_config(config, "slurm", sets)
    from fercache.cluster.plan import plan_submission
    from fercache.cluster.submission import prepare_submission

    prepared = prepare_submission(c, _given(stages, template, flags, stage_flags), settle=False)
    measured = {}
    if probe:
        from fercache.pipeline.probe import probe as measure

        measured = measure(prepared.config, prepared.config.slurm.heads)
    made = plan_submission(prepared, measured)
    echo(json.dumps(made.as_plain(), indent=2) if as_json else made)


@slurm_group.command()
@submission_options
@config_options
def submit(
    flags: tuple[str, ...],
    stage_flags: tuple[str, ...],
    stages: str | None,
    template: Path | None,
    config: str | None,
    sets: tuple[str, ...],
) -> None:
    """Submit the whole graph at once, or what is missing of it.

    Flags of sbatch behind -- go to every job. What is done or in the queue is not submitted again.
    """
    c = read_config(config, "slurm", sets)
    from fercache.cluster.submit import submit as send

    again = _submit_command(config, sets, template, stage_flags, flags)
    echo(send(c, _given(stages, template, flags, stage_flags), again))


@slurm_group.command()
@json_option
@config_options
def status(as_json: bool, config: str | None, sets: tuple[str, ...]) -> None:
    """Say how far each job is: done, running, waiting or failed, why, and how to go on."""
    c = read_config(config, "slurm", sets)
    from fercache.cluster.status import status as look

    found = look(c, _submit_command(config, sets))
    echo(json.dumps(found.as_plain(), indent=2) if as_json else found)
