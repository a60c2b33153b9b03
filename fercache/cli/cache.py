"""`fercache cache`: what a cache holds, whether it is whole, and the cache in one file."""

from __future__ import annotations

from pathlib import Path

import click

from fercache.cli.options import PATH, config_options, manifest_option, out_option, read_config
from fercache.cli.text import echo


@click.group("cache")
def cache_group() -> None:
    """Look into a cache, verify it, or pack it into one file."""


@cache_group.command("info")
@click.argument("cache", type=PATH)
@manifest_option
@config_options
def info(cache: Path, manifest: str | None, config: str | None, sets: tuple[str, ...]) -> None:
    """Print videos, frames, size and provenance of CACHE, and what it lacks of a manifest."""
    c = read_config(config, None, sets)
    from fercache.tools.caches import cache_info

    echo(cache_info(cache, _path(manifest), task=c.task))


@cache_group.command("verify")
@click.argument("cache", type=PATH)
@manifest_option
@click.option("--fix", is_flag=True, help="Remove the files of broken videos, so that extract makes them again.")
@config_options
def verify(cache: Path, manifest: str | None, fix: bool, config: str | None, sets: tuple[str, ...]) -> None:
    """Read all of CACHE and check it: every file whole, of this cache, finite, and with the checksum it was given.

    With a manifest: whether its videos are all there, with the frames of their folders. Exit status 1
    where something is missing, or broken and not removed.
    """
    c = read_config(config, None, sets)
    from fercache.tools.caches import verify_cache

    result = verify_cache(cache, _path(manifest), fix=fix, task=c.task)
    echo(result)
    if not result.clean:
        click.get_current_context().exit(1)


@cache_group.command("pack")
@click.argument("cache", type=PATH)
@manifest_option
@out_option("The packed cache; default: CACHE.h5.")
@config_options
def pack(cache: Path, manifest: str | None, out: Path | None, config: str | None, sets: tuple[str, ...]) -> None:
    """Write CACHE, or a manifest's videos of it, into one file, which every command takes as a cache."""
    c = read_config(config, None, sets)
    from fercache.tools.caches import pack_cache

    echo(pack_cache(cache, out, _path(manifest), task=c.task))


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
