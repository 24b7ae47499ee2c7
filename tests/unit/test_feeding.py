"""A feed's batches are those of its sources, in order, in page-locked memory if there is a GPU."""

import os
from dataclasses import dataclass, replace

import pytest
import torch
from perceptune.contracts.config import ModelBlock
from perceptune.engines.training.branch_attention import Branches
from perceptune.engines.training.feeding import PLAIN, Feed, Layout, Source
from perceptune.engines.training.shared_prefix import Packed
from perceptune.runtime.ahead import workers_of


@dataclass(frozen=True)
class Batch:
    groups: list[str]
    layout: Layout = PLAIN
    is_pinned: bool = False

    def pinned(self) -> "Batch":
        return replace(self, is_pinned=True)


def joined() -> type[Batch]:
    """An encoder."""
    return Batch


def test_batches_of_several_sources() -> None:
    with Feed([Source("abcd", joined), Source("xyz", joined)]) as feed:
        assert list(feed.batches([(0, 2), (3,), ()])) == [Batch(["a", "c"]), Batch(["d"]), Batch([])]
        assert list(feed.batches([(1,)], source=1)) == [Batch(["y"])]
        assert list(feed.batches([(1,)], layout=Layout(True))) == [Batch(["b"], Layout(True))]


@pytest.mark.parametrize("there", [True, False])
def test_batches_are_pinned_for_a_gpu(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    with Feed([Source("ab", joined)]) as feed:
        assert [batch.is_pinned for batch in feed.batches([(0,), (1,)])] == [there, there]


def test_pinning_keeps_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    inputs = {"input_ids": torch.ones(1, 2), "pixel_values": torch.zeros(3)}
    packed = Packed(inputs, *(torch.arange(2) for _ in range(5)), counts=[1], branches=Branches.of([3], [[1, 2]]))
    assert packed.pinned() == packed
    tensors = [value for value in vars(packed).values() if isinstance(value, torch.Tensor)]
    spans = [ends for one in (packed.branches.own, packed.branches.shared) for ends in (one.queries, one.keys)]
    assert {*map(id, pinned)} == {*map(id, (*inputs.values(), *tensors, *spans))}


def test_an_encoder_is_made_once_per_source() -> None:
    made = []

    def making() -> type[Batch]:
        made.append(1)
        return Batch

    with Feed([Source("abc", making)]) as feed:
        assert len(list(feed.batches([(0,), (1,), (2,)]))) == 3
    assert len(made) == 1


def test_waiting_is_measured() -> None:
    with Feed([Source("ab", joined)]) as feed:
        list(feed.batches([(0,)]))
        assert 0 < feed.waited < 1


def test_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    def workers(processes: int = 1, **settings: int) -> int:
        return workers_of(ModelBlock(path="m", family="llava", **settings), processes)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(12))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert workers() == 0
    assert workers(workers=5, threads=1) == 5
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert workers(workers=0) == 0
    assert [workers(threads=threads) for threads in (1, 2, 8, 16)] == [0, 1, 7, 8]
    assert [workers(processes) for processes in (1, 2, 4, 8, 16)] == [8, 5, 2, 0, 0]  # twelve cores
