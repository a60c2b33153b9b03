"""The commands that make a data set or list one."""

from __future__ import annotations

from pathlib import Path

import click

from fercache.cli.command import ConfigCommand
from fercache.cli.options import PATH, out_option, required
from fercache.cli.text import echo
from fercache.config import Config
from fercache.errors import ConfigError
from fercache.tasks import get_task
from fercache.tools.names import NAMES


@click.command(
    cls=ConfigCommand,
    section="synth",
    reads=("seed", "threads"),
    options=("setting", "image_size", "seed", "threads"),
    examples=("fercache synth synthetic", "fercache synth moving --setting transitions --set train=12"),
)
@click.argument("out", type=PATH)
def synth(out: Path, config: Config) -> None:
    """Draw a synthetic data set in the Aff-Wild2 layout.

    The faces of its videos move by action units; the folder OUT gets frames and annotations.
    """
    from fercache import runtime
    from fercache.synth import SynthSettings, synthesise

    echo(synthesise(out, SynthSettings(**vars(config.synth), seed=config.seed), runtime.thread_count(config.threads)))


@click.group("manifest")
def manifest_group() -> None:
    """List a data set's videos, splits and labels."""


@manifest_group.command(
    "affwild2",
    cls=ConfigCommand,
    reads=("task", "manifest"),
    options=("task",),
    examples=("fercache manifest affwild2 affwild2 --task expr -o data_manifests/expr.csv --lengths lengths.csv",),
)
@click.argument("root", type=PATH)
@click.option("--lengths", type=PATH, metavar="FILE", help="CSV of video_id,frames: the true lengths of videos.")
@click.option("--allow-unlabelled", is_flag=True, help="List the videos although none has labels of the task.")
@out_option("The manifest to write.  [default: `manifest` in the config]")
def affwild2(root: Path, lengths: Path | None, allow_unlabelled: bool, out: Path | None, config: Config) -> None:
    """Make the manifest of a folder in the Aff-Wild2 layout.

    Takes frames from ROOT/cropped_aligned/ (with or without batches) and annotations from the folder of the task's
    track, and prints which folders it took and where they disagree. Videos without labels go to the test split.
    """
    from fercache.data.affwild2 import build_manifest, read_lengths
    from fercache.data.manifest import write_manifest

    if config.task is None:
        raise ConfigError(f"--task is missing: one of {', '.join(NAMES['task']())}")
    target = out if out is not None else required(config.manifest, "--out", "manifest")
    known = read_lengths(lengths) if lengths else None
    manifest, account = build_manifest(root, get_task(config.task), known, allow_unlabelled=allow_unlabelled)
    write_manifest(target, manifest)
    echo("\n".join([*account.lines(manifest), f"written: {target}"]))
