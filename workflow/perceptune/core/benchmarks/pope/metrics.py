"""POPE: questions about the presence of objects, with three strategies for sampling absent objects
and two published rules for reading answers.

Metrics use the reward's rule, which is POPE's own unless a block overrides it; those ending in
`_vcd` use VCD's scorer. The positive class is "yes". Papers quote the mean of the three categories'
F1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from perceptune.core.answers.yes_no import vcd_answer
from perceptune.core.benchmarks.benchmark import Answered, Benchmark, Measured, mean_of_known, summed, unread
from perceptune.core.benchmarks.confusion import Counts, Read, counts, rates
from perceptune.core.benchmarks.pope.data import CATEGORIES
from perceptune.core.rewards.metrics import Columns, Metric

POOLED = "pooled"
VCD = "vcd"
LABELS = {
    "f1": "F1",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "positive_ratio": "share of yes",
}


def _read(answered: Answered) -> Read:
    """The answer as read by the reward; a missing answer counts as wrong and not as a yes."""
    components = answered.components
    return Read(bool(components.get("predicted_yes")), _true(answered) == "yes", bool(components.get("correct")))


def _read_vcd(answered: Answered) -> Read:
    true = _true(answered)
    if answered.text is None:
        return Read(False, true == "yes", False)
    predicted = vcd_answer(answered.text, true)
    return Read(predicted == "yes", true == "yes", predicted == true)


def _true(answered: Answered) -> str:
    return str(answered.target).lower()


def columns(answers: Sequence[Answered]) -> Columns:
    """Counts per image, because its questions (6 of each category) are not independent."""
    found: Counts = {}
    for rule, read in (("", _read), (VCD, _read_vcd)):
        reads = [read(answered) for answered in answers]
        for group in (POOLED, *CATEGORIES):
            inside = [one if _of(group)(a) else None for a, one in zip(answers, reads, strict=True)]
            found |= counts(rule + group, inside)
    return summed([str(a.source.get("image_file", a.example_id)) for a in answers], found)


def _of(group: str) -> Callable[[Answered], bool]:
    return lambda answered: group in (POOLED, answered.source.get("category"))


def _says_neither(answered: Answered) -> bool:
    """Answers that POPE's rule counts as a yes only because they contain no "no"."""
    return unread(answered) or not answered.components.get("said", 1)


def _has_neither(answered: Answered) -> bool:
    text = (answered.text or "").lower()
    return "yes" not in text and "no" not in text


def _mean_of_asked(metrics: Sequence[Metric]) -> Metric:
    """The mean over the categories that have questions."""
    return lambda columns: mean_of_known(np.array([metric(columns) for metric in metrics]))


def _metrics() -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    for rule, failed, words in (("", _says_neither, ""), (VCD, _has_neither, " (VCD's rule)")):
        suffix = f"_{rule}" if rule else ""
        mean = _mean_of_asked([rates(rule + category)["f1"] for category in CATEGORIES])
        found[f"mean_f1{suffix}"] = Measured(
            mean, f"mean F1 of the categories{words}", failed=failed, needs="questions with a category"
        )
        for group in (POOLED, *CATEGORIES):
            ending = "" if group == POOLED else f"_{group}"
            for name, metric in rates(rule + group).items():
                named = "yes_ratio" if name == "positive_ratio" else name
                label = f"{LABELS[name]}, {'all questions' if group == POOLED else group}{words}"
                found[f"{named}{ending}{suffix}"] = Measured(
                    metric, label, of=_of(group), failed=failed, needs=f"questions of category {group}"
                )
    return found


BENCHMARK = Benchmark(
    name="pope",
    rewards={"existence": "pope"},
    components={"existence": ("predicted_yes", "correct")},
    columns=columns,
    metrics=_metrics(),
    quoted=("mean_f1", "f1_adversarial", "f1_popular", "f1_random", "accuracy", "yes_ratio"),
    settings={"prompt": "{question}", "max_tokens": 256},
)
