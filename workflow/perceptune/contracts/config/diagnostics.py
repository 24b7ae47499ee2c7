"""Diagnostics of trainings."""

from __future__ import annotations

from perceptune.contracts.config.blocks import Block, Positive, Seed


class DiagnosticsBlock(Block):
    """Gradients of the adapter's weights by kind of pair, before and after training
    (docs/diagnostics.md)."""

    experiments: tuple[str, ...] = ()
    """Experiments to measure; empty: all whose method compares two answers (all but `sft` and methods
    with rounds)."""
    groups: Positive = 256
    """Maximum number of lists or pair records per experiment, drawn by seed."""
    seed: Seed = 0
    """Seed of the groups, of the drawn tokens and of the bootstrap."""
