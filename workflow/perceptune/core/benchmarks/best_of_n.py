"""Best-of-k curves over sampled answers."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln


def best_of_k(values: np.ndarray, k: int, *, more_is_better: bool = True) -> np.ndarray:
    """Expected best of k of the N values in each row, over all subsets of size k without
    replacement.

    `values` has shape (n, N); the result has shape (n,). If a row is sorted in ascending order, its
    r-th value (0-based) is the largest of C(r, k - 1) of the C(N, k) subsets. For 0/1 values with c
    ones, this is the pass@k estimator 1 - C(N - c, k) / C(N, k).
    """
    ordered = np.sort(values if more_is_better else -values, axis=1)
    weights = best_of_k_weights(values.shape[1], k)
    best = ordered @ weights
    return best if more_is_better else -best


def best_of_k_weights(count: int, k: int) -> np.ndarray:
    """Probability that the r-th smallest of `count` values is the largest of k random ones: shape
    (count,).
    """
    rank = np.arange(count, dtype=float)
    possible = rank >= k - 1
    chosen = np.where(possible, rank, k - 1)
    logs = _log_binomial(chosen, k - 1) - _log_binomial(np.array(float(count)), k)
    return np.where(possible, np.exp(logs), 0.0)


def _log_binomial(above: np.ndarray, below: int) -> np.ndarray:
    return gammaln(above + 1) - gammaln(below + 1) - gammaln(above - below + 1)


def curve_points(count: int) -> list[int]:
    """1, 2, 4, ... up to and including `count`."""
    points = [2**i for i in range(count.bit_length()) if 2**i <= count]
    return points if points and points[-1] == count else [*points, count]
