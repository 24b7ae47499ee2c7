"""Queries of `perceptune inspect` on tables in memory."""

from typing import Any

import polars as pl
import pytest
from perceptune.commands.inspect.answers import differences, facets, histogram, ranked, select
from perceptune.commands.inspect.comparing import compare
from perceptune.commands.inspect.exporting import line, ranked_answers
from perceptune.commands.inspect.filters import ALL, Address, AnswerFilter, CompareFilter, ExampleFilter, GroupFilter
from perceptune.commands.inspect.grouped import select_examples, select_groups
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.rewards import REWARDS


def answers(*rows: dict[str, Any]) -> pl.LazyFrame:
    """Rows of `REWARDS`, with defaults."""
    usual = {
        "request_id": "r",
        "example_id": "e",
        "task": "ocr",
        "benchmark": "b",
        "condition": "greedy",
        "view": "original",
    }
    usual |= {"sample_index": 0, "text": "words", "reward": 0.5, "components": []}
    filled = [{**dict.fromkeys(REWARDS.columns), **usual, **row} for row in rows]
    return pl.DataFrame(pl.from_arrow(REWARDS.schema.empty_table())).clear().vstack(
        pl.DataFrame(filled, schema=pl.DataFrame(pl.from_arrow(REWARDS.schema.empty_table())).schema)
    ).lazy()  # fmt: skip


FIRST = answers(
    {"request_id": "a", "reward": 0.2, "text": "Straße"},
    {"request_id": "a", "reward": 0.9, "text": "a cat", "sample_index": 1},
    {"request_id": "b", "reward": None, "text": None, "reason": "no response"},
    {"request_id": "c", "reward": 0.9, "task": "grounding", "benchmark": None, "text": "a (dog)"},
)
SECOND = answers({"request_id": "a", "reward": 1.0, "text": "other", "view": "blank"})


def rows(**query: str) -> list[tuple[int, int]]:
    """Table and row of the answers in both tables that match."""
    return select([FIRST, SECOND], AnswerFilter.read(query)).chosen.select("table", "row").rows()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]),
        ({"task": "grounding"}, [(0, 3)]),
        ({"view": "blank"}, [(1, 0)]),
        ({"benchmark": "(none)"}, [(0, 3)]),
        ({"text": "STRASSE"}, []),
        ({"text": "straße"}, [(0, 0)]),
        ({"text": "(DOG"}, [(0, 3)]),
        ({"reason": "(any)"}, [(0, 2)]),
        ({"reason": "(none)", "task": "ocr"}, [(0, 0), (0, 1), (1, 0)]),
        ({"reason": "no response"}, [(0, 2)]),
        ({"reward_min": "0.9"}, [(0, 1), (0, 3), (1, 0)]),
        ({"reward_min": "0.2", "reward_below": "0.9"}, [(0, 0)]),
        ({"margin_min": "0"}, [(0, 0), (0, 1)]),
        ({"margin_min": "0.69", "margin_below": "0.71", "text": "cat"}, [(0, 1)]),
        ({"margin_min": "0.71"}, []),
        ({"sort": "-reward"}, [(1, 0), (0, 1), (0, 3), (0, 0), (0, 2)]),
        ({"sort": "reward"}, [(0, 0), (0, 1), (0, 3), (1, 0), (0, 2)]),
        ({"sort": "-length"}, [(0, 3), (0, 0), (0, 1), (1, 0), (0, 2)]),
        ({"sort": "text"}, [(0, 0), (0, 3), (0, 1), (1, 0), (0, 2)]),
        ({"sort": "-text"}, [(1, 0), (0, 1), (0, 3), (0, 0), (0, 2)]),
        ({"sort": "-policy"}, [(1, 0), (0, 0), (0, 1), (0, 2), (0, 3)]),
        ({"sort": "task"}, [(0, 3), (0, 0), (0, 1), (0, 2), (1, 0)]),
        ({"sort": "view"}, [(1, 0), (0, 0), (0, 1), (0, 2), (0, 3)]),
        ({"sort": "reason"}, [(0, 2), (0, 0), (0, 1), (0, 3), (1, 0)]),
    ],
)
def test_answers_are_filtered_and_sorted(query: dict[str, str], expected: list[tuple[int, int]]) -> None:
    assert rows(**query) == expected


