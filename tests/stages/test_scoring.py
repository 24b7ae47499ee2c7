"""Responses to rewards, preferences and metrics: chained small tables."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from perceptune.contracts.config import BenchmarkBlock, ModelBlock, RewardBlock, SelectionBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load
from perceptune.contracts.tables.attention import ATTENTION
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.core.benchmarks.benchmark import Benchmark, Measured, share
from perceptune.core.benchmarks.pope import metrics as pope
from perceptune.core.rewards.metrics import mean
from perceptune.core.rewards.reward import Answers, RewardMetric, Scores
from perceptune.stages.evaluation import evaluate, metric_rows
from perceptune.stages.preferences import score, select
from perceptune.stages.sampling import gather

MODEL = ModelBlock(path="nowhere", family="llava")
REWARD = RewardBlock(tasks={"grounding": "iou", "existence": "yes_no"})


def example(name: str, task: str, **changes: Any) -> dict[str, Any]:
    row = {
        "example_id": name, "task": task, "question": "?", "images": [], "image_sha256": [], "image_hashes": [], "image_sizes": [[100, 100]],
        "target": None, "box": None, "split": "test", "source": None, "reason": None,
    }  # fmt: skip
    return {**row, **changes}


def request(name: str, n: int, benchmark: str | None = None, condition: str = "sampled") -> dict[str, Any]:
    parts = [benchmark or "mine", name, "original", condition]
    return {
        "request_id": "/".join(parts), "example_id": name, "dataset": "mine", "benchmark": benchmark, "condition": condition,
        "view": "original", "recipe": "{}", "contrast": None,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "?"}]}], "n": n,
        "temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_tokens": 8, "seed": 0,
    }  # fmt: skip


def response(asked: dict[str, Any], index: int, text: str | None) -> dict[str, Any]:
    shared = {
        "request_id": asked["request_id"],
        "example_id": asked["example_id"],
        "view": asked["view"],
        "sample_index": index,
    }
    if text is None:
        return {**shared, "reason": "the file is empty"}
    return {
        **shared,
        "text": text,
        "token_ids": [index],
        "logprobs": [-1.0],
        "finish_reason": "stop",
        "prompt_tokens": 3,
    }


class Tables:
    """Small tables in a folder; `answers` maps a request to its texts."""

    def __init__(
        self, folder: Path, examples: list[dict[str, Any]], answers: list[tuple[dict[str, Any], list[str | None]]]
    ) -> None:
        self.folder = folder
        write_table(self["examples"], EXAMPLES, examples, {})
        write_table(self["requests"], REQUESTS, [r for r, _ in answers], {})
        rows = [response(r, i, text) for r, texts in answers for i, text in enumerate(texts)]
        write_table(self["responses"], RESPONSES, rows, {})

    def __getitem__(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"

    def rewards(self, block: RewardBlock = REWARD) -> pl.DataFrame:
        tables = {k: self[k] for k in ("requests", "responses", "rewards")}
        score.run(**tables, examples={"mine": self["examples"]}, config=block, model=MODEL)
        return pl.from_arrow(read_table(self["rewards"], REWARDS))  # type: ignore[return-value]

    def preferences(self, block: SelectionBlock) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        statistics = self.folder / "statistics.json"
        tables = {k: self[k] for k in ("requests", "responses", "rewards", "preferences")}
        select.run(**tables, statistics=statistics, config=block)
        return read_table(self["preferences"], PREFERENCES).to_pylist(), json.loads(statistics.read_text())


ROWS = [example("box", "grounding", box=[10.0, 10, 50, 50]), example("there", "existence", target="yes")]


def test_rewards_keep_every_row_in_order(tmp_path: Path) -> None:
    asked = [(request("box", 3), ["[0.1, 0.1, 0.5, 0.5]", "somewhere", None]), (request("there", 2), ["Yes.", "no"])]
    table = Tables(tmp_path, ROWS, asked).rewards(RewardBlock(tasks=REWARD.tasks, max_failed_share=0.5))
    assert table["request_id"].to_list() == ["mine/box/original/sampled"] * 3 + ["mine/there/original/sampled"] * 2
    assert table["reward"].to_list() == pytest.approx([1.0, 0.0, None, 1.0, 0.0])
    assert table["reason"].to_list() == [
        None,
        "no box: expected four numbers in brackets",
        "the file is empty",
        None,
        None,
    ]
    assert json.loads(table["parsed"][0])["box_pixels"] == [10, 10, 50, 50]


def test_a_reward_that_is_not_finite_is_no_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets a reason, its group is not trained on, and the others are unaffected."""

    def broken(answers: Answers) -> Scores:
        values = np.array([np.nan if text == "oops" else 1.0 * (text == "yes") for text in answers.texts])
        return Scores(values, [None] * len(values), {"correct": values}, [None] * len(values))

    reward = replace(load("reward", "yes_no"), name="broken", score=broken, components=("correct",), metrics={
        "accuracy": RewardMetric(mean("correct"), "accuracy", component="correct")
    })  # fmt: skip
    monkeypatch.setattr(score, "load", lambda kind, name: reward if kind == "reward" else load(kind, name))
    rows = [*ROWS, example("far", "existence", target="yes")]
    tables = Tables(tmp_path, rows, [(request("there", 2), ["yes", "oops"]), (request("far", 2), ["yes", "no"])])
    table = tables.rewards()
    assert table["reward"].to_list() == [1.0, None, 1.0, 0.0]
    assert table["reason"].to_list() == [None, "the reward is nan, expected a finite number", None, None]
    kept, _ = tables.preferences(SelectionBlock())
    assert [(row["kept"], row["reason"]) for row in kept] == [(False, "one distinct answer"), (True, None)]


