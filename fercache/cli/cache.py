"""`fercache cache`: what a cache holds, whether it is whole, and the cache in one file."""

from __future__ import annotations

from pathlib import Path

import click

from fercache.cli.command import ConfigCommand
from fercache.cli.options import PATH, manifest_option, out_option
from fercache.cli.text import echo
from fercache.config import Config


@click.group("cache")
def cache_group() -> None:
    """Inspect, verify or pack a cache."""


@cache_group.command("info", cls=ConfigCommand, reads=("task",))
@click.argument("cache", type=PATH)
@manifest_option
def info(cache: Path, manifest: Path | None, config: Config) -> None:
    """Print videos, frames, size and provenance of CACHE.

    With a manifest, also the videos of it that the cache lacks.
    """
    from fercache.tools.caches import cache_info

    echo(cache_info(cache, manifest, task=config.task))


@cache_group.command(
    "verify",
    cls=ConfigCommand,
    reads=("task",),
    examples=("fercache cache verify cache --manifest data_manifests/small.csv", "fercache cache verify cache --fix"),
)
@click.argument("cache", type=PATH)
@manifest_option
@click.option("--fix", is_flag=True, help="Remove the files of broken videos, so that extract makes them again.")
def verify(cache: Path, manifest: Path | None, fix: bool, config: Config) -> None:
    """Read all of CACHE, and check every file.

    A file must be complete, of this cache, finite, and match its checksum. With a manifest, its videos and their
    frames must be complete, too. Exit status 1 where something is missing, or broken and not removed.
    """
    from fercache.tools.caches import verify_cache

    result = verify_cache(cache, manifest, fix=fix, task=config.task)
    echo(result)
    if not result.clean:
        click.get_current_context().exit(1)


@cache_group.command("pack", cls=ConfigCommand, reads=("task",), examples=("fercache cache pack cache -o cache.h5",))
@click.argument("cache", type=PATH)
@click.option("--manifest", type=PATH, metavar="FILE", help="Pack only the videos of a manifest.")
@out_option("The packed cache.  [default: CACHE.h5]")
def pack(cache: Path, manifest: Path | None, out: Path | None, config: Config) -> None:
    """Write CACHE into one file, which every command reads."""
    from fercache.tools.caches import pack_cache

    echo(pack_cache(cache, out, manifest, task=config.task))
