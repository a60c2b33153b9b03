"""The commands of what came out: fuse it, score it, write it down, show it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fercache.cli.options import (
    PATH,
    config_options,
    manifest_option,
    out_option,
    read_config,
    required,
    result_path,
)
from fercache.cli.text import echo
from fercache.errors import ConfigError
from fercache.results.export_formats import EXPORT_FORMATS

DEFAULT_PREDICTIONS = ("cnn", "gru", "transformer")
"""The runs whose validation predictions an ensemble takes where none are named."""


@click.command()
@click.option("--search", "searching", is_flag=True, help="Search the weights on the predictions' split.")
@click.option("--apply", "applied", type=PATH, metavar="FILE", help="Fuse predictions with the weights in FILE.")
@click.option("--folds", type=int, metavar="K", help="Parts of the recordings that are held out in turn; 0: none.")
@click.argument("predictions", nargs=-1, type=PATH)
@manifest_option
@out_option("--search: the folder of ensemble.json (default: OUT/ensemble). --apply: the predictions file.")
@config_options
def ensemble(
    searching: bool,
    applied: Path | None,
    folds: int | None,
    predictions: tuple[Path, ...],
    manifest: str | None,
    out: Path | None,
    config: str | None,
    sets: tuple[str, ...],
) -> None:
    """Search the weights of several models' probabilities and say what they are worth, or apply them.

    PREDICTIONS are the models' files; left out, the config's, or those of cnn, gru and transformer
    on validation in its `out`.
    """
    if searching == (applied is not None):
        raise click.UsageError("give one of --search and --apply FILE")
    c = read_config(config, "ensemble", sets, manifest=manifest, folds=folds)
    paths = predictions or tuple(map(Path, c.ensemble.predictions)) or _default_predictions(c.out)
    from fercache.results.ensemble_file import read_ensemble
    from fercache.results.ensemble_words import describe_search
    from fercache.stages.ensemble import apply_ensemble, search_ensemble

    if applied is not None:
        if out is None:
            raise ConfigError("--out is missing: name the predictions file to write")
        echo(apply_ensemble(applied, paths, out))
        return
    source = required(c.manifest, "--manifest", "manifest")
    file = search_ensemble(source, paths, result_path(out, c, "ensemble"), c.ensemble, task=c.task, seed=c.seed)
    echo(f"{describe_search(read_ensemble(file))}\n\n{file}")


def _default_predictions(project: str | None) -> tuple[Path, ...]:
    folder = required(project, "PREDICTIONS", "ensemble.predictions")
    paths = {run: folder / f"{run}-validation.h5" for run in DEFAULT_PREDICTIONS}
    missing = [
        f"{path} is missing: `fercache predict --model {folder / run}` makes it"
        for run, path in paths.items()
        if not path.exists()
    ]
    if missing:
        raise ConfigError("\n".join(missing))
    return tuple(paths.values())


@click.command()
@click.argument("predictions", nargs=-1, required=True, type=PATH)
@click.option("--videos", is_flag=True, help="Print the scores of each video, too.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON list.")
@manifest_option
@config_options
def evaluate(
    predictions: tuple[Path, ...],
    videos: bool,
    as_json: bool,
    manifest: str | None,
    config: str | None,
    sets: tuple[str, ...],
) -> None:
    """Print the scores of predictions files: F1, accuracy, E with its interval, by class, calibration, confusion."""
    c = read_config(config, None, sets, manifest=manifest)
    source = required(c.manifest, "--manifest", "manifest")
    from fercache.stages.evaluate import as_plain, describe
    from fercache.stages.evaluate import evaluate as stage

    found = stage(source, predictions, task=c.task)
    echo(json.dumps(list(map(as_plain, found)), indent=2) if as_json else describe(found, videos=videos))


@click.command()
@click.argument("predictions", type=PATH)
@click.argument("out", type=PATH)
@click.option(
    "--format", "form", type=click.Choice(list(EXPORT_FORMATS)), default=next(iter(EXPORT_FORMATS)), show_default=True
)
@manifest_option
@config_options
def export(
    predictions: Path, out: Path, form: str, manifest: str | None, config: str | None, sets: tuple[str, ...]
) -> None:
    """Write a file for each video with a line for every frame, faces or not, into the new folder OUT."""
    c = read_config(config, None, sets, manifest=manifest)
    source = required(c.manifest, "--manifest", "manifest")
    from fercache.stages.export import export as stage

    echo(stage(predictions, source, out, form, task=c.task))


@click.command()
@click.argument("folder", type=PATH)
@click.option("--split", default="validation", show_default=True, help="Which predictions in the folder.")
@click.option("--video", "videos", multiple=True, metavar="ID", help="A video whose time line is shown; repeatable.")
@manifest_option
@out_option("The page to write; default: FOLDER/report.html.")
@config_options
def report(
    folder: Path,
    split: str,
    videos: tuple[str, ...],
    manifest: str | None,
    out: Path | None,
    config: str | None,
    sets: tuple[str, ...],
) -> None:
    """Write one page to look at, of the predictions, ensembles and runs in FOLDER: it needs no network.

    Scores with intervals, weights, training curves, confusion, calibration, and time lines of the videos that are
    named, or of the best, the middle and the worst one.
    """
    c = read_config(config, None, sets, manifest=manifest)
    source = required(c.manifest, "--manifest", "manifest")
    from fercache.report import report as stage

    echo(stage(folder, source, out, split=split, videos=videos, task=c.task))
