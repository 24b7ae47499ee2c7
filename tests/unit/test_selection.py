"""Ranked lists: order, deduplication, margins, dropped lists with their reasons."""

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perceptune.contracts.config import SelectionBlock
from perceptune.core.preferences.ranked_lists import Statistics, capped, ranked_lists


def scored(*groups: list[tuple[str | None, float | None]]) -> pl.DataFrame:
    """One request per argument, `a`, `b`, ...; its responses as (text, reward)."""
    rows = [
        {"request_id": chr(97 + g), "sample_index": i, "text": t, "token_ids": [i], "reward": r}
        for g, group in enumerate(groups)
        for i, (t, r) in enumerate(group)
    ]
    return pl.DataFrame(rows, schema_overrides={"text": pl.String, "reward": pl.Float64})


def statistics(table: pl.DataFrame, block: SelectionBlock) -> dict[str, Any]:
    counted = Statistics()
    counted.add(ranked_lists(table, block), table)
    return counted.table()


def texts(lists: pl.DataFrame, row: int = 0) -> list[str]:
    return [r["text"] for r in lists["responses"][row]]


def test_best_first_ties_by_sample_index() -> None:
    lists = ranked_lists(scored([("x", 0.1), ("y", 0.9), ("z", 0.1), ("w", 0.5)]), SelectionBlock(min_margin=0.8))
    assert texts(lists) == ["y", "w", "x", "z"]
    assert lists["kept"].to_list() == [True]  # 0.9 - 0.1 is 0.8 up to rounding, and the limit is inclusive


def test_identical_answers_count_once_the_first_sampled_stays() -> None:
    table = scored([("x", 0.0), ("y", 1.0), ("x", 0.0)])
    lists = ranked_lists(table, SelectionBlock())
    assert [r["sample_index"] for r in lists["responses"][0]] == [1, 0]
    assert len(ranked_lists(table, SelectionBlock(deduplicate=False))["responses"][0]) == 3


@pytest.mark.parametrize(
    ("group", "reason"),
    [
        ([("x", 1.0), ("x", 1.0)], "one distinct answer"),
        ([("x", 0.5), ("y", 0.5)], "all rewards equal"),
        ([("x", 0.5), ("y", 0.2)], "margin below 0.8"),
        ([(None, None), (None, None)], "no scored answer"),
        ([("x", 1.0), (None, None)], "one distinct answer"),
    ],
)
def test_dropped_lists_stay_in_the_table_with_their_reason(group: list[tuple[str, float]], reason: str) -> None:
    lists = ranked_lists(scored([("x", 1.0), ("y", 0.0)], group), SelectionBlock())
    assert lists["reason"].to_list() == [None, reason]
    assert lists["kept"].to_list() == [True, False]
    assert lists["request_id"].to_list() == ["a", "b"]


def test_rewards_that_are_not_finite_do_not_count() -> None:
    group = [("x", float("nan")), ("y", 1.0), ("z", 0.0), ("w", float("inf"))]
    lists = ranked_lists(scored(group), SelectionBlock())
    assert texts(lists) == ["y", "z"]
    assert lists["kept"].to_list() == [True]
    assert sum(statistics(scored(group), SelectionBlock())["reward_histogram"]["counts"]) == 2


def test_unparsable_answers_are_the_worst_and_stay() -> None:
    assert texts(ranked_lists(scored([("nonsense", 0.0), ("box", 0.9)]), SelectionBlock())) == ["box", "nonsense"]


def test_spread_takes_best_worst_and_the_ranks_between() -> None:
    group = [(str(i), 1 - i / 10) for i in range(11)]  # ranks 0..10
    lists = ranked_lists(scored(group), SelectionBlock(list_size=6))
    assert texts(lists) == ["0", "2", "4", "6", "8", "10"]
    first = ranked_lists(scored(group), SelectionBlock(list_size=6, pick="first", min_margin=0.5))
    assert texts(first) == ["0", "1", "2", "3", "4", "5"]


@given(st.integers(2, 40), st.integers(2, 20))
def test_spread_takes_exactly_n_with_both_ends(count: int, size: int) -> None:
    group = [(str(i), 1 - i / count) for i in range(count)]
    chosen = texts(ranked_lists(scored(group), SelectionBlock(list_size=size, min_margin=0)))
    assert len(chosen) == min(count, size)
    assert chosen[0] == "0"
    assert chosen[-1] == str(count - 1)


def test_the_cap_is_independent_of_order() -> None:
    groups = [[(f"x{i}", 1.0), (f"y{i}", 0.0)] for i in range(20)]
    block = SelectionBlock(max_groups=5, seed=3)
    table = scored(*groups)
    kept = set(capped(ranked_lists(table, block), block).filter("kept")["request_id"])
    turned = capped(ranked_lists(table.reverse(), block), block)
    assert len(kept) == 5
    assert set(turned.filter("kept")["request_id"]) == kept
    assert set(turned.filter(~pl.col("kept"))["reason"]) == {"not chosen (max_groups)"}
    other = SelectionBlock(max_groups=5, seed=4)
    assert set(capped(ranked_lists(table, other), other).filter("kept")["request_id"]) != kept


def test_statistics_add_up() -> None:
    table = scored([("x", 1.0), ("y", 0.0)], [("x", 0.5), ("y", 0.5)], [("z", 1.0), ("z", 1.0)])
    counted = statistics(table, SelectionBlock())
    assert counted["groups"] == 3
    assert counted["kept"] == 1
    assert counted["dropped"] == {"all rewards equal": 1, "one distinct answer": 1}
    assert counted["acceptance"] == pytest.approx(1 / 3)
    assert sum(counted["reward_histogram"]["counts"]) == 6
    assert counted["reward_histogram"]["counts"][-1] == 3  # rewards of exactly 1 are in the last bin


def test_missing_responses_are_no_answers_in_the_statistics() -> None:
    """The second question has one answer and one missing response, the third none at all."""
    table = scored([("x", 1.0), ("y", 0.0)], [("x", 1.0), (None, None)], [(None, None), (None, None)])
    counted = statistics(table, SelectionBlock())
    assert counted["groups"] == 3
    assert counted["answers"] == 3
    assert counted["distinct_answers_per_group"] == 3 / 2