def test_too_many_missing_responses_stop_the_stage(tmp_path: Path) -> None:
    tables = Tables(tmp_path, ROWS, [(request("box", 2), ["[0.1, 0.1, 0.5, 0.5]", None])])
    with pytest.raises(
        UserError, match=r"1 of 2 responses are missing[\s\S]*request `mine/box/original/sampled`: the file is empty"
    ):
        tables.rewards()
    assert not tables["rewards"].exists()


def test_a_task_without_reward_is_named(tmp_path: Path) -> None:
    tables = Tables(tmp_path, ROWS, [(request("there", 1), ["yes"])])
    with pytest.raises(UserError, match="no reward for task `existence`"):
        tables.rewards(RewardBlock(tasks={"grounding": "iou"}))


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


def test_preferences_are_ranked_and_say_what_was_dropped(tmp_path: Path) -> None:
    texts = ["[0.1, 0.1, 0.5, 0.5]", "[0.1, 0.1, 0.5, 0.4]", "nonsense"]
    tables = Tables(tmp_path, ROWS, [(request("box", 3), texts[::-1]), (request("there", 2), ["yes", "yes"])])
    tables.rewards()
    rows, statistics = tables.preferences(SelectionBlock())
    assert [r["kept"] for r in rows] == [True, False]
    assert [r["text"] for r in rows[0]["responses"]] == texts
    assert [r["reward"] for r in rows[0]["responses"]] == pytest.approx([1.0, 0.75, 0.0])
    assert [r["token_ids"] for r in rows[0]["responses"]] == [[2], [1], [0]]
    assert rows[1]["reason"] == "one distinct answer"
    assert statistics["dropped"] == {"one distinct answer": 1}


def test_no_kept_list_is_a_clear_error(tmp_path: Path) -> None:
    tables = Tables(tmp_path, ROWS, [(request("there", 2), ["yes", "yes"])])
    tables.rewards()
    with pytest.raises(UserError, match=r"none of 1 lists is kept: one distinct answer \(1\)"):
        tables.preferences(SelectionBlock())


