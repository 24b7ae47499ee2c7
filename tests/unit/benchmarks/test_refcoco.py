"""RefCOCO: accuracy at IoU 0.5 or more, in the model's coordinate format, on boxes with known IoU."""

import math

import numpy as np
import pytest
from perceptune.core.benchmarks.benchmark import Answered
from perceptune.core.rewards.reward import Answers

from tests.plugins import BENCHMARKS, REWARDS
from tests.unit.benchmarks.answering import failures, shuffled, values

SIZE = (100.0, 100.0)


def located(texts: list[str | None], boxes: list[list[float]], frame: str = "original") -> list[Answered]:
    """Answers about two objects; the first two expressions refer to the same one."""
    present = [i for i, text in enumerate(texts) if text is not None]
    scores = REWARDS["iou"](
        Answers(
            [str(texts[i]) for i in present], [None] * len(present), np.array([boxes[i] for i in present], dtype=float).reshape(-1, 4),
            np.array([SIZE] * len(present)).reshape(-1, 2), frame, np.array([SIZE] * len(present)).reshape(-1, 2),  # type: ignore[arg-type]
        )
    )  # fmt: skip
    place = {i: at for at, i in enumerate(present)}
    return [
        Answered(
            f"e{i}", "grounding", "the cup", text, None,
            scores.parsed[place[i]] if i in place else None,
            {k: float(v[place[i]]) for k, v in scores.components.items()} if i in place else {},
            scores.reasons[place[i]] if i in place else "no answer", {"ann_id": min(i, 1)},
        )
        for i, text in enumerate(texts)
    ]  # fmt: skip


BOXES = [[0.0, 0, 20, 40], [0.0, 0, 20, 20], [10.0, 10, 30, 30], [10.0, 10, 30, 30]]


def test_exactly_half_is_right_and_what_cannot_be_read_is_wrong() -> None:
    """(0,0,2,2) in (0,0,2,4) is 1/2; (0,0,2,2) and (1,1,3,3) share 1/7."""
    answers = located(["[0.0, 0.0, 0.2, 0.2]", "[0.1, 0.1, 0.3, 0.3]", "over there", None], BOXES)
    found = values("refcoco", answers)
    assert found["accuracy_iou_0.5"] == 1 / 4
    assert found["mean_iou"] == pytest.approx((1 / 2 + 1 / 7) / 4)
    assert found["accuracy_iou_0.5_padded_frame"] == 1 / 4  # for a square image, both frames are the same
    assert failures("refcoco", answers, "accuracy_iou_0.5") == (4, 2)


def test_perfect_and_permuted() -> None:
    answers = located(["[0.0, 0.0, 0.2, 0.4]", "[0.0, 0.0, 0.2, 0.2]", *["[0.1, 0.1, 0.3, 0.3]"] * 2], BOXES)
    assert values("refcoco", answers)["accuracy_iou_0.5"] == values("refcoco", answers)["mean_iou"] == 1
    assert values("refcoco", shuffled(answers, 1)) == pytest.approx(values("refcoco", answers))


def test_frames_of_shares_are_not_measured_where_boxes_are_pixels() -> None:
    found = values("refcoco", located(["[0, 0, 20, 40]"], BOXES[:1], "resized_pixels"))
    assert found["accuracy_iou_0.5"] == 1
    assert math.isnan(found["accuracy_iou_0.5_padded_frame"])
    assert BENCHMARKS["refcoco"].metrics["accuracy_iou_0.5_padded_frame"].needs


def test_expressions_about_one_object_make_one_unit() -> None:
    columns = BENCHMARKS["refcoco"].columns(located([None] * 4, BOXES))
    assert columns["questions"].tolist() == [1, 3]
    assert all(np.isnan(v) for v in values("refcoco", []).values())
