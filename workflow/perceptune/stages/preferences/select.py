"""Selects ranked lists, and counts what was dropped."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from perceptune.contracts.config import SelectionBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.files import write_text
from perceptune.contracts.progress import tell
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.core.preferences.ranked_lists import ranked_lists
from perceptune.core.preferences.ranked_lists import statistics as selection_statistics

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

    Raises `UserError` if no list is kept.
    """
    requested = pl.from_arrow(read_table(requests, REQUESTS).select(["request_id", "example_id", "view", "messages"]))
    tokens = pl.from_arrow(read_table(responses, RESPONSES).select(["request_id", "sample_index", "token_ids"]))
    scored = pl.from_arrow(
        read_table(rewards, REWARDS).select(["request_id", "sample_index", "task", "text", "reward", "reason"])
    )
    scored = scored.join(tokens, ["request_id", "sample_index"], "left", validate="1:1", maintain_order="left")  # type: ignore[union-attr, arg-type]
    lists = ranked_lists(scored, config)
    tasks = scored.group_by("request_id").agg(pl.col("task").first())
    table = (
        lists.join(requested, "request_id", "left", maintain_order="left")  # type: ignore[arg-type]
        .join(tasks, "request_id", "left", maintain_order="left")
        .with_columns(
            group_id=pl.col("request_id"),
            responses=pl.col("responses").list.eval(pl.element().struct.with_fields(role=pl.lit(None, pl.String))),
            **{name: pl.lit([]) for name in ("views", "pairs", "numbers")},
        )
    )
    counted = selection_statistics(lists, scored)
    if not counted["kept"]:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in counted["dropped"].items())
        raise UserError(
            f"none of {counted['groups']} lists is kept: {reasons}",
            _unread(scored) or "lower `min_margin` of the selection, or sample more answers",
        )
    tell(f"kept {counted['kept']} of {counted['groups']} lists; dropped: {counted['dropped']}")
    inputs = {"requests": requests, "responses": responses, "rewards": rewards}
    record = lineage("preferences.select", config.model_dump(mode="json"), inputs)
    write_table(preferences, PREFERENCES, table.select(PREFERENCES.schema.names), record)
    write_text(statistics, json.dumps(counted, indent=2) + "\n")


def _unread(scored: pl.DataFrame) -> str | None:
    """How many answers have no readable result, with an example; None if most have one.

    An answer that cannot be parsed has a reward of 0 and a reason that says what was expected.
    """
    answered = scored.filter(pl.col("text").is_not_null())
    unread = answered.filter(pl.col("reason").is_not_null())
    if 2 * unread.height <= answered.height:
        return None
    reason = unread["reason"].mode(maintain_order=True)[0]
    text = unread.filter(pl.col("reason") == reason)["text"][0]
    shown = text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}..."
    return (
        f"{unread.height} of {answered.height} answers could not be read, most often: {reason}; for example "
        f"{json.dumps(shown, ensure_ascii=False)}. Check `prompt` and `max_tokens` of the sampling"
    )
