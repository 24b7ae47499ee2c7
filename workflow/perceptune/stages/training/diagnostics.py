"""Diagnostics of a training: gradients of its adapter's weights by kind of pair, before and after it."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from perceptune.contracts.config import DiagnosticsBlock, ModelBlock, TrainingBlock, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load, module_of
from perceptune.contracts.progress import Progress
from perceptune.contracts.provenance.digests import sha256_of_json
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.diagnostics import DIAGNOSTICS
from perceptune.contracts.tables.gradients import GRADIENTS
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.probe import needs_separate_sequences
from perceptune.core.diagnostics import OF_ANSWERS, OF_WEIGHTS, compared, drawn_groups, means, uniforms
from perceptune.core.methods.logprob_queries import Look
from perceptune.core.methods.method import GroupMethod
from perceptune.engines.training import branch_attention
from perceptune.engines.training.feeding import Feed, Layout, Source
from perceptune.engines.training.gradients import (
    PairGradients,
    pair_gradients,
    pair_logps,
    recompute_activations,
    weights_by_part,
)
from perceptune.engines.training.groups import Batch, RankedList
from perceptune.engines.training.trainer import with_adapter
from perceptune.models.loading import load_model
from perceptune.models.placement import bare
from perceptune.runtime.ahead import workers_of
from perceptune.runtime.distributed import fingerprint
from perceptune.runtime.locks import only_writer
from perceptune.stages.training.encodable import Prompts
from perceptune.stages.training.groups import KeptLists, kept_lists
from perceptune.stages.training.looks import MethodLooks

POINTS = ("start", "end")
"""Points in time: the new adapter, as the training starts with it, and the trained one."""
BLANK = "blank"
"""View without the image."""
COMMIT = 30.0
"""Seconds between writes to the journal; a killed job loses at most as much."""
TOGETHER = 64
"""Pairs that are measured without the image before their gradients are computed."""
Key = tuple[str, str, str]
"""Point, kind and group of a pair."""


def run(
    *,
    experiment: str,
    preferences: Path,
    examples: Path,
    adapter: Path,
    diagnostics: Path,
    journal: Path,
    model: ModelBlock,
    weights: str,
    config: TrainingBlock,
    measured: DiagnosticsBlock,
    views: dict[str, ViewBlock],
    saliencies: Mapping[str, Path] | None = None,
    probe: Path | None = None,
    halvings: int = 0,
) -> None:
    """Writes the `diagnostics` table of an experiment whose trained adapter is in the folder `adapter`.

    Every pair of the groups in `measured` is measured with the new adapter of the training `config`
    and with the trained one. `journal` is the folder of finished pairs, which a killed run takes over
    if settings, inputs and code are the same; it is removed at the end. The other arguments are those
    of `train.run`. With `halvings`, activations are recomputed. Raises `UserError` if the method
    compares no answers of these preferences, and for gradients that are not finite.
    """
    inputs = {"preferences": preferences, "examples": examples, "adapter": adapter / "adapter_model.safetensors"}
    inputs |= {f"saliency {name}": path for name, path in (saliencies or {}).items()}
    inputs |= {"probe": probe} if probe is not None else {}
    settings: dict[str, Any] = {
        "model": model.model_dump(mode="json"),
        "weights": weights,
        "training": config.model_dump(mode="json"),
        "views": {name: block.model_dump(mode="json") for name, block in views.items()},
        "measured": measured.model_dump(mode="json", exclude={"experiments"}),
    }
    method = load("method", config.method)
    assert isinstance(method, GroupMethod)  # guaranteed by config validation
    declared = method.views(method.Parameters.model_validate(config.parameters), config.view)
    prompts = Prompts(model, needs_separate_sequences(probe))
    asked = list(dict.fromkeys([*declared, BLANK]))
    lists = kept_lists(preferences, examples, asked, views, prompts, saliencies=saliencies)
    names = drawn_groups(lists.entries["group_id"].to_pylist(), measured.groups, measured.seed)
    lists = lists.where(name in names for name in lists.entries["group_id"].to_pylist())
    kinds = _kinds(lists, MethodLooks(config.method, config.parameters, config.view))
    if not kinds:
        raise UserError(f"method `{config.method}` compares no two answers of `{preferences}`, so there is no gradient")
    plugins = [
        module_of("family", model.family),
        module_of("method", config.method),
        *(module_of("view", op) for op in lists.ops),
    ]
    with only_writer(journal.with_name(f".{journal.name}.lock"), "these diagnostics"):
        same = fingerprint(settings, inputs, "perceptune.stages.training.diagnostics", plugins)
        finished = _Journal(journal / same[:16])
        _measure(kinds, finished, prompts, config, measured, adapter, halvings)
        rows = list(_summary(kinds, finished.rows, measured.seed, experiment))
        write_table(diagnostics, DIAGNOSTICS, rows, lineage("training.diagnostics", settings, inputs, plugins))
        shutil.rmtree(journal, ignore_errors=True)


@dataclass(frozen=True)
class PairLooks:
    """The query of one pair of a group, in any process."""

    queries: MethodLooks
    kind: str
    view: str | None = None
    """Instead of the view of the method's query."""

    def __call__(self, one: RankedList) -> list[Look]:
        """The query, first the chosen answer, then the rejected one."""
        look = compared(self.queries(one), one.pairs, len(one.responses))[self.kind]
        return [look if self.view is None else Look(self.view, look.responses)]


