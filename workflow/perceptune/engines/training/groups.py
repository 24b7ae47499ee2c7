"""Preference groups as the engines see them, and their encoding for the shared-prefix pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from PIL.Image import Image
from transformers import PreTrainedModel, ProcessorMixin

from perceptune.contracts.errors import UserError
from perceptune.core.data.images import open_image
from perceptune.core.methods.logprob_queries import Look
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe, pixel_digest
from perceptune.engines.training.feeding import PLAIN, Layout
from perceptune.engines.training.image_features import FeatureCache
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
    return partial(_all_responses, view)


def _all_responses(view: str, one: RankedList) -> list[Look]:
    return [Look(view, tuple(range(len(one.responses))))]


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

    def pinned(self) -> Batch:
        """The same in page-locked memory."""
        return self._replace(packed=self.packed.pinned())


class Part(NamedTuple):  # a tuple, since the Trainer inspects it
    """The groups of a micro batch of a round, packed once per view; the training view comes first."""

    packed: Mapping[str, Packed]
    groups: Sequence[Rollout]

    def pinned(self) -> Part:
        """The same in page-locked memory."""
        return self._replace(packed={view: packed.pinned() for view, packed in self.packed.items()})


@dataclass(frozen=True)
class Encoder:
    """Encodes groups as packed batches, for one model and token budget.

    In a batch, each image is opened once, and each view of a group is processed once. Encoded groups
    no longer have their images.
    """

    family: Family
    processor: ProcessorMixin
    model: PreTrainedModel
    """Used for position ids only; it needs no weights, see `loading.outline`."""
    looks: Looks
    budget: int | None = None
    """Response tokens per row with a mask; None: no limit."""
    dtype: torch.dtype | None = None
    """What pixels are converted to; None: what the processor returns. The model's dtype takes half the
    time to send to another process, and the model converts them anyway."""
    separate: bool = False
    """Whether every response has a row of its own, for models that cannot share a prefix."""

    def __call__(self, lists: Sequence[RankedList], layout: Layout = PLAIN) -> Batch:
        """The batch of these groups.

        Raises `UserError` if a view of a group cannot be encoded or its pixels have changed.
        """
        looks = [list(self.looks(one)) for one in lists]
        opened, prompted = _Opened(), list[Prompted]()
        for one, queries in zip(lists, looks, strict=True):
            names = dict.fromkeys(q.view for q in queries)
            encoded = {view: self._encoded(one, view, opened, layout.features) for view in names}
            prompted += [replace(encoded[q.view], responses=[one.responses[i] for i in q.responses]) for q in queries]
        return Batch(self._packed(prompted, layout), [replace(one, images=()) for one in lists], looks)

    def per_view(self, lists: Sequence[RankedList], views: Sequence[str], layout: Layout = PLAIN) -> dict[str, Packed]:
        """All responses of these groups, packed once per view, tokens in the same order.

        Raises `UserError` like `__call__`, and if a view changes the prompt's positions, for example
        by resizing an image.
        """
        found: dict[str, list[Prompted]] = {view: [] for view in views}
        opened = _Opened()
        for one in lists:
            for view in views:
                here = replace(self._encoded(one, view, opened, layout.features), responses=one.responses)
                found[view].append(here)
                first = found[views[0]][-1]
                if not torch.equal(first.positions, here.positions):
                    lengths = " and ".join(
                        f"{len(p.positions[0])} tokens under `{v}`" for v, p in ((view, here), (views[0], first))
                    )
                    raise UserError(
                        f"group `{one.group_id}`, view `{view}`: the prompt's positions differ, {lengths}",
                        "the view must keep the number and the sizes of the images",
                    )
        return {view: self._packed(prompted, layout) for view, prompted in found.items()}

    def _encoded(self, one: RankedList, name: str, opened: _Opened, features: FeatureCache | None) -> Prompted:
        """One view of a group, without responses."""
        view = one.views[name]
        try:
            images = shown(view.recipe, [opened.image(image) for image in one.images])
            changed = view.sha256 is not None and pixel_digest(images) != view.sha256
            prefix = self.family.prefix(self.processor, view.messages, images)
        except ValueError as error:
            raise UserError(f"group `{one.group_id}`, view `{name}`: {error}") from error
        if changed:
            raise UserError(
                f"group `{one.group_id}`, view `{name}`: the pixels have changed since the pairs were made",
                "delete the table of pairs and rerun",
            )
        encoded = Prompted(prefix, self.family.positions(self.model, prefix), ())
        pixels = self._converted(self.family.model_inputs([prefix])) if features is not None else {}
        if features is None or not pixels:
            return encoded
        text = {key: tensor for key, tensor in prefix.items() if key not in pixels}
        return replace(encoded, prefix=text, images=features.images(pixels))

    def _packed(self, prompted: Sequence[Prompted], layout: Layout) -> Packed:
        padding = int(self.processor.tokenizer.pad_token_id or 0)
        if self.separate:
            made = separated(prompted, self.family, self.model, padding)
        elif layout.unpadded:
            made = branched(prompted, self.family)
        else:
            made = packed(prompted, self.family, padding, self.budget)
        return replace(made, inputs=self._converted(made.inputs))

    def _converted(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {k: v.to(self.dtype) if v.is_floating_point() and self.dtype else v for k, v in tensors.items()}


@dataclass(frozen=True)
class PartEncoder:
    """Encodes the groups of a round under each of `views`, the training view first."""

    encoder: Encoder
    """Its `looks` are not used."""
    views: Sequence[str]

    def __call__(self, groups: Sequence[Rollout], layout: Layout = PLAIN) -> Part:
        """The micro batch of these groups, which no longer have their images.

        Raises `UserError` like `Encoder.per_view`.
        """
        rows = self.encoder.per_view(groups, self.views, layout)
        return Part(rows, [replace(one, images=()) for one in groups])


class _Opened:
    """The open images of a batch; groups may share images."""

    def __init__(self) -> None:
        self._known: dict[Any, Image] = {}

    def image(self, image: Mapping[str, Any]) -> Image:
        """The image of a struct with `bytes` or `path`."""
        key = image["path"] if image.get("bytes") is None else image["bytes"]
        if key not in self._known:
            self._known[key] = open_image(image)
        return self._known[key]


def per_look(values: torch.Tensor, batch: Batch) -> list[list[torch.Tensor]]:
    """Values of all responses, (R,), split into one tensor per log-prob query of each group."""
    parts = iter(values.split(batch.packed.counts))
    return [[next(parts) for _ in looks] for looks in batch.looks]