def test_no_kept_list_is_explained_by_answers_that_could_not_be_read(tmp_path: Path) -> None:
    texts = ["Q" * 100, "left", "top", "[0.1, 0.1, 0.5, 0.5]"]
    asked = [(request("box", 2), texts[:2]), (request("box", 3, condition="again"), [*texts[2:], None])]
    tables = Tables(tmp_path, ROWS[:1], asked)
    reasons = tables.rewards(REWARD.model_copy(update={"max_failed_share": 1.0}))["reason"].to_list()
    with pytest.raises(UserError) as caught:
        tables.preferences(SelectionBlock(min_list_size=3))
    assert caught.value.hint == (
        f'3 of 4 answers could not be read, most often: {reasons[0]}; for example "{"Q" * 80}...". '
        "Check `prompt` and `max_tokens` of the sampling"
    )
    assert "four numbers" in reasons[0]
    half = Tables(tmp_path, ROWS[:1], [(request("box", 2), texts[2:])])
    half.rewards()
    with pytest.raises(UserError, match="none of 1 lists is kept") as caught:
        half.preferences(SelectionBlock(min_list_size=3))
    assert caught.value.hint == "lower `min_margin` of the selection, or sample more answers"


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


HIT, MISS = "[0.1, 0.1, 0.5, 0.5]", "[0.6, 0.6, 0.9, 0.9]"
HITS = Benchmark(
    name="pope",
    rewards={"grounding": "iou"},
    columns=lambda answers: {
        "asked": np.ones(len(answers)),
        "hit": np.array([float(a.components["iou"] >= 0.5) for a in answers]),
    },
    metrics={"hits": Measured(share("hit", "asked"), "hits")},
)
"""A benchmark with one metric that replaces another one: lineage needs a module of its name."""


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


def test_gathering_keeps_the_order_of_requests_and_refuses_lost_rows(tmp_path: Path) -> None:
    asked = [request(str(i), 2) for i in range(5)]
    Tables(
        tmp_path, [example(str(i), "grounding", box=[0.0, 0, 1, 1]) for i in range(5)], [(r, ["a", "b"]) for r in asked]
    )
    shards = []
    for shard in range(2):
        shards.append(tmp_path / f"shard-{shard}.parquet")
        rows = [response(r, i, "x") for r in asked[shard::2] for i in range(2)]
        write_table(shards[-1], RESPONSES, rows, {})
    target = tmp_path / "gathered.parquet"
    gather.run(requests=tmp_path / "requests.parquet", shards=shards, responses=target, journal=tmp_path / "journal")
    table = read_table(target, RESPONSES).to_pylist()
    assert [r["request_id"] for r in table] == [r["request_id"] for r in asked for _ in range(2)]
    assert [r["sample_index"] for r in table] == [0, 1] * 5
    with pytest.raises(ValueError, match="has 0 answers, expected 2; 2 such requests"):
        gather.run(
            requests=tmp_path / "requests.parquet", shards=shards[:1], responses=target, journal=tmp_path / "journal"
        )


def test_another_coordinate_format_is_reported_and_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A padded-square model writes fractions of the image, 100 x 50 pixels: [10, 10, 50, 40]."""
    wide = [example(f"box-{n}", "grounding", box=[10.0, 10, 50, 40], image_sizes=[[100, 50]]) for n in range(30)]
    asked = [(request(f"box-{n}", 1, "ref", "greedy"), ["[0.1, 0.2, 0.5, 0.8]"]) for n in range(30)]
    asked += [(request(f"box-{n}", 1, "ref"), ["[0.1, 0.45, 0.5, 0.65]"]) for n in range(30)]  # samples do not count
    table = Tables(tmp_path, wide, asked).rewards()
    # padded by 25 pixels at top and bottom: y spans -5 to 55, so the overlap is 40 x 30 of 40 x 60
    assert table["reward"][:30].to_list() == pytest.approx([0.5] * 30)
    said = capsys.readouterr().out
    assert "mean IoU of 30 boxes" in said
    assert "`padded_square` 0.500, `original` 1.000, `thousand` 0.000; declared: `padded_square`" in said
    assert "warning: the model's boxes look like `original`, not `padded_square`" in said


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
