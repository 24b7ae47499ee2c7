"""Rewards to metrics: gains, curves, prompts, attention, and answers that are missing."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from perceptune.contracts.config import BenchmarkBlock, RewardBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.attention import ATTENTION
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.core.benchmarks.pope import metrics as pope
from perceptune.stages.evaluation import evaluate, metric_rows

from .scored_tables import HIT, HITS, MISS, MODEL, REWARD, Tables, example, request


def test_a_missing_source_column_is_reported(tmp_path: Path) -> None:
    """A protocol that is added after sampling: the dataset lacks its columns."""
    asked = request("there", 1, "b", "greedy")
    some = example("there", "existence", target="yes", source='{"category": "VD", "subcategory": "x"}')
    tables = Tables(tmp_path, [some], [(asked, ["yes"])])
    tables.rewards()
    block = BenchmarkBlock(dataset="mine", reward="r", protocol="hallusionbench", n=0, resamples=20)
    with pytest.raises(
        UserError, match="example `there` has no column `set_id`, which the benchmark's protocol or reward reads"
    ):
        evaluate.run(
            policy="p", base="p", rewards={"b": tables["rewards"]}, base_rewards=None, attention={}, base_attention=None,
            metrics=tables["metrics"], benchmarks={"b": block}, reward_tasks={"r": dict(REWARD.tasks)}, model=MODEL,
            examples={"mine": tables["examples"]},
        )  # fmt: skip
    assert not tables["metrics"].exists()


@pytest.mark.parametrize(
    ("reward", "missing"), [("yes_no", None), ("exact_match", "predicted_yes"), ("free_text", "predicted_yes")]
)
def test_an_unsuitable_reward_is_an_error_not_a_score_of_0(tmp_path: Path, reward: str, missing: str | None) -> None:
    some = example("there", "existence", target="yes", source='{"category": "random"}')
    tables = Tables(tmp_path, [some], [(request("there", 1, "b", "greedy"), ["yes"])])
    tables.rewards(RewardBlock(tasks={"existence": reward}))

    def measured() -> None:
        evaluate.run(
            policy="p", base="p", rewards={"b": tables["rewards"]}, base_rewards=None, attention={}, base_attention=None,
            metrics=tables["metrics"], benchmarks={"b": BenchmarkBlock(dataset="mine", reward="r", protocol="pope", n=0, resamples=20)},
            reward_tasks={"r": {"existence": reward}}, model=MODEL, examples={"mine": tables["examples"]},
        )  # fmt: skip

    if missing is None:
        measured()
        return
    with pytest.raises(UserError) as caught:
        measured()
    assert str(caught.value) == (
        f"error: benchmark `b`: protocol `pope` requires component `{missing}` for every answer, reward `{reward}` for task `existence` "
        "does not provide it\nhint: remove `reward` from the benchmark block to use the protocol's own"
    )


def benchmarked(folder: Path, policy: str, greedy: list[str], sampled: list[list[str]]) -> Tables:
    """Answers to the benchmark `b` of grounding examples, greedy and sampled twice."""
    folder = folder / policy
    folder.mkdir()
    examples = [example(str(i), "grounding", box=[10.0, 10, 50, 50]) for i in range(len(greedy))]
    answers: list[tuple[dict[str, Any], list[str | None]]] = []
    for i, (text, texts) in enumerate(zip(greedy, sampled, strict=True)):
        answers += [(request(str(i), 1, "b", "greedy"), [text]), (request(str(i), 2, "b"), list(texts))]
    tables = Tables(folder, examples, answers)
    tables.rewards()
    return tables


def test_metrics_with_gains_and_curves(tmp_path: Path) -> None:
    hit, miss, bad = "[0.1, 0.1, 0.5, 0.5]", "[0.6, 0.6, 0.9, 0.9]", "?"
    base = benchmarked(tmp_path, "base", [hit, miss, miss, bad], [[hit, miss]] * 4)
    ours = benchmarked(tmp_path, "ours", [hit, hit, hit, bad], [[hit, hit]] * 4)
    block = BenchmarkBlock(dataset="mine", reward="r", n=2, resamples=999)
    evaluate.run(
        policy="ours", base="base", rewards={"b": ours["rewards"]}, base_rewards={"b": base["rewards"]},
        attention={}, base_attention=None,
        metrics=tmp_path / "metrics.parquet", benchmarks={"b": block}, reward_tasks={"r": {"grounding": "iou"}}, model=MODEL,
    )  # fmt: skip
    table = pl.from_arrow(read_table(tmp_path / "metrics.parquet", METRICS))

    def row(condition: str, metric: str, k: int) -> dict[str, Any]:
        return table.filter(condition=condition, metric=metric, k=k).row(0, named=True)  # type: ignore[union-attr]

    greedy = row("greedy", "accuracy_iou_0.5", 1)
    assert (greedy["value"], greedy["base_value"], greedy["gain"]) == (0.75, 0.25, 0.5)
    assert (greedy["n"], greedy["n_failed"]) == (4, 1)
    assert greedy["ci_low"] <= 0.75 <= greedy["ci_high"]
    assert greedy["gain_ci_low"] <= 0.5 <= greedy["gain_ci_high"]
    assert row("mean_of_n", "accuracy_iou_0.5", 2)["base_value"] == 0.5
    assert row("best_of_n", "accuracy_iou_0.5", 1)["base_value"] == 0.5  # one of two hits
    assert row("best_of_n", "accuracy_iou_0.5", 2)["base_value"] == 1.0
    assert row("best_of_n", "mean_iou", 2)["gain"] == pytest.approx(0.0)


def prompted(
    folder: Path, policy: str, greedy: list[str], others: list[list[str]], sampled: list[list[str]] | None = None
) -> Tables:
    """Answers to grounding questions about one box: greedy, other prompts, no image, sampled."""
    folder = folder / policy
    folder.mkdir()
    examples = [example(str(i), "grounding", box=[10.0, 10, 50, 50]) for i in range(len(greedy))]
    answers: list[tuple[dict[str, Any], list[str | None]]] = []
    for i, text in enumerate(greedy):
        answers.append((request(str(i), 1, "b", "greedy"), [text]))
        for k, texts in enumerate(others, 1):
            answers.append((request(str(i), 1, "b", f"prompt-{k}"), [texts[i]]))
        if sampled:
            answers.append((request(str(i), len(sampled[i]), "b"), list(sampled[i])))
    tables = Tables(folder, examples, answers)
    tables.rewards()
    return tables


@pytest.mark.parametrize(("protocol", "metric"), [(None, "accuracy_iou_0.5"), ("pope", "hits")])
def test_answers_to_other_prompts_are_measured_like_greedy_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str | None, metric: str
) -> None:
    monkeypatch.setattr(pope, "BENCHMARK", HITS)
    base = prompted(tmp_path, "base", [HIT, MISS, MISS, "?"], [[HIT, HIT, HIT, "?"], [MISS] * 4])
    block = BenchmarkBlock(
        dataset="mine", reward="r", n=0, resamples=99, prompts=("a {question}", "b {question}"), protocol=protocol
    )
    evaluate.run(
        policy="base", base="base", rewards={"b": base["rewards"]}, base_rewards=None, attention={}, base_attention=None,
        metrics=tmp_path / "metrics.parquet", benchmarks={"b": block}, reward_tasks={"r": {"grounding": "iou"}}, model=MODEL,
        examples={"mine": base["examples"]},
    )  # fmt: skip
    rows = read_table(tmp_path / "metrics.parquet", METRICS).to_pylist()
    found = {(r["condition"], r["k"]): (r["value"], r["n"], r["n_failed"]) for r in rows if r["metric"] == metric}
    assert found == {("greedy", 1): (0.25, 4, 1), ("prompt", 1): (0.75, 4, 1), ("prompt", 2): (0.0, 4, 0)}
    assert not [r for r in rows if r["metric"].endswith("_run_std")]


def looked(path: Path, afr: list[float | None], shares: list[float]) -> Path:
    """An attention table of a model with two layers."""
    rows = [
        {
            "example_id": str(i), "size": [100, 100], "grid": [1, 2], "attention": [0.5, 0.5], "afr": value,
            "layer_afr": None if value is None else [value - 1, value + 2], "global_afr": None if value is None else value / 2, "image_share": [share, share + 0.2], "reason": None,
        }
        for i, (value, share) in enumerate(zip(afr, shares, strict=True))
    ]  # fmt: skip
    write_table(path, ATTENTION, rows, {})
    return path


def test_attention_metrics_are_paired_and_p_acc_uses_the_bases_focus(tmp_path: Path) -> None:
    hit, miss = "[0.1, 0.1, 0.5, 0.5]", "[0.6, 0.6, 0.9, 0.9]"
    base = benchmarked(tmp_path, "base", [hit, miss, miss, miss], [[hit, miss]] * 4)
    ours = benchmarked(tmp_path, "ours", [hit, hit, miss, miss], [[hit, miss]] * 4)
    # the base's mean AFR is 8.5: examples 0 and 1 are above it, and example 0 above the paper's 14,
    # whatever the policy's AFRs
    there = looked(tmp_path / "base.parquet", [20.0, 9.0, 3.0, 2.0], [0.1] * 4)
    here = looked(tmp_path / "ours.parquet", [6.5, 5.5, 3.5, 15.0], [0.2] * 4)
    evaluate.run(
        policy="ours", base="base", rewards={"b": ours["rewards"]}, base_rewards={"b": base["rewards"]},
        attention={"b": here}, base_attention={"b": there}, metrics=tmp_path / "metrics.parquet",
        benchmarks={"b": BenchmarkBlock(dataset="mine", reward="r", n=2, resamples=99, attention_map="a")},
        reward_tasks={"r": {"grounding": "iou"}}, model=MODEL,
    )  # fmt: skip
    table = pl.from_arrow(read_table(tmp_path / "metrics.parquet", METRICS))
    found = {r["metric"]: r for r in table.filter(condition="attention").iter_rows(named=True)}  # type: ignore[union-attr]
    assert {name: (round(r["value"], 6), round(r["gain"], 6), r["n"]) for name, r in found.items()} == {
        "afr": (7.625, -0.875, 4),
        "afr_all_layers": (3.8125, -0.4375, 4), "afr_mean_of_layers": (8.125, -0.875, 4),
        "image_share": (0.3, 0.1, 4),
        "afr_layer_00": (6.625, -0.875, 4), "afr_layer_01": (9.625, -0.875, 4),
        "image_share_layer_00": (0.2, 0.1, 4), "image_share_layer_01": (0.4, 0.1, 4),
        "p_accuracy": (1.0, 0.5, 2), "p_accuracy_afr_14": (1.0, 0.0, 1),
    }  # fmt: skip


def test_a_missing_answer_counts_like_an_empty_one(tmp_path: Path) -> None:
    """Its edit distance is 1, not 0, and its question still has an answer that is yes."""
    examples = [example("page", "ocr", target="abc"), example("there", "existence", target="yes")]
    asked = [(request(name, 2, "b"), [text, None]) for name, text in (("page", "abc"), ("there", "yes"))]
    tables = Tables(tmp_path, examples, asked)  # type: ignore[arg-type]
    tasks = {"ocr": "edit_distance", "existence": "yes_no"}
    tables.rewards(RewardBlock(tasks=tasks, max_failed_share=1.0))  # type: ignore[arg-type]
    answers = metric_rows.answers_of(tables["rewards"], "b", (*metric_rows.MEASURED, "reward"))
    pages, yes = (metric_rows.columns_of(answers.filter(task=task)) for task in tasks)
    assert pages["ned"].tolist() == [0, 1] and pages["token_f1"].tolist() == [1, 0]
    assert yes["target_yes"].tolist() == [1, 1] and yes["predicted_yes"].tolist() == [1, 0]
    assert answers["reward"].is_null().to_list() == [False, True] * 2
    assert answers["reason"].to_list() == [None, "the file is empty"] * 2


def test_components_are_read_as_they_were_written() -> None:
    """Lists of random names, some empty, against a loop."""
    draw = np.random.default_rng(0)
    lists = [
        [
            {"name": name, "value": [None, np.nan, float(i)][draw.integers(3)]}
            for name in draw.permutation(["a", "b", "row"])[: draw.integers(4)]
        ]
        for i in range(200)
    ]
    column = pl.Series("components", lists, pl.List(pl.Struct({"name": pl.String, "value": pl.Float64})))
    found = metric_rows.components_of(column)
    for read, written in zip(found, lists, strict=True):
        expected = {item["name"]: np.nan if item["value"] is None else item["value"] for item in written}
        assert {name: value for name, value in read.items() if value is not None} == pytest.approx(
            expected, nan_ok=True
        )
    columns = metric_rows.columns_of(found.to_frame())
    first = next(i for i, written in enumerate(lists) if not written)
    assert {name: column[first] for name, column in columns.items()} == {"a": 0, "b": 0, "row": 0}
    assert metric_rows.columns_of(metric_rows.components_of(column.filter(column.list.len() == 0)).to_frame()) == {}


def test_a_base_model_without_an_answer_is_an_error() -> None:
    keys = pl.DataFrame({"request_id": ["a", "a", "b"], "sample_index": [0, 1, 0], "example_id": ["x", "x", "y"]})
    assert metric_rows.matched(keys.reverse(), keys).equals(keys)
    with pytest.raises(ValueError, match="lacks 1 of 3 answers"):
        metric_rows.matched(keys.head(2), keys)
