"""Limits of a round: which step, which metric, and what counts as not measured."""

import math

import pytest
import torch
from perceptune.core.methods.limits import limit_names, tripped
from perceptune.core.methods.rollout import RolloutMethod, Seen, Tokens

from tests.plugins import METHODS

HISTORY = [
    {"step": 1, "clip_high": 0.0, "perception_kl": 0.5, "policy_gap": 0.002},
    {"step": 2, "clip_high": 0.04, "perception_kl": 0.9, "policy_gap": 0.3},
    {"step": 3, "clip_high": 0.12, "perception_kl": 1.6, "policy_gap": 0.4},
]


def test_the_first_step_outside_a_limit_is_named() -> None:
    assert tripped(HISTORY, {"clip_high": (None, 0.1)}) == "`clip_high` is 0.12 at step 3, above its limit 0.1"
    assert tripped(HISTORY, {"perception_kl": (0.6, None)}) == "`perception_kl` is 0.5 at step 1, below its limit 0.6"
    both = {"clip_high": (None, 0.1), "policy_gap": (None, 0.2)}
    assert tripped(HISTORY, both) == "`policy_gap` is 0.3 at step 2, above its limit 0.2"


def test_a_value_at_its_limit_is_within() -> None:
    assert tripped(HISTORY, {"clip_high": (0.0, 0.12), "policy_gap": (None, None)}) is None
    assert tripped([], {"clip_high": (0.0, 0.0)}) is None
    assert tripped(HISTORY, {}) is None


def test_growth_is_relative_to_the_first_step() -> None:
    expected = "`perception_kl_growth` is 3.2 at step 3, above its limit 3"  # 1.6 / 0.5
    assert tripped(HISTORY, {"perception_kl_growth": (None, 3.0)}) == expected
    assert tripped(HISTORY, {"perception_kl_growth": (1.0, 3.3)}) is None  # 1 at the first step


def test_growth_from_zero_is_not_measured() -> None:
    assert tripped(HISTORY, {"clip_high_growth": (None, 1.0)}) is None


def test_a_limit_at_the_start_is_about_the_first_step() -> None:
    assert tripped(HISTORY, {"policy_gap_at_start": (None, 0.01)}) is None
    expected = "`policy_gap_at_start` is 0.002 at step 1, above its limit 0.001"
    assert tripped(HISTORY, {"policy_gap_at_start": (None, 0.001)}) == expected


@pytest.mark.parametrize("ending", ["", "_growth", "_at_start"])
def test_what_was_not_measured_trips_nothing(ending: str) -> None:
    history = [{"step": 1, "known": math.nan}, {"step": 2, "known": math.nan}]
    assert tripped(history, {f"known{ending}": (0.0, 0.0), f"absent{ending}": (0.0, 0.0)}) is None


def test_infinity_is_above_every_limit() -> None:
    assert (
        tripped([{"step": 7, "ratio": math.inf}], {"ratio": (None, 1e9)})
        == "`ratio` is inf at step 7, above its limit 1e+09"
    )


def test_names_for_limits() -> None:
    assert limit_names(["ratio"]) == {"ratio", "ratio_growth", "ratio_at_start"}


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.groups == "rollouts"])
@pytest.mark.parametrize("seen", [True, False])
def test_what_a_method_watches_is_what_it_measures(name: str, seen: bool) -> None:
    """With views, or without as if their weights were 0."""
    method = METHODS[name]
    assert isinstance(method, RolloutMethod)
    values = torch.tensor([-1.0, -2.0, -0.5])
    views = {view: Seen(values, -values) for view in ("masked", "preserving", "removing")} if seen else {}
    given = Tokens(
        logps=values, old=values, sampled=values, reference=values if seen else None, entropy=-values, old_entropy=-values,
        owners=torch.tensor([0, 0, 1]), groups=torch.tensor([0, 0]), rewards=torch.tensor([1.0, 0.0]).double(),
        truncated=torch.tensor([False, True]), weights=values, share=1 / 3, stored=views, live=views,
        selected=torch.tensor([True, False, False]) if seen else None,
    )  # fmt: skip
    with torch.no_grad():
        found = method.metrics(given, method.Parameters())
    assert found.keys() == set(method.watched)
    assert len(set(method.watched)) == len(method.watched)
    if seen:
        assert not any(map(math.isnan, found.values()))
