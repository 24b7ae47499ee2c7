"""Metrics against hand-made tables, brute force over subsets, and scipy's bootstrap."""

from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import polars as pl
import pytest
from perceptune.contracts.config import BenchmarkBlock
from perceptune.contracts.seeds import derived_seed
from perceptune.core.benchmarks.best_of_n import best_of_k, best_of_k_weights, curve_points
from perceptune.core.benchmarks.bootstrap import macro_mean, paired_sum, run_spread
from perceptune.stages.evaluation.metric_rows import sampled_rows
from scipy.stats import bootstrap

from tests.plugins import REWARD_METRICS


def yes_no(tp: int, fp: int, fn: int, tn: int) -> dict[str, np.ndarray]:
    predicted = [1] * tp + [1] * fp + [0] * fn + [0] * tn
    target = [1] * tp + [0] * fp + [1] * fn + [0] * tn
    columns = {"predicted_yes": np.array(predicted, float), "target_yes": np.array(target, float)}
    return {**columns, "correct": (columns["predicted_yes"] == columns["target_yes"]).astype(float)}


def test_a_sum_of_metrics_resamples_all_with_the_same_examples() -> None:
    """What the image adds to a gain, (P - B) - (P' - B'), against a plain loop over the same draws."""
    draw = np.random.default_rng(3)
    answers = [{"correct": draw.integers(0, 2, 30).astype(float)} for _ in range(4)]
    weights = (1, -1, -1, 1)
    metric = REWARD_METRICS["exact_match"]["accuracy"]
    terms = [(w, metric, columns) for w, columns in zip(weights, answers, strict=True)]
    value, low, high = paired_sum(terms, resamples=200, seed=5)
    rows = np.random.default_rng(5).integers(0, 30, size=(200, 30))
    loops = []
    for chosen in rows:
        shares = [sum(columns["correct"][i] for i in chosen) / 30 for columns in answers]
        loops.append((shares[0] - shares[1]) - (shares[2] - shares[3]))
    assert value == pytest.approx(sum(w * a["correct"].mean() for w, a in zip(weights, answers, strict=True)))
    assert (low, high) == pytest.approx(tuple(np.quantile(loops, [0.025, 0.975])))


def test_runs_and_single_answers_are_resampled_together() -> None:
    """Policy with one response each, against the mean over three runs of a metric that is not a
    mean of responses.
    """
    draw = np.random.default_rng(4)
    one = {name: draw.integers(0, 2, 20).astype(float) for name in ("predicted_yes", "target_yes")}
    runs = {
        "predicted_yes": draw.integers(0, 2, (3, 20)).astype(float),
        "target_yes": np.stack([one["target_yes"]] * 3),
    }
    f1 = REWARD_METRICS["yes_no"]["f1"]
    terms = [(1.0, f1, one), (-1.0, lambda columns: f1(columns).mean(axis=0), runs)]
    value, low, high = paired_sum(terms, resamples=100, seed=6)

    def by_hand(chosen: Any) -> float:
        def score(predicted: Any) -> float:
            hits = sum(predicted[i] * one["target_yes"][i] for i in chosen)
            below = sum(predicted[i] + one["target_yes"][i] for i in chosen)
            return 2 * hits / below if below else 0.0

        return score(one["predicted_yes"]) - sum(score(run) for run in runs["predicted_yes"]) / 3

    loops = [by_hand(chosen) for chosen in np.random.default_rng(6).integers(0, 20, size=(100, 20))]
    assert value == pytest.approx(by_hand(range(20)))
    assert (low, high) == pytest.approx(tuple(np.quantile(loops, [0.025, 0.975])))


def test_pope_vector() -> None:
    """TP 80, FP 10, FN 20, TN 90."""
    columns = yes_no(80, 10, 20, 90)
    values = {name: float(metric(columns)) for name, metric in REWARD_METRICS["yes_no"].items()}
    expected = {"precision": 0.8889, "recall": 0.8, "f1": 0.8421, "accuracy": 0.85, "yes_ratio": 0.45}
    assert values == pytest.approx(expected, abs=5e-5)


