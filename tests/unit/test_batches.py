"""Selection of the rollout groups that a round trains on."""

import math
from typing import Any

import polars as pl
import pytest
from perceptune.contracts.config import BatchBlock
from perceptune.core.preferences.rollout_groups import batch, statistics


def scored(groups: dict[str, list[float | None]], keep: dict[str, list[float | None]] | None = None) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for name, rewards in groups.items():
        for index, reward in enumerate(rewards):
            value = (keep or groups)[name][index]
            rows.append(
                {
                    "request_id": name,
                    "sample_index": index,
                    "text": None if reward is None else str(index),
                    "token_ids": [index],
                    "reward": reward,
                    "keep": value,
                }
            )
    types = {"request_id": pl.String, "sample_index": pl.Int32, "text": pl.String, "token_ids": pl.List(pl.Int32)}
    return pl.DataFrame(rows, schema={**types, "reward": pl.Float64, "keep": pl.Float64})


def kept(table: pl.DataFrame, **settings: Any) -> list[str]:
    return batch(table, BatchBlock(**settings)).filter("kept")["request_id"].to_list()


def test_dynamic_sampling_drops_groups_that_are_all_right_or_all_wrong() -> None:
    """Reference vector: key accuracy, limits .01 and .99."""
    table = scored({"all": [1] * 5, "none": [0] * 5, "some": [1, 0, 0, 0, 0]})
    groups = batch(table, BatchBlock(keep="accuracy"))
    assert groups["kept"].to_list() == [False, False, True]
    assert groups["reason"].to_list() == ["mean accuracy not below 0.99", "mean accuracy not above 0.01", None]


def test_what_decides_need_not_be_the_reward() -> None:
    """PAPO's reward is never 0 for a well-formed answer, so its filter uses the accuracy."""
    table = scored({"a": [0.1, 0.1], "b": [1.0, 0.1]}, keep={"a": [0, 0], "b": [1, 0]})
    assert kept(table, keep="accuracy") == ["b"]
    assert kept(table) == ["a", "b"]


def test_the_first_that_are_kept_make_the_batch() -> None:
    table = scored({"a": [1, 1], "b": [1, 0], "c": [0, 1], "d": [1, 0]})
    assert kept(table, keep="accuracy", questions=2) == ["b", "c"]
    groups = batch(table, BatchBlock(keep="accuracy", questions=2))
    assert groups["reason"].to_list()[3] == "more than `questions`"
    assert statistics(groups) == {
        "groups": 4,
        "kept": 2,
        "dropped": {"mean accuracy not below 0.99": 1, "more than `questions`": 1},
    }


@pytest.mark.parametrize("broken", [[1, None], [None, None]])
def test_a_group_without_all_its_answers_is_dropped(broken: list[float | None]) -> None:
    groups = batch(scored({"a": broken, "b": [1, 0]}), BatchBlock())
    assert groups["reason"].to_list() == ["answers are missing or empty", None]


@pytest.mark.parametrize("reward", [None, math.nan, math.inf])
def test_a_group_without_all_its_rewards_is_dropped(reward: float | None) -> None:
    table = scored({"a": [1, reward], "b": [1, 0]}).with_columns(text=pl.lit("yes"))
    groups = batch(table, BatchBlock())
    assert groups["reason"].to_list() == ["rewards are missing or not finite", None]


@pytest.mark.parametrize("value", [None, math.nan])
def test_a_group_without_what_decides_is_dropped(value: float | None) -> None:
    table = scored({"a": [1, 0], "b": [1, 0]}, keep={"a": [value, value], "b": [1, 0]})
    groups = batch(table, BatchBlock(keep="accuracy"))
    assert groups["reason"].to_list() == ["accuracy is missing or not finite", None]


def test_an_empty_answer_has_no_tokens_to_learn_from() -> None:
    table = scored({"a": [1, 0]}).with_columns(token_ids=pl.lit([], dtype=pl.List(pl.Int32)))
    assert kept(table) == []


def test_answers_stay_as_drawn() -> None:
    table = scored({"a": [0, 1, 0.5]})
    (responses,) = batch(table, BatchBlock())["responses"].to_list()
    assert [r["sample_index"] for r in responses] == [0, 1, 2]
    assert [r["reward"] for r in responses] == [0, 1, 0.5]


def test_no_answers_make_no_groups() -> None:
    groups = batch(scored({}), BatchBlock(keep="accuracy", questions=3))
    assert groups.height == 0
    assert statistics(groups) == {"groups": 0, "kept": 0, "dropped": {}}
