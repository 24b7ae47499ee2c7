"""Intersection over union of the predicted box with the ground truth (PerPO, grounding)."""

from __future__ import annotations

import numpy as np

from perceptune.core.answers import boxes
from perceptune.core.rewards.metrics import Metric, mean
from perceptune.core.rewards.reward import Answers, Reward, RewardMetric, Scores, parsed_columns

RIGHT = 0.5
"""Smallest IoU at which a box counts as correct, inclusive."""


def iou(answers: Answers) -> Scores:
    """Reward: IoU in the model's declared coordinate format, against the unrounded ground truth.

    Components: `iou`; for models that write fractions, also `iou_padded_frame` and
    `iou_original_frame`, the IoU under each of LLaVA's two formats. Parsed: `box` as written, and
    `box_pixels` in pixels of the image.
    """
    frame, written = boxes.known(answers.frame), boxes.parse_boxes(answers.texts)
    pixels = boxes.to_pixels(written, frame, answers.sizes, answers.resized)
    rewards = boxes.iou(pixels, answers.boxes)
    components = {"iou": rewards}
    if frame == "padded_square":
        other = boxes.iou(boxes.to_pixels(written, "original", answers.sizes), answers.boxes)
        components |= {"iou_padded_frame": rewards, "iou_original_frame": other}
    if frame == "original":
        other = boxes.iou(boxes.to_pixels(written, "padded_square", answers.sizes), answers.boxes)
        components |= {"iou_padded_frame": other, "iou_original_frame": rewards}
    read = ~np.isnan(written).any(axis=1)
    parsed = parsed_columns({"box": written, "box_pixels": boxes.rounded(pixels, 3)}, read)
    reasons = [
        None if good else "the box is inverted or empty" if found else boxes.UNREAD
        for found, good in zip(read.tolist(), boxes.is_box(pixels).tolist(), strict=True)
    ]
    return Scores(rewards, parsed, components, reasons)


def _at_half(component: str) -> Metric:
    return lambda columns: (columns[component] >= RIGHT).mean(axis=-1)


def _right(ious: np.ndarray) -> np.ndarray:
    return (ious >= RIGHT).astype(float)


def _read_in(frame: str) -> RewardMetric:
    component = f"iou_{frame}_frame"
    return RewardMetric(_at_half(component), f"accuracy, read in the {frame} frame", only_with=component)


METRICS = {
    "accuracy_iou_0.5": RewardMetric(_at_half("iou"), "accuracy at IoU 0.5", component="iou", of_one=_right),
    "mean_iou": RewardMetric(mean("iou"), "mean IoU", percent=False, component="iou"),
    "accuracy_iou_0.5_padded_frame": _read_in("padded"),
    "accuracy_iou_0.5_original_frame": _read_in("original"),
}
OF_FRAMES = ("iou_padded_frame", "iou_original_frame")

REWARD = Reward(
    name="iou",
    summary="IoU of the predicted box with the ground truth",
    score=iou,
    components=("iou",),
    metrics=METRICS,
    optional=OF_FRAMES,
    needs="box",
)
