"""The commands of the networks: train them, extract embeddings, predict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from fercache.cli.command import ConfigCommand
from fercache.cli.options import (
    is_typed,
    let_all_ranks_log,
    out_option,
    print_result,
    required,
    required_cache,
    required_manifest,
    result_path,
)
from fercache.cli.parallel import ParallelCommand
from fercache.cli.text import echo
from fercache.config import Config
from fercache.errors import ConfigError, raise_problems
from fercache.tools.names import NAMES

TRAINING_OPTIONS = ("epochs", "lr", "batch_size", "precision", "seed", "threads")


@click.command(
    cls=ParallelCommand,
    one_job=True,
    section="finetune",
    reads=("task", "seed", "threads", "manifest", "out"),
    options=("manifest", "weights", "weights_format", "arch", "image_size", *TRAINING_OPTIONS),
    examples=(
        "fercache finetune --manifest small.csv --out runs/cnn --weights none --image-size 64 --epochs 8 --lr 0.01",
        "fercache finetune -c abaw2021_expr --gpus all",
    ),
)
@out_option("The run folder.  [default: OUT/cnn, OUT being the config's `out`]")
def finetune(out: Path | None, config: Config) -> None:
    """Stage one: fine-tune the CNN on labelled frames.

    Writes a run folder, whose best.pt `extract` takes. The same command resumes an interrupted run.
    """
    manifest, target = required_manifest(config), result_path(out, config, "cnn")
    from fercache.stages.finetune import finetune as stage

    print_result(stage(manifest, target, config.finetune, task=config.task, seed=config.seed, threads=config.threads))


@click.command(
    cls=ParallelCommand,
    one_job=False,
    conflicts=("shard", "plan"),
    section="extract",
    reads=("task", "seed", "threads", "manifest", "cache", "out"),
    options=(
        *("manifest", "cache", "weights", "weights_format", "precision", "dtype", "backend"),
        *("batch_size", "image_size", "seed", "threads"),
    ),
    examples=(
        "fercache extract --manifest small.csv --weights runs/cnn --cache cache",
        "fercache extract -c abaw2021_expr --shard 2/7",
    ),
)
@click.option("--shard", metavar="I/N", help="Only shard I of N, which have about the same number of frames.")
@click.option("--plan", is_flag=True, help="Only print how much there is to do, and how long it would take.")
def extract(shard: str | None, plan: bool, config: Config) -> None:
    """Write the embedding of every frame to the cache.

    The same command resumes an interrupted extraction. Several may work on one cache at the same time.
    """
    manifest, cache = required_manifest(config), required_cache(config)
    weights = config.extract.weights or str(required(config.out, "--weights", "out") / "cnn")
    from fercache.data.shards import Shard
    from fercache.stages.extract import extract as stage
    from fercache.stages.extract import plan_extraction

    part = Shard.parse(shard) if shard else None
    call = plan_extraction if plan else stage
    let_all_ranks_log()
    result = call(
        manifest,
        weights,
        cache,
        config.extract,
        shard=part,
        task=config.task,
        seed=config.seed,
        threads=config.threads,
    )
    print_result(result)


@click.command(
    "train-temporal",
    cls=ParallelCommand,
    one_job=True,
    section="train_temporal",
    reads=("task", "seed", "threads", "manifest", "cache", "out"),
    options=(
        *("manifest", "cache", "head", "allow_missing", "end_to_end", "weights", "init"),
        *TRAINING_OPTIONS,
    ),
    examples=(
        "fercache train-temporal --head gru --manifest small.csv --cache cache --out runs/gru --lr 0.01",
        "fercache train-temporal -c abaw2021_expr --head gru --end-to-end --weights cnn --init gru --batch-size 16",
    ),
)
@out_option("The run folder.  [default: OUT/HEAD, with --end-to-end OUT/HEAD_end_to_end, OUT being the config's `out`]")
def train_temporal(out: Path | None, config: Config) -> None:
    """Stage two: train a head on windows of embeddings.

    With --end-to-end, train CNN and head together on the frames. The same command resumes an interrupted run.
    """
    settings, manifest = config.train_temporal, required_manifest(config)
    if settings.head is None:
        raise ConfigError(f"--head is missing: one of {', '.join(NAMES['train_temporal.head']())}")
    cache = None
    if settings.end_to_end:
        unused = [f"--{name.replace('_', '-')}" for name in ("cache", "allow_missing") if is_typed(name)]
        raise_problems([f"{name}: --end-to-end opens the frames and reads no cache" for name in unused], ConfigError)
        if settings.weights is None:
            settings = replace(settings, weights=str(required(config.out, "--weights", "out") / "cnn"))
    else:
        cache = required_cache(config)
        unused = [f"--{name}" for name in ("weights", "init") if is_typed(name)]
        raise_problems([f"{name} needs --end-to-end" for name in unused], ConfigError)
    target = result_path(out, config, str(settings.head) + ("_end_to_end" if settings.end_to_end else ""))
    from fercache.stages.train_temporal import train_temporal as stage

    print_result(stage(manifest, cache, target, settings, task=config.task, seed=config.seed, threads=config.threads))


@click.command(
    cls=ConfigCommand,
    section="predict",
    reads=("task", "threads", "manifest", "cache", "out"),
    options=("manifest", "cache", "model", "split", "batch_size", "allow_missing", "threads"),
    examples=("fercache predict --model runs/gru --manifest small.csv --cache cache -o gru.h5",),
)
@out_option("The predictions file.  [default: OUT/RUN-SPLIT.h5, OUT being the config's `out`]")
def predict(out: Path | None, config: Config) -> None:
    """Write a model's logits for every frame of a split.

    A CNN's logits come from the cache; a head is applied to the window of every cached frame.
    """
    manifest, cache = required_manifest(config), required_cache(config)
    model = required(config.predict.model, "--model", "predict.model")
    run = model.resolve().parent if model.is_file() else model.resolve()
    target = result_path(out, config, f"{run.name}-{config.predict.split}.h5")
    from fercache.stages.predict import predict as stage

    echo(stage(manifest, model, cache, target, config.predict, task=config.task, threads=config.threads))
