"""RefCOCO, RefCOCO+ and RefCOCOg: locate the object of a referring expression. One benchmark block
per split, one row per expression.

Accuracy is the share of boxes with an IoU of 0.5 or more, in the model's coordinate format. If its
coordinates are relative to the image size, both of LLaVA's frames (padded and original) are also
reported, because a wrong frame costs tens of points. So does a prompt that the model was not
trained with; this prompt is the one of PerPO and LLaVA-1.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perceptune.core.benchmarks.benchmark import Answered, Benchmark, Measured, known_share, summed
from perceptune.core.rewards.metrics import Columns

PROMPT = "Please provide the bounding box coordinate of the region this sentence describes: {question}"
THRESHOLD = 0.5
READINGS = {"": "iou", "_padded_frame": "iou_padded_frame", "_original_frame": "iou_original_frame"}
"""Maps the suffix of a metric's name to the component that it uses."""


def columns(answers: Sequence[Answered]) -> Columns:
    """Values per object, because its expressions are not independent. Frames that no answer reports
    are NaN.
    """
    found: dict[str, list[float]] = {"questions": [1.0] * len(answers)}
    for ending, component in READINGS.items():
        known = not ending or any(component in a.components for a in answers)
        values = [a.components.get(component, 0.0) if known else np.nan for a in answers]
        found[f"right{ending}"] = [float(v >= THRESHOLD) if known else np.nan for v in values]
        found[f"iou{ending}"] = values
    return summed([str(a.source.get("ann_id", a.example_id)) for a in answers], found)


def _accuracy(ending: str, label: str) -> Measured:
    return Measured(known_share(f"right{ending}", "questions"), label, needs="a model with relative box coordinates")


BENCHMARK = Benchmark(
    name="refcoco",
    rewards={"grounding": "iou"},
    components={"grounding": ("iou",)},
    columns=columns,
    metrics={
        "accuracy_iou_0.5": _accuracy("", "accuracy at IoU 0.5"),
        "mean_iou": Measured(known_share("iou", "questions"), "mean IoU", percent=False, needs="questions"),
        "accuracy_iou_0.5_padded_frame": _accuracy("_padded_frame", "accuracy, read in the padded frame"),
        "accuracy_iou_0.5_original_frame": _accuracy("_original_frame", "accuracy, read in the original frame"),
    },
    settings={"prompt": PROMPT, "max_tokens": 64},
)
