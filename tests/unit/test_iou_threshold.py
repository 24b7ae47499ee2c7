"""The thresholded box reward: parsing and coordinates of `iou`, and the threshold."""

import numpy as np
import pytest
from perceptune.contracts.plugins import load
from perceptune.core.rewards.iou import iou
from perceptune.core.rewards.reward import Answers, Scores

from tests.plugins import REWARD_METRICS, REWARDS

TEXTS = ["[0.1, 0.1, 0.5, 0.5]", "[0.1, 0.1, 0.5, 0.3]", "[0.1, 0.1, 0.5, 0.29]", "[0.5, 0.5, 0.1, 0.1]", "over there"]


def answers_of(texts: list[str]) -> Answers:
    n = len(texts)
    return Answers(
        texts, [None] * n, np.tile([10.0, 10, 50, 50], (n, 1)), np.full((n, 2), 100.0), "original", resized=None
    )


def scored(texts: list[str]) -> Scores:
    return REWARDS["iou_threshold"](answers_of(texts))


def test_half_is_right_and_less_is_wrong() -> None:
    scores = scored(
        TEXTS
    )  # the ground truth has 40 x 40 pixels: heights 40, 20, 19 give 1, 1/2, 19/40; then inverted; none
    assert scores.components["iou"].tolist() == pytest.approx([1, 1 / 2, 19 / 40, 0, 0])
    assert scores.rewards.tolist() == [1, 1, 0, 0, 0]
    assert scores.components["accuracy"].tolist() == [1, 1, 0, 0, 0]
    assert scores.components["format"].tolist() == [1, 1, 1, 1, 0]


def test_everything_else_is_as_in_iou() -> None:
    binary, plain = scored(TEXTS), iou(answers_of(TEXTS))
    assert (list(binary.parsed), binary.reasons) == (list(plain.parsed), plain.reasons)
    for name, column in plain.components.items():
        assert binary.components[name].tolist() == column.tolist()


def test_no_answers_no_rewards() -> None:
    assert scored([]).rewards.shape == (0,)


def test_benchmarks_have_the_metrics_of_iou() -> None:
    columns = scored(TEXTS).components
    assert list(REWARD_METRICS["iou_threshold"]) == list(REWARD_METRICS["iou"])
    assert next(iter(REWARD_METRICS["iou_threshold"])) == "accuracy_iou_0.5"
    assert REWARD_METRICS["iou_threshold"]["accuracy_iou_0.5"](columns) == pytest.approx(2 / 5)
    assert load("reward", "iou_threshold").metrics == load("reward", "iou").metrics
