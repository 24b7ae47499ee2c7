"""Selections as JSON lines in perceptune's own format, with the answers best first."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image

from perceptune.commands.inspect.contents import Answered, Grouped
from perceptune.commands.inspect.filters import AnswerFilter, CompareFilter, ExampleFilter, GroupFilter
from perceptune.commands.inspect.library import Library
from perceptune.contracts.errors import UserError, lookup
from perceptune.contracts.tables.io import Rows
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.stages.data.scans import scan

COLUMNS = ("task", "question", "target", "box", "split")
"""Of examples."""
TOGETHER = 256
"""Groups that are read at once."""
ROLE_REWARDS = {"chosen": 1.0, "rejected": 0.0}
"""Role in a pair to the reward of its answer."""


def answers(library: Library, query: Mapping[str, str]) -> Iterator[str]:
    """The answers of a list, see `exported`."""
    wanted = AnswerFilter.read(query)
    tables = library.contents.chosen(wanted.policy, wanted.plan, wanted.scored)
    return exported(library, tables, library.select(tables, wanted).chosen)


def questions(library: Library, query: Mapping[str, str]) -> Iterator[str]:
    """All answers of both policies to the questions of a comparison, see `exported`."""
    wanted = CompareFilter.read(query)
    if wanted.a is None or wanted.b is None:
        raise UserError("`a` and `b` in the address: expected two policies")
    tables = [library.side(policy, wanted.plan, wanted.scored) for policy in (wanted.a, wanted.b)]
    asked = library.compare(tables[0], tables[1], wanted).chosen["request_id"]
    rows = [
        scan(one.path, REWARDS)
        .select("request_id")
        .with_row_index("row")
        .filter(pl.col("request_id").is_in(asked.implode()))
        .select("row", table=pl.lit(i, pl.UInt16))
        for i, one in enumerate(tables)
    ]
    return exported(library, tables, pl.concat(rows).collect())


def groups(library: Library, query: Mapping[str, str]) -> Iterator[str]:
    """One line per ranked list, rollout group or kept pair of the chosen groups. Pairs have rewards 1 and 0."""
    wanted = GroupFilter.read(query)
    table = lookup(dict(library.contents.groups), wanted.table, "table of preferences")
    rows = library.groups(table.path, wanted).chosen["row"].to_list()
    return _lines_of_groups(library, table, rows)


def _lines_of_groups(library: Library, table: Grouped, rows: Sequence[int]) -> Iterator[str]:
    taken = Rows(table.path, PREFERENCES, ("group_id", "example_id", "responses", "pairs"))
    for start in range(0, len(rows), TOGETHER):
        for group in taken.take(rows[start : start + TOGETHER]):
            for name, given in lists_of(group):
                yield from _line(library, table.dataset, group["example_id"], name, given)


def lists_of(group: Mapping[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An id and the answers with rewards of the group, or of each of its kept pairs."""
    responses = group["responses"]
    if not group["pairs"]:
        yield group["group_id"], [one for one in responses if one["text"] is not None and one["reward"] is not None]
    for pair in group["pairs"]:
        if pair["kept"]:  # others may lack an answer
            given = [{"text": responses[pair[role]]["text"], "reward": reward} for role, reward in ROLE_REWARDS.items()]
            yield f"{group['group_id']}/{pair['kind']}", given


def examples(library: Library, query: Mapping[str, str]) -> Iterator[str]:
    """One line per usable example, without answers."""
    wanted = ExampleFilter.read(query)
    rows = library.select_examples(wanted).chosen["row"].to_list()
    ids = [
        row["example_id"]
        for row in library.example_rows(wanted.dataset, rows, ("example_id", "reason"))
        if row["reason"] is None
    ]
    return (text for one in ids for text in _line(library, wanted.dataset, one, one, []))


EXPORTS: dict[str, Callable[[Library, Mapping[str, str]], Iterator[str]]] = {
    function.__name__: function for function in (answers, questions, groups, examples)
}
"""What can be exported, from the query of its page."""


def exported(library: Library, tables: Sequence[Answered], chosen: pl.DataFrame) -> Iterator[str]:
    """One line per example: its question, images and ground truth, and in `answers_given` the chosen
    answers that have a text and a reward, each text once with its highest reward, best first.

    Image files are named by their absolute path; images inside of tables become data URIs. Examples
    that are not in the tables any more are left out.
    """
    found = ranked_answers([scan(one.path, REWARDS) for one in tables], chosen)
    known = {i: {b: library.dataset(one, b) for b in found["benchmark"].unique()} for i, one in enumerate(tables)}
    merged: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found.iter_rows(named=True):
        dataset = known[row["table"]].get(row["benchmark"])
        if dataset is not None:
            merged.setdefault((dataset, row["example_id"]), []).append({k: row[k] for k in ("text", "reward")})
    several = len({dataset for dataset, _ in merged}) > 1
    for (dataset, example_id), given in merged.items():
        yield from _line(library, dataset, example_id, f"{dataset}/{example_id}" if several else example_id, given)


def _line(
    library: Library, dataset: str, example_id: str, name: str, given: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """The line of an example; none if it is not in its table any more."""
    example = library.example(dataset, example_id, COLUMNS)
    if example is not None:
        images = [_named(image) for image in library.stored_images(dataset, example_id)]
        yield json.dumps(line(name, example, images, given), ensure_ascii=False) + "\n"


def ranked_answers(frames: Sequence[pl.LazyFrame], chosen: pl.DataFrame) -> pl.DataFrame:
    """table, benchmark, example_id, text and reward of the chosen rows (`table`, `row`) with text and
    reward, in their order."""
    columns = ("benchmark", "example_id", "text", "reward")
    parts = [
        frame.select(columns)
        .with_row_index("row")
        .join(chosen.lazy().with_row_index("place").filter(pl.col("table") == i), on="row")
        .filter(pl.col("text").is_not_null() & pl.col("reward").is_finite())
        for i, frame in enumerate(frames)
    ]
    return pl.concat(parts).collect().sort("place").select("table", *columns)


def line(
    name: str, example: Mapping[str, Any], images: Sequence[str], given: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A row in perceptune's own format."""
    best: dict[str, float] = {}
    for answer in given:
        best[answer["text"]] = max(answer["reward"], best.get(answer["text"], answer["reward"]))
    ranked = sorted(best.items(), key=lambda one: -one[1])
    row = {"id": name, "images": list(images), **{key: example[key] for key in ("question", "task", "split")}}
    row |= {"answer": example["target"]} if example["target"] is not None else {}
    row |= {"box": list(example["box"])} if example["box"] is not None else {}
    answered = [{"text": text, "reward": reward} for text, reward in ranked]
    return {**row, "answers_given": answered} if answered else row


def _named(image: Mapping[str, Any]) -> str:
    if image["bytes"] is None:
        return str(Path(image["path"]).absolute())
    with Image.open(io.BytesIO(image["bytes"])) as opened:
        kind = Image.MIME.get(opened.format or "", "image/png")
    return f"data:{kind};base64,{base64.b64encode(image['bytes']).decode()}"