def test_a_margin_is_that_of_all_answers_to_the_request_in_its_own_table() -> None:
    found = select([FIRST, SECOND], AnswerFilter.read({"text": "cat"}))
    assert found.chosen["margin"].to_list() == pytest.approx([0.7])
    assert select([SECOND], AnswerFilter()).chosen["margin"].to_list() == [None]


def test_histograms_ignore_their_own_range_and_no_other_filter() -> None:
    found = select([FIRST], AnswerFilter.read({"task": "ocr", "reward_min": "0.5", "margin_min": "0"}))
    assert sum(bar.count for bar in found.rewards) == 2
    assert sum(bar.count for bar in found.margins) == 1
    assert select([], AnswerFilter()).chosen.is_empty()


def test_every_bar_counts_what_its_link_selects() -> None:
    values = [0.0, 0.05, 0.05, 0.1, 0.5, 0.95, 1.0, 1.0, 0.999999]
    table = answers(*({"reward": value} for value in values), {"reward": float("nan")}, {"reward": None})
    bars = histogram(table.collect()["reward"])
    assert sum(bar.count for bar in bars) == len(values)
    for bar in bars:
        query = AnswerFilter(reward_min=bar.low, reward_below=bar.below)
        assert select([table], query).chosen.filter(pl.col("row") < len(values)).height == bar.count


def test_histograms_of_other_scales() -> None:
    bars = histogram(pl.Series([-3.0, 5.0]))
    assert (bars[0].low, bars[-1].below) == (-5.0, None)
    assert {bar.low: bar.count for bar in bars if bar.count} == {-3.0: 1, 4.5: 1}
    assert [bar.low for bar in histogram(pl.Series([0.0, 5.0]))][:2] == [0.0, 0.25]
    around = differences(pl.Series([-0.5, 0.0, 0.0, 1.0]))
    assert {bar.low: bar.count for bar in around if bar.count} == {-0.5: 1, 0.0: 2, 0.9: 1}
    assert histogram(pl.Series([], dtype=pl.Float64)) == differences(pl.Series([], dtype=pl.Float64)) == []


def test_facets_are_counted_over_all_tables() -> None:
    found = facets([FIRST, SECOND])
    assert found["task"] == [("ocr", 4), ("grounding", 1)]
    assert found["benchmark"] == [("b", 4), (None, 1)]
    assert found["reason"] == [(None, 4), ("no response", 1)]
    assert facets([], ("task",)) == {"task": []}


def test_answers_are_ranked_best_first() -> None:
    given = [{"reward": reward, "sample_index": i} for i, reward in enumerate([0.5, None, 0.75, 0.5])]
    assert [row["sample_index"] for row in ranked(given)] == [2, 0, 3, 1]


BEFORE = answers(
    {"request_id": "fixed", "reward": 0.3, "text": "Was wrong"},
    {"request_id": "broken", "reward": 0.6},
    {"request_id": "right", "reward": 0.5},
    {"request_id": "wrong", "reward": 0.0},
    {"request_id": "silent", "reward": None},
    {"request_id": "only here", "reward": 1.0},
    {"request_id": "sampled", "reward": 0.0, "condition": "sampled"},
    {"request_id": "sampled", "reward": 0.5, "condition": "sampled", "sample_index": 1},
)
AFTER = answers(
    {"request_id": "wrong", "reward": 0.1, "text": "zebra"},
    {"request_id": "fixed", "reward": 0.5},
    {"request_id": "broken", "reward": 0.0},
    {"request_id": "right", "reward": 0.5},
    {"request_id": "silent", "reward": 1.0},
    {"request_id": "sampled", "reward": 1.0, "condition": "sampled"},
    {"request_id": "sampled", "reward": 0.0, "condition": "sampled", "sample_index": 1},
)


