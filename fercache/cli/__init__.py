"""The command line: options, logging, error translation. A stage is imported inside its command."""

from fercache.cli.main import main

__all__ = ["main"]
