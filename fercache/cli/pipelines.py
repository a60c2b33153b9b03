"""The commands that run all others."""

from __future__ import annotations

from pathlib import Path

import click

from fercache.cli.options import (
    PATH,
    config_options,
    lengths_option,
    out_option,
    read_config,
    result_path,
)
from fercache.cli.text import echo


@click.command()
@click.option("-o", "--out", type=PATH, default=Path("fercache-demo"), show_default=True, help="The demo's folder.")
@config_options
def demo(out: Path, config: str | None, sets: tuple[str, ...]) -> None:
    """Run the full pipeline on synthetic faces, in minutes, on a CPU, and print the paper's table and what to look at.

    Without -c it takes the shipped config `demo`; `-c demo_small` only shows that everything runs.
    """
    c = read_config(config or "demo", None, sets)
    from fercache.pipeline.demo import demo as run

    echo(run(out, c))


@click.command()
@lengths_option
@out_option("The folder in which the rows are run; default: OUT/reproduce in the config's `out`.")
@config_options
def reproduce(lengths: Path | None, out: Path | None, config: str | None, sets: tuple[str, ...]) -> None:
    """Run every row of the paper's tables that is not done, and print them beside the paper's numbers.

    Shipped configs: abaw2021_expr (Table 1), abaw2021_au (Table 2), demo (on synthetic faces). Rows whose weights or
    data are not there are listed with what to get.
    """
    c = read_config(config, "reproduce", sets, lengths=lengths and str(lengths))
    from fercache.pipeline.reproduce import reproduce as run

    echo(run(result_path(out, c, "reproduce"), c))
