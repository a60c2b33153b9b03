"""Options that several commands share, and what is made of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from fercache.cli.text import echo
from fercache.config import Config
from fercache.errors import ConfigError
from fercache.runtime import ranks

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)

manifest_option = click.option("--manifest", type=PATH, metavar="FILE", help="Compare with the videos of a manifest.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
format_option = click.option(
    "--format",
    "weights_format",
    metavar="NAME",
    help="Format of the weights file, for files whose contents do not decide it; the error then lists the formats.",
)


def out_option(words: str) -> Callable[[Command], Command]:
    """The option that names the result itself."""
    return click.option("-o", "--out", type=PATH, metavar="PATH", help=words)


def is_typed(name: str) -> bool:
    """Whether the command line has the option of this parameter."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def print_result(result: object) -> None:
    """Print a command's result, on the first rank only."""
    if ranks().first:
        echo(result)


def let_all_ranks_log() -> None:
    """Show the log of every rank, for commands in which each rank does a part of its own."""
    logging.getLogger("fercache").setLevel(logging.INFO)


def required(value: str | Path | None, option: str, key: str) -> Path:
    """A path that the command line or the config must give; ConfigError says how."""
    if value is None:
        raise ConfigError(f"{option} is missing: give it, or set {key!r} in the config")
    return Path(value)


def required_manifest(config: Config) -> Path:
    """The manifest, from `--manifest` or the config."""
    return required(config.manifest, "--manifest", "manifest")


def required_cache(config: Config) -> Path:
    """The cache, from `--cache` or the config."""
    return required(config.cache, "--cache", "cache")


def result_path(out: Path | None, config: Config, name: str) -> Path:
    """Where a result goes: `--out` itself, else `name` in the project's folder."""
    return out if out is not None else required(config.out, "--out", "out") / name
