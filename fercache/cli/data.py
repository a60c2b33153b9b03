"""The commands that make a data set or list one."""

from __future__ import annotations

from pathlib import Path

import click

from fercache.cli.options import (
    PATH,
    config_options,
    lengths_option,
    out_option,
    read_config,
    required,
)
from fercache.cli.text import echo
from fercache.errors import ConfigError
from fercache.tasks import TASK_NAMES, get_task


@click.command()
@click.argument("out", type=PATH)
@click.option("--setting", metavar="NAME", help="steady (the default) or transitions.")
@config_options
def synth(out: Path, setting: str | None, config: str | None, sets: tuple[str, ...]) -> None:
    """Draw a data set of expressive faces in the Aff-Wild2 layout, as videos, into the folder OUT.

    steady: a face tells its expression in every frame. transitions: only the order of frames tells it.
    """
    c = read_config(config, "synth", sets, setting=setting)
    from fercache import runtime
    from fercache.synth import SynthSettings, synthesise

    echo(synthesise(out, SynthSettings(**vars(c.synth), seed=c.seed), runtime.thread_count(c.threads)))


@click.group("manifest")
def manifest_group() -> None:
    """List a data set's videos, frames and labels in a manifest."""


@manifest_group.command("affwild2")
@click.argument("root", type=PATH)
@click.option("--task", help=f"One of {', '.join(TASK_NAMES)}.")
@lengths_option
@click.option("--allow-unlabelled", is_flag=True, help="List the videos although none has labels of the task.")
@out_option("The manifest to write.")
@config_options
def affwild2(
    root: Path,
    task: str | None,
    lengths: Path | None,
    allow_unlabelled: bool,
    out: Path | None,
    config: str | None,
    sets: tuple[str, ...],
) -> None:
    """Make the manifest of a folder in the Aff-Wild2 layout, and print what disagreed in it.

    Below ROOT, frames are looked for in cropped_aligned/ (with or without batches) and annotations in the folder of
    the task's track; what was taken is printed. Videos without labels go to the test split.
    """
    from fercache.data.affwild2 import build_manifest, read_lengths
    from fercache.data.manifest import write_manifest

    settings = read_config(config, None, sets, task=task)
    if settings.task is None:
        raise ConfigError(f"--task is missing: one of {', '.join(TASK_NAMES)}")
    target = out if out is not None else required(settings.manifest, "--out", "manifest")
    known = read_lengths(lengths) if lengths else None
    manifest, account = build_manifest(root, get_task(settings.task), known, allow_unlabelled=allow_unlabelled)
    write_manifest(target, manifest)
    echo("\n".join([*account.lines(manifest), f"written: {target}"]))
