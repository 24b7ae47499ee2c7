"""Boxes in other orders than [x1, y1, x2, y2]: converted, and recognised where they are not declared."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import floats, integers, sampled_from
from perceptune.contracts.config import Boxes, Coordinates, FileDataset
from perceptune.core.data.coordinate_frames import BoxFits, Reading, in_corners
from perceptune.core.data.row_checks import RowError, pixel_box

from tests.unit.test_frames import many

CORNERS = [10.0, 20.0, 40.0, 80.0]
WRITTEN: dict[Boxes, list[float]] = {
    "xyxy": CORNERS,
    "xywh": [10.0, 20.0, 30.0, 60.0],
    "cxcywh": [25.0, 50.0, 30.0, 60.0],
    "yxyx": [20.0, 10.0, 80.0, 40.0],
}


def in_order(corners: np.ndarray, order: Boxes) -> np.ndarray:
    """The inverse of `in_corners`, number by number."""
    x1, y1, x2, y2 = corners.T
    columns = {
        "xyxy": (x1, y1, x2, y2),
        "xywh": (x1, y1, x2 - x1, y2 - y1),
        "cxcywh": ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1),
        "yxyx": (y1, x1, y2, x2),
    }
    return np.stack(columns[order], axis=1)


@pytest.mark.parametrize("order", get_args(Boxes))
def test_conversion(order: Boxes) -> None:
    assert in_corners(np.array([WRITTEN[order]]), order).tolist() == [CORNERS]
    block = FileDataset(kind="jsonl", path="x", boxes=order)
    assert pixel_box(WRITTEN[order], block, (100, 100)) == CORNERS
    shares = FileDataset(kind="jsonl", path="x", boxes=order, coordinates="normalised")
    assert pixel_box([n / 100 for n in WRITTEN[order]], shares, (200, 100)) == pytest.approx([20, 20, 80, 80])


@pytest.mark.parametrize(
    ("order", "box", "expected"),
    [
        ("xywh", [1, 2, 0, 4], "has no area, expected [x, y, width, height] with positive width and height"),
        ("yxyx", [4, 2, 1, 8], "has no area, expected [y1, x1, y2, x2] with x1 < x2 and y1 < y2"),
        ("xywh", [60, 2, 51, 4], "exceeds the image of 100 x 100 pixels"),
        (
            "xywh",
            [0.6, 0.1, 0.7, 0.5],
            "is smaller than a pixel; fractions of the image need `coordinates: normalised`",
        ),
    ],
)
def test_mistakes_are_told_in_the_order_of_the_file(order: Boxes, box: list[float], expected: str) -> None:
    with pytest.raises(RowError) as caught:
        pixel_box(box, FileDataset(kind="jsonl", path="x", boxes=order), (100, 100))
    assert expected in str(caught.value)


def message(
    boxes: np.ndarray, sizes: np.ndarray, declared: Coordinates, order: Boxes = "xyxy", **settings: tuple[Boxes, ...]
) -> str | None:
    fits = BoxFits(declared, order, **settings)
    fits.add(boxes, sizes, np.zeros(len(boxes), bool))
    return fits.better_fit()


@pytest.mark.parametrize("true", get_args(Boxes))
@pytest.mark.parametrize("declared", get_args(Boxes))
def test_the_order_is_recognised_and_the_right_one_is_not_doubted(true: Boxes, declared: Boxes) -> None:
    boxes, sizes = many("pixels")
    found = message(in_order(boxes, true), sizes, "pixels", declared)
    if true == declared:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(f"`boxes: {true}` (")
        assert f" fits {len(boxes)} of {len(boxes)} boxes, `{declared}` " in found
        assert "coordinates" not in found


@pytest.mark.parametrize("unit", ["normalised", "thousand"])
def test_order_and_unit_are_recognised_together(unit: Coordinates) -> None:
    boxes, sizes = many(unit)
    found = message(in_order(boxes, "xywh"), sizes, "pixels")
    assert found is not None
    assert found.startswith(
        f"`boxes: xywh` ([x, y, width, height]) with `coordinates: {unit}` fits 500 of 500 boxes, `xyxy` in `pixels` "
    )


@pytest.mark.parametrize("unit", ["normalised", "thousand"])
def test_another_unit_alone_is_no_doubt_about_the_order(unit: Coordinates) -> None:
    boxes, sizes = many(unit)
    found = message(boxes, sizes, "pixels")
    assert found is not None
    assert found.startswith("`coordinates: ")
    assert "boxes:" not in found


def test_few_boxes_that_fit_either_way_are_told_so() -> None:
    sizes = np.full((3, 2), [640.0, 480.0])
    boxes = np.array([[100.0, 500.0, 200.0, 600.0]] * 3)  # y, x, y, x; or thousandths
    expected = "`boxes: yxyx` ([y1, x1, y2, x2]) or `coordinates: thousand` fits 3 of 3 boxes, `xyxy` in `pixels` 0"
    assert message(boxes, sizes, "pixels") == expected


def test_formats_that_fix_the_order_suggest_no_other() -> None:
    boxes, sizes = many("pixels")
    assert message(in_order(boxes, "xywh"), sizes, "pixels", orders=()) is None


def photographed(seed: int, count: int, order: Boxes, unit: Coordinates) -> tuple[np.ndarray, np.ndarray]:
    """Random boxes anywhere in photos of 200 to 990 pixels, and the sizes of the photos."""
    draws = np.random.default_rng(seed)
    sizes = draws.integers(200, 990, (count, 2)).astype(float)
    extents = draws.uniform(0.05, 0.6, (count, 2))
    starts = draws.uniform(0, 1 - extents)
    factor = np.tile(sizes, 2) if unit == "pixels" else np.full(4, 1.0 if unit == "normalised" else 1000.0)
    return in_order(np.concatenate([starts, starts + extents], axis=1) * factor, order), sizes


def with_mistakes(boxes: np.ndarray, sizes: np.ndarray, wrong: int, kind: str) -> np.ndarray:
    """The first `wrong` boxes (n, 4) in pixels, [x1, y1, x2, y2], with a mistake of this kind."""
    found, ends = boxes.copy(), sizes[:wrong] + 2
    if kind == "exceeds":
        found[:wrong, 2:] = ends
    elif kind == "swapped":
        found[:wrong] = boxes[:wrong][:, [2, 3, 0, 1]]
    elif kind == "size":
        found[:wrong, 2:] -= boxes[:wrong, :2]
    elif kind == "fractions":
        found[:wrong] /= np.tile(sizes[:wrong], 2)
    else:
        found[:wrong] *= 1000 / np.tile(sizes[:wrong], 2)
    return found


@settings(max_examples=150, deadline=None)
@given(
    integers(0, 10**6),
    integers(1, 64),
    floats(0, 0.3),
    sampled_from(["exceeds", "swapped", "size", "fractions", "thousandths"]),
    sampled_from(["xyxy", "xywh"]),
)
def test_pixels_with_some_wrong_rows_are_never_understood_in_another_way(
    seed: int, count: int, share: float, kind: str, order: Boxes
) -> None:
    boxes, sizes = photographed(seed, count, "xyxy", "pixels")
    boxes = with_mistakes(boxes, sizes, int(share * count), kind)
    fits = BoxFits("pixels", order)
    fits.add(in_order(boxes, order), sizes, np.zeros(count, bool))
    assert fits.likelier() == []
    assert fits.better_fit() is None


@settings(max_examples=100, deadline=None)
@given(
    integers(0, 10**6),
    integers(30, 64),
    floats(0, 0.05),
    sampled_from(
        [("xyxy", "normalised"), ("xyxy", "thousand"), ("xywh", "pixels"), ("yxyx", "pixels"), ("xywh", "normalised")]
    ),
)
def test_another_unit_or_order_is_recognised_in_spite_of_some_wrong_rows(
    seed: int, count: int, share: float, true: tuple[Boxes, Coordinates]
) -> None:
    boxes, sizes = photographed(seed, count, *true)
    sizes = np.minimum(sizes, 500) if true[1] == "thousand" else sizes
    if true[0] == "yxyx":
        sizes[:, 1] = sizes[:, 0] / 2  # wide photos
        boxes, _ = photographed(seed, count, "xyxy", "normalised")
        boxes = in_order(boxes * np.tile(sizes, 2), "yxyx")
    boxes[: int(share * count), 2:] = -5
    fits = BoxFits("pixels")
    fits.add(boxes, sizes, np.zeros(count, bool))
    assert fits.likelier()[:1] == [Reading(*true)]


def test_where_the_unit_is_fixed_only_the_order_changes() -> None:
    boxes, sizes = photographed(0, 40, "xyxy", "normalised")
    fits = BoxFits("pixels", "xywh")
    fits.add(boxes, sizes, np.zeros(len(boxes), bool))
    assert fits.likelier() == [Reading("xyxy", "normalised")]
    assert fits.likelier(units=False) == []
