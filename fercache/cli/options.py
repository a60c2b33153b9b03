"""Options that several commands share, and what is read from them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from fercache.cli.text import echo
from fercache.config import Config, load_config
from fercache.errors import ConfigError
from fercache.runtime import ranks

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)

manifest_option = click.option("--manifest", metavar="FILE", help="The manifest.")
cache_option = click.option("--cache", metavar="PATH", help="The cache: its folder, or the file of a packed one.")
allow_missing_option = click.option(
    "--allow-missing", is_flag=True, default=None, help="Go on without the videos that the cache lacks."
)
lengths_option = click.option(
    "--lengths", type=PATH, metavar="FILE", help="CSV of video_id,frames: the true lengths of videos."
)


def out_option(words: str) -> Callable[[Command], Command]:
    """The option that names the result itself."""
    return click.option("-o", "--out", type=PATH, metavar="PATH", help=words)


def format_option(name: str) -> Callable[[Command], Command]:
    """`--format`, given to the command as `name`."""
    words = "The weights file's format, where its contents do not decide (the message then lists the formats)."
    return click.option("--format", name, metavar="NAME", help=words)


def config_options(command: Command) -> Command:
    """`-c` and `--set`, which every command takes."""
    command = click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="KEY=VALUE",
        help="A setting of this command's section of the config, or of its top level; may be repeated.",
    )(command)
    return click.option(
        "-c",
        "--config",
        metavar="FILE|NAME",
        help="A YAML file or the name of a shipped config; default: ./fercache.yaml, where it exists.",
    )(command)


def read_config(source: str | None, section: str | None, sets: Sequence[str], **options: Any) -> Config:  # noqa: ANN401
    """The config with the command's options in it."""
    return load_config(source, section, sets, options)


def say(result: object) -> None:
    """Print a command's result; of several ranks only the first does."""
    if ranks().first:
        echo(result)


def let_all_ranks_log() -> None:
    """Log what every rank has to say, where each does a part of its own."""
    logging.getLogger("fercache").setLevel(logging.INFO)


def required(value: str | Path | None, option: str, key: str) -> Path:
    """A path that the command line or the config must give; ConfigError says how."""
    if value is None:
        raise ConfigError(f"{option} is missing: give it, or set {key!r} in the config")
    return Path(value)


def result_path(out: Path | None, config: Config, name: str) -> Path:
    """Where a result goes: `--out` itself, else `name` in the project's folder."""
    return out if out is not None else required(config.out, "--out", "out") / name
