"""Dataset preferences: ranked lists from the dataset itself, used for training without sampling."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from perceptune.contracts.config import GivenBlock, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.files import write_text
from perceptune.contracts.plugins import module_of
from perceptune.contracts.progress import tell
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.core.data.row_checks import is_finite
from perceptune.core.preferences.ranked_lists import Statistics, capped, ranked_lists
from perceptune.core.views.view import Recipe
from perceptune.engines.training.groups import Shown
from perceptune.stages.data.leaked import refuse
from perceptune.stages.sampling.recipes import messages_for
from perceptune.stages.sampling.requests import chosen_examples
from perceptune.stages.training.encodable import Prompts

SCORED: dict[str, pl.DataType | type[pl.DataType]] = {
    "request_id": pl.String, "sample_index": pl.Int32, "text": pl.String, "token_ids": pl.List(pl.Int32), "reward": pl.Float64,
}  # fmt: skip


def run(
    *,
    dataset: str,
    examples: Path,
    preferences: Path,
    statistics: Path,
    config: GivenBlock,
    model: ModelBlock,
    weights: str,
    refused: Mapping[str, Path] = MappingProxyType({}),
) -> None:
    """Writes `preferences`, one row per selected example, and `statistics` (JSON).

    The answers are those in `answers_given` of the column `source`; `sample_index` is the index in
    that list. Rewards are taken from the dataset; if all are null, they decrease from 1 to 0 in
    even steps by rank. An example without usable answers is not kept and has a reason. `weights` is
    the digest of the model's files, whose tokenizer is used. `refused` are the `leakage` tables that
    must be empty, by name of the training data. Raises `UserError` for leakage, and if no list is kept.
    """
    refuse(refused)
    chosen = chosen_examples(dataset, examples, config.split, config.tasks, config.limit)
    messages = {row["example_id"]: _messages(row, config) for row in chosen}
    lists, answers = given_lists(chosen, config, Prompts(model))
    selected = Statistics()
    selected.add(lists, answers.filter(pl.col("text").is_not_null()))
    counted = selected.table()
    if not counted["kept"]:
        dropped = ", ".join(f"{reason} ({count})" for reason, count in counted["dropped"].items())
        raise UserError(
            f"dataset `{dataset}`: none of {counted['groups']} dataset preferences is kept: {dropped}",
            "only preference formats such as `trl`, `rlhf_v` or `perpo` have them; `min_margin` may be too high",
        )
    tell(f"kept {counted['kept']} of {counted['groups']} lists; dropped: {counted['dropped']}")
    tasks = {row["example_id"]: row["task"] for row in chosen}
    rows = [_group(found, messages, tasks) for found in lists.to_dicts()]
    parameters = {"given": config.model_dump(mode="json"), "model": model.model_dump(mode="json"), "weights": weights}
    record = lineage(
        "preferences.dataset_preferences", parameters, {"examples": examples}, [module_of("family", model.family)]
    )
    write_table(preferences, PREFERENCES, rows, record)
    write_text(statistics, json.dumps(counted, indent=2) + "\n")


def given_lists(
    chosen: Iterable[Mapping[str, Any]], config: GivenBlock, prompts: Prompts
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(Ranked lists of these examples, with reasons for those not kept; their answers)."""
    scored: list[dict[str, Any]] = []
    reasons: dict[str, str] = {}
    for row in chosen:
        name = row["example_id"]
        try:
            scored += _answers(row, config, prompts)
        except ValueError as error:
            reasons[name] = str(error)
            scored.append({"request_id": name, "sample_index": 0})
    answers = pl.DataFrame(scored, schema=SCORED)
    lists = capped(ranked_lists(answers, config), config).with_columns(
        reason=pl.coalesce(pl.col("request_id").replace_strict(reasons, default=None, return_dtype=pl.String), "reason")
    )
    return lists, answers


def _messages(row: Mapping[str, Any], config: GivenBlock) -> list[dict[str, Any]]:
    text = config.prompt.replace("{question}", row["question"])
    return messages_for(text, Recipe("original"), len(row["image_sha256"]))


def _answers(row: Mapping[str, Any], config: GivenBlock, prompts: Prompts) -> list[dict[str, Any]]:
    """The dataset answers of an example, with rewards and tokens.

    Raises `ValueError` if the question or one of the answers is unusable.
    """
    shown = Shown(Recipe("original"), _messages(row, config))
    used = prompts.length(shown, tuple((width, height) for width, height in row["image_sizes"]))
    ranked = json.loads(row["source"] or "{}").get("answers_given")
    if not isinstance(ranked, list) or not ranked:
        raise ValueError("no dataset preferences")
    answers = []
    for place, (text, reward) in enumerate(zip(map(_text, ranked), _rewards(ranked), strict=True)):
        tokens = prompts.family.learnt_answer(prompts.processor, text, prompts.model.max_model_len - used)
        answers.append(
            {
                "request_id": row["example_id"],
                "sample_index": place,
                "text": text,
                "token_ids": tokens,
                "reward": reward,
            }
        )
    return answers


def _text(answer: Any) -> str:
    text = answer.get("text") if isinstance(answer, Mapping) else None
    if not isinstance(text, str) or not text.strip():
        raise ValueError("empty answer")
    return text.strip()  # the family determines the whitespace between prompt and answer


def _rewards(ranked: list[Any]) -> list[float]:
    """Rewards from the dataset, or by rank if it has none."""
    rewards = [answer.get("reward") if isinstance(answer, Mapping) else None for answer in ranked]
    if all(reward is None for reward in rewards):
        return [1 - place / max(len(ranked) - 1, 1) for place in range(len(ranked))]
    if not all(map(is_finite, rewards)):
        raise ValueError("rewards must be finite numbers for all answers, or missing for all")
    return [float(reward) for reward in rewards]  # type: ignore[arg-type]


def _group(
    found: Mapping[str, Any], messages: Mapping[str, list[dict[str, Any]]], tasks: Mapping[str, str]
) -> dict[str, Any]:
    name = found["request_id"]
    kept = found["reason"] is None
    return {
        "group_id": name,
        "example_id": name,
        "request_id": name,
        "task": tasks[name],
        "view": "original",
        "messages": messages[name],
        "responses": [{**response, "role": None} for response in found["responses"]],
        "views": [],
        "pairs": [],
        "numbers": [],
        "kept": kept,
        "reason": found["reason"],
    }
