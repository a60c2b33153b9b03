"""Whether what is there was made by these settings, and from what is there before it: told without a network.

Each function gives the reason why not, or None. Where nothing is there yet, all is well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fercache.cache.predictions import cache_of
from fercache.cache.provenance import FILE_DIGEST, PROVENANCE_FILE, CacheRecord, read_record
from fercache.cache.reader import Cache
from fercache.config import ExtractConfig
from fercache.files import sha256_of
from fercache.rundir import RunDir

MOST_SHOWN = 4
"""Settings that are told where they differ."""
Difference = tuple[str, Any, Any]
"""A key, its value there, and here."""


def run_unfit(run: Path, manifest: Path, settings: Mapping[str, Any], cache: Path | None = None) -> str | None:
    """Of a run: its settings, its manifest, and of a head its cache."""
    now: dict[str, Any] = {**settings, "manifest_sha256": sha256_of(manifest)}
    if cache is not None and (record := _record(cache)) is not None:
        now["cache_fingerprint"] = record.provenance.fingerprint
    return _told(run, RunDir(run).changed(now))


def cache_unfit(cache: Path, network: Path, settings: ExtractConfig) -> str | None:
    """Of a cache: the file of its network, and what its numbers are."""
    record = _record(cache)
    if record is None:
        return None
    made_by = record.provenance
    wanted = [("dtype", made_by.dtype, settings.dtype), ("precision", made_by.precision, settings.precision)]
    wanted.append(("backend", record.recorded.get("backend"), settings.backend))
    found = [one for one in wanted if one[2] != "auto" and one[1] != one[2]]
    if network.exists() and record.recorded.get(FILE_DIGEST) not in (None, sha256_of(network)):
        found.append(("network", "another one", str(network)))
    return _told(cache, found)


def predictions_unfit(file: Path, cache: Path) -> str | None:
    """Of predictions: the cache that they, or all that they were fused from, were read from."""
    record = _record(cache)
    if record is None or not file.exists():
        return None
    other = set(cache_of(file).split("+")) - {record.provenance.fingerprint}
    return _told(file, [("cache", other.pop()[:12], record.provenance.fingerprint[:12])] if other else [])


def ensemble_unfit(file: Path, settings: Mapping[str, Any]) -> str | None:
    """Of an ensemble: how it was chosen."""
    if not file.exists():
        return None
    from fercache.results.ensemble_file import read_ensemble  # here, since it brings scikit-learn along

    before = read_ensemble(file).content["settings"]
    return _told(file, [(key, before[key], here) for key, here in settings.items() if before.get(key, here) != here])


def differences(before: Mapping[str, Any], now: Mapping[str, Any], section: str = "") -> Iterator[Difference]:
    """The keys of plain values that are others now."""
    for key, value in before.items():
        if isinstance(value, dict):
            yield from differences(value, now[key], f"{section}{key}.")
        elif value != now[key]:
            yield section + key, value, now[key]


def in_words(found: Iterable[Difference]) -> str:
    """Differences in a part of a sentence; empty where there are none."""
    other = [f"{key} is {value!r} there, {here!r} here" for key, value, here in found]
    more = [f"and {len(other) - MOST_SHOWN} more"] if len(other) > MOST_SHOWN else []
    return "; ".join(other[:MOST_SHOWN] + more)


def _told(place: Path, found: Iterable[Difference]) -> str | None:
    words = in_words(found)
    return f"{place}: was made with different settings ({words}); keep to that, or remove it" if words else None


def _record(cache: Path) -> CacheRecord | None:
    if cache.is_file():
        return Cache(cache).record
    return read_record(cache) if (cache / PROVENANCE_FILE).exists() else None
