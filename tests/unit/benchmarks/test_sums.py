"""Metrics of published benchmarks use only sums, and their intervals resample whole units."""

import numpy as np
import pytest
from perceptune.core.benchmarks.benchmark import Benchmark, share
from perceptune.core.benchmarks.bootstrap import bounds, paired_sum, resampled_totals
from perceptune.core.rewards.reward import Answers
from perceptune.stages.evaluation import protocol_metrics

from tests.plugins import BENCHMARKS, REWARDS


class AnyColumns(dict[str, np.ndarray]):
    """Returns any column that a metric uses, for seven units."""

    def __init__(self) -> None:
        super().__init__()
        self._generator = np.random.default_rng(0)

    def __missing__(self, name: str) -> np.ndarray:
        self[name] = np.zeros(7) if name == "unjudged" else self._generator.integers(1, 9, size=7).astype(float)
        return self[name]


@pytest.mark.parametrize(
    ("benchmark", "metric"), [(b.name, m) for b in BENCHMARKS.values() for m in b.metrics], ids=str
)
def test_a_metric_of_columns_is_the_metric_of_their_sums(benchmark: str, metric: str) -> None:
    columns, function = AnyColumns(), BENCHMARKS[benchmark].metrics[metric].metric
    value = function(columns)
    assert columns, "it looks at no column"
    assert function({name: column.sum(keepdims=True) for name, column in columns.items()}) == pytest.approx(value)


def test_resampled_totals_give_the_intervals_of_the_general_bootstrap() -> None:
    generator = np.random.default_rng(1)
    policy, base = ({"hits": generator.integers(0, 4, 300) * 1.0, "all": np.full(300, 4.0)} for _ in range(2))
    metric = share("hits", "all")
    totals, base_totals = resampled_totals([policy, base], resamples=2999, seed=5)
    assert totals["hits"].shape == (2999, 1)
    assert metric(totals).shape == (2999,)
    value = paired_sum([(1, metric, policy)], resamples=2999, seed=5)
    gain = paired_sum([(1, metric, policy), (-1, metric, base)], resamples=2999, seed=5)
    assert bounds(metric(totals)) == pytest.approx(value[1:])
    assert bounds(metric(totals) - metric(base_totals)) == pytest.approx(gain[1:])


def test_a_single_unit_has_no_interval() -> None:
    """All its samples are the same: an interval without width would exclude 0."""
    policy, base = ({"hits": np.array([hits]), "all": np.array([6.0])} for hits in (6.0, 3.0))
    drawn = resampled_totals([policy, base], resamples=9, seed=0)
    found = protocol_metrics.compared(share("hits", "all"), [policy, base], drawn)
    assert (found["value"], found["base_value"], found["gain"]) == (1, 0.5, 0.5)
    assert all(np.isnan(found[limit]) for limit in ("ci_low", "ci_high", "gain_ci_low", "gain_ci_high"))  # type: ignore[arg-type]


def test_several_runs_are_drawn_together() -> None:
    runs = {"hits": np.arange(12.0).reshape(3, 4), "all": np.ones((3, 4))}
    (totals,) = resampled_totals([runs], resamples=50, seed=0)
    assert totals["hits"].shape == (3, 50, 1)
    (first,) = resampled_totals([{name: column[0] for name, column in runs.items()}], resamples=50, seed=0)
    assert np.array_equal(totals["hits"][0], first["hits"])


def test_the_draws_do_not_depend_on_how_many_fit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"hits": np.arange(5.0)}
    (whole,) = resampled_totals([columns], resamples=40, seed=3)
    monkeypatch.setattr("perceptune.core.benchmarks.bootstrap.CHUNK", 35)
    (parts,) = resampled_totals([columns], resamples=40, seed=3)
    assert np.array_equal(whole["hits"], parts["hits"])


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=lambda b: b.name)
def test_the_rewards_of_a_benchmark_give_what_it_is_made_of(benchmark: Benchmark) -> None:
    one = Answers(["an answer"], ["yes"], np.array([[1.0, 2, 3, 4]]), np.array([[9.0, 9]]), "original", sources=[{}])
    for task, reward in benchmark.rewards.items():
        names = benchmark.components.get(task, ())
        assert names or benchmark.judge_required
        assert set(names) <= REWARDS[reward](one).components.keys()
