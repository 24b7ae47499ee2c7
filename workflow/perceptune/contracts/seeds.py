"""The one place where random seeds come from."""

from __future__ import annotations

import hashlib


def derived_seed(*parts: str | int | float) -> int:
    """A seed in [0, 2**63) made of the parts and nothing else: the same for any number of shards, cores or batches."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
