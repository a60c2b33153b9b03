"""Whether an output is stale: made with other settings, or from other inputs than those that exist now.

Each function returns the reason, or None where the output is current or does not exist yet. No network is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fercache.cache.predictions import cache_of
from fercache.cache.provenance import FILE_DIGEST, PROVENANCE_FILE, CacheRecord, read_record
from fercache.cache.reader import Cache
from fercache.config import ExtractConfig
from fercache.files import sha256_of
from fercache.rundir import Difference, RunDir, describe_differences


def stale_run(run: Path, manifest: Path, settings: Mapping[str, Any], cache: Path | None = None) -> str | None:
    """Compare a run's settings and manifest, and of a head its cache."""
    current: dict[str, Any] = {**settings, "manifest_sha256": sha256_of(manifest)}
    if cache is not None and (record := _cache_record(cache)) is not None:
        current["cache_fingerprint"] = record.provenance.fingerprint
    return _reason(run, RunDir(run).changed(current))


def stale_cache(cache: Path, weights: Path, settings: ExtractConfig) -> str | None:
    """Compare a cache's number types and backend, and the weights file that it was extracted with."""
    record = _cache_record(cache)
    if record is None:
        return None
    differences = [
        Difference(key, before, now)
        for key, before, now in (
            ("dtype", record.provenance.dtype, settings.dtype),
            ("precision", record.provenance.precision, settings.precision),
            ("backend", record.recorded.get("backend"), settings.backend),
        )
        if now != "auto" and before != now
    ]
    if weights.exists() and record.recorded.get(FILE_DIGEST) not in (None, sha256_of(weights)):
        differences.append(Difference("network", "another one", str(weights)))
    return _reason(cache, differences)


def stale_predictions(predictions: Path, cache: Path) -> str | None:
    """Compare the cache that predictions, or all that they were fused from, were made from."""
    record = _cache_record(cache)
    if record is None or not predictions.exists():
        return None
    fingerprint = record.provenance.fingerprint
    others = sorted(set(cache_of(predictions).split("+")) - {fingerprint})
    return _reason(predictions, [Difference("cache", other[:12], fingerprint[:12]) for other in others[:1]])


def stale_ensemble(ensemble: Path, settings: Mapping[str, Any]) -> str | None:
    """Compare the settings of an ensemble's search."""
    if not ensemble.exists():
        return None
    from fercache.results.ensemble_file import read_ensemble  # loads SciPy

    before = read_ensemble(ensemble).settings
    return _reason(
        ensemble,
        [Difference(key, before[key], now) for key, now in settings.items() if before.get(key, now) != now],
    )


def config_differences(before: Mapping[str, Any], now: Mapping[str, Any], section: str = "") -> Iterator[Difference]:
    """The settings of two configs, as plain values, that differ."""
    for key, value in before.items():
        if isinstance(value, dict):
            yield from config_differences(value, now[key], f"{section}{key}.")
        elif value != now[key]:
            yield Difference(section + key, value, now[key])


def _reason(output: Path, differences: Sequence[Difference]) -> str | None:
    if not differences:
        return None
    words = describe_differences(differences)
    return f"{output}: was made with different settings ({words}); use those settings, or remove it"


def _cache_record(cache: Path) -> CacheRecord | None:
    if cache.is_file():
        return Cache(cache).record
    return read_record(cache) if (cache / PROVENANCE_FILE).exists() else None
