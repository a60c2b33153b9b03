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
"""Exit status of a problem in what was given."""

PATH_ERRORS = {
    *(errno.EACCES, errno.EPERM, errno.EBUSY, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP),
}
"""What a path can be at fault for."""


class FercacheGroup(click.Group):
    """The one place where fercache's errors become messages and exit statuses."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as in click
        """Run the command; a problem in what was given prints its sentence and no traceback."""
        try:
            with stops_at_once():
                return super().invoke(ctx)
        except FercacheError as error:
            echo(f"{rank_words()}Error: {error}", err=True)
            ctx.exit(EXIT_PROBLEM)
        except Stopped as stop:
            said = f"Stopped by {stop}: finished work is saved; run the same command to resume."
            echo(f"{rank_words()}{said}", err=True)
            queue_again(stop)
            ctx.exit(Stopped.EXIT_STATUS)
        except OSError as error:
            if error.errno not in DISK_ERRORS | PATH_ERRORS:
                raise
            echo(f"{rank_words()}Error: {error.filename or 'writing'}: {error.strerror}", err=True)
            ctx.exit(EXIT_PROBLEM)


def rank_words() -> str:
    """Who speaks, where several ranks may; nothing for a process alone."""
    try:
        here = ranks()
    except FercacheError:
        return ""
    return f"[rank {here.rank}] " if here.count > 1 else ""


def _set_up_logging() -> None:
    handler = BarSafeHandler()
    handler.setFormatter(logging.Formatter(f"%(asctime)s {rank_words()}%(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("fercache")
    logger.handlers = [handler]
    # What the first rank says holds for all; the others tell of errors only.
    logger.setLevel(logging.INFO if ranks().first else logging.ERROR)
    logger.propagate = False


@click.group(cls=FercacheGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="fercache")
def main() -> None:
    """Facial expressions frame by frame in video: a frame network, cached embeddings, temporal heads, an ensemble.

    The way of the data: synth or your own videos -> manifest -> finetune -> extract -> train-temporal
    -> predict -> ensemble -> evaluate, export, report. Exit status: 0 done, 1 a problem in what was given, 2 usage,
    75 stopped by a signal with the state saved.
    """
    _set_up_logging()


for command in commands.ALL:
    main.add_command(command)
