"""The commands of the networks: train them, and let them speak."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from fercache.cli.options import (
    allow_missing_option,
    cache_option,
    config_options,
    format_option,
    let_all_ranks_log,
    manifest_option,
    out_option,
    read_config,
    required,
    result_path,
    say,
)
from fercache.cli.parallel import ParallelCommand
from fercache.cli.text import echo
from fercache.errors import ConfigError, raise_problems
from fercache.models.backbones import archs
from fercache.models.heads import HEADS, describe_heads


@click.command(cls=ParallelCommand, one_job=True)
@manifest_option
@out_option("The run folder; default: OUT/cnn in the config's `out`.")
@click.option("--weights", metavar="FILE|RUN|imagenet|none", help="Where training starts; none means random numbers.")
@click.option("--arch", metavar="NAME", help=f"{' or '.join(archs())}; default: the weights' own.")
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
    """Stage one: fine-tune a frame network on labelled frames."""
    given = {"weights": weights, "arch": arch, "weights_format": weights_format}
    c = read_config(config, "finetune", sets, manifest=manifest, **given)
    source, target = required(c.manifest, "--manifest", "manifest"), result_path(out, c, "cnn")
    from fercache.stages.finetune import finetune as stage

    say(stage(source, target, c.finetune, task=c.task, seed=c.seed, threads=c.threads))


@click.command(cls=ParallelCommand, one_job=False, conflicts=("shard", "plan"))
@manifest_option
@cache_option
@click.option("--weights", metavar="RUN|FILE|imagenet|none", help="A run folder or weights file; default: OUT/cnn.")
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
    let_all_ranks_log()
    say(call(source, chosen, folder, c.extract, shard=part, task=c.task, seed=c.seed, threads=c.threads))


@click.command("train-temporal", cls=ParallelCommand, one_job=True)
@click.option("--head", metavar="NAME", help=f"{describe_heads()}.")
@manifest_option
@cache_option
@out_option("The run folder; default: OUT/<head> (with --end-to-end OUT/<head>_end_to_end) in the config's `out`.")
@allow_missing_option
@click.option(
    "--end-to-end", is_flag=True, default=None, help="Train the frame network, too, on the frames themselves."
)
@click.option("--weights", metavar="RUN", help="--end-to-end: the frame network's run; default: OUT/cnn.")
@click.option("--init", metavar="RUN", help="--end-to-end: the head to begin with; default: random numbers.")
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
        raise ConfigError(f"--head is missing: one of {', '.join(HEADS)}")
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
@click.option(
    "--model", metavar="RUN|FILE", help="Run of a CNN, a head, or both trained end to end, or its checkpoint."
)
@manifest_option
@cache_option
@allow_missing_option
@click.option("--split", help="train, validation or test.")
@out_option("The predictions file; default: OUT/<run>-<split>.h5 in the config's `out`.")
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
    named = run.resolve().parent if run.is_file() else run.resolve()
    target = result_path(out, c, f"{named.name}-{c.predict.split}.h5")
    from fercache.stages.predict import predict as stage

    echo(stage(run, source, folder, target, c.predict, task=c.task, threads=c.threads))
