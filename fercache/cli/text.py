"""Text for a terminal. What comes from files is shown, and never obeyed: control characters appear escaped."""

from __future__ import annotations

import logging
import sys

import click


def printable(text: str) -> str:
    """`text` with every character that a terminal would act on, but line ends and tabs, as a backslash escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in "\n\t" else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def echo(text: object, *, err: bool = False) -> None:
    """Print a text, made printable."""
    click.echo(printable(str(text)), err=err)


class BarSafeHandler(logging.Handler):
    """Log lines on standard error, made printable, that do not tear progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        from tqdm import tqdm

        tqdm.write(printable(self.format(record)), file=sys.stderr)
