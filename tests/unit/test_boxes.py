"""Boxes: parsing, coordinate formats and overlap, against reference vectors and a pixel count."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perceptune.core.answers.boxes import from_pixels, iou, is_box, parse_box, parse_boxes, rounded, to_pixels


def one(box: tuple[float, ...]) -> np.ndarray:
    return np.array([box], dtype=float)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7),  # 1 of 4 + 4 - 1
        ((0, 0, 2, 2), (0, 0, 2, 4), 0.5),
        ((0, 0, 2, 2), (2, 0, 4, 2), 0),  # touching
        ((2, 2, 0, 0), (0, 0, 2, 2), 0),  # inverted
        ((1, 1, 1, 5), (0, 0, 2, 2), 0),  # empty
        ((0, 0, np.nan, 2), (0, 0, 2, 2), 0),
    ],
)
def test_iou_vectors(first: tuple[float, ...], second: tuple[float, ...], expected: float) -> None:
    assert iou(one(first), one(second))[0] == pytest.approx(expected, abs=1e-15)
    assert iou(one(second), one(first))[0] == pytest.approx(expected, abs=1e-15)


@given(st.lists(st.integers(0, 12), min_size=8, max_size=8))
def test_iou_equals_a_count_of_pixels(numbers: list[int]) -> None:
    boxes = [numbers[:4], numbers[4:]]
    masks = []
    for x1, y1, x2, y2 in boxes:
        mask = np.zeros((12, 12), dtype=bool)
        mask[y1:y2, x1:x2] = True
        masks.append(mask)
    union = (masks[0] | masks[1]).sum()
    sane = is_box(one(tuple(boxes[0])))[0] and is_box(one(tuple(boxes[1])))[0]
    expected = (masks[0] & masks[1]).sum() / union if sane else 0
    assert iou(one(tuple(boxes[0])), one(tuple(boxes[1])))[0] == pytest.approx(expected)


PIXELS, SIZE = (160, 120, 320, 360), np.array([[640, 480]], dtype=float)


@pytest.mark.parametrize(
    ("frame", "numbers", "resized"),
    [
        ("original", (0.25, 0.25, 0.5, 0.75), None),
        ("padded_square", (0.25, 0.3125, 0.5, 0.6875), None),  # 80 px above and below, side 640
        ("thousand", (250, 250, 500, 750), None),
        ("resized_pixels", (161, 119, 322, 357), (644, 476)),
    ],
)
def test_frames(frame: str, numbers: tuple[float, ...], resized: tuple[int, int] | None) -> None:
    """One pixel box of a 640 x 480 image in every coordinate format, there and back."""
    resizes = None if resized is None else np.array([resized], dtype=float)
    assert to_pixels(one(numbers), frame, SIZE, resizes)[0] == pytest.approx(PIXELS)  # type: ignore[arg-type]
    back = from_pixels(np.array(PIXELS), frame, (640, 480), resized)  # type: ignore[arg-type]
    assert back == pytest.approx(np.array(numbers))


def test_the_wrong_frame_costs_a_quarter() -> None:
    """Padded-square numbers interpreted in original coordinates."""
    numbers = one((0.25, 0.3125, 0.5, 0.6875))
    assert iou(to_pixels(numbers, "original", SIZE), one(PIXELS))[0] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[0.61, 0.1, 0.77, 0.54]", (0.61, 0.1, 0.77, 0.54)),
        ("The box is [1,2,3,4]. Or [5,6,7,8].", (1, 2, 3, 4)),
        ("(161, 119, 322, 357)", (161, 119, 322, 357)),
        ("[-0.1, .5, 1., 2]", (-0.1, 0.5, 1.0, 2.0)),
        ("0.1, 0.2, 0.3, 0.4", None),
        ("[0.1, 0.2, 0.3]", None),
        ("[1e9, 2, 3, 4]", None),
        ('{"bbox_2d": ["10", "20", "30", "40"]}', (10, 20, 30, 40)),
        ("['10', ' 20 ', '30.5', '.5']", (10, 20, 30.5, 0.5)),
        ('```json\n[{"bbox_2d": [10, 20, 30, 40], "label": "cup"}]\n```', (10, 20, 30, 40)),
        ('"[10, 20, 30, 40]"', (10, 20, 30, 40)),
        ("[[10, 20], [30, 40]]", (10, 20, 30, 40)),
        ("[10, 20], [30, 40]", (10, 20, 30, 40)),
        ("((10,20),(30,40))", (10, 20, 30, 40)),
        ("[[10, 20, 30, 40]]", (10, 20, 30, 40)),
        ("[10 20 30 40]", (10, 20, 30, 40)),
        ("[10\n20\t30  40 ]", (10, 20, 30, 40)),
        ("<box>10 20 30 40</box>", (10, 20, 30, 40)),
        ("<box>(10,20),(30,40)</box>", (10, 20, 30, 40)),
        ("<box>[[10, 20, 30, 40]]</box>", (10, 20, 30, 40)),
        ("<box>10, 20, 30, 40</box>", (10, 20, 30, 40)),
        ("(10,20),(30,40)(50,60),(70,80)", (10, 20, 30, 40)),  # two boxes of Qwen2-VL
        ("［10，20，30，40］", (10, 20, 30, 40)),
        ("边界框：（１０，２０），（３０，４０）", (10, 20, 30, 40)),
        ("[10,20,30,40,50]", None),
        ("[10 20 30 40 50]", None),
        ("[10, 20, 30 40]", None),
        ("[[10,20],[30,20],[30,40],[10,40]]", None),  # a polygon
        ("[[1,2],[3,4],[5,6]] and [10,20,30,40]", (10, 20, 30, 40)),
        ("[[10,20]]", None),
        ("10 20 30 40", None),
        ("[" + "9" * 400 + ", 2, 3, 4]", None),  # infinite in float64
        ("", None),
    ],
)
def test_parsing(text: str, expected: tuple[float, ...] | None) -> None:
    assert parse_box(text) == expected


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    ["[" * 50_000, "[1, " * 50_000, "[1" + " " * 50_000, "(1,2)," * 50_000, "[" + "1 " * 50_000, "[" + '" ' * 50_000],
)
def test_long_answers_take_no_long_time(text: str) -> None:
    assert parse_box(text + "x") is None


PIECES = ["[", "(", "]", ")", "<box>", "</box>", "<", "{", "1", "0.5", ".5", "5.", "-3", "-", "1e5", ",", ", ", " ", "\n", "\x1c", '"',
          "a", "[{", "[1, 2, 3, 4]", "[1, 2, 3, ", "[1 2 3 4]", "(1,2),(3,4)", "\uff11", "\uff0c", "9" * 400]  # fmt: skip


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=9).map("".join), max_size=20))
def test_boxes_of_many_texts_are_those_of_each(texts: list[str]) -> None:
    none = (math.nan,) * 4
    assert np.array_equal(
        parse_boxes(texts), np.array([parse_box(t) or none for t in texts]).reshape(-1, 4), equal_nan=True
    )


@given(st.lists(st.one_of(st.floats(), st.integers(-(10**7), 10**7).map(lambda n: n / 2000)), max_size=20))
def test_rounding_is_pythons(values: list[float]) -> None:
    """Halves of the last digit are common: 0.1235 of 333 pixels is 41.1255."""
    expected = [round(value, 3) if math.isfinite(value) else value for value in values]
    found = rounded(np.array(values), 3)
    assert np.array_equal(found, np.array(expected), equal_nan=True)
    assert np.array_equal(np.signbit(found), np.signbit(np.array(expected)))