@dataclass(frozen=True)
class _Kind:
    """The pairs of one kind."""

    kind: str
    view: str
    lists: KeptLists
    queries: MethodLooks

    @property
    def names(self) -> list[str]:
        """The groups that have such a pair."""
        return list(self.lists.entries["group_id"].to_pylist())

    def sources(self, prompts: Prompts) -> list[Source[RankedList, Batch]]:
        """The pairs under their view, and without the image."""
        looks = (PairLooks(self.queries, self.kind, view) for view in (None, BLANK))
        return [Source(self.lists, partial(prompts.encoder, one, sys.maxsize)) for one in looks]  # in one row


def _kinds(lists: KeptLists, queries: MethodLooks) -> list[_Kind]:
    """The kinds of pairs that the method compares, with their groups."""
    found = [compared(queries.of(rewards, pairs), pairs, len(rewards)) for rewards, pairs in lists.ranks()]
    views = {kind: look.view for group in reversed(found) for kind, look in group.items()}
    return [_Kind(kind, views[kind], lists.where(kind in of for of in found), queries) for kind in sorted(views)]


class _Journal:
    """The finished pairs, in small files that survive a killed job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[Key, list[dict[str, Any]]] = {}
        self._new: list[dict[str, Any]] = []
        self._written = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*.parquet")):
            try:
                for row in read_table(path, GRADIENTS).to_pylist():
                    self.rows.setdefault((row["point"], row["kind"], row["group_id"]), []).append(row)
            except UserError as error:  # a full disk, or a crashed machine
                print(f"{error.args[0]}; its pairs will be measured again", file=sys.stderr, flush=True)
                path.unlink(missing_ok=True)

    def add(self, key: Key, rows: list[dict[str, Any]]) -> None:
        """Adds a finished pair; it is on disk after at most `COMMIT` seconds, or the time of one pair."""
        self.rows[key] = rows
        self._new += rows
        if time.monotonic() - self._written >= COMMIT:
            self.commit()

    def commit(self) -> None:
        """Writes what is new."""
        if self._new:
            name = sha256_of_json([[row["point"], row["kind"], row["group_id"]] for row in self._new])[:16]
            write_table(self.folder / f"{name}.parquet", GRADIENTS, self._new, {"stage": "training.diagnostics"})
        self._new, self._written = [], time.monotonic()


def _measure(
    kinds: Sequence[_Kind],
    finished: _Journal,
    prompts: Prompts,
    config: TrainingBlock,
    measured: DiagnosticsBlock,
    adapter: Path,
    halvings: int,
) -> None:
    """Measures the pairs that `finished` does not have yet."""
    pairs = [(point, kind) for point in POINTS for kind in kinds]
    missing = {(p, k.kind): [n for n, g in enumerate(k.names) if (p, k.kind, g) not in finished.rows] for p, k in pairs}
    total, left = sum(len(POINTS) * len(kind.lists) for kind in kinds), sum(map(len, missing.values()))
    if not left:
        return
    model = prompts.model
    sources = [source for kind in kinds for source in kind.sources(prompts)]
    with Feed(sources, workers_of(model)) as feed:  # its workers start while the model is loaded
        base = load_model(model, quantisation=config.quantisation)
        adapted = with_adapter(base, config, prompts.family, model.path)
        adapted.eval()
        if halvings or config.gradient_checkpointing:
            recompute_activations(adapted)
        with Progress("gradients", total, "pairs", total - left) as progress:
            for point in POINTS:
                if point == "end":
                    adapted.load_adapter(str(adapter), "default", is_trainable=True, torch_device=str(base.device))
                for number, kind in enumerate(kinds):
                    found = _Pass(adapted, feed, number, model, measured.seed, kind).rows(missing[point, kind.kind])
                    for group_id, numbers in found:
                        fixed = {"point": point, "group_id": group_id, "kind": kind.kind}
                        finished.add((point, kind.kind, group_id), [{**fixed, **one} for one in numbers])
                        progress.advance()
        finished.commit()


@dataclass(frozen=True)
class _Pass:
    """Measures the pairs of one kind with the adapter as it is."""

    adapted: PeftModel
    feed: Feed[Batch]
    number: int
    """Of the kind: its sources are two per kind."""
    model: ModelBlock
    seed: int
    kind: _Kind
    layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layout", Layout(branch_attention.suits(bare(self.adapted))))

    def rows(self, places: Sequence[int]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """(group id, rows without point, kind and group) of the groups at these places."""
        weights = weights_by_part(self.adapted)
        for start in range(0, len(places), TOGETHER):
            part = places[start : start + TOGETHER]
            without = [pair_logps(self.adapted, batch, self.model.dtype) for batch in self._batches(part, 1)]
            for blank, batch in zip(without, self._batches(part, 0), strict=True):
                (one,), (look,) = batch.lists, batch.looks[0]
                lengths = [len(one.responses[index]) for index in look.responses]
                numbers = uniforms(sum(lengths), self.seed, one.group_id, self.kind.kind)
                found = pair_gradients(self.adapted, batch, weights, torch.from_numpy(numbers), self.model.dtype)
                rows = list(_rows(found, blank, lengths))
                if not all(math.isfinite(value) for row in rows for value in row.values() if isinstance(value, float)):
                    raise UserError(
                        f"group `{one.group_id}`, {self.kind.kind} pair: gradients or log-probs are NaN or infinite",
                        f"check the weights of `{self.model.path}`; `dtype: float16` can overflow, use `bfloat16`",
                    )
                yield one.group_id, rows

    def _batches(self, places: Sequence[int], view: int) -> Iterator[Batch]:
        return self.feed.batches(([place] for place in places), 2 * self.number + view, layout=self.layout)


def _rows(found: PairGradients, blank: tuple[float, float], lengths: Sequence[int]) -> Iterator[dict[str, Any]]:
    for part in found.chosen:
        yield {
            "weights": part,
            "chosen_squared": found.chosen[part],
            "rejected_squared": found.rejected[part],
            "difference_squared": found.difference[part],
            "chosen_drawn_squared": found.chosen_drawn[part],
            "rejected_drawn_squared": found.rejected_drawn[part],
            "chosen_image": found.logps[0] - blank[0],
            "rejected_image": found.logps[1] - blank[1],
            "chosen_tokens": lengths[0],
            "rejected_tokens": lengths[1],
        }


def _summary(
    kinds: Sequence[_Kind], rows: Mapping[Key, list[dict[str, Any]]], seed: int, experiment: str
) -> Iterator[dict[str, Any]]:
    """The rows of the `diagnostics` table; the order of the journal does not matter."""
    for point in POINTS:
        for kind in kinds:
            by_part: dict[str, list[dict[str, Any]]] = {}
            for name in kind.names:
                for row in rows[point, kind.kind, name]:
                    by_part.setdefault(row["weights"], []).append(row)
            for part, found in by_part.items():
                numbers = [name for name in found[0] if isinstance(found[0][name], int | float)]
                columns = {name: np.array([row[name] for row in found], float) for name in numbers}
                metrics = [*OF_WEIGHTS, *(OF_ANSWERS if part == "all" else ())]
                fixed = {"experiment": experiment, "point": point, "kind": kind.kind, "view": kind.view}
                for one in means(columns, metrics, seed, (kind.kind,)):
                    yield {**fixed, "weights": part, "n": len(found), **one}