def test_all_no_has_no_precision_but_no_crash() -> None:
    columns = yes_no(0, 0, 5, 5)
    assert float(REWARD_METRICS["yes_no"]["f1"](columns)) == 0
    assert float(REWARD_METRICS["yes_no"]["precision"](columns)) == 0


def test_accuracy_at_half_is_inclusive() -> None:
    columns = {"iou": np.array([0.5, 0.4999, 1.0, 0.0])}
    assert float(REWARD_METRICS["iou"]["accuracy_iou_0.5"](columns)) == 0.5


@pytest.mark.parametrize("k", range(1, 7))
def test_best_of_k_equals_all_subsets(k: int) -> None:
    values = np.random.default_rng(k).random((3, 6))
    brute = [np.mean([max(s) for s in combinations(row, k)]) for row in values]
    assert best_of_k(values, k) == pytest.approx(brute)
    worst = [np.mean([min(s) for s in combinations(row, k)]) for row in values]
    assert best_of_k(values, k, more_is_better=False) == pytest.approx(worst)


def test_best_of_k_of_hits_is_pass_at_k() -> None:
    values = np.array([[1.0] * 3 + [0.0] * 17])
    for k in (1, 4, 17, 18):
        assert best_of_k(values, k)[0] == pytest.approx(1 - comb(17, k) / comb(20, k))


RUNS = np.array([[1, 1, 1, 0, 1, 1, 0, 1], [0] * 8, [0, 1, 0, 0, 0, 0, 1, 0]], float)
"""Reference vector: three problems, eight responses each."""


def test_acc_at_8_is_the_mean_over_answers_and_problems() -> None:
    """Per problem 0.75, 0, 0.25: not pass@8."""
    assert RUNS.mean(axis=1).tolist() == [0.75, 0, 0.25]
    assert RUNS.mean() == pytest.approx(0.333333, abs=1e-6)
    assert best_of_k(RUNS, 1).mean() == pytest.approx(0.333333, abs=1e-6)
    assert best_of_k(RUNS, 8).mean() == pytest.approx(0.666667, abs=1e-6)


def test_what_the_stage_writes_of_sampled_answers() -> None:
    """The same through `stages.evaluate`."""
    rows = [(f"r{i}", j, {"correct": hit}, None) for i, row in enumerate(RUNS) for j, hit in enumerate(row)]
    part = pl.DataFrame(rows, schema=["request_id", "sample_index", "components", "reason"], orient="row")
    block = BenchmarkBlock(dataset="d", reward="r", n=8, resamples=99)
    found = {
        (row["condition"], row["metric"], row["k"]): row["value"]
        for row in sampled_rows(part, None, "exact_match", block, ("b", "task", "original"))
    }
    assert found["mean_of_n", "accuracy", 8] == pytest.approx(0.333333, abs=1e-6)
    assert found["mean_of_n", "accuracy_run_std", 8] == pytest.approx(0.178174, abs=1e-6)
    assert found["best_of_n", "accuracy", 8] == pytest.approx(0.666667, abs=1e-6)
    assert found["best_of_n", "accuracy", 4] == pytest.approx((1 + 0 + 0.785714) / 3, abs=1e-6)
    one = part.filter(pl.col("sample_index") == 0)
    rows_of = list(sampled_rows(part, None, "exact_match", block, ("b", "task", "original")))
    assert {row["n"] for row in rows_of} == {24}  # answers, as are those that failed
    conditions = [row["metric"] for row in sampled_rows(one, None, "exact_match", block, ("b", "t", "v"))]
    assert set(conditions) == {"accuracy"}  # one run has no spread


