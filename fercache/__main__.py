"""`python -m fercache` is `fercache`."""

from fercache.cli import main

if __name__ == "__main__":
    main()
