"""The `fercache` command."""

from __future__ import annotations

import errno
import logging
from typing import Any

import click

from fercache import __version__
from fercache.cli import commands
from fercache.cli.text import BarSafeHandler, echo
from fercache.errors import FercacheError, Stopped
from fercache.files import DISK_ERRORS
from fercache.runtime import queue_again, ranks, stops_at_once

EXIT_PROBLEM = 1
"""Exit status of bad input."""

PATH_ERRORS = {
    *(errno.EACCES, errno.EPERM, errno.EBUSY, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP),
}
"""Errors of the operating system that a path causes."""


class FercacheGroup(click.Group):
    """The one place where fercache's errors become messages and exit statuses."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as in click
        """Run the command; bad input prints its sentence and no traceback."""
        try:
            with stops_at_once():
                return super().invoke(ctx)
        except FercacheError as error:
            echo(f"{rank_words()}Error: {error}", err=True)
            ctx.exit(EXIT_PROBLEM)
        except Stopped as stop:
            message = f"Stopped by {stop}: finished work is saved; run the same command to resume."
            echo(f"{rank_words()}{message}", err=True)
            queue_again(stop)
            ctx.exit(Stopped.EXIT_STATUS)
        except OSError as error:
            if error.errno not in DISK_ERRORS | PATH_ERRORS:
                raise
            echo(f"{rank_words()}Error: {error.filename or 'writing'}: {error.strerror}", err=True)
            ctx.exit(EXIT_PROBLEM)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by topic."""
        for topic, group in commands.GROUPS.items():
            with formatter.section(topic):
                formatter.write_dl([(str(command.name), command.get_short_help_str(60)) for command in group])


def rank_words() -> str:
    """The rank as the beginning of a line, where there are several; else empty."""
    try:
        group = ranks()
    except FercacheError:
        return ""
    return f"[rank {group.rank}] " if group.count > 1 else ""


def _set_up_logging() -> None:
    handler = BarSafeHandler()
    handler.setFormatter(logging.Formatter(f"%(asctime)s {rank_words()}%(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("fercache")
    logger.handlers = [handler]
    # The ranks log the same: the first one logs everything, the others errors alone.
    logger.setLevel(logging.INFO if ranks().first else logging.ERROR)
    logger.propagate = False


@click.group(cls=FercacheGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="fercache")
def main() -> None:
    """Recognise facial expressions and action units in every frame of a video.

    Start with `fercache demo`, or list your own videos with `fercache manifest`. `fercache config explain` lists the
    settings of every command. Exit status: 0 done, 1 bad input, 2 wrong usage, 75 stopped by a signal with finished
    work saved.
    """
    _set_up_logging()


for command in commands.ALL:
    main.add_command(command)
