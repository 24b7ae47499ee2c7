"""Preference groups as the engines see them, and their encoding for the shared-prefix pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from transformers import PreTrainedModel, ProcessorMixin

from perceptune.contracts.errors import UserError
from perceptune.core.data.images import open_image
from perceptune.core.methods.logprob_queries import Look
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe, pixel_digest
from perceptune.engines.training import branch_attention
from perceptune.engines.training.separate_sequences import separated
from perceptune.engines.training.shared_prefix import Packed, Prompted, branched, packed
from perceptune.models.families.family import Family


@dataclass(frozen=True)
class Shown:
    """A rendered view: how the images are shown, and the messages that go with them."""

    recipe: Recipe
    messages: Sequence[Mapping[str, Any]]
    sha256: str | None = None
    """Digest of the pixels if known; other pixels are an error."""


@dataclass(frozen=True)
class RankedList:
    """One example with the responses of a pass; ranked lists are sorted best first."""

    group_id: str
    images: Sequence[Mapping[str, Any]]
    """The example's image structs, before any view."""
    views: Mapping[str, Shown]
    responses: Sequence[Sequence[int]]
    """Token ids."""
    rewards: Sequence[float]
    reference: Mapping[str, Sequence[float]] | None = None
    """View to the summed reference log-prob of each response."""
    pairs: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Kind of a kept pair to the indices of its chosen and its rejected response."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = ()
    """Width and height of each image, in pixels."""

    @property
    def tokens(self) -> int:
        """Number of response tokens."""
        return sum(map(len, self.responses))


@dataclass(frozen=True)
class StoredTokens:
    """Values of a group that are constant during training, indexed [response][token]."""

    logps: Sequence[Sequence[float]]
    entropies: Sequence[Sequence[float]] | None = None
    """Entropy of the full next-token distribution, in nats; None if not computed."""


@dataclass(frozen=True, kw_only=True)
class Rollout(RankedList):
    """One group of a round: the responses of that round's policy to one example."""

    sampled: Sequence[Sequence[float]]
    """Log-probs [response][token] as reported by the sampling engine."""
    truncated: Sequence[bool]
    """Whether each response reached the token limit."""
    stored: Mapping[tuple[Literal["reference", "old"], str], StoredTokens]
    """(term, view) to the stored values; the keys are those of `Method.stored`."""


Looks = Callable[[RankedList], Sequence[Look]]
"""The log-prob queries of a pass for one group."""


def all_under(view: str) -> Looks:
    """Every response under one view."""
    return lambda one: [Look(view, tuple(range(len(one.responses))))]


class Batch(NamedTuple):  # a tuple, since the Trainer inspects it
    """Groups ready for one forward pass: one packed row or more per log-prob query."""

    packed: Packed
    lists: Sequence[RankedList]
    looks: Sequence[Sequence[Look]]
    """The log-prob queries of each group, in the order of `packed`."""

    @property
    def tokens(self) -> int:
        """Number of queried response tokens."""
        return len(self.packed.targets)


@dataclass(frozen=True)
class Encoder:
    """Encodes groups as packed batches, for one model and token budget."""

    family: Family
    processor: ProcessorMixin
    model: PreTrainedModel
    """Used for position ids only."""
    looks: Looks
    budget: int | None = None
    """Response tokens per row with a mask; None: no limit."""
    separate: bool = False
    """Whether every response has a row of its own, for models that cannot share a prefix."""
    unpadded: bool = field(init=False)
    """Whether a batch is one row without padding and mask."""

    def __post_init__(self) -> None:
        # decided here, because worker processes must not ask for the GPU
        object.__setattr__(self, "unpadded", not self.separate and branch_attention.suits(self.model))

    def __call__(self, lists: Sequence[RankedList]) -> Batch:
        """The batch of these groups.

        Raises `ValueError` if the pixels of a view have changed.
        """
        looks = [list(self.looks(one)) for one in lists]
        prompted = [self._prompted(one, look) for one, queries in zip(lists, looks, strict=True) for look in queries]
        return Batch(self._packed(prompted), list(lists), looks)

    def per_view(self, lists: Sequence[RankedList], views: Sequence[str]) -> dict[str, Packed]:
        """All responses of these groups, packed once per view, tokens in the same order.

        Raises `UserError` if a view changes the prompt's positions, for example by resizing an
        image.
        """
        found: dict[str, list[Prompted]] = {}
        for view in views:
            found[view] = [self._prompted(one, all_under(view)(one)[0]) for one in lists]
            for one, first, here in zip(lists, found[views[0]], found[view], strict=True):
                if not torch.equal(first.positions, here.positions):
                    lengths = " and ".join(
                        f"{len(p.positions[0])} tokens under `{v}`" for v, p in ((view, here), (views[0], first))
                    )
                    raise UserError(
                        f"group `{one.group_id}`, view `{view}`: the prompt's positions differ, {lengths}",
                        "the view must keep the number and the sizes of the images",
                    )
        return {view: self._packed(prompted) for view, prompted in found.items()}

    def _prompted(self, one: RankedList, look: Look) -> Prompted:
        view = one.views[look.view]
        images = shown(view.recipe, [open_image(image) for image in one.images])
        if view.sha256 is not None and pixel_digest(images) != view.sha256:
            raise ValueError(
                f"group `{one.group_id}`, view `{look.view}`: the pixels have changed since the pairs were made"
            )
        prefix = self.family.prefix(self.processor, view.messages, images)
        return Prompted(prefix, self.family.positions(self.model, prefix), [one.responses[i] for i in look.responses])

    def _packed(self, prompted: Sequence[Prompted]) -> Packed:
        if self.unpadded:
            return branched(prompted, self.family)
        padding = int(self.processor.tokenizer.pad_token_id or 0)
        if self.separate:
            return separated(prompted, self.family, self.model, padding)
        return packed(prompted, self.family, padding, self.budget)


def per_look(values: torch.Tensor, batch: Batch) -> list[list[torch.Tensor]]:
    """Values of all responses, (R,), split into one tensor per log-prob query of each group."""
    parts = iter(values.split(batch.packed.counts))
    return [[next(parts) for _ in looks] for looks in batch.looks]