def test_two_policies_are_compared_question_by_question() -> None:
    found = compare(BEFORE, AFTER, CompareFilter(condition=ALL))
    changes = dict(found.chosen.select("request_id", "change").iter_rows())
    assert changes == {
        "fixed": "fixed", "broken": "broken", "right": "both right", "wrong": "both wrong", "sampled": "fixed"
    }  # fmt: skip
    assert found.counts == {"fixed": 2, "broken": 1, "both right": 1, "both wrong": 1}
    assert found.unpaired == 1
    assert found.mean_before == pytest.approx((0.3 + 0.6 + 0.5 + 0.0 + 0.25) / 5)
    assert found.mean_after == pytest.approx((0.5 + 0.0 + 0.5 + 0.1 + 0.5) / 5)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"change": "fixed", "condition": ALL}, ["fixed", "sampled"]),
        ({"change": "fixed", "condition": "greedy"}, ["fixed"]),
        ({"change": "fixed"}, ["fixed"]),
        ({"right": "0.6", "change": "broken"}, ["broken"]),
        ({"right": "0.6", "change": "fixed"}, []),
        ({"text": "was WRONG"}, ["fixed"]),
        ({"sort": "-change", "condition": "greedy"}, ["fixed", "wrong", "right", "broken"]),
        ({"change_min": "0", "change_below": "0.05"}, ["right"]),
        ({"sort": "-text", "condition": "greedy"}, ["wrong", "fixed", "broken", "right"]),
    ],
)
def test_comparisons_are_filtered_and_sorted(query: dict[str, str], expected: list[str]) -> None:
    found = compare(BEFORE, AFTER, CompareFilter.read(query))
    assert found.chosen["request_id"].to_list() == expected


def test_without_a_choice_the_view_and_the_condition_of_the_report_are_compared() -> None:
    """Training questions have no benchmark, and all their answers count."""
    rows = [
        {"request_id": f"{benchmark}/{view}/{condition}", "benchmark": benchmark, "view": view, "condition": condition}
        for benchmark, views in (("a", ("original", "blank")), ("b", ("blurred", "original")), (None, ("mask", "crop")))
        for view in views
        for condition in ("greedy", "sampled")
    ]
    both = answers(*rows)

    def compared(**query: str) -> list[str]:
        return compare(both, both, CompareFilter.read(query)).chosen["request_id"].to_list()

    training = [f"None/{view}/{condition}" for view in ("mask", "crop") for condition in ("greedy", "sampled")]
    assert compared() == ["a/original/greedy", "b/blurred/greedy", *training]
    assert compared(view="original") == ["a/original/greedy", "b/original/greedy"]
    assert compared(view=ALL, benchmark="a") == ["a/original/greedy", "a/blank/greedy"]
    assert len(compared(view=ALL, condition=ALL)) == len(rows)


def test_the_counts_do_not_depend_on_the_chosen_change() -> None:
    counts = compare(BEFORE, AFTER, CompareFilter()).counts
    assert compare(BEFORE, AFTER, CompareFilter(change="broken", change_min=0.0)).counts == counts


def groups() -> pl.LazyFrame:
    def response(text: str | None, reward: float) -> dict[str, Any]:
        return {"text": text, "reward": reward}

    pair = [{"margin": 0.5}, {"margin": -0.75}, {"margin": None}]
    common = {"example_id": "e", "task": "ocr", "view": "original"}
    return pl.LazyFrame(
        [
            {"group_id": "list", "responses": [response("best", 1.0), response(None, 0.25)], "pairs": [], "kept": True, "reason": None, **common},
            {"group_id": "pairs", "responses": [response("Chosen", 0.0)], "pairs": pair, "kept": False, "reason": "margin", **common},
            {"group_id": "empty", "responses": [], "pairs": [], "kept": False, "reason": "no scored answer", **common},
        ]
    )  # fmt: skip


def test_groups_have_the_margin_of_their_pairs_or_rewards() -> None:
    found = select_groups(groups(), GroupFilter(table="t"))
    assert found.chosen["margin"].to_list() == [0.75, -0.75, None]
    assert found.chosen["count"].to_list() == [2, 1, 0]
    assert sum(bar.count for bar in found.margins) == 2


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"kept": "no"}, ["pairs", "empty"]),
        ({"reason": "margin"}, ["pairs"]),
        ({"text": "chosen"}, ["pairs"]),
        ({"margin_min": "0"}, ["list"]),
        ({"sort": "margin"}, ["pairs", "list", "empty"]),
        ({"sort": "-reason"}, ["empty", "pairs", "list"]),
    ],
)
def test_groups_are_filtered_and_sorted(query: dict[str, str], expected: list[str]) -> None:
    assert select_groups(groups(), GroupFilter.read({"table": "t", **query})).chosen["group_id"].to_list() == expected


