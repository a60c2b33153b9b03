"""The commands: parse, one call, print the result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from fercache.cli.cache import cache_group
from fercache.cli.options import (
    PATH,
    allow_missing_option,
    cache_option,
    config_options,
    format_option,
    lengths_option,
    manifest_option,
    out_option,
    read_config,
    required,
    result_path,
    say,
)
from fercache.cli.weights import weights_group
from fercache.errors import ConfigError, raise_problems
from fercache.tasks import TASKS, get_task

DEFAULT_PREDICTIONS = ("cnn", "gru", "transformer")
"""The runs whose validation predictions an ensemble takes where none are named."""


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
    from fercache.data.synth import SynthSettings, synthesise

    click.echo(synthesise(out, SynthSettings(**vars(c.synth), seed=c.seed), runtime.thread_count(c.threads)))


@click.group("manifest")
def manifest_group() -> None:
    """List a data set's videos, frames and labels in a manifest."""


@manifest_group.command("affwild2")
@click.argument("root", type=PATH)
@click.option("--task", help=f"One of {', '.join(TASKS)}.")
@lengths_option
@out_option("The manifest to write.")
@config_options
def affwild2(
    root: Path, task: str | None, lengths: Path | None, out: Path | None, config: str | None, sets: tuple[str, ...]
) -> None:
    """Make the manifest of a folder in the Aff-Wild2 layout, and print what disagreed in it.

    ROOT holds cropped_aligned/ and annotations/. Videos without labels go to the test split.
    """
    from fercache.data.affwild2 import build_manifest, read_lengths
    from fercache.data.manifest import write_manifest

    settings = read_config(config, None, sets, task=task)
    if settings.task is None:
        raise ConfigError(f"--task is missing: one of {', '.join(TASKS)}")
    target = out if out is not None else required(settings.manifest, "--out", "manifest")
    manifest, account = build_manifest(root, get_task(settings.task), read_lengths(lengths) if lengths else None)
    write_manifest(target, manifest)
    click.echo("\n".join([*account.lines(manifest), f"written: {target}"]))


@click.command()
@manifest_option
@out_option("The run folder; left out: OUT/cnn in the config's `out`.")
@click.option("--weights", metavar="FILE|RUN|imagenet|none", help="Where training starts; none means random numbers.")
@click.option("--arch", metavar="NAME", help="resnet50 or vggface; left out: the weights' own.")
@format_option("weights_format")
@config_options
def finetune(
    manifest: str | None,
    out: Path | None,
    weights: str | None,
    arch: str | None,
    weights_format: str | None,
    config: str | None,
    sets: tuple[str, ...],
) -> None:
    """Stage one: fine-tune a frame network on labelled frames.

    On several GPUs: torchrun --nproc-per-node N -m fercache finetune ...
    """
    given = {"weights": weights, "arch": arch, "weights_format": weights_format}
    c = read_config(config, "finetune", sets, manifest=manifest, **given)
    source, target = required(c.manifest, "--manifest", "manifest"), result_path(out, c, "cnn")
    from fercache.stages.finetune import finetune as stage

    say(stage(source, target, c.finetune, task=c.task, seed=c.seed, threads=c.threads))


