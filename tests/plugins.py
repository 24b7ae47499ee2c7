"""The built-in plug-ins by kind and name."""

from typing import Any

from perceptune.contracts.plugins import load, names


def _all(kind: str) -> dict[str, Any]:
    return {name: load(kind, name) for name in names(kind)}


BENCHMARKS = {v.name: v for b in _all("benchmark").values() for v in b.every_variant()}
"""Including variants such as `amber_generative`."""
PROTOCOLS = {
    variant.name: {"protocol": b.name, "variant": variant.name.removeprefix(b.name).removeprefix("_") or None}
    for b in _all("benchmark").values()
    for variant in b.every_variant()
}
"""Maps a benchmark's name to the keys of a benchmark block that select it."""
EXPORTERS = _all("exporter")
FAMILIES = _all("family")
IMPORTERS = _all("importer")
METHODS = _all("method")
VIEWS = _all("view")
REWARDS = {name: reward.score for name, reward in _all("reward").items()}
"""Maps a reward's name to its scoring function."""
REWARD_METRICS = {
    name: {metric: declared.metric for metric, declared in reward.metrics.items()}
    for name, reward in _all("reward").items()
}
"""Maps a reward's name to its metrics."""
