"""Preference groups as the engines see them, and their encoding for the shared-prefix pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from transformers import PreTrainedModel, ProcessorMixin

from perceptune.contracts.errors import UserError
from perceptune.core.images import open_image
from perceptune.core.looks import Look
from perceptune.core.showing import shown
from perceptune.core.views.view import Recipe, pixel_digest
from perceptune.engines.shared_prefix import Packed, Prompted, packed
from perceptune.models.families.family import Family


@dataclass(frozen=True)
class Shown:
    """What the model is asked under a view: how the images are shown, and the messages that go with them."""

    recipe: Recipe
    messages: Sequence[Mapping[str, Any]]
    sha256: str | None = None
    """Digest of the pixels, where it is known: others would be another view."""


@dataclass(frozen=True)
class RankedList:
    """One example with the responses that a pass needs; of ranked lists the best first."""

    group_id: str
    images: Sequence[Mapping[str, Any]]
    """Image structs of the example, before any view."""
    views: Mapping[str, Shown]
    responses: Sequence[Sequence[int]]
    """Token ids."""
    rewards: Sequence[float]
    reference: Mapping[str, Sequence[float]] | None = None
    """View to the summed reference log-probability of each response."""
    pairs: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Kind of a kept pair to the places of its chosen and its rejected response."""
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Response tokens."""
        return sum(map(len, self.responses))


@dataclass(frozen=True)
class StoredTokens:
    """Numbers of a group that do not change while training: [response][token]."""

    logps: Sequence[Sequence[float]]
    entropies: Sequence[Sequence[float]] | None = None
    """Of the whole distribution, in nats; None where nobody asked for them."""


@dataclass(frozen=True, kw_only=True)
class Rollout(RankedList):
    """One group of a round: the responses of the policy of that round to one example."""

    sampled: Sequence[Sequence[float]]
    """Log-probabilities [response][token] as the sampling engine saw them."""
    truncated: Sequence[bool]
    """Whether a response came to its longest length."""
    stored: Mapping[tuple[Literal["reference", "old"], str], StoredTokens]
    """(term, view) to the numbers of that term under that view; what `Method.stored` names."""


Looks = Callable[[RankedList], Sequence[Look]]
"""What a pass wants to know of a group."""


def all_under(view: str) -> Looks:
    """Every response under one view."""
    return lambda one: [Look(view, tuple(range(len(one.responses))))]


class Batch(NamedTuple):  # a tuple, since the Trainer looks into it
    """Groups ready for one forward pass: a packed row, or several, for each look of each group."""

    packed: Packed
    lists: Sequence[RankedList]
    looks: Sequence[Sequence[Look]]
    """The looks of each group; in `packed` they follow one another."""

    @property
    def tokens(self) -> int:
        """Response tokens whose log-probabilities are asked for."""
        return len(self.packed.targets)


@dataclass(frozen=True)
class Encoder:
    """Groups to packed batches, for one model and token budget."""

    family: Family
    processor: ProcessorMixin
    model: PreTrainedModel
    """Asked for position ids only."""
    looks: Looks
    budget: int | None = None
    """Response tokens per packed row."""

    def __call__(self, lists: Sequence[RankedList]) -> Batch:
        """The batch of these groups. Raises `ValueError` where a view does not give the pixels that it gave before."""
        looks = [list(self.looks(one)) for one in lists]
        prompted = [self._prompted(one, look) for one, wanted in zip(lists, looks, strict=True) for look in wanted]
        return Batch(packed(prompted, self.family, self._padding(), self.budget), list(lists), looks)

    def per_view(self, lists: Sequence[RankedList], views: Sequence[str]) -> dict[str, Packed]:
        """All responses of these groups, packed once for each view: every view has the same tokens in the same order.

        Raises `UserError` where the prompt has other positions than under the first view, as when an image changed its size.
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
                        "its view must keep the number and the sizes of the images",
                    )
        return {view: packed(prompted, self.family, self._padding(), self.budget) for view, prompted in found.items()}

    def _prompted(self, one: RankedList, look: Look) -> Prompted:
        view = one.views[look.view]
        images = shown(view.recipe, [open_image(image) for image in one.images])
        if view.sha256 is not None and pixel_digest(images) != view.sha256:
            raise ValueError(f"group `{one.group_id}`, view `{look.view}`: other pixels than when the pairs were made")
        prefix = self.family.prefix(self.processor, view.messages, images)
        return Prompted(prefix, self.family.positions(self.model, prefix), [one.responses[i] for i in look.responses])

    def _padding(self) -> int:
        padding = self.processor.tokenizer.pad_token_id
        return 0 if padding is None else int(padding)


def per_look(values: torch.Tensor, batch: Batch) -> list[list[torch.Tensor]]:
    """Values of all responses, (R,), cut into one tensor per look of each group."""
    parts = iter(values.split(batch.packed.counts))
    return [[next(parts) for _ in looks] for looks in batch.looks]