@click.command()
@manifest_option
@cache_option
@click.option("--weights", metavar="RUN|FILE|imagenet|none", help="A run folder or weights file; left out: OUT/cnn.")
@format_option("weights_format")
@click.option("--shard", metavar="I/N", help="Only part I of N parts of about as many frames each.")
@click.option("--precision", help="auto, fp32, bf16 or fp16: what the network computes in.")
@click.option("--dtype", help="float16 or float32: what embeddings are stored in.")
@click.option("--backend", help="auto, eager, compile or openvino: what runs the network.")
@click.option("--batch-size", type=int, help="Frames a pass of the network.")
@click.option("--plan", is_flag=True, help="Only say how much there is to do, and how long it would take.")
@config_options
def extract(
    manifest: str | None,
    cache: str | None,
    weights: str | None,
    weights_format: str | None,
    shard: str | None,
    precision: str | None,
    dtype: str | None,
    backend: str | None,
    batch_size: int | None,
    plan: bool,
    config: str | None,
    sets: tuple[str, ...],
) -> None:
    """Stage one: write the embedding of every frame of every video into the cache.

    The same command goes on with what is missing, and any number of them may work on one cache.
    """
    given = {"weights": weights, "weights_format": weights_format, "precision": precision, "dtype": dtype}
    given |= {"backend": backend, "batch_size": batch_size}
    c = read_config(config, "extract", sets, manifest=manifest, cache=cache, **given)
    source, folder = required(c.manifest, "--manifest", "manifest"), required(c.cache, "--cache", "cache")
    chosen = c.extract.weights or str(required(c.out, "--weights", "out") / "cnn")
    from fercache.data.shards import Shard
    from fercache.stages.extract import extract as stage
    from fercache.stages.extract import plan_extraction

    part = Shard.parse(shard) if shard else None
    call = plan_extraction if plan else stage
    click.echo(call(source, chosen, folder, c.extract, shard=part, task=c.task, seed=c.seed, threads=c.threads))


@click.command("train-temporal")
@click.option("--head", metavar="NAME", help="gru, transformer, linear or mean.")
@manifest_option
@cache_option
@out_option("The run folder; left out: OUT/<head> (with --end-to-end OUT/<head>_end_to_end) in the config's `out`.")
@allow_missing_option
@click.option(
    "--end-to-end", is_flag=True, default=None, help="Train the frame network, too, on the frames themselves."
)
@click.option("--weights", metavar="RUN", help="--end-to-end: the frame network's run; left out: OUT/cnn.")
@click.option("--init", metavar="RUN", help="--end-to-end: the head to begin with; left out: random numbers.")
@config_options
def train_temporal(
    head: str | None,
    manifest: str | None,
    cache: str | None,
    out: Path | None,
    allow_missing: bool | None,
    end_to_end: bool | None,
    weights: str | None,
    init: str | None,
    config: str | None,
    sets: tuple[str, ...],
) -> None:
    """Stage two: train a head on windows of cached embeddings, or end to end on frames."""
    given = {"head": head, "allow_missing": allow_missing, "end_to_end": end_to_end, "weights": weights, "init": init}
    c = read_config(config, "train_temporal", sets, manifest=manifest, cache=cache, **given)
    settings, source = c.train_temporal, required(c.manifest, "--manifest", "manifest")
    if settings.head is None:
        raise ConfigError("--head is missing: gru, transformer, linear or mean")
    folder = None
    if settings.end_to_end:
        given = (("--cache", cache), ("--allow-missing", allow_missing))
        wrong = [f"{name}: --end-to-end opens the frames, and reads no cache" for name, value in given if value]
        raise_problems(wrong, ConfigError)
        if settings.weights is None:
            settings = replace(settings, weights=str(required(c.out, "--weights", "out") / "cnn"))
    else:
        folder = required(c.cache, "--cache", "cache")
        wrong = [f"{name} needs --end-to-end" for name, value in (("--weights", weights), ("--init", init)) if value]
        raise_problems(wrong, ConfigError)
    target = result_path(out, c, settings.head + ("_end_to_end" if settings.end_to_end else ""))
    from fercache.stages.train_temporal import train_temporal as stage

    say(stage(source, folder, target, settings, task=c.task, seed=c.seed, threads=c.threads))


