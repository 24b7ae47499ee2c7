"""Coordinate formats of boxes: which are possible or doubtful, and what a model writes."""

from collections.abc import Mapping
from typing import get_args

import numpy as np
import pytest
from perceptune.contracts.config import Coordinates, FileDataset
from perceptune.core.answers.boxes import Frame
from perceptune.core.data import coordinate_frames
from perceptune.core.data.coordinate_frames import BoxFits
from perceptune.core.data.row_checks import RowError, pixel_box

PIXELS = [160.0, 120.0, 320.0, 360.0]
SIZE = (640, 480)
READINGS: dict[Coordinates, list[float]] = {
    "pixels": PIXELS,
    "normalised": [0.25, 0.25, 0.5, 0.75],
    "thousand": [250, 250, 500, 750],
    "padded_normalised": [0.25, 0.3125, 0.5, 0.6875],  # 80 pixels of padding at top and bottom, side 640
    "padded_thousand": [250, 312.5, 500, 687.5],
}


def block(coordinates: Coordinates) -> FileDataset:
    return FileDataset(kind="jsonl", path="x", coordinates=coordinates)


def many(coordinates: Coordinates, count: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Random boxes in images of four sizes, some at each edge, in the given coordinates; and the
    sizes.
    """
    draws = np.random.default_rng(0)
    sizes = np.array([(640, 480), (480, 640), (500, 375), (1280, 720)], dtype=float)[draws.integers(0, 4, count)]
    ends = np.sort(draws.uniform(0, 1, (count, 2, 2)), axis=1)
    ends[:, 1] = np.maximum(ends[:, 1], ends[:, 0] + 0.02).clip(max=1)
    ends[:, 0] = np.minimum(ends[:, 0], ends[:, 1] - 0.02)
    for edge in range(4):  # one in ten boxes ends at each edge
        ends[edge::10, edge // 2, edge % 2] = edge // 2
    shares = ends.reshape(count, 4)
    pixels = shares * np.concatenate([sizes, sizes], axis=1)
    if coordinates == "pixels":
        return pixels, sizes
    one, zero = (coordinate_frames.in_pixels(np.full((count, 4), v), coordinates, sizes) for v in (1.0, 0.0))
    return (pixels - zero) / (one - zero), sizes


def counted(boxes: np.ndarray, declared: Coordinates, sizes: np.ndarray, turned: np.ndarray | None = None) -> BoxFits:
    """The counts of boxes that are added in batches of different sizes."""
    turned, found, start = np.zeros(len(boxes), bool) if turned is None else turned, BoxFits(declared), 0
    for size in (1, 0, 7, 150, len(boxes)):
        batch = slice(start, start + size)
        found.add(boxes[batch], sizes[batch], turned[batch])
        start += size
    assert found.boxes == len(boxes)
    return found


@pytest.mark.parametrize("coordinates", get_args(Coordinates))
def test_vector_c6(coordinates: Coordinates) -> None:
    assert pixel_box(READINGS[coordinates], block(coordinates), SIZE) == pytest.approx(PIXELS)


def test_a_rounded_centre_and_width_may_exceed_the_image_a_little() -> None:
    declared = FileDataset(kind="jsonl", path="x", coordinates="normalised", boxes="cxcywh")
    written = [0.593604, 0.5, 0.812793, 0.2]  # the right edge is at 1.0000005
    assert pixel_box(written, declared, SIZE) == pytest.approx([119.8, 192, 640, 288], abs=0.2)
    corners = coordinate_frames.in_corners(np.array([written]), "cxcywh")
    assert coordinate_frames.fits(corners, "normalised", np.array([SIZE], dtype=float)).all()


def test_a_box_in_the_padding_is_a_mistake_and_a_rounded_one_is_cut() -> None:
    with pytest.raises(RowError, match="lies in the padding of the image of 640 x 480"):
        pixel_box([0.25, 0.05, 0.5, 0.6875], block("padded_normalised"), SIZE)
    cut = pixel_box([0.25, 0.3125, 0.5, 0.88], block("padded_normalised"), SIZE)  # the image ends at 0.875
    assert cut == pytest.approx([160, 120, 320, 480])
    with pytest.raises(RowError, match="exceeds 1000"):
        pixel_box([250, 312, 500, 1001], block("padded_thousand"), SIZE)


@pytest.mark.parametrize("coordinates", get_args(Coordinates))
def test_boxes_fit_their_own_frame_and_nothing_speaks_against_it(coordinates: Coordinates) -> None:
    boxes, sizes = many(coordinates)
    assert coordinate_frames.fits(boxes, coordinates, sizes).all()
    assert counted(boxes, coordinates, sizes).better_fit() is None
    assert counted(boxes, coordinates, sizes).doubt() is None


@pytest.mark.parametrize("true", get_args(Coordinates))
@pytest.mark.parametrize("declared", get_args(Coordinates))
def test_every_wrong_declaration_is_noticed_and_the_true_one_named(true: Coordinates, declared: Coordinates) -> None:
    if true == declared:
        return
    boxes, sizes = many(true)
    fits = counted(boxes, declared, sizes)
    message = fits.better_fit() or fits.doubt()
    assert message is not None
    assert f"`coordinates: {true}`" in message


def test_corner_and_extent_are_distinguished() -> None:
    boxes, sizes = many("pixels")
    boxes[:, 2:] -= boxes[:, :2]
    message = counted(boxes, "pixels", sizes).better_fit()
    assert message is not None
    assert message.startswith("`boxes: xywh` ([x, y, width, height]) fits 500 of 500 boxes, `xyxy` ")


def test_the_order_y_before_x_is_recognised() -> None:
    boxes, sizes = many("pixels")
    message = counted(boxes[:, [1, 0, 3, 2]], "pixels", sizes).better_fit()
    assert message is not None
    assert message.startswith("`boxes: yxyx` ([y1, x1, y2, x2]) fits 500 of 500 boxes, `xyxy` ")


def test_a_few_boxes_outside_of_their_image_are_no_doubt_about_the_order() -> None:
    """A box below a landscape image would be inside it with x and y exchanged."""
    boxes, sizes = np.full((50, 4), [10.0, 10.0, 20.0, 20.0]), np.full((50, 2), [1640.0, 480.0])
    boxes[0, 3] = 1200
    assert counted(boxes, "pixels", sizes).better_fit() is None


def test_a_few_boxes_outside_of_their_image_are_no_doubt_about_the_unit() -> None:
    """All boxes of a photo below 1000 pixels fit as thousandths."""
    boxes, sizes = np.full((50, 4), [10.0, 10.0, 20.0, 20.0]), np.full((50, 2), [640.0, 480.0])
    boxes[:15, 3] = 700
    assert counted(boxes, "pixels", sizes).better_fit() is None


def test_few_boxes_raise_no_doubt() -> None:
    boxes, sizes = many("padded_normalised", coordinate_frames.FEWEST - 1)
    assert counted(boxes, "normalised", sizes).doubt() is None


def test_overlap_of_the_two_readings_of_c6() -> None:
    truth, sizes = np.array([PIXELS]), np.array([SIZE], dtype=float)
    found = coordinate_frames.overlaps(np.array([READINGS["padded_normalised"]]), truth, sizes, None)
    assert found["padded_square"][0] == 1
    assert found["original"][0] == pytest.approx(0.75)  # reference value
    assert found["thousand"][0] == 0
    assert "resized_pixels" not in found
    resized = coordinate_frames.overlaps(np.array([[161.0, 119, 322, 357]]), truth, sizes, np.array([[644.0, 476]]))
    assert resized["resized_pixels"][0] == pytest.approx(1)


def overlapping(ious: Mapping[Frame, np.ndarray], declared: Frame) -> coordinate_frames.Overlaps:
    """Added in three batches, the first of which is empty."""
    found = coordinate_frames.Overlaps(declared)
    for place in (slice(0, 0), slice(0, 7), slice(7, None)):
        found.add({frame: values[place] for frame, values in ious.items()})
    return found


@pytest.mark.parametrize(
    ("writes", "declared"),
    [("padded_square", "original"), ("original", "padded_square"), ("thousand", "resized_pixels")],
)
def test_a_model_with_another_frame_is_noticed(
    writes: coordinate_frames.Frame, declared: coordinate_frames.Frame
) -> None:
    truth, sizes = many("pixels", 100)
    name = {"padded_square": "padded_normalised", "original": "normalised", "thousand": "thousand"}[writes]
    written, _ = many(name, 100)  # type: ignore[arg-type]
    ious = coordinate_frames.overlaps(written, truth, sizes, sizes)
    assert overlapping(ious, declared).likelier() == writes
    assert overlapping(ious, writes).likelier() is None
    lines = overlapping(ious, declared).lines()
    assert f"`{writes}` 1.000" in lines[0]
    assert f"set `coordinates: {writes}`" in lines[1]


def test_a_gain_must_be_clear_of_its_standard_error() -> None:
    """Sums in batches give the mean and the sample deviation of all differences."""
    draws = np.random.default_rng(2)
    verdicts = set()
    for _ in range(40):
        ious = {"original": draws.uniform(0, 0.5, 25), "padded_square": draws.uniform(0.05, 0.9, 25)}
        gain = ious["padded_square"] - ious["original"]
        clear = gain.mean() >= 0.05 and gain.mean() >= 3 * gain.std(ddof=1) / 5
        found = overlapping(ious, "original")  # type: ignore[arg-type]
        assert found.likelier() == ("padded_square" if clear else None)
        assert found.means() == pytest.approx({frame: values.mean() for frame, values in ious.items()})
        verdicts.add(clear)
    assert verdicts == {True, False}


def test_chance_is_not_evidence() -> None:
    """Two formats with equal mean IoU, and one that is better on 10 answers only."""
    draws = np.random.default_rng(1)
    noise = {"original": draws.uniform(0, 1, 200), "padded_square": draws.uniform(0, 1, 200)}
    assert overlapping(noise, "original").likelier() is None  # type: ignore[arg-type]
    few = {"original": np.zeros(10), "padded_square": np.ones(10)}
    assert overlapping(few, "original").likelier() is None  # type: ignore[arg-type]


def test_boxes_near_the_left_edge_of_small_images_raise_no_doubt() -> None:
    """As thousandths, they would all lie within one pixel of the corner."""
    boxes = np.array([[4.0 + n % 20, 6, 44 + n % 20, 50] for n in range(40)])
    assert counted(boxes, "pixels", np.full((40, 2), [96.0, 64.0])).doubt() is None


def test_boxes_on_rotated_images_may_fit_them_as_stored() -> None:
    boxes, sizes = many("pixels")
    turned = np.arange(len(boxes)) % 3 == 0
    upright = np.where(turned[:, None], sizes[:, ::-1], sizes)
    found = counted(boxes, "pixels", upright, turned)
    unfit = [
        box[2] > width + 1 or box[3] > height + 1 for box, (width, height) in zip(boxes, upright, strict=True)
    ]  # as stored, all fit
    assert found.turned == sum(turned)
    assert found.as_stored() == (
        f"{sum(unfit)} of {sum(unfit)} boxes that do not fit their image are on images that EXIF rotates, and fit them"
        " as stored; boxes refer to the upright image"
    )
    assert counted(boxes, "pixels", sizes, turned).as_stored() is None


def test_boxes_at_edges_are_counted_one_by_one() -> None:
    """Thousandths whose largest values are the pixels of an image of 1,000 pixels."""
    draws = np.random.default_rng(3)
    sizes = np.tile([[1000.0, 900.0]], (60, 1))
    boxes = np.sort(draws.integers(0, 850, (60, 2, 2)), axis=1).reshape(60, 4) + np.array([0.0, 0, 9, 9])
    boxes[::10, 3] = 900  # at the lower edge in pixels
    boxes[1::4, 3] = 1000  # in thousandths
    more = fewer = 0
    for x1, y1, x2, y2 in boxes:
        inside = y2 <= 901
        near = {"pixels": inside and (x2 >= 994 or y2 >= 894), "thousand": x2 >= 994 or 0.9 * y2 >= 894}
        more += near["thousand"] and not near["pixels"]
        fewer += near["pixels"] and not near["thousand"]
        assert x1 < x2 and y1 < y2
    assert (more, fewer) == (15, 6)
    boxes, sizes = np.tile(boxes, (3, 1)), np.tile(sizes, (3, 1))
    assert counted(boxes, "pixels", sizes).doubt() is None  # 18 is more than a quarter of 45
    boxes[::10, 3] -= 20
    assert counted(boxes, "pixels", sizes).doubt() == (
        "is it `coordinates: thousand`? 45 of 180 boxes end at an edge of their image only as `thousand`, 0 only as `pixels`"
    )
