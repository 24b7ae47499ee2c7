"""Answers with reasoning: only rewards of the format read it."""

from pathlib import Path

import pytest
from perceptune.contracts.config import BenchmarkBlock, RewardBlock
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.stages.evaluation import evaluate

from .scored_tables import HIT, MODEL, ROWS, Tables, example, request

THOUGHTS = "<think>There is no dog at first. Not [0.6, 0.6, 0.9, 0.9].</think>"


def test_reasoning_does_not_count(tmp_path: Path) -> None:
    asked = [
        (request("box", 3), [f"{THOUGHTS}{HIT}", f"<think>{HIT}", HIT]),
        (request("there", 3), [f"{THOUGHTS}\nYes", f"{THOUGHTS} No", "<think>Yes"]),
    ]
    table = Tables(tmp_path, ROWS, asked).rewards()  # type: ignore[arg-type]
    assert table["reward"].to_list() == pytest.approx([1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    never = "reasoning never ends"
    assert table["reason"].to_list() == [None, never, None, None, None, never]
    assert table["answer"].to_list() == [HIT, None, HIT, "Yes", "No", None]
    assert table["text"].to_list() == [text for _, texts in asked for text in texts]
    assert table["parsed"].is_null().to_list() == [False, True, False, False, False, True]


def test_a_rule_that_reads_an_empty_answer_does_not_reward_endless_reasoning(tmp_path: Path) -> None:
    """To POPE's rule, a text without "no" is a yes."""
    tables = Tables(tmp_path, ROWS[1:], [(request("there", 2), ["<think>A dog?", ""])])
    table = tables.rewards(RewardBlock(tasks={"existence": "pope"}))
    assert table["reward"].to_list() == [0.0, 1.0]
    assert table["reason"].to_list() == ["reasoning never ends", None]


def test_rewards_of_the_format_see_the_reasoning(tmp_path: Path) -> None:
    some = example("q", "open", target="3")
    texts: list[str | None] = [r"<think>2 or 3?</think>\boxed{3}", r"\boxed{3}", r"<think>\boxed{3}"]
    for reward in ("boxed_exact", "boxed_math"):
        table = Tables(tmp_path, [some], [(request("q", 3), texts)]).rewards(RewardBlock(tasks={"open": reward}))
        assert table["reward"].to_list() == pytest.approx([1.0, 0.9, 0.9])
        assert table["answer"].to_list() == [r"\boxed{3}", r"\boxed{3}", None]


def test_metrics_and_judges_count_endless_reasoning_as_a_missing_answer(tmp_path: Path) -> None:
    some = example("there", "existence", target="yes", source='{"category": "random"}')
    tables = Tables(tmp_path, [some], [(request("there", 1, "b", "greedy"), ["<think>Yes, a dog"])])
    tables.rewards(RewardBlock(tasks={"existence": "pope"}))
    evaluate.run(
        policy="p", base="p", rewards={"b": tables["rewards"]}, base_rewards=None, attention={}, base_attention=None,
        metrics=tables["metrics"], benchmarks={"b": BenchmarkBlock(dataset="mine", reward="r", protocol="pope", n=0, resamples=20)},
        reward_tasks={"r": {"existence": "pope"}}, model=MODEL, examples={"mine": tables["examples"]},
    )  # fmt: skip
    found = {row["metric"]: row for row in read_table(tables["metrics"], METRICS).to_pylist()}
    for suffix in ("", "_vcd"):
        assert found[f"accuracy{suffix}"]["value"] == found[f"yes_ratio{suffix}"]["value"] == 0
        assert (found[f"accuracy{suffix}"]["n"], found[f"accuracy{suffix}"]["n_failed"]) == (1, 1)
