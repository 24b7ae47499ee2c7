"""Bootstrap draws against plain loops over NumPy's own draws."""

from collections.abc import Callable

import numpy as np
import pytest
from perceptune.core.benchmarks import bootstrap
from perceptune.core.benchmarks.benchmark import known_share
from perceptune.core.benchmarks.bootstrap import paired_sum, resampled
from perceptune.core.rewards.metrics import Columns, Metric

RESAMPLES = 60


def median(columns: Columns) -> np.ndarray:
    """No function of sums."""
    return np.median(columns["x"], axis=-1)


def mean(columns: Columns) -> np.ndarray:
    return columns["x"].mean(axis=-1)


def loops(metric: Metric, columns: Columns, seed: int) -> list[float]:
    """The metric of each sample, computed by itself."""
    count = next(iter(columns.values())).shape[-1]
    samples = np.random.default_rng(seed).integers(0, count, size=(RESAMPLES, count))
    return [float(metric({name: column[..., rows] for name, column in columns.items()})) for rows in samples]


@pytest.mark.parametrize("block", [1, 50, 2**18])
@pytest.mark.parametrize("metric", [mean, median])
def test_intervals_are_those_of_a_loop_whatever_the_block(
    monkeypatch: pytest.MonkeyPatch, metric: Callable[[Columns], np.ndarray], block: int
) -> None:
    monkeypatch.setattr(bootstrap, "BLOCK", block)
    for count in (2, 23):
        draw = np.random.default_rng(count)
        columns, base = ({"x": draw.normal(size=count), "unused": np.zeros(count)} for _ in range(2))
        own, of_base = (np.array(loops(metric, c, seed=count)) for c in (columns, base))
        value = paired_sum([(1, metric, columns)], resamples=RESAMPLES, seed=count)
        gain = paired_sum([(1, metric, columns), (-1, metric, base)], resamples=RESAMPLES, seed=count)
        assert value == pytest.approx((metric(columns), *np.quantile(own, [0.025, 0.975])), rel=1e-12)
        limits = np.quantile(own - of_base, [0.025, 0.975])
        assert gain == pytest.approx((metric(columns) - metric(base), *limits), rel=1e-12)


@pytest.mark.parametrize(("block", "chunk"), [(1, 1), (7, 100), (2**18, 4_000_000)])
def test_metrics_of_sums_have_the_same_draws(monkeypatch: pytest.MonkeyPatch, block: int, chunk: int) -> None:
    """One run against the mean of three, with a column that is the same in all of them, and one of NaN."""
    monkeypatch.setattr(bootstrap, "BLOCK", block)
    monkeypatch.setattr(bootstrap, "CHUNK", chunk)
    draw = np.random.default_rng(0)
    asked, unknown = draw.integers(1, 4, 17).astype(float), np.full(17, np.nan)
    one: Columns = {"hits": draw.random(17), "asked": asked, "unknown": unknown}
    runs: Columns = {"hits": draw.random((3, 17)), "asked": np.stack([asked] * 3), "unknown": np.stack([unknown] * 3)}
    single = known_share("hits", "asked")

    def of_runs(columns: Columns) -> np.ndarray:
        return single(columns).mean(axis=0)

    for of_sums in (False, True):
        own, mean_of_runs = resampled([(single, one), (of_runs, runs)], resamples=RESAMPLES, seed=3, of_sums=of_sums)
        assert own == pytest.approx(loops(single, one, seed=3), rel=1e-12)
        assert mean_of_runs == pytest.approx(loops(of_runs, runs, seed=3), rel=1e-12)
    (totals,) = bootstrap.resampled_totals([runs], resamples=RESAMPLES, seed=3)
    assert totals["asked"].shape == totals["unknown"].shape == (3, RESAMPLES, 1)
    assert np.isnan(totals["unknown"]).all()


def test_a_single_unit_has_no_interval_in_a_sum_of_metrics() -> None:
    one, other = {"a": np.ones(1), "b": np.ones(1)}, {"a": np.zeros(1), "b": np.ones(1)}
    terms = [(1.0, known_share("a", "b"), one), (-1.0, known_share("a", "b"), other)]
    found = paired_sum(terms, resamples=9, seed=0, of_sums=True)
    assert found == pytest.approx((1.0, np.nan, np.nan), nan_ok=True)


def test_rounding_errors_do_not_keep_an_interval_from_0() -> None:
    constants = ((1.0, 0.8), (-1.0, 0.5), (-1.0, 0.3), (1.0, 0.0))  # in floating point, their sum is 5.6e-17
    terms = [(weight, mean, {"x": np.full(2, value)}) for weight, value in constants]
    assert paired_sum(terms, resamples=9, seed=0) == (0.0, 0.0, 0.0)


def test_a_small_sum_that_is_no_rounding_error_is_kept() -> None:
    terms = [(1.0, mean, {"x": np.full(2, 0.5 + 2**-30)}), (-1.0, mean, {"x": np.full(2, 0.5)})]
    assert paired_sum(terms, resamples=9, seed=0) == (2**-30,) * 3