@click.command()
@click.option("--model", metavar="RUN", help="Run folder of a CNN, of a head, or of both trained end to end.")
@manifest_option
@cache_option
@allow_missing_option
@click.option("--split", help="train, validation or test.")
@out_option("The predictions file; left out: OUT/<run>-<split>.h5 in the config's `out`.")
@config_options
def predict(
    model: str | None,
    manifest: str | None,
    cache: str | None,
    allow_missing: bool | None,
    split: str | None,
    out: Path | None,
    config: str | None,
    sets: tuple[str, ...],
) -> None:
    """Write a model's logits for every frame of a split that shows a face."""
    given = {"model": model, "split": split, "allow_missing": allow_missing}
    c = read_config(config, "predict", sets, manifest=manifest, cache=cache, **given)
    source, folder = required(c.manifest, "--manifest", "manifest"), required(c.cache, "--cache", "cache")
    run = required(c.predict.model, "--model", "predict.model")
    target = result_path(out, c, f"{run.resolve().name}-{c.predict.split}.h5")
    from fercache.stages.predict import predict as stage

    click.echo(stage(run, source, folder, target, c.predict, task=c.task, threads=c.threads))


@click.command()
@click.option("--search", "searching", is_flag=True, help="Search the weights on the predictions' split.")
@click.option("--apply", "applied", type=PATH, metavar="FILE", help="Fuse predictions with the weights in FILE.")
@click.option("--folds", type=int, metavar="K", help="Parts of the recordings that are held out in turn; 0: none.")
@click.argument("predictions", nargs=-1, type=PATH)
@manifest_option
@out_option("--search: the folder of ensemble.json (left out: OUT/ensemble). --apply: the predictions file.")
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
    from fercache.stages.ensemble import apply_ensemble, search_ensemble
    from fercache.stages.ensemble_file import describe_search

    if applied is not None:
        if out is None:
            raise ConfigError("--out is missing: name the predictions file to write")
        click.echo(apply_ensemble(applied, paths, out))
        return
    source = required(c.manifest, "--manifest", "manifest")
    file = search_ensemble(source, paths, result_path(out, c, "ensemble"), c.ensemble, task=c.task, seed=c.seed)
    click.echo(f"{describe_search(file)}\n\n{file}")


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
    click.echo(json.dumps(list(map(as_plain, found)), indent=2) if as_json else describe(found, videos=videos))


@click.command()
@click.argument("predictions", type=PATH)
@click.argument("out", type=PATH)
@click.option("--format", "form", type=click.Choice(["abaw2021", "csv"]), default="abaw2021", show_default=True)
@manifest_option
@config_options
def export(
    predictions: Path, out: Path, form: str, manifest: str | None, config: str | None, sets: tuple[str, ...]
) -> None:
    """Write a file for each video with a line for every frame, faces or not, into the new folder OUT."""
    c = read_config(config, None, sets, manifest=manifest)
    source = required(c.manifest, "--manifest", "manifest")
    from fercache.stages.export import export as stage

    click.echo(stage(predictions, source, out, form, task=c.task))  # type: ignore[arg-type]


@click.command()
@click.option("-o", "--out", type=PATH, default=Path("fercache-demo"), show_default=True, help="The demo's folder.")
@config_options
def demo(out: Path, config: str | None, sets: tuple[str, ...]) -> None:
    """Run the whole way on synthetic faces, in minutes, on a CPU, and print the paper's table.

    Without -c it takes the shipped config `demo`; `-c demo_small` only shows that everything runs.
    """
    c = read_config(config or "demo", None, sets)
    from fercache.pipeline.demo import demo as run

    click.echo(run(out, c))


@click.command()
@lengths_option
@out_option("The folder in which the rows are run; left out: OUT/reproduce in the config's `out`.")
@config_options
def reproduce(lengths: Path | None, out: Path | None, config: str | None, sets: tuple[str, ...]) -> None:
    """Run every row of the paper's tables that is not done, and print them beside the paper's numbers.

    Shipped configs: abaw2021_expr (Table 1), abaw2021_au (Table 2), demo (on synthetic faces). Rows whose weights or
    data are not there are listed with what to get.
    """
    c = read_config(config, "reproduce", sets, lengths=lengths and str(lengths))
    from fercache.pipeline.reproduce import reproduce as run

    click.echo(run(result_path(out, c, "reproduce"), c))


ALL = (
    synth,
    manifest_group,
    finetune,
    extract,
    train_temporal,
    predict,
    ensemble,
    evaluate,
    export,
    weights_group,
    cache_group,
    demo,
    reproduce,
)
