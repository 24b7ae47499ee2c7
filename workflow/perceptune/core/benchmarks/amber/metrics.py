"""AMBER: image descriptions, and yes/no questions about existence, attributes and relations.

The positive class is "no", the answer that denies a hallucination. Metrics use the reward's rule,
which is AMBER's own (exactly `Yes` or `No`) unless a block overrides it; metrics ending in
`_by_beginning` use P2-DPO's rule, which reads the beginning of the answer. CHAIR, Cover, Hal and
Cog pool all descriptions and need language resources. `cog` follows the official script (the share
of the expected but absent objects that are named), `cog_of_nouns` the paper's definition (a share
of the named objects).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from perceptune.contracts.config import Task
from perceptune.core.answers.nouns import NEEDS
from perceptune.core.answers.yes_no import beginning
from perceptune.core.benchmarks.benchmark import Answered, Benchmark, Measured, share, summed, unread
from perceptune.core.benchmarks.confusion import Counts, Read, counts, rates, where_asked
from perceptune.core.rewards.metrics import Columns, Metric

STATE, NUMBER, ACTION = (f"discriminative-attribute-{kind}" for kind in ("state", "number", "action"))
DIMENSIONS = {
    "existence": {"discriminative-hallucination"},
    "attribute": {STATE, NUMBER, ACTION},
    "state": {STATE},
    "number": {NUMBER},
    "action": {ACTION},
    "relation": {"discriminative-relation", "relation"},
}
"""Annotation types of each dimension; false relations have the type `relation`."""
ALL = "discriminative"
NUMBERS = ("nouns", "hallucinated", "truths", "covered", "guesses", "guessed", "guessing")
BEGINNING = "_by_beginning"
LABELS = {"f1": "F1", "accuracy": "accuracy", "precision": "precision", "recall": "recall"}
DESCRIPTIONS: dict[Task, str] = {"open": "amber_nouns"}
QUESTIONS: dict[Task, str] = {"existence": "amber"}
COMPONENTS: dict[Task, tuple[str, ...]] = {"existence": ("correct",), "open": NUMBERS}
READS: dict[Task, tuple[str, ...]] = {
    "existence": ("type", "image_file"),
    "open": ("type", "image_file", "truth", "hallu", "association", "vocabulary", "safe_words"),
}


def _described(answered: Answered) -> bool:
    return bool(answered.source["type"] == "generative")


def _of(dimension: str) -> Callable[[Answered], bool]:
    if dimension == ALL:
        return lambda answered: not _described(answered)
    return lambda answered: answered.source["type"] in DIMENSIONS[dimension]


def _read(answered: Answered) -> Read:
    return _compared((answered.parsed or {}).get("answer"), answered)


def _read_beginning(answered: Answered) -> Read:
    return _compared(beginning(answered.text or ""), answered)


def _compared(answer: str | None, answered: Answered) -> Read:
    true = str(answered.target).lower()
    return Read(predicted=answer == "no", true=true == "no", right=answer == true)


def columns(answers: Sequence[Answered]) -> Columns:
    """Counts per image."""
    found: Counts = {}
    for rule, read in (("", _read), (BEGINNING, _read_beginning)):
        reads = [None if _described(answered) else read(answered) for answered in answers]
        for dimension in (ALL, *DIMENSIONS):
            belongs = _of(dimension)
            found |= counts(
                dimension + rule, [one if one and belongs(a) else None for a, one in zip(answers, reads, strict=True)]
            )
    found |= _counted([_numbers(answered) for answered in answers])
    return summed([str(answered.source["image_file"]) for answered in answers], found)


def _counted(numbers: Sequence[Mapping[str, float]]) -> Counts:
    return {name: [one.get(name, 0.0) for one in numbers] for name in ("described n", "hal", *NUMBERS)}


def _numbers(answered: Answered) -> Mapping[str, float]:
    """The counts of a description. A missing one names nothing, and counts as hallucinating in Hal."""
    if not _described(answered):
        return {}
    found = {"truths": float(len(answered.source["truth"])), "guesses": float(len(answered.source["hallu"]))}
    found |= {name: answered.components[name] for name in NUMBERS if name in answered.components}
    any_wrong = found.get("hallucinated", 0.0)
    known = 1.0 if not np.isnan(any_wrong) else np.nan
    return {**found, "described n": known, "hal": float(any_wrong > 0 or answered.text is None)}


def _of_descriptions(above: str, below: str) -> Metric:
    return where_asked("described", share(above, below))


def _score(columns: Columns) -> np.ndarray:
    """(1 - CHAIR + F1) / 2."""
    chair, f1 = _of_descriptions("hallucinated", "nouns")(columns), rates(ALL)["f1"](columns)
    return np.asarray((1 - chair + f1) / 2)


def description_metrics() -> dict[str, Measured]:
    """CHAIR, Cover, Hal and Cog."""

    def measured(above: str, below: str, label: str, lower_is_better: bool = True) -> Measured:
        return Measured(
            _of_descriptions(above, below), label, lower_is_better=lower_is_better, of=_described, needs=NEEDS
        )

    return {
        "chair": measured("hallucinated", "nouns", "CHAIR: objects named that are not there"),
        "cover": measured("covered", "truths", "Cover: objects there that are named", lower_is_better=False),
        "hal": measured("hal", "described n", "Hal: descriptions with an object that is not there"),
        "cog": measured("guessed", "guesses", "Cog, official script: expected but absent objects that are named"),
        "cog_of_nouns": measured("guessing", "nouns", "Cog, paper: expected but absent objects, of those named"),
    }


def question_metrics() -> dict[str, Measured]:
    """Metrics of all yes/no questions and of each dimension, under both rules."""
    found: dict[str, Measured] = {}
    for rule, failed, words in (("", unread, ""), (BEGINNING, _begins_with_neither, " (by its beginning)")):
        for dimension in (ALL, *DIMENSIONS):
            for name, metric in rates(dimension + rule).items():
                if name in LABELS:
                    label = f"{dimension}: {LABELS[name]}{' of no' * (name != 'accuracy')}{words}"
                    found[f"{dimension}_{name}{rule}"] = Measured(
                        metric, label, of=_of(dimension), failed=failed, needs="such questions"
                    )
    return found


def _begins_with_neither(answered: Answered) -> bool:
    return beginning(answered.text or "") is None


SETTINGS = {"prompt": "{question}", "max_tokens": 512}
BENCHMARK = Benchmark(
    name="amber",
    rewards={**QUESTIONS, **DESCRIPTIONS},
    columns=columns,
    metrics={
        **question_metrics(),
        "amber_score": Measured(_score, "AMBER score: mean of 1 - CHAIR and F1", needs=NEEDS),
        **description_metrics(),
    },
    quoted=("discriminative_f1", "existence_f1", "attribute_f1", "relation_f1", "chair", "hal"),
    settings=SETTINGS,
    components=COMPONENTS,
    reads=READS,
    variants={
        "discriminative": {
            "rewards": QUESTIONS,
            "metrics": question_metrics(),
            "quoted": ("discriminative_f1", "discriminative_accuracy", "existence_f1", "attribute_f1", "relation_f1"),
            "settings": {**SETTINGS, "tasks": ["existence"]},
        },
        "generative": {
            "rewards": DESCRIPTIONS,
            "metrics": description_metrics(),
            "quoted": (),
            "settings": {**SETTINGS, "tasks": ["open"]},
        },
    },
)
"""All 15,220 questions; the variants are the 14,216 yes/no questions and the 1,004 descriptions."""
