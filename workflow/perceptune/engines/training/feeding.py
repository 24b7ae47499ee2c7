"""Batches for training and log-probs: worker processes read, encode and pack groups ahead of their use.

PyTorch's data loader only deals in places: which groups are in which batch, in the Trainer's order.
Workers do the rest, so batches do not depend on how many there are, or whether one had to be replaced.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import torch

from perceptune.engines.training.image_features import FeatureCache
from perceptune.runtime.ahead import Workers

Places = Sequence[int]
"""The groups of a batch, by their place among all groups."""


class Pinnable(Protocol):
    """A batch."""

    def pinned(self) -> Self:
        """The same in page-locked memory, from which a GPU copies while it computes."""


class Layout(NamedTuple):
    """What batches look like; only a process with the model can tell."""

    unpadded: bool = False
    """One row without padding, which suits some GPUs, see `branch_attention.suits`."""
    features: FeatureCache | None = None
    """Where features of images are looked up, if anywhere."""


PLAIN = Layout()
"""Rows with a mask, and pixels."""

One = TypeVar("One")
B = TypeVar("B", bound=Pinnable)


@dataclass(frozen=True)
class Source(Generic[One, B]):
    """Groups, and a function that makes their encoder. Both can be sent to other processes."""

    groups: Sequence[One]
    encoder: Callable[[], Callable[[list[One], Layout], B]]


class Feed(Generic[B]):
    """Batches of the groups of some sources. Use it as a context manager.

    With 0 workers, a batch is made when it is needed. Errors in a worker, such as a `UserError` for an
    image that has changed, are raised where the batch would be used.
    """

    def __init__(self, sources: Sequence[Source[Any, B]], workers: int = 0) -> None:
        self.sources = sources
        self.waited = 0.0
        """Seconds spent waiting for batches."""
        common = [type(source.groups).__module__ for source in sources]
        self._workers: Workers[_Asked, B] = Workers(partial(_Maker, sources), workers, common)

    def __enter__(self) -> Feed[B]:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.__exit__()

    def batches(
        self, places: Iterable[Places], source: int = 0, *, layout: Layout = PLAIN, least: int = 0
    ) -> Iterator[B]:
        """A batch for each of `places`, in order; they are read ahead.

        At least `least` batches are made ahead, if they are small enough.
        """
        results = self._workers.results((_Asked(source, list(one), layout) for one in places), least)
        while True:
            since = time.perf_counter()
            batch = next(results, None)
            if batch is None:
                return
            if torch.cuda.is_available():
                batch = batch.pinned()
            self.waited += time.perf_counter() - since
            yield batch


class _Asked(NamedTuple):
    source: int
    places: list[int]
    layout: Layout


@dataclass
class _Maker(Generic[B]):
    """Makes batches in one process."""

    sources: Sequence[Source[Any, B]]
    encoders: dict[int, Callable[[list[Any], Layout], B]] = field(default_factory=dict)

    def __call__(self, asked: _Asked) -> B:
        source, places, layout = asked
        if source not in self.encoders:
            self.encoders[source] = self.sources[source].encoder()
        groups: Any = self.sources[source].groups
        several = getattr(groups, "__getitems__", None)
        chosen = several(places) if several else [groups[place] for place in places]
        return self.encoders[source](chosen, layout)
