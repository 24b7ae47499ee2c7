"""Renamed config keys: old names are errors that state the new name. Kept for one release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SECTIONS = {
    "attentions": "attention_maps",
    "batches": "batch_selections",
    "clips": "clip_scores",
    "givens": "dataset_preferences",
    "pairings": "pair_generations",
    "saliencies": "saliency_maps",
    "slice": "rehearse",
}
"""Old section name to the new one."""

KEYS = {
    "benchmarks": {"attention": "attention_map"},
    "crops": {"attention": "attention_map"},
    "datasets": {"max_failed": "max_failed_share"},
    "experiments": {"batch": "batch_selection", "given": "dataset_preference", "pairing": "pair_generation"},
    "models": {"engine.workers": "workers"},
    "filters": {"central": "central_quantile", "clip": "clip_score", "decides": "applies_to"},
    "rewards": {"max_failed": "max_failed_share"},
    "views": {"one_of": "choice", "op": "type", "saliency": "saliency_map"},
}
"""Section to the renamed keys of its blocks, old to new; `outer.inner` is a key inside another one."""


def renamed(raw: Mapping[str, Any]) -> Iterator[str]:
    """A message per old name in a raw config."""
    for old, new in SECTIONS.items():
        if old in raw:
            yield f"key `{old}`: renamed to `{new}`"
    for section, keys in KEYS.items():
        blocks = raw.get(section)
        for name, block in blocks.items() if isinstance(blocks, Mapping) else ():
            for old, new in keys.items():
                if _has(block, *old.split(".")):
                    moved = f"{section}.{name}.{new}" if "." in old else new
                    yield f"key `{section}.{name}.{old}`: renamed to `{moved}`"


def _has(block: Any, key: str, *inner: str) -> bool:
    """Whether a block has a key, or has it inside other keys."""
    if not isinstance(block, Mapping) or key not in block:
        return False
    return not inner or _has(block[key], *inner)
