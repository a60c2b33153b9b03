"""`fercache weights`: what a weights file is, and a safe copy of it."""

from __future__ import annotations

from pathlib import Path

import click

from fercache.cli.command import ConfigCommand
from fercache.cli.options import PATH, format_option
from fercache.cli.text import echo
from fercache.config import Config


@click.group("weights")
def weights_group() -> None:
    """Inspect or convert weights files."""


@weights_group.command(
    "inspect",
    cls=ConfigCommand,
    reads=("threads",),
    options=("threads",),
    examples=("fercache weights inspect weights/resnet50_ft_dag.pth --faces data_manifests/affwild2_expr.csv",),
)
@click.argument("source", metavar="FILE|RUN|imagenet")
@click.option("--faces", type=PATH, metavar="DIR|MANIFEST", help="Faces for the self-test.  [default: drawn ones]")
@format_option
def inspect(source: str, faces: Path | None, weights_format: str | None, config: Config) -> None:
    """Print what a weights file is, and test its preprocessing.

    Prints format, architecture, digest, preprocessing and the mapping of every key. The test prepares faces in each
    common way, and compares the statistics after the first convolution with those that the file kept from training.
    """
    from fercache.tools.weights import describe_weights, inspect_weights

    echo(describe_weights(inspect_weights(source, faces=faces, form=weights_format, threads=config.threads)))


@weights_group.command(
    "convert",
    cls=ConfigCommand,
    examples=("fercache weights convert weights/resnet50_ft_weight.pkl weights/resnet50_ft.pt",),
)
@click.argument("source", metavar="FILE|RUN|imagenet")
@click.argument("out", type=PATH)
@format_option
def convert(source: str, out: Path, weights_format: str | None, config: Config) -> None:
    """Write a safe copy of a backbone to OUT.

    The copy holds tensors and the record of their preprocessing, without the classifier, so that the backbone of a
    fine-tuned run can start another task. Every command reads it.
    """
    from fercache.tools.weights import convert_weights

    echo(convert_weights(source, out, form=weights_format))
