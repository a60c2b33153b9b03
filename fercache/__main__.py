"""`python -m fercache` is `fercache`, also as one rank of several."""

import os
import sys

from fercache.cli import main
from fercache.errors import FercacheError
from fercache.runtime import ranks


def run() -> None:
    """Run the command. A rank of several then ends at once, without taking the interpreter apart.

    Threads of torch's process groups that are still there at that point now and then abort a process
    whose work is done ("terminate called without an active exception").
    """
    try:
        main()
    except SystemExit as end:
        if not isinstance(end.code, int) or not _several():
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)


def _several() -> bool:
    try:
        return ranks().count > 1
    except FercacheError:  # the command has said so
        return False


if __name__ == "__main__":
    run()
