"""Preference lists as the engines see them, and their encoding for the shared-prefix pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, ProcessorMixin

from perceptune.core.images import open_image
from perceptune.core.views import VIEWS
from perceptune.engines.shared_prefix import Packed, Prompted, packed
from perceptune.models.family import Family


@dataclass(frozen=True)
class RankedList:
    """One prompt with the responses that a pass needs, best first."""

    group_id: str
    messages: Sequence[Mapping[str, Any]]
    images: Sequence[Mapping[str, Any]]
    """Image structs of the example, before the view."""
    responses: Sequence[Sequence[int]]
    """Token ids."""
    rewards: Sequence[float]
    reference: Sequence[float] | None = None
    """Summed reference log-probability of each response."""

    @property
    def tokens(self) -> int:
        """Response tokens."""
        return sum(map(len, self.responses))


@dataclass(frozen=True)
class Encoder:
    """Lists to packed batches, for one model, view and token budget."""

    family: Family
    processor: ProcessorMixin
    model: PreTrainedModel
    """Asked for position ids only."""
    view: str
    budget: int | None = None
    """Response tokens per packed row."""

    def __call__(self, lists: Sequence[RankedList]) -> tuple[Packed, list[RankedList]]:
        """The packed batch and the lists that it holds."""
        return packed([self._prompted(one) for one in lists], self.family, self._padding(), self.budget), list(lists)

    def _prompted(self, one: RankedList) -> Prompted:
        images = VIEWS[self.view]([open_image(image) for image in one.images])
        prefix = self.family.prefix(self.processor, one.messages, images)
        return Prompted(prefix, self.family.positions(self.model, prefix), one.responses)

    def _padding(self) -> int:
        padding = self.processor.tokenizer.pad_token_id  # type: ignore[attr-defined]
        return 0 if padding is None else int(padding)


def per_list(values: torch.Tensor, batch: Packed) -> list[torch.Tensor]:
    """Values of all responses, (R,), cut into one tensor per list."""
    return list(values.split(batch.counts))
