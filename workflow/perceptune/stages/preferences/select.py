"""Selects ranked lists, and counts what was dropped."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from perceptune.contracts.config import SelectionBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.files import write_text
from perceptune.contracts.progress import tell
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import read_batches, table_writer
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.core.preferences.ranked_lists import Statistics, drawn, only, ranked_lists
from perceptune.stages.preferences.batches import Following, whole_requests, write_beside

SCORED = ("request_id", "sample_index", "task", "text", "reward", "reason")
SHOWN_LENGTH = 80
"""Characters of an answer in a message."""


def run(
    *,
    requests: Path,
    responses: Path,
    rewards: Path,
    preferences: Path,
    statistics: Path,
    config: SelectionBlock,
) -> None:
    """Writes `preferences`, one row per request, and `statistics` (JSON).

    The three tables have the same order, so they are read side by side. Raises `UserError` if no list
    is kept.
    """
    chosen = None if config.max_groups is None else drawn(_kept(rewards, config), config)
    asked = Following(requests, REQUESTS, ("request_id", "example_id", "view", "messages"))
    tokens = Following(responses, RESPONSES, ("request_id", "sample_index", "token_ids"))
    counted, unread = Statistics(), _Unread()

    def parts() -> Iterator[pl.DataFrame]:
        for part in whole_requests(read_batches(rewards, REWARDS, SCORED)):
            scored = tokens.beside(part, ["request_id", "sample_index"])
            lists = ranked_lists(scored, config)
            if chosen is not None:
                lists = only(lists, chosen)
            counted.add(lists, scored)
            unread.add(scored)
            tasks = scored.group_by("request_id", maintain_order=True).agg(pl.col("task").first())
            yield _groups(asked.beside(lists.with_columns(tasks["task"]), ["request_id"]))

    with table_writer(preferences, PREFERENCES) as table:
        write_beside(table, parts())
        if not counted.kept:
            found = counted.table()
            reasons = ", ".join(f"{reason} ({count})" for reason, count in found["dropped"].items())
            raise UserError(
                f"none of {counted.groups} lists is kept: {reasons}",
                unread.hint() or "lower `min_margin` of the selection, or sample more answers",
            )
        inputs = {"requests": requests, "responses": responses, "rewards": rewards}
        table.lineage = lineage("preferences.select", config.model_dump(mode="json"), inputs)
    found = counted.table()
    tell(f"kept {found['kept']} of {found['groups']} lists; dropped: {found['dropped']}")
    write_text(statistics, json.dumps(found, indent=2) + "\n")


def _kept(rewards: Path, config: SelectionBlock) -> Iterator[str]:
    """The requests whose lists are kept, apart from `max_groups`."""
    columns = ("request_id", "sample_index", "text", "reward")
    for part in whole_requests(read_batches(rewards, REWARDS, columns)):
        lists = ranked_lists(part.with_columns(token_ids=pl.lit([], pl.List(pl.Int32))), config)
        yield from lists.filter("kept")["request_id"]


def _groups(lists: pl.DataFrame) -> pl.DataFrame:
    """Rows of `preferences`."""
    return lists.with_columns(
        group_id=pl.col("request_id"),
        responses=pl.col("responses").list.eval(pl.element().struct.with_fields(role=pl.lit(None, pl.String))),
        **{name: pl.lit([]) for name in ("views", "pairs", "numbers")},
    ).select(PREFERENCES.schema.names)


class _Unread:
    """The answers without a readable result.

    An answer that cannot be parsed has a reward of 0 and a reason that says what was expected.
    """

    def __init__(self) -> None:
        self._answered = 0
        self._reasons: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        """Reason to the first such answer."""

    def add(self, scored: pl.DataFrame) -> None:
        """Counts those among these responses."""
        answered = scored.filter(pl.col("text").is_not_null())
        self._answered += answered.height
        unread = answered.filter(pl.col("reason").is_not_null()).group_by("reason", maintain_order=True)
        for reason, count, text in unread.agg(pl.len(), pl.col("text").first()).iter_rows():
            self._reasons[reason] += count
            self._first.setdefault(reason, text)

    def hint(self) -> str | None:
        """How many there are, with an example; None if most answers could be read."""
        if 2 * self._reasons.total() <= self._answered:
            return None
        reason = self._reasons.most_common(1)[0][0]
        text = self._first[reason]
        shown = text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}..."
        return (
            f"{self._reasons.total()} of {self._answered} answers could not be read, most often: {reason}; for example "
            f"{json.dumps(shown, ensure_ascii=False)}. Check `prompt` and `max_tokens` of the sampling"
        )
