"""`python -m fercache` is `fercache`, also as one rank of several."""

import os
import sys

from fercache.cli.main import main, rank_words


def run() -> None:
    """Run the command. A rank of several then ends at once, without taking the interpreter apart.

    Threads of torch's process groups that are still there at that point now and then abort a process
    whose work is done ("terminate called without an active exception").
    """
    try:
        main()
    except SystemExit as end:
        if not isinstance(end.code, int) or not rank_words():
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)


if __name__ == "__main__":
    run()
