"""The commands that run all others."""

from __future__ import annotations

from pathlib import Path

import click

from fercache.cli.command import STAGES, ConfigCommand
from fercache.cli.options import PATH, out_option, result_path
from fercache.cli.text import echo
from fercache.config import Config


@click.command(
    cls=ConfigCommand,
    reads=("task", "seed", "threads", "synth", *STAGES),
    options=("seed", "threads"),
    default_config="demo",
    examples=("fercache demo", "fercache demo -c demo_small"),
)
@click.option("-o", "--out", type=PATH, default=Path("fercache-demo"), show_default=True, help="The demo's folder.")
def demo(out: Path, config: Config) -> None:
    """Run the full pipeline on synthetic faces, on a CPU.

    Takes about ten minutes on two cores, and prints the paper's table for the drawn faces and which files to look at.
    The shipped config `demo_small` only shows that everything runs.
    """
    from fercache.pipeline.demo import demo as run

    echo(run(out, config))


@click.command(
    cls=ConfigCommand,
    section="reproduce",
    reads=("task", "seed", "threads", "out", "synth", *STAGES),
    options=("lengths", "seed", "threads"),
    examples=(
        "fercache reproduce -c abaw2021_expr --lengths lengths.csv",
        "fercache reproduce -c demo --out synthetic_tables",
    ),
)
@out_option("The folder in which the rows are run.  [default: OUT/reproduce, OUT being the config's `out`]")
def reproduce(out: Path | None, config: Config) -> None:
    """Run and print the paper's tables.

    Runs every row that is not done, and prints it beside the paper's numbers. Rows whose weights or data are missing
    are listed with what to get. Shipped configs: abaw2021_expr (Table 1), abaw2021_au (Table 2), demo (synthetic
    faces).
    """
    from fercache.pipeline.reproduce import reproduce as run

    echo(run(result_path(out, config, "reproduce"), config))
