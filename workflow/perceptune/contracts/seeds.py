"""Derivation of all random seeds."""

from __future__ import annotations

import hashlib


def derived_seed(*parts: str | int | float) -> int:
    """A seed in [0, 2**63) that depends only on the parts, not on shards, cores or batches."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
