"""Experiments and exports."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from perceptune.contracts.config.blocks import Block, Positive

LISTS = ("sampling", "reward", "selection")
SOURCES: dict[str, tuple[tuple[str, ...], ...]] = {
    "lists": (LISTS, ("dataset_preference",)),
    "pairs": (("pair_generation", "filter"),),
    "rollouts": (("rollout", "reward", "batch_selection"),),
}
"""What a method learns from, to the experiment keys that define its source. Lists have two
sources."""
WAYS = tuple(way for ways in SOURCES.values() for way in ways)


def named_keys(*ways: tuple[str, ...]) -> str:
    """Keys as text for messages: "`pair_generation` and `filter`, or `rollout`"."""
    listed = [[f"`{key}`" for key in keys] for keys in ways]
    return ", or ".join(" and ".join(filter(None, [", ".join(keys[:-1]), keys[-1]])) for keys in listed)


class ExperimentBlock(Block):
    """One trained policy, as names of blocks. The block's name is also the policy's name."""

    model: str
    """Base model."""
    dataset: str
    """Training data."""
    sampling: str | None = None
    """Sampling block of the training responses (list methods only)."""
    reward: str | None = None
    """Reward block that scores them (list and round methods only)."""
    selection: str | None = None
    """Selection block that turns scored responses into ranked lists (list methods only)."""
    dataset_preference: str | None = None
    """Dataset preferences to use as ranked lists, instead of `sampling`, `reward` and
    `selection`."""
    pair_generation: str | None = None
    """Block that generates pairs (pair methods only)."""
    filter: str | None = None
    """Block that filters these pairs (pair methods only)."""
    rollout: str | None = None
    """Rollout block: the questions of each round (round methods only)."""
    batch_selection: str | None = None
    """Block that selects the groups of a round to train on (round methods only)."""
    rounds: Positive | None = None
    """Number of rounds (round methods only). Round k trains the policy `<experiment>@<k>`. If the
    number is raised later, training continues from the last round."""
    evaluate_every: Positive = 1
    """Evaluate the policy of every n-th round; the last one is always evaluated."""
    training: str
    """Training block."""
    benchmarks: tuple[str, ...]
    """Benchmarks for the policy and its base model."""

    @property
    def made_of(self) -> tuple[str, ...]:
        """The keys that define the source of its groups."""
        return next((keys for keys in WAYS if getattr(self, keys[0])), LISTS)

    @model_validator(mode="after")
    def _groups_have_one_source(self) -> ExperimentBlock:
        keys = dict.fromkeys(key for way in WAYS for key in way)
        present = [key for key in keys if getattr(self, key)]
        if set(present) not in map(set, WAYS):
            found = ", ".join(f"`{key}`" for key in present) or "none of them"
            raise ValueError(f"has {found}, expected either {named_keys(*WAYS)}")
        if (self.rounds is None) == (self.rollout is not None):
            raise ValueError("`rounds` and `rollout` go together, expected both or neither")
        return self


class ExportBlock(Block):
    """Preferences of an experiment in another trainer's format (docs/exchange.md), written by
    `snakemake exports`."""

    experiment: str
    """An experiment (of one with rounds, the last round), or a round as `<experiment>@<round>`."""
    format: str
    """Target format."""
    pairs: Literal["extremes", "all"] = "extremes"
    """Pairs made from a ranked list, in pair formats: best and worst response, or all pairs with
    different rewards."""
