"""The command that looks at the machine."""

from __future__ import annotations

from pathlib import Path

import click

from fercache.cli.options import PATH, config_options, read_config
from fercache.cli.text import echo


@click.command()
@click.argument("folder", type=PATH, required=False)
@config_options
def doctor(folder: Path | None, config: str | None, sets: tuple[str, ...]) -> None:
    """Print what this machine has, and what will be slow or fail on it.

    FOLDER is where data and results would be; without it, the config's `out` or the current folder.
    """
    c = read_config(config, None, sets)
    from fercache.tools.doctor import check_machine, describe_machine

    echo(describe_machine(check_machine(folder or Path(c.out or "."))))
