"""`fercache weights`: what a weights file is, and a safe copy of it."""

from __future__ import annotations

from pathlib import Path

import click

from fercache.cli.options import PATH, config_options, format_option, read_config
from fercache.cli.text import echo


@click.group("weights")
def weights_group() -> None:
    """Look into weights files, and convert them."""


@weights_group.command("inspect")
@click.argument("source", metavar="FILE|RUN|imagenet")
@click.option("--faces", type=PATH, metavar="DIR|MANIFEST", help="Faces for the self-test; default: drawn ones.")
@format_option("form")
@config_options
def inspect(source: str, faces: Path | None, form: str | None, config: str | None, sets: tuple[str, ...]) -> None:
    """Print what a weights file holds, and test which preprocessing it was trained with.

    Format, architecture, digest, preprocessing and the mapping of every key; then the statistics behind the first
    convolution, on faces prepared in each way that is in use, against those that the file kept from its training.
    """
    c = read_config(config, None, sets)
    from fercache.tools.weights import describe_weights, inspect_weights

    echo(describe_weights(inspect_weights(source, faces=faces, form=form, threads=c.threads)))


@weights_group.command("convert")
@click.argument("source", metavar="FILE|RUN|imagenet")
@click.argument("out", type=PATH)
@format_option("form")
@config_options
def convert(source: str, out: Path, form: str | None, config: str | None, sets: tuple[str, ...]) -> None:
    """Write the backbone of FILE to OUT as tensors with their record, which every command takes.

    The classifier is left out, so that the backbone of a fine-tuned run can begin another task.
    """
    read_config(config, None, sets)
    from fercache.tools.weights import convert_weights

    echo(convert_weights(source, out, form=form))