EXAMPLES = pl.LazyFrame(
    [
        {"example_id": "x", "task": "ocr", "split": "train", "question": "b?", "target": "one", "reason": None},
        {"example_id": "y", "task": "ocr", "split": "test", "question": "a?", "target": "Two", "reason": None},
        {"example_id": "z", "task": "vqa", "split": "test", "question": "c?", "target": None, "reason": "no image"},
    ]
)
ANSWERED = answers(
    {"example_id": "x", "reward": 0.25},
    {"example_id": "x", "reward": 0.75, "sample_index": 1},
    {"example_id": "y", "reward": 1.0},
    {"example_id": "y", "reward": 0.0, "view": "blank"},
    {"example_id": "elsewhere", "reward": 0.5},
)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [0, 1, 2]),
        ({"text": "TWO"}, [1]),
        ({"split": "test", "reason": "(none)"}, [1]),
        ({"sort": "text"}, [1, 0, 2]),
        ({"sort": "-task"}, [2, 0, 1]),
        ({"sort": "-reward", "view": ALL}, [0, 1, 2]),
        ({"sort": "-reward"}, [1, 0, 2]),
        ({"sort": "-margin", "view": ALL}, [1, 0, 2]),
        ({"view": "original", "reward_min": "0.75"}, [1]),
        ({"margin_below": "0.6"}, [0]),
    ],
)
def test_examples_are_filtered_and_sorted_also_by_their_answers(query: dict[str, str], expected: list[int]) -> None:
    found = select_examples(EXAMPLES, ExampleFilter.read({"dataset": "d", **query}), ANSWERED)
    assert found.chosen["row"].to_list() == expected


def test_examples_have_the_mean_reward_and_the_margin_of_their_answers() -> None:
    found = select_examples(EXAMPLES, ExampleFilter(dataset="d"), ANSWERED)
    assert found.chosen["reward"].to_list() == [0.5, 1.0, None]
    found = select_examples(EXAMPLES, ExampleFilter(dataset="d", view=ALL), ANSWERED)
    assert found.chosen["reward"].to_list() == [0.5, 0.5, None]
    assert found.chosen["margin"].to_list() == [0.5, 1.0, None]
    assert sum(bar.count for bar in found.rewards) == sum(bar.count for bar in found.margins) == 2
    assert select_examples(EXAMPLES, ExampleFilter(dataset="d")).rewards == []


def test_an_exported_line_has_each_text_once_best_first() -> None:
    example = {"question": "q", "task": "ocr", "split": "train", "target": None, "box": None}
    given = [{"text": t, "reward": r} for t, r in (("a", 0.1), ("b", 0.5), ("a", 0.9), ("c", 0.5))]
    assert line("n", example, ["/i.png"], given) == {
        "id": "n", "images": ["/i.png"], "question": "q", "task": "ocr", "split": "train",
        "answers_given": [{"text": "a", "reward": 0.9}, {"text": "b", "reward": 0.5}, {"text": "c", "reward": 0.5}],
    }  # fmt: skip


def test_exported_answers_keep_the_order_and_have_text_and_reward() -> None:
    chosen = select([FIRST, SECOND], AnswerFilter.read({"sort": "-reward"})).chosen
    found = ranked_answers([FIRST, SECOND], chosen)
    assert found["text"].to_list() == ["other", "a cat", "a (dog)", "Straße"]
    assert found["table"].to_list() == [1, 0, 0, 0]


def test_an_address_survives_reading_and_writing() -> None:
    query = {"text": "a & b=c", "reward_min": "0.25", "sort": "-margin", "page": "3"}
    read = AnswerFilter.read({**query, "policy": "", "unknown": "x"})
    from urllib.parse import parse_qsl

    assert AnswerFilter.read(dict(parse_qsl(read.query()))) == read
    assert dict(parse_qsl(read.query(page=1, text=None))) == {"reward_min": "0.25", "sort": "-margin"}
    assert AnswerFilter().query() == ""


@pytest.mark.parametrize(
    ("kind", "query", "named"),
    [
        (AnswerFilter, {"reward_min": "many"}, ("`reward_min`", "`many`")),
        (AnswerFilter, {"reward_min": "nan"}, ("`reward_min`", "`nan`")),
        (AnswerFilter, {"page": "0"}, ("`page`", "`0`")),
        (AnswerFilter, {"sort": "size\x1b"}, ("`sort`", "`size\\x1b`")),
        (GroupFilter, {}, ("`table`",)),
    ],
)
def test_a_wrong_address_is_one_message(kind: type[Address], query: dict[str, str], named: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as raised:
        kind.read(query)
    assert all(name in str(raised.value) for name in named)
