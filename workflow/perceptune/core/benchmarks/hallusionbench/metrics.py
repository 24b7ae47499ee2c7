"""HallusionBench: the same questions about an image, an edited image, or no image.

The judge, the reading of its verdicts and the groups follow the authors' scripts; the yes/no bias
and the split into easy and hard by edited figures follow copies of a later version of them.

An answer is right, wrong or unclear, according to the judge or, without a judge, to the words yes
and no as VLMEvalKit reads them. For questions that can be answered from knowledge (VS), an unclear
answer is right if no figure is shown. Groups stay within a category, subcategory and set:

* `aAcc`: questions
* `qAcc`: one question, all figures
* `fAcc`: one figure, all questions

`easy_aAcc` and `hard_aAcc` use the groups of qAcc restricted to unedited or edited figures, as in
the authors' tables. `aAcc_image` and `qAcc_image` leave out the 178 questions without an image, as
VLMEvalKit does (951 rows).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from perceptune.core.benchmarks.benchmark import (
    Answered,
    Benchmark,
    Judged,
    Measured,
    always,
    filled,
    given,
    known_share,
    share,
    unread,
)
from perceptune.core.benchmarks.hallusionbench.data import ADDRESS
from perceptune.core.rewards.metrics import Columns, Metric, ratio

WRONG, RIGHT, UNCLEAR = 0, 1, 2
JUDGE = (
    "Imagine you are an intelligent teacher. Thoroughly read the question, reference answer and the prediction answer to ensure a"
    " clear understanding of the information provided. Assess the correctness of the predictions. If the prediction answer does"
    " not conflict with the reference answer, please generate “correct”. If the prediction answer conflict with the reference"
    " answer, please generate “incorrect”. If the prediction answer is unclear about the answer, please generate"
    ' "unclear". \n\n Question:{question}\nReference answer: {reference}\nPrediction answer:{prediction}\nOutput:'
)
"""The official prompt, verbatim."""


def correctness(answered: Answered) -> int:
    """`WRONG`, `RIGHT` or `UNCLEAR`, coded as in the official judge. A missing answer is wrong."""
    if answered.text is None:
        return WRONG
    if answered.verdict is None:
        return RIGHT if answered.components.get("correct") else UNCLEAR if answered.reason else WRONG
    verdict = answered.verdict.lower()
    return WRONG if "incorrect" in verdict else RIGHT if "correct" in verdict else UNCLEAR


def right(answered: Answered) -> bool:
    """Whether the answer counts as right."""
    found = correctness(answered)
    return found == RIGHT or (found == UNCLEAR and _without_figure(answered))


def _without_figure(answered: Answered) -> bool:
    return answered.source["category"] == "VS" and answered.source["figure_id"] == "0"


def _of(category: str) -> Callable[[Answered], bool]:
    return lambda answered: answered.source["category"] == category


def _has_figure(answered: Answered) -> bool:
    return not _without_figure(answered)


def _edited(answered: Answered) -> bool:
    return bool(answered.source["visual_input"] == "2")


def _not_edited(answered: Answered) -> bool:
    return not _edited(answered)


SCOPES: dict[str, Callable[[Answered], bool]] = {"": always, "_VD": _of("VD"), "_VS": _of("VS"), "_image": _has_figure}
PARTS: dict[str, Callable[[Answered], bool]] = {"easy": _not_edited, "hard": _edited}


def columns(answers: Sequence[Answered]) -> Columns:
    """Counts per set of a category and subcategory. No group spans two sets, and the questions and
    images of a set are variants of each other.
    """
    sets = _grouped(answers, "category", "subcategory", "set_id").values()
    rows = [_counts(one) for one in sets]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row[name] for row in rows]) for name in names}


def _grouped(answers: Iterable[Answered], *keys: str) -> dict[tuple[str, ...], list[Answered]]:
    groups: dict[tuple[str, ...], list[Answered]] = defaultdict(list)
    for answered in answers:
        groups[tuple(answered.source[key] for key in keys)].append(answered)
    return groups


def _counts(answers: Sequence[Answered]) -> Mapping[str, float]:
    """The counts of one set."""
    found: dict[str, float] = defaultdict(float)
    for scope, belongs in SCOPES.items():
        inside = [answered for answered in answers if belongs(answered)]
        _count(found, f"questions{scope}", [[answered] for answered in inside])
        _count(found, f"pairs{scope}", _grouped(inside, "question_id").values())
        _count(found, f"figures{scope}", _grouped(filter(_has_figure, inside), "figure_id").values())
    for part, belongs in PARTS.items():
        _count(found, f"pairs_{part}", _grouped(filter(belongs, answers), "question_id").values())
    for answered in answers:
        true, good = answered.target == "yes", right(answered)
        found["yes true"] += true
        found["yes predicted"] += good == true
        found["wrong yes"] += not good and not true
        found["wrong all"] += not good
        found["judged"] += answered.verdict is not None
    return found


def _count(found: dict[str, float], name: str, groups: Iterable[Sequence[Answered]]) -> None:
    """Adds the numbers of groups with all, no and some answers right, and each group's share of
    right answers.
    """
    for suffix in ("n", "correct", "wrong", "inconsistent", "score"):
        found[f"{name} {suffix}"] += 0
    for group in groups:
        hits = sum(map(right, group))
        verdict = "correct" if hits == len(group) else "inconsistent" if hits else "wrong"
        found[f"{name} n"] += 1
        found[f"{name} {verdict}"] += 1
        found[f"{name} score"] += hits / len(group)


def _share(name: str, suffix: str = "correct") -> Metric:
    return known_share(f"{name} {suffix}", f"{name} n")


def _difference(columns: Columns) -> np.ndarray:
    """Share of yes in the answers minus that in the ground truth; a wrong answer counts as the
    opposite of the ground truth.
    """
    predicted, true, number = (columns[name].sum(axis=-1) for name in ("yes predicted", "yes true", "questions n"))
    return ratio(predicted - true, number)


def _unclear(answered: Answered) -> bool:
    return unread(answered) if answered.verdict is None else correctness(answered) == UNCLEAR


def _metrics() -> dict[str, Measured]:
    def measured(metric: Metric, label: str, of: Callable[[Answered], bool] = always, **more: bool) -> Measured:
        return Measured(metric, label, of=of, failed=_unclear, needs="such questions", **more)

    found = {
        "aAcc": measured(_share("questions"), "aAcc: questions"),
        "qAcc": measured(_share("pairs"), "qAcc: all figures of a question"),
        "fAcc": measured(_share("figures"), "fAcc: all questions of a figure", _has_figure),
        "easy_aAcc": measured(_share("pairs_easy"), "easy aAcc: figures as found, or none", _not_edited),
        "hard_aAcc": measured(_share("pairs_hard"), "hard aAcc: edited figures", _edited),
        "consistency_correct": measured(_share("figures"), "figures with all answers right", _has_figure),
        "consistency_inconsistent": measured(
            _share("figures", "inconsistent"), "figures with some answers right", _has_figure, lower_is_better=True
        ),
        "consistency_wrong": measured(
            _share("figures", "wrong"), "figures with no answer right", _has_figure, lower_is_better=True
        ),
        "figure_score": measured(_share("figures", "score"), "mean share of right answers of a figure", _has_figure),
        "yes_bias": measured(_difference, "yes/no bias: share of yes, answers minus ground truth", percent=False),
        "fp_ratio": measured(
            share("wrong yes", "wrong all"), "yes/no bias: share of yes in wrong answers", percent=False
        ),
    }
    for scope, of in list(SCOPES.items())[1:]:
        words = {"_image": "951 rows with an image"}.get(scope, scope.removeprefix("_"))
        found[f"aAcc{scope}"] = measured(_share(f"questions{scope}"), f"aAcc, {words}", of)
        found[f"qAcc{scope}"] = measured(_share(f"pairs{scope}"), f"qAcc, {words}", of)
        if scope != "_image":  # only questions with an image have a figure
            found[f"fAcc{scope}"] = measured(_share(f"figures{scope}"), f"fAcc, {words}", of)
    found["judged"] = measured(share("judged", "questions n"), "share of answers that a language model judged")
    return found


def _messages(answered: Answered) -> list[dict[str, str]]:
    fields = {
        "question": answered.question,
        "reference": str(answered.source["gt_answer_details"]),
        "prediction": answered.text or "",
    }
    return [{"role": "user", "content": filled(JUDGE, fields)}]


BENCHMARK = Benchmark(
    name="hallusionbench",
    rewards={"existence": "vlmevalkit_yes_no"},
    components={"existence": ("correct",)},
    columns=columns,
    metrics=_metrics(),
    quoted=("aAcc", "qAcc", "fAcc"),
    settings={"prompt": "{question}", "max_tokens": 256},
    reads={"existence": (*ADDRESS, "visual_input", "gt_answer_details")},
    judged=Judged(_messages, asked=given),
)
