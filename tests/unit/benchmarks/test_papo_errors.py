"""PAPO's error analysis: the rubric's verdicts by hand, and through a judge for two policies."""

import json
from pathlib import Path

import pytest
from perceptune.contracts.config import BenchmarkBlock, ComparisonBlock
from perceptune.contracts.tables.comparisons import COMPARISONS
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.core.benchmarks.benchmark import Answered
from perceptune.core.benchmarks.papo_eval.error_analysis import kind_of
from perceptune.report.sections.comparisons import comparison_sections
from perceptune.stages.evaluation import evaluate, measure_comparison

from tests.faults.judge_server import judged, serving
from tests.unit.benchmarks.answering import MODEL, failures, values

KIND = {
    "p": "Perception.",
    "r": "**reasoning**",
    "c": "Error: calculation",
    "o": "other\nbecause",
    "?": "It is unclear.",
}
PROTOCOL = "papo_eval_errors"


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        ("perception", "perception"), (" `Reasoning`", "reasoning"), ("Category: other.", "other"), ("CALCULATION error", "calculation"),
        ("perceptional", None), ("not perception", None), ("The kind is other", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_a_verdict_begins_with_its_kind(verdict: str | None, kind: str | None) -> None:
    assert kind_of(verdict) == kind


def answers(kinds: str) -> list[Answered]:
    """One answer per letter: `+` right, `-` missing, otherwise wrong, with the verdict of `KIND`."""
    return [
        Answered(
            example_id=f"q{i}", task="open", question="?", text=None if k == "-" else "an answer", target="7", parsed=None,
            components={} if k == "-" else {"accuracy": float(k == "+"), "format": 1.0}, reason=None, source={}, verdict=KIND.get(k),
        )
        for i, k in enumerate(kinds)
    ]  # fmt: skip


def test_shares_of_answers_and_of_errors() -> None:
    """Ten answers, three right; six of the seven errors have a kind, one of them without a judge."""
    found = values(PROTOCOL, answers("+++pprco-?"))
    expected = {
        "accuracy": 0.3, "perception_errors": 0.2, "reasoning_errors": 0.1, "calculation_errors": 0.1, "other_errors": 0.2,
        "perception_share_of_errors": 2 / 6, "reasoning_share_of_errors": 1 / 6, "calculation_share_of_errors": 1 / 6,
        "other_share_of_errors": 2 / 6, "format": 0.9,
        "perception_error_count": 2, "reasoning_error_count": 1, "calculation_error_count": 1, "other_error_count": 2,
    }  # fmt: skip
    assert found == pytest.approx(expected)
    assert failures(PROTOCOL, answers("+++pprco-?"), "perception_errors") == (10, 1)
    assert failures(PROTOCOL, answers("+++pprco-?"), "perception_share_of_errors") == (7, 1)


def test_without_errors_their_shares_are_unknown() -> None:
    found = values(PROTOCOL, answers("++"))
    assert found["perception_errors"] == 0
    assert found["perception_share_of_errors"] != found["perception_share_of_errors"]  # NaN


def write_answers(folder: Path, kinds: str) -> None:
    """Examples and scored responses; the reasoning of a response has the letter of its kind."""
    folder.mkdir()
    examples, rewards = [], []
    for i, kind in enumerate(kinds):
        examples.append({
            "example_id": f"q{i}", "task": "open", "question": f"How long is side {i}?", "images": [], "image_sha256": [],
            "image_hashes": [], "image_sizes": [], "target": "7", "box": None, "split": "test", "source": json.dumps({}), "reason": None,
        })  # fmt: skip
        rewards.append({
            "request_id": f"r{i}", "example_id": f"q{i}", "task": "open", "benchmark": "b", "condition": "greedy", "view": "original",
            "sample_index": 0, "text": f"<think>mistake {kind}</think> \\boxed{{{i}}}", "answer": f"\\boxed{{{i}}}", "target": "7",
            "reward": 1.0, "parsed": None, "reason": None,
            "components": [{"name": "accuracy", "value": float(kind == "+")}, {"name": "format", "value": 1.0}],
        })  # fmt: skip
    write_table(folder / "examples.parquet", EXAMPLES, examples, {})
    write_table(folder / "rewards.parquet", REWARDS, rewards, {})


def test_two_policies_are_compared_through_a_judge(tmp_path: Path) -> None:
    """The judge reads the reasoning, is not asked about right answers, and is asked once about equal
    ones."""
    block = BenchmarkBlock(
        dataset="d",
        protocol="papo_eval",
        variant="errors",
        reward="r",
        judge="stub",
        n=0,
        resamples=99,
        views=("original",),
    )
    policies = {"base": "ppp+rc?p", "ours": "+pp+rco+"}
    with serving() as server:
        server.say = lambda body, number: KIND[body["messages"][0]["content"].partition("<think>mistake ")[2][0]]
        for policy, kinds in policies.items():
            write_answers(tmp_path / policy, kinds)
            judged(tmp_path / policy, server.url, block)
        asked = [body["messages"][0]["content"] for body in server.asked]
    assert len(asked) == 7 + 5
    assert all("How long is side" in one and "Right answer:\n7" in one and "mistake +" not in one for one in asked)
    tables = {name: tmp_path / name for name in policies}
    evaluate.run(
        policy="ours", base="base", rewards={"b": tables["ours"] / "rewards.parquet"},
        base_rewards={"b": tables["base"] / "rewards.parquet"}, attention={}, base_attention=None,
        metrics=tmp_path / "metrics.parquet", benchmarks={"b": block}, reward_tasks={"r": {"open": "boxed_exact"}}, model=MODEL,
        examples={"d": tables["ours"] / "examples.parquet"}, verdicts={"b": tables["ours"] / "verdicts.parquet"},
        base_verdicts={"b": tables["base"] / "verdicts.parquet"},
    )  # fmt: skip
    found = {row["metric"]: row for row in read_table(tmp_path / "metrics.parquet", METRICS).to_pylist()}
    errors, share = found["perception_errors"], found["perception_share_of_errors"]
    assert (errors["value"], errors["base_value"], errors["gain"]) == pytest.approx((2 / 8, 4 / 8, -2 / 8))
    assert errors["gain_ci_low"] <= -2 / 8 <= errors["gain_ci_high"]
    assert errors["ci_low"] < 2 / 8 < errors["ci_high"]
    assert (share["value"], share["base_value"]) == pytest.approx((2 / 5, 4 / 6))
    assert (share["n"], share["n_failed"], errors["n"], errors["n_failed"]) == (5, 0, 8, 0)
    assert errors["judge"].startswith("stub: ")
    assert_any_two_are_compared(tmp_path, block)


def assert_any_two_are_compared(folder: Path, block: BenchmarkBlock) -> None:
    """The comparison without a judge of its own: numbers and shares of errors with paired differences."""
    measure_comparison.run(
        comparison="c", config=ComparisonBlock(policies=("ours", "base"), benchmark="b", resamples=99), comparisons=folder / "c.parquet",
        block=block, rewards=(folder / "ours/rewards.parquet", folder / "base/rewards.parquet"),
        verdicts=(folder / "ours/verdicts.parquet", folder / "base/verdicts.parquet"), reward_tasks={"open": "boxed_exact"},
        examples=folder / "ours/examples.parquet",
    )  # fmt: skip
    rows = read_table(folder / "c.parquet", COMPARISONS).to_pylist()
    found = {row["metric"]: row for row in rows}
    count, share = found["perception_error_count"], found["perception_share_of_errors"]
    assert (count["value"], count["other_value"], count["difference"]) == (2, 4, -2)
    assert count["difference_ci_low"] <= -2 <= count["difference_ci_high"]
    assert count["ci_low"] < 2 < count["ci_high"]
    assert share["difference"] == pytest.approx(2 / 5 - 4 / 6)
    assert (count["one"], count["other"], count["source"], count["judge"]) == ("ours", "base", "b", None)
    assert rows[0]["metric"] == "accuracy"  # the primary one is first
    (section,) = comparison_sections({"c": folder / "c.parquet"})
    assert section["sentence"].endswith(" %: difference +25.0 points")