def test_all_metrics_share_their_samples() -> None:
    """Means and best of k of a policy and its base, against a loop over one set of samples."""
    draw, address, block = (
        np.random.default_rng(0),
        ("b", "t", "v"),
        BenchmarkBlock(dataset="d", reward="r", resamples=99),
    )
    tables = [
        pl.DataFrame(
            [(f"r{i:02}", j, f"e{i}", {"correct": float(draw.integers(2))}, None) for i in range(30) for j in range(4)],
            schema=["request_id", "sample_index", "example_id", "components", "reason"],
            orient="row",
        )
        for _ in range(2)
    ]
    rows = {
        (row["condition"], row["k"]): row for row in sampled_rows(*tables, "exact_match", block, address) if row["gain"]
    }
    own, base = (np.array([row["correct"] for row in table["components"]]).reshape(30, 4) for table in tables)
    samples = np.random.default_rng(derived_seed("bootstrap", 0, *address)).integers(0, 30, size=(99, 30))
    for k, best in {("mean_of_n", 4): np.mean, ("best_of_n", 1): np.mean, ("best_of_n", 4): np.max}.items():
        values, gains = best(own, axis=1), best(own, axis=1) - best(base, axis=1)
        limits = [np.quantile([x[sample].mean() for sample in samples], [0.025, 0.975]) for x in (values, gains)]
        found = [rows[k][name] for name in ("value", "ci_low", "ci_high", "gain", "gain_ci_low", "gain_ci_high")]
        assert found == pytest.approx([values.mean(), *limits[0], gains.mean(), *limits[1]], rel=1e-9)


def test_best_of_4_is_the_unbiased_pass_at_4() -> None:
    """1 - C(2, 4) / C(8, 4), 0, 1 - C(6, 4) / C(8, 4) = 1 - 15 / 70."""
    assert best_of_k(RUNS, 4) == pytest.approx([1.0, 0.0, 0.785714], abs=1e-6)


def test_the_spread_over_runs() -> None:
    """Runs score .3333, .6667, .3333, 0, then four times .3333: deviations 1/3 twice, so sqrt(2 / 9
    / 7).
    """
    assert run_spread(RUNS) == pytest.approx(0.178174, abs=1e-6)
    assert run_spread(RUNS) == pytest.approx((2 / 9 / 7) ** 0.5)


def test_benchmarks_have_the_same_weight_in_the_overall() -> None:
    """Accuracies of 300, 100, 200 questions; weighted by questions it would be 0.416667."""
    assert macro_mean([0.5, 0.2, 0.4]) == pytest.approx(0.366667, abs=1e-6)


def test_weights_are_probabilities() -> None:
    for count, k in ((1, 1), (20, 5), (128, 64)):
        assert best_of_k_weights(count, k).sum() == pytest.approx(1)


def test_curve_points() -> None:
    assert curve_points(20) == [1, 2, 4, 8, 16, 20]
    assert curve_points(8) == [1, 2, 4, 8]
    assert curve_points(1) == [1]


def test_the_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).normal(0.4, 0.2, 300)
    value, low, high = paired_sum([(1, lambda c: c["x"].mean(axis=-1), {"x": values})], resamples=9999, seed=1)
    reference = bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(2)).confidence_interval
    assert value == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=2e-3)  # both have Monte Carlo error


def test_the_gain_is_paired() -> None:
    """Ten questions become correct, two wrong: 0.08 of 100; pairing makes the interval narrow."""
    base = np.array([1.0] * 50 + [0.0] * 50)
    improved = base.copy()
    improved[50:60], improved[:2] = 1, 0

    def mean(columns: dict[str, np.ndarray]) -> np.ndarray:
        return columns["x"].mean(axis=-1)

    gain, low, high = paired_sum([(1, mean, {"x": improved}), (-1, mean, {"x": base})], resamples=9999, seed=1)
    assert gain == pytest.approx(0.08)
    reference = bootstrap(
        (improved - base,), np.mean, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (low, high) == pytest.approx(
        (reference.low, reference.high), abs=0.011
    )  # a mean of 100 moves in steps of 0.01
    assert paired_sum([(1, mean, {"x": base}), (-1, mean, {"x": base})], resamples=99, seed=1) == (0, 0, 0)


def test_a_single_example_has_no_interval() -> None:
    def mean(columns: dict[str, np.ndarray]) -> np.ndarray:
        return columns["x"].mean(axis=-1)

    one, base = {"x": np.array([1.0])}, {"x": np.array([0.0])}
    for terms in ([(1, mean, one)], [(1, mean, one), (-1, mean, base)]):
        assert paired_sum(terms, resamples=99, seed=1) == pytest.approx((1, np.nan, np.nan), nan_ok=True)  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_interval() -> None:
    columns = yes_no(8, 3, 2, 7)
    first, second = (
        paired_sum([(1, REWARD_METRICS["yes_no"]["f1"], columns)], resamples=500, seed=7) for _ in range(2)
    )
    assert first == second
