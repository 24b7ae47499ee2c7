"""Metrics of a benchmark with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

Columns = Mapping[str, np.ndarray]
Metric = Callable[[Columns], np.ndarray]
"""Takes columns of shape (..., n), gives values of shape (...): so that resamples are computed together."""

CHUNK = 4_000_000
"""Numbers drawn at once while bootstrapping: bounds the memory."""
LEVEL = 0.95


def _mean(column: str) -> Metric:
    return lambda columns: columns[column].mean(axis=-1)


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """`above / below`; 0 where nothing is below."""
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=np.asarray(below) > 0)


def _precision(columns: Columns) -> np.ndarray:
    hits = (columns["predicted_yes"] * columns["target_yes"]).sum(axis=-1)
    return ratio(hits, columns["predicted_yes"].sum(axis=-1))


def _recall(columns: Columns) -> np.ndarray:
    hits = (columns["predicted_yes"] * columns["target_yes"]).sum(axis=-1)
    return ratio(hits, columns["target_yes"].sum(axis=-1))


def _f1(columns: Columns) -> np.ndarray:
    hits = (columns["predicted_yes"] * columns["target_yes"]).sum(axis=-1)
    return ratio(2 * hits, (columns["predicted_yes"] + columns["target_yes"]).sum(axis=-1))


def _chair(columns: Columns) -> np.ndarray:
    """NaN where no object is named, or the language resources are missing."""
    nouns = columns["nouns"].sum(axis=-1)
    return np.where(nouns > 0, ratio(columns["hallucinated"].sum(axis=-1), nouns), np.nan)


def _at_half(column: str) -> Metric:
    return lambda columns: (columns[column] >= 0.5).mean(axis=-1)


_OF_BOXES: dict[str, Metric] = {
    "accuracy_iou_0.5": _at_half("iou"),
    "mean_iou": _mean("iou"),
    "accuracy_iou_0.5_padded_frame": _at_half("iou_padded_frame"),
    "accuracy_iou_0.5_original_frame": _at_half("iou_original_frame"),
}

_OF_BOXED: dict[str, Metric] = {"accuracy": _mean("accuracy"), "format": _mean("format")}

_OF_RIGHT: dict[str, Metric] = {"accuracy": _mean("accuracy")}

_OF_YES_NO: dict[str, Metric] = {
    "f1": _f1,
    "accuracy": _mean("correct"),
    "precision": _precision,
    "recall": _recall,
    "yes_ratio": _mean("predicted_yes"),
}

METRICS: dict[str, dict[str, Metric]] = {
    "iou": _OF_BOXES,
    "iou_threshold": _OF_BOXES,
    "edit_distance": {
        "ned": _mean("ned"),
        "token_f1": _mean("token_f1"),
        "token_precision": _mean("token_precision"),
        "token_recall": _mean("token_recall"),
        "exact": _mean("exact"),
    },
    "yes_no": _OF_YES_NO,
    "pope": _OF_YES_NO,
    "pope_vcd": _OF_YES_NO,
    "vlmevalkit_yes_no": _OF_YES_NO,
    "amber": {"accuracy": _mean("correct")},
    "amber_nouns": {"chair": _chair},
    "exact_match": {"accuracy": _mean("correct")},
    "free_text": {"answered": _mean("answered")},
    "boxed_math": _OF_BOXED,
    "boxed_exact": _OF_BOXED,
    "mathvista": _OF_RIGHT,
    "mathverse": _OF_RIGHT,
    "mathvision": _OF_RIGHT,
    "we_math": _OF_RIGHT,
    "logicvista": _OF_RIGHT,
    "dynamath": _OF_RIGHT,
    "mmmu_pro": _OF_RIGHT,
    "vqa_accuracy": _OF_RIGHT,
    "page_text": {name: _mean(name) for name in ("ned", "token_f1", "token_precision", "token_recall", "bleu")},
}
"""Reward name to its metrics, the primary one first. Frame metrics drop out where the frame has no alternative."""

PerAnswer = tuple[str, Callable[[np.ndarray], np.ndarray], bool]

_PER_BOX: dict[str, PerAnswer] = {
    "accuracy_iou_0.5": ("iou", lambda v: (v >= 0.5).astype(float), True),
    "mean_iou": ("iou", lambda v: v, True),
}

_PER_BOXED: dict[str, PerAnswer] = {"accuracy": ("accuracy", lambda v: v, True)}

_PER_CORRECT: dict[str, PerAnswer] = {"accuracy": ("correct", lambda v: v, True)}

PER_ANSWER: dict[str, dict[str, PerAnswer]] = {
    "iou": _PER_BOX,
    "iou_threshold": _PER_BOX,
    "edit_distance": {"ned": ("ned", lambda v: v, False)},
    "yes_no": _PER_CORRECT,
    "pope": _PER_CORRECT,
    "pope_vcd": _PER_CORRECT,
    "vlmevalkit_yes_no": _PER_CORRECT,
    "amber": _PER_CORRECT,
    "amber_nouns": {},
    "exact_match": _PER_CORRECT,
    "free_text": {},  # what is the best of several is not known
    "boxed_math": _PER_BOXED,
    "boxed_exact": _PER_BOXED,
    "mathvista": _PER_BOXED,
    "mathverse": _PER_BOXED,
    "mathvision": _PER_BOXED,
    "we_math": _PER_BOXED,
    "logicvista": _PER_BOXED,
    "dynamath": _PER_BOXED,
    "mmmu_pro": _PER_BOXED,
    "vqa_accuracy": _PER_BOXED,
    "page_text": {"ned": ("ned", lambda v: v, False)},
}
"""Reward name to metrics of single answers for the curves over N: component, its value, whether more is better."""


def interval(metric: Metric, columns: Columns, *, resamples: int, seed: int) -> tuple[float, float, float]:
    """(value, low, high): the metric of n examples and its 95 % percentile-bootstrap interval over examples."""
    draws = _draws([(metric, columns)], resamples, seed)
    low, high = bounds(draws[0])
    return float(metric(columns)), low, high


def paired_gain(
    metric: Metric, columns: Columns, base: Columns, *, resamples: int, seed: int
) -> tuple[float, float, float]:
    """(gain, low, high): difference to the base policy, both resampled with the same examples."""
    return paired_sum([(1, metric, columns), (-1, metric, base)], resamples=resamples, seed=seed)


def paired_sum(
    terms: Sequence[tuple[float, Metric, Columns]], *, resamples: int, seed: int
) -> tuple[float, float, float]:
    """(value, low, high): the sum of weighted metrics of the same n examples, all resampled together.

    Columns have n examples on their last axis, in the same order. A gain is (1, policy), (-1, base); what an image adds to it
    takes away the same without the image.
    """
    draws = _draws([(metric, columns) for _, metric, columns in terms], resamples, seed)
    weights = [weight for weight, _, _ in terms]
    low, high = bounds(sum((w * d for w, d in zip(weights, draws, strict=True)), np.zeros(resamples)))
    return float(sum(weight * metric(columns) for weight, metric, columns in terms)), low, high


def resampled_totals(tables: Sequence[Columns], *, resamples: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Each table's columns (..., units) summed over the same bootstrap samples of the units: shape (..., resamples, 1).

    For metrics that look at sums only. All metrics share the samples, and a product of matrices makes them: with many metrics
    of many units this is some hundred times faster than drawing for each of them.
    """
    count = next(iter(tables[0].values())).shape[-1]
    generator = np.random.default_rng(seed)
    found: list[dict[str, list[np.ndarray]]] = [{name: [] for name in table} for table in tables]
    step = max(1, CHUNK // max(count, 1))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        rows = generator.integers(0, count, size=(size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(rows.ravel(), minlength=size * count).reshape(size, count).astype(float)
        for totals, table in zip(found, tables, strict=True):
            for name, column in table.items():
                totals[name].append(np.moveaxis(times @ np.moveaxis(column, -1, 0), 0, -1))
    return [{name: np.concatenate(parts, axis=-1)[..., None] for name, parts in totals.items()} for totals in found]


def _draws(measured: list[tuple[Metric, Columns]], resamples: int, seed: int) -> list[np.ndarray]:
    """For each (metric, columns) its values on the same `resamples` bootstrap samples of the n examples."""
    count = next(iter(measured[0][1].values())).shape[-1]
    generator = np.random.default_rng(seed)
    values: list[list[np.ndarray]] = [[] for _ in measured]
    step = max(1, CHUNK // max(count, 1))
    for start in range(0, resamples, step):
        rows = generator.integers(0, count, size=(min(step, resamples - start), count))
        for found, (metric, columns) in zip(values, measured, strict=True):
            found.append(metric(_Resampled(columns, rows)))
    return [np.concatenate(found) for found in values]


class _Resampled(dict[str, np.ndarray]):
    """Columns (n,) seen through row numbers (resamples, n); only those that a metric asks for are drawn."""

    def __init__(self, columns: Columns, rows: np.ndarray) -> None:
        super().__init__()
        self._columns, self._rows = columns, rows

    def __missing__(self, name: str) -> np.ndarray:
        self[name] = self._columns[name][..., self._rows]
        return self[name]


def bounds(draws: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap values."""
    known = draws[~np.isnan(draws)]  # NaN: a resample without any example that the metric is about
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if known.size else (np.nan, np.nan)
    return float(low), float(high)


def run_spread(values: np.ndarray) -> float:
    """Standard deviation (n - 1) of the N runs' means: `values` (n, N) holds the i-th answers of all questions in column i.

    It says how much one run of sampled answers differs from the next, not how sure the mean is: questions stay the same.
    """
    return float(values.mean(axis=0).std(ddof=1))


def macro_mean(values: Sequence[float]) -> float:
    """The overall of several benchmarks: their mean, each with the same weight whatever its number of questions."""
    return sum(values) / len(values)
