"""The commands of results: combine models, score them, export and show predictions."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fercache.cli.command import ConfigCommand
from fercache.cli.options import PATH, json_option, out_option, required, required_manifest, result_path
from fercache.cli.text import echo
from fercache.config import Config
from fercache.errors import ConfigError, raise_problems
from fercache.results.export_formats import EXPORT_FORMATS

DEFAULT_PREDICTIONS = ("cnn", "gru", "transformer")
"""The runs whose validation predictions an ensemble takes where none are named."""


@click.command(
    cls=ConfigCommand,
    section="ensemble",
    reads=("task", "seed", "manifest", "out"),
    options=("manifest", "folds", "seed"),
    examples=(
        "fercache ensemble --search --manifest small.csv cnn.h5 gru.h5 transformer.h5 --out ensemble",
        "fercache ensemble --apply ensemble/ensemble.json cnn.h5 gru.h5 transformer.h5 -o all.h5",
    ),
)
@click.option("--search", "searching", is_flag=True, help="Search the weights on the split of the predictions.")
@click.option("--apply", "applied", type=PATH, metavar="FILE", help="Combine predictions with the weights in FILE.")
@click.argument("predictions", nargs=-1, type=PATH)
@out_option("--search: the folder of ensemble.json.  [default: OUT/ensemble] --apply: the predictions file.")
def ensemble(
    searching: bool, applied: Path | None, predictions: tuple[Path, ...], out: Path | None, config: Config
) -> None:
    """Search or apply the weights of several models.

    PREDICTIONS are the models' files (default: `ensemble.predictions` in the config, else the validation predictions
    of cnn, gru and transformer in its `out`). The search prints a cross-validated report of the gain.
    """
    if searching == (applied is not None):
        raise click.UsageError("give one of --search and --apply FILE")
    paths = predictions or tuple(map(Path, config.ensemble.predictions)) or _default_predictions(config.out)
    from fercache.results.ensemble_file import read_ensemble
    from fercache.results.ensemble_words import describe_search
    from fercache.stages.ensemble import apply_ensemble, search_ensemble

    if applied is not None:
        if out is None:
            raise ConfigError("--out is missing: name the predictions file to write")
        echo(apply_ensemble(applied, paths, out))
        return
    manifest, target = required_manifest(config), result_path(out, config, "ensemble")
    file = search_ensemble(manifest, paths, target, config.ensemble, task=config.task, seed=config.seed)
    echo(f"{describe_search(read_ensemble(file))}\n\n{file}")


def _default_predictions(project: str | None) -> tuple[Path, ...]:
    folder = required(project, "PREDICTIONS", "ensemble.predictions")
    paths = {run: folder / f"{run}-validation.h5" for run in DEFAULT_PREDICTIONS}
    missing = [
        f"{path} is missing: `fercache predict --model {folder / run}` makes it"
        for run, path in paths.items()
        if not path.exists()
    ]
    raise_problems(missing, ConfigError)
    return tuple(paths.values())


READS = ("task", "manifest")


@click.command(
    cls=ConfigCommand,
    reads=READS,
    options=("manifest",),
    examples=("fercache evaluate --manifest small.csv cnn.h5 gru.h5 all.h5",),
)
@click.argument("predictions", nargs=-1, required=True, type=PATH)
@click.option("--videos", is_flag=True, help="Print the scores of each video, too.")
@json_option
def evaluate(predictions: tuple[Path, ...], videos: bool, as_json: bool, config: Config) -> None:
    """Print the scores of predictions files.

    F1, accuracy and the challenge's score with its 95 % interval, scores by class, calibration and confusion matrix.
    """
    manifest = required_manifest(config)
    from fercache.stages.evaluate import describe_evaluations, evaluation_as_plain
    from fercache.stages.evaluate import evaluate as stage

    evaluations = stage(manifest, predictions, task=config.task)
    echo(
        json.dumps(list(map(evaluation_as_plain, evaluations)), indent=2)
        if as_json
        else describe_evaluations(evaluations, videos=videos)
    )


@click.command(
    cls=ConfigCommand,
    reads=READS,
    options=("manifest",),
    examples=("fercache export all.h5 submission --manifest small.csv",),
)
@click.argument("predictions", type=PATH)
@click.argument("out", type=PATH)
@click.option(
    "--format",
    "export_format",
    type=click.Choice(list(EXPORT_FORMATS)),
    default=next(iter(EXPORT_FORMATS)),
    show_default=True,
    help="abaw2021: the challenge's submission; csv: with probabilities.",
)
def export(predictions: Path, out: Path, export_format: str, config: Config) -> None:
    """Write predictions as text files, a line per frame.

    The new folder OUT gets a file for each video. Frames without a face are filled, and listed in filled.csv.
    """
    manifest = required_manifest(config)
    from fercache.stages.export import export as stage

    echo(stage(manifest, predictions, out, export_format, task=config.task))


@click.command(
    cls=ConfigCommand,
    reads=READS,
    options=("manifest",),
    examples=("fercache report runs --manifest small.csv", "fercache report . -c abaw2021_expr --split test"),
)
@click.argument("folder", type=PATH)
@click.option("--split", default="validation", show_default=True, help="Split of the predictions to show.")
@click.option(
    "--video",
    "videos",
    multiple=True,
    metavar="ID",
    help="A video whose time line is shown; may be repeated.  [default: the best, the median and the worst one]",
)
@out_option("The page to write.  [default: FOLDER/report.html]")
def report(folder: Path, split: str, videos: tuple[str, ...], out: Path | None, config: Config) -> None:
    """Write an HTML page about the results in a folder.

    It covers the predictions, ensembles and runs in FOLDER: scores with intervals, weights, training curves, confusion
    matrices, calibration, and time lines of videos. It is one file that loads nothing from a network.
    """
    manifest = required_manifest(config)
    from fercache.report import report as stage

    echo(stage(manifest, folder, out, split=split, videos=videos, task=config.task))
