"""Rehearsals: the whole chain of a config on a few examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FEWER = {
    "samplings": "limit",
    "pair_generations": "limit",
    "dataset_preferences": "limit",
    "attention_maps": "limit",
    "saliency_maps": "limit",
    "benchmarks": "limit",
    "rollouts": "questions",
    "batch_selections": "questions",
}
"""Section to the key that limits the number of examples in its blocks."""
UNFILTERED: dict[str, dict[str, Any]] = {
    "selections": {"min_margin": 0.0, "deduplicate": False},
    "batch_selections": {"keep": None},
    "filters": {"max_ppl": None, "margin": None, "central_quantile": None},
}
"""Settings that switch filters off: on so few examples they might drop everything."""
ROUNDS = 2


def rehearsed(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The raw config, limited to `rehearse` examples per task and two rounds, without filters.

    Unchanged if the config has no valid `rehearse`.
    """
    count = raw.get("rehearse")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        return dict(raw)
    cut = dict(raw)
    for section in FEWER.keys() | UNFILTERED.keys():
        blocks = raw.get(section)
        if isinstance(blocks, Mapping):
            cut[section] = {name: _cut(section, block, count) for name, block in blocks.items()}
    experiments = raw.get("experiments")
    if isinstance(experiments, Mapping):
        cut["experiments"] = {
            name: {**block, "rounds": min(block["rounds"], ROUNDS), "evaluate_every": ROUNDS}
            if isinstance(block, Mapping) and isinstance(block.get("rounds"), int)
            else block
            for name, block in experiments.items()
        }
    report = raw.get("report") or {}
    if isinstance(report, Mapping):
        title = f"{report['title']}, rehearsal" if "title" in report else "Rehearsal"
        cut["report"] = {**report, "title": f"{title}: {count} examples per task, numbers are meaningless"}
    return cut


def _cut(section: str, block: Any, count: int) -> Any:
    if not isinstance(block, Mapping):
        return block
    key = FEWER.get(section)
    limit = block.get(key) if key else None
    fewer = {} if key is None else {key: min(limit, count) if isinstance(limit, int) else count}
    return {**block, **fewer, **UNFILTERED.get(section, {})}
