"""Selects the groups that a round learns from, and counts what was dropped."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from perceptune.contracts.config import BatchBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.files import write_text
from perceptune.contracts.progress import tell
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.core.preferences.rollout_groups import batch
from perceptune.core.preferences.rollout_groups import statistics as batch_statistics

SCORED = ("request_id", "sample_index", "task", "text", "reward", "components")


def run(
    *,
    requests: Path,
    responses: Path,
    rewards: Path,
    preferences: Path,
    statistics: Path,
    config: BatchBlock,
) -> None:
    """Writes `preferences`, one row per request, and `statistics` (JSON).

    It is valid to keep no group; the training stage decides what that means. Raises `UserError` if
    `keep` is not a component of the rewards. Logs if fewer groups are kept than requested.
    """
    requested = pl.DataFrame(
        pl.from_arrow(read_table(requests, REQUESTS, ["request_id", "example_id", "view", "messages"]))
    )
    tokens = pl.DataFrame(pl.from_arrow(read_table(responses, RESPONSES, ["request_id", "sample_index", "token_ids"])))
    scored = pl.DataFrame(pl.from_arrow(read_table(rewards, REWARDS, SCORED)))
    scored = scored.with_columns(keep=_kept_by(scored, config.keep, rewards)).select(
        "request_id", "sample_index", "task", "text", "reward", "keep"
    )
    scored = scored.join(tokens, ["request_id", "sample_index"], "left", validate="1:1", maintain_order="left")
    groups = batch(scored, config)
    tasks = scored.group_by("request_id").agg(pl.col("task").first())
    table = (
        groups.join(requested, "request_id", "left", maintain_order="left")
        .join(tasks, "request_id", "left", maintain_order="left")
        .with_columns(
            group_id=pl.col("request_id"),
            responses=pl.col("responses").list.eval(pl.element().struct.with_fields(role=pl.lit(None, pl.String))),
            **{name: pl.lit([]) for name in ("views", "pairs", "numbers")},
        )
    )
    counted = batch_statistics(groups)
    tell(f"kept {counted['kept']} of {counted['groups']} groups; dropped: {counted['dropped']}")
    if config.questions is not None and 0 < counted["kept"] < config.questions:
        tell(f"fewer than the {config.questions} requested groups: increase `questions` of the rollout")
    inputs = {"requests": requests, "responses": responses, "rewards": rewards}
    record = lineage("preferences.select_batch", config.model_dump(mode="json"), inputs)
    write_table(preferences, PREFERENCES, table.select(PREFERENCES.schema.names), record)
    write_text(statistics, json.dumps(counted, indent=2) + "\n")


def _kept_by(scored: pl.DataFrame, keep: str | None, rewards: Path) -> pl.Expr:
    """The value that `keep` selects by, for every answer."""
    if keep is None or keep == "reward":
        return pl.col("reward")
    named = (
        scored.select(pl.col("components").explode().struct.field("name")).to_series().drop_nulls().unique().to_list()
    )
    if scored.height and keep not in named:
        allowed = ", ".join(f"`{name}`" for name in sorted(["reward", *named]))
        raise UserError(
            f"key `keep` of the batch selection: `{rewards}` has no component `{keep}`, expected one of {allowed}"
        )
    value = pl.element().filter(pl.element().struct.field("name") == keep).struct.field("value").first()
    return pl.col("components").list.eval(value).list.first()
