"""Rewards, and the selection of what to train on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from perceptune.contracts.config.blocks import Block, Positive, Prompt, Seed, Share, Task


class RewardBlock(Block):
    """How responses are scored, by task."""

    tasks: dict[Task, str]
    """Reward of each task."""
    max_failed_share: Share = 0.02
    """Maximum share of requests without a response; scoring stops above it."""
    max_failed_rows: Annotated[int, Field(ge=0)] | None = None
    """Maximum number of missing responses. If `max_failed_share` is above 0, both apply; null: only
    `max_failed_share` applies."""
    resources: str | None = None
    """Folder with language resources for rewards that need them (docs/benchmarks.md); null: metrics
    that need them are left empty."""


class SelectionBlock(Block):
    """Turns scored responses into ranked lists. A list of values in a field is a sweep."""

    list_size: Annotated[int, Field(ge=2)] = 20
    """Responses per list (N), after deduplication."""
    min_margin: Share = 0.8
    """Minimum difference between best and worst reward of a kept list, inclusive."""
    min_list_size: Annotated[int, Field(ge=2)] = 2
    """Minimum number of responses in a list; shorter lists are dropped."""
    deduplicate: bool = True
    """Keep only one of several identical responses."""
    pick: Literal["spread", "first"] = "spread"
    """Which responses to keep if there are more than `list_size`: spread evenly over the ranks,
    including best and worst, or the first ones sampled."""
    max_groups: Positive | None = None
    """Maximum number of lists, drawn by seed; null: all."""
    seed: Seed = 0
    """Seed of that draw."""


class GivenBlock(SelectionBlock):
    """Ranked responses that come with the dataset, used instead of sampled ones."""

    min_margin: Annotated[float, Field(ge=0)] = 0.0
    """Minimum difference between best and worst reward of a kept list, inclusive. Rewards are the
    dataset's, or fall from 1 to 0 by rank if it has none."""
    split: str = "train"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to use; empty: all."""
    limit: Positive | None = None
    """Maximum number of questions per task, in dataset order; null: all."""
    prompt: Prompt = "{question}"
    """The user's turn after the image; `{question}` stands for the question."""


class BatchBlock(Block):
    """Which groups of a round to train on."""

    questions: Positive | None = None
    """Maximum number of groups: the first kept ones in the order they were drawn; null: all kept
    ones."""
    keep: str | None = None
    """Dynamic sampling (DAPO): keep a group if its mean of this value lies between `above` and
    `below`. The value is `reward` or a component of the reward such as `accuracy`; null: keep all
    groups."""
    above: float = 0.01
    """Lower limit of that mean, exclusive."""
    below: float = 0.99
    """Upper limit of that mean, exclusive."""

    @model_validator(mode="after")
    def _limits_leave_room(self) -> BatchBlock:
        if self.above >= self.below:
            raise ValueError(f"`above` {self.above:g} is not below `below` {self.below:g}")
        return self
