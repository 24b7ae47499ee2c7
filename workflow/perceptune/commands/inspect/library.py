"""Reads the tables of a folder of results, and remembers the latest selections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import polars as pl
from PIL.Image import Image

from perceptune.commands.inspect import answers, comparing, grouped
from perceptune.commands.inspect.answers import Selection
from perceptune.commands.inspect.comparing import Comparison
from perceptune.commands.inspect.contents import BENCHMARKS, Answered, Contents, Stamp, ancestors, stamp
from perceptune.commands.inspect.filters import AnswerFilter, CompareFilter, ExampleFilter, GroupFilter
from perceptune.contracts.errors import UserError, lookup
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import Rows, read_lineage
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.contracts.tables.table import Table
from perceptune.stages.data.example_images import IllustratedExamples
from perceptune.stages.data.scans import scan

REMEMBERED = 8
"""Selections of each kind in memory; one of a million answers takes 14 MB."""


class Library:
    """The tables of a folder of results. Its methods can be called from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        self.contents = Contents.read(folder)

    def look_again(self) -> None:
        """Finds tables that were written since."""
        self.contents = Contents.read(self._folder)

    def answered(self, name: str) -> Answered:
        """A table of answers. Raises `UserError` for an unknown name."""
        return lookup(dict(self.contents.answers), name, "table of answers")

    def select(self, tables: Sequence[Answered], wanted: AnswerFilter) -> Selection:
        """The answers of these tables that match."""
        return _selected(tuple(stamp(one.path) for one in tables), wanted.model_copy(update={"page": 1}))

    def facets(self, tables: Sequence[Answered]) -> dict[str, list[tuple[str | None, int]]]:
        """What the columns of these tables contain."""
        return _facets(tuple(stamp(one.path) for one in tables), "rewards", answers.FACETS)

    def rows(self, tables: Sequence[Answered], chosen: pl.DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Rows (`table`, `row`) of these tables, in this order, with the name of their table in `name`."""
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for (table,), part in chosen.group_by("table", maintain_order=True):
            number = int(str(table))
            taken = self.rows_at(tables[number], part["row"], columns)
            name = tables[number].name
            found |= {(number, row): {**fields, "name": name} for row, fields in zip(part["row"], taken, strict=True)}
        return [found[key] for key in chosen.select("table", "row").iter_rows()]

    def rows_at(self, one: Answered, rows: pl.Series, columns: Sequence[str]) -> list[dict[str, Any]]:
        """These rows of a table of answers, in this order."""
        return Rows(one.path, REWARDS, columns).take(rows.to_list())

    def request(self, one: Answered, request: str) -> list[dict[str, Any]]:
        """The answers to one request. Raises `UserError` if there are none."""
        rows = _rows_of(one.path, REWARDS, "request_id", request)
        if not rows:
            raise UserError(f"`{one.name}` has no answers to request `{request}`")
        return rows

    def asked(self, one: Answered, request: str) -> dict[str, Any] | None:
        """The row of `requests`; None if that table does not exist any more."""
        rows = self._related(one, "requests", REQUESTS, request)
        return rows[0] if rows else None

    def responses(self, one: Answered, request: str) -> dict[int, dict[str, Any]]:
        """Sample index to response, with tokens and log-probs; empty if that table does not exist."""
        return {row["sample_index"]: row for row in self._related(one, "responses", RESPONSES, request)}

    def _related(self, one: Answered, role: str, kind: Table, request: str) -> list[dict[str, Any]]:
        path = one.inputs.get(role)
        return _rows_of(path, kind, "request_id", request) if path is not None and path.is_file() else []

    def dataset(self, one: Answered, benchmark: str | None) -> str | None:
        """The dataset behind answers to a benchmark, or of a table of training samples; None if unknown."""
        if one.plan != BENCHMARKS:
            return one.plan.split("/")[0]
        if len(one.examples) == 1:
            return next(iter(one.examples))
        requests = one.inputs.get("requests")
        if requests is None or not requests.is_file():
            return None
        return dict(_datasets(stamp(requests))).get(benchmark)

    def side(self, policy: str, plan: str | None, scored: str | None) -> Answered:
        """The only table of answers of a policy with these names. Raises `UserError` if there are none or
        several."""
        tables = self.contents.chosen(policy, plan, scored)
        if len(tables) == 1:
            return tables[0]
        if not tables:
            raise UserError(f"policy `{policy}` has no such answers", "choose another source or reward block")
        listed = ", ".join(f"`{one.name}`" for one in tables[:5])
        raise UserError(f"policy `{policy}` has several tables: {listed}", "choose the source and the reward block")

    def about(self, dataset: str) -> list[Answered]:
        """The tables with answers to examples of a dataset."""
        return [one for one in self.contents.answers.values() if dataset in one.examples]

    def compare(self, a: Answered, b: Answered, wanted: CompareFilter) -> Comparison:
        """Policy `b` compared with policy `a`."""
        return _compared(stamp(a.path), stamp(b.path), wanted.model_copy(update={"page": 1}))

    def groups(self, path: Path, wanted: GroupFilter) -> grouped.Groups:
        """The preference groups of a table that match."""
        return _grouped(stamp(path), wanted.model_copy(update={"page": 1}))

    def group(self, path: Path, group_id: str) -> dict[str, Any]:
        """One preference group. Raises `UserError` if there is none with this id."""
        rows = _rows_of(path, PREFERENCES, "group_id", group_id)
        if not rows:
            raise UserError(f"`{path}` has no group `{group_id}`")
        return rows[0]

    def group_responses(
        self, path: Path, group: Mapping[str, Any]
    ) -> tuple[list[dict[str, Any] | None], dict[str, Any]]:
        """For each answer of a group its row of `responses`, with log-probs, or None; and the model block
        of the policy that answered."""
        found = ancestors(path).get(RESPONSES.name)
        if found is None:
            return [None] * len(group["responses"]), {}
        rows = _rows_of(found, RESPONSES, "example_id", group["example_id"])
        by_condition = {(row["request_id"].rpartition("/")[2], row["sample_index"]): row for row in rows}
        drawn = group["request_id"].rpartition("/")[2]
        answered = [by_condition.get((one["role"] or drawn, one["sample_index"])) for one in group["responses"]]
        return answered, read_lineage(found).get("parameters", {}).get("model", {})

    def group_facets(self, path: Path) -> dict[str, list[tuple[str | None, int]]]:
        """What the columns of a preferences table contain."""
        return _facets((stamp(path),), "preferences", ("task", "view", "reason"))

    def example_path(self, dataset: str) -> Path:
        """The examples table of a dataset. Raises `UserError` for an unknown one."""
        return lookup(dict(self.contents.examples), dataset, "dataset")

    def select_examples(self, wanted: ExampleFilter) -> grouped.ExampleList:
        """The examples that match. Raises `UserError` if the wanted answers are not about this dataset."""
        examples = stamp(self.example_path(wanted.dataset))
        answered: Stamp | None = None
        benchmarks: tuple[str | None, ...] = ()
        if wanted.answers is not None:
            tables = {one.name: one for one in self.about(wanted.dataset)}
            if not tables:
                raise UserError(f"there are no answers to examples of dataset `{wanted.dataset}`")
            one = lookup(tables, wanted.answers, "table of answers")
            answered = stamp(one.path)
            named = [name for name, _ in self.facets([one])["benchmark"]]
            benchmarks = tuple(name for name in named if self.dataset(one, name) == wanted.dataset)
        return _examples(examples, wanted.model_copy(update={"page": 1}), answered, benchmarks)

    def example_rows(self, dataset: str, rows: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Rows of an examples table, quarantined ones included."""
        return Rows(self.example_path(dataset), EXAMPLES, columns).take(rows)

    def example_facets(self, dataset: str) -> dict[str, list[tuple[str | None, int]]]:
        """What the columns of an examples table contain."""
        return _facets((stamp(self.example_path(dataset)),), "examples", ("task", "split", "reason"))

    def example(self, dataset: str | None, example_id: str, columns: Sequence[str]) -> dict[str, Any] | None:
        """A usable example; None if there is none."""
        if dataset is None or dataset not in self.contents.examples:
            return None
        with self._lock:
            try:
                return self._known(dataset).row(example_id, columns)
            except KeyError:
                return None

    def image(self, dataset: str, example_id: str, number: int) -> Image:
        """An image of an example, counted from 0. Raises `KeyError` if there is none, and `ValueError` if
        it is unreadable or has changed since the import."""
        known = self._known(dataset)
        with self._lock:
            if not 0 <= number < len(known.row(example_id, ("image_sha256",))["image_sha256"]):
                raise KeyError(number)
            return known.image(example_id, number)

    def images(self, dataset: str, example_id: str) -> list[Image]:
        """All images of an example. Raises like `image`."""
        known = self._known(dataset)
        with self._lock:
            return known.images(example_id)

    def stored_images(self, dataset: str, example_id: str) -> list[dict[str, Any]]:
        """The image structs of an example: an encoded file in `bytes`, or its `path`."""
        with self._lock:
            return list(self._known(dataset).row(example_id, ("images",))["images"])

    def _known(self, dataset: str) -> IllustratedExamples:
        return _illustrated(stamp(self.example_path(dataset)))


def row_of(path: Path | None, kind: Table, example_id: str) -> dict[str, Any] | None:
    """The row of an example in a table of crops or attention maps; None without one, or without a table."""
    rows = [] if path is None or not path.is_file() else _rows_of(path, kind, "example_id", example_id)
    return rows[0] if rows else None


def _rows_of(path: Path, kind: Table, key: str, value: str) -> list[dict[str, Any]]:
    return scan(path, kind).filter(pl.col(key) == value).collect(engine="streaming").to_dicts()


@lru_cache(REMEMBERED)
def _selected(tables: tuple[Stamp, ...], wanted: AnswerFilter) -> Selection:
    return answers.select([scan(one.path, REWARDS) for one in tables], wanted)


@lru_cache(REMEMBERED)
def _facets(tables: tuple[Stamp, ...], kind: str, columns: tuple[str, ...]) -> dict[str, list[tuple[str | None, int]]]:
    kinds = {table.name: table for table in (REWARDS, PREFERENCES, EXAMPLES)}
    return answers.facets([scan(one.path, kinds[kind]) for one in tables], columns)


@lru_cache(REMEMBERED)
def _compared(a: Stamp, b: Stamp, wanted: CompareFilter) -> Comparison:
    return comparing.compare(scan(a.path, REWARDS), scan(b.path, REWARDS), wanted)


@lru_cache(REMEMBERED)
def _grouped(table: Stamp, wanted: GroupFilter) -> grouped.Groups:
    return grouped.select_groups(scan(table.path, PREFERENCES), wanted)


@lru_cache(REMEMBERED)
def _examples(
    table: Stamp, wanted: ExampleFilter, answered: Stamp | None, benchmarks: tuple[str | None, ...]
) -> grouped.ExampleList:
    found = None
    if answered is not None:
        about = pl.col("benchmark").is_in(benchmarks, nulls_equal=True)
        found = scan(answered.path, REWARDS).filter(about)
    return grouped.select_examples(scan(table.path, EXAMPLES), wanted, found)


@lru_cache(REMEMBERED)
def _datasets(requests: Stamp) -> tuple[tuple[str | None, str], ...]:
    """Benchmark and dataset of the requests, each pair once."""
    pairs = scan(requests.path, REQUESTS).select("benchmark", "dataset").unique()
    return tuple(pairs.collect(engine="streaming").iter_rows())


@lru_cache(REMEMBERED)
def _illustrated(examples: Stamp) -> IllustratedExamples:
    return IllustratedExamples(examples.path)
