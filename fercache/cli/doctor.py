"""The command that examines the machine."""

from __future__ import annotations

from pathlib import Path

import click

from fercache.cli.command import ConfigCommand
from fercache.cli.options import PATH
from fercache.cli.text import echo
from fercache.config import Config


@click.command(cls=ConfigCommand, reads=("out",))
@click.argument("folder", type=PATH, required=False)
def doctor(folder: Path | None, config: Config) -> None:
    """Check this machine for what will be slow or fail.

    FOLDER is where data and results will be (default: the config's `out`, else the current folder).
    """
    from fercache.tools.doctor import check_machine, describe_machine

    echo(describe_machine(check_machine(folder or Path(config.out or "."))))
