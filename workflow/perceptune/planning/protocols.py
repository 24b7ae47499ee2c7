"""Defaults of benchmark blocks that name a published benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceptune.contracts.errors import UserError, lookup
from perceptune.contracts.plugins import load, names
from perceptune.core.benchmarks.benchmark import Benchmark


def with_protocols(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Adds official settings to benchmark blocks with a `protocol`; the blocks' keys override them.

    A block without `reward` gets a reward block named like the protocol; if the config defines a block
    of that name, its keys override the protocol's. `n` defaults to 0. Raises `UserError` for an
    unknown protocol or variant.
    """
    written = raw.get("benchmarks")
    if not isinstance(written, Mapping):
        return dict(raw)
    benchmarks, rewards = dict(written), raw.get("rewards") or {}
    if not isinstance(rewards, Mapping):
        return dict(raw)
    rewards = dict(rewards)
    for name, block in written.items():
        if not isinstance(block, Mapping) or block.get("protocol") is None:
            continue
        protocol = _named(f"benchmarks.{name}", str(block["protocol"]), block.get("variant"))
        benchmarks[name] = {"n": 0, "reward": protocol.name, **protocol.settings, **block}
        if benchmarks[name]["reward"] == protocol.name:
            own = rewards.get(protocol.name, {})
            rewards[protocol.name] = {"tasks": dict(protocol.rewards), **own} if isinstance(own, Mapping) else own
    return {**raw, "benchmarks": benchmarks, "rewards": rewards}


def _named(key: str, protocol: str, variant: Any) -> Benchmark:
    known = names("benchmark")
    if protocol not in known:
        for other in (load("benchmark", name) for name in known if protocol.startswith(f"{name}_")):
            if (variant_name := protocol.removeprefix(f"{other.name}_")) in other.variants:
                new = f"`protocol: {other.name}` with `variant: {variant_name}`"
                raise UserError(f"config\n  key `{key}.protocol`: `{protocol}` is not defined, expected {new}")
    lookup(dict.fromkeys(known), protocol, f"config\n  key `{key}.protocol`:")
    try:
        loaded: Benchmark = load("benchmark", protocol)
    except UserError as error:
        raise UserError(f"config\n  key `{key}.protocol`: {error.args[0]}", error.hint) from None
    try:
        found = loaded.variant(None if variant is None else str(variant))
    except UserError as error:
        raise UserError(f"config\n  key `{key}.variant`: {error.args[0]}", error.hint) from None
    return found
