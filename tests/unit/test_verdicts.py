"""Whether controls explain a gain: the rule and the sentences, on tables with known answers."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from perceptune.contracts.tables.controls import CONTROLS
from perceptune.contracts.tables.io import to_table
from perceptune.report.result_text import results_as_text
from perceptune.report.results import results
from perceptune.report.sections.controls import control_lines, control_section
from perceptune.report.sections.verdicts import Controlled, accounted, explanation, headline, sentences

from .test_results import row, table

ACCURACY = "accuracy_iou_0.5"
PROMPTS = {"shapes-test": ("{question}", "Look. {question}", "{question}\nA box.")}
NOISE = {"original": 0.0, "noise-0.1": 0.1, "noise-0.4": 0.4}
TITLE = "shapes-test / grounding, controls: gain in accuracy at IoU 0.5, points"


def control(name: str, left: float, half: float = 0.02, gain: float = 0.10, **changes: Any) -> dict[str, Any]:
    """A control of `perpo` (58 %, base 48 %) after which `left` of its gain remains, +-`half`."""
    filled = dict.fromkeys(CONTROLS.schema.names)
    filled |= {"policy": "perpo", "benchmark": "shapes-test", "split": "test", "task": "grounding", "view": "original"}
    filled |= {"control": name, "against": "tiny", "k": 1, "metric": ACCURACY, "value": 0.58, "n": 600}
    filled |= {"control_value": 0.58 - left, "gain": gain, "difference": left}
    filled |= {"ci_low": left - half, "ci_high": left + half}
    if name == "blank":
        filled |= {"against": "perpo", "value": gain, "control_value": gain - left}
    if name == "sft_on_best":
        filled["against"] = "sft-on-best-n20-ranked"
    return {**filled, **changes}


def controlled(*rows: dict[str, Any], no_counterpart: dict[str, str] | None = None) -> Controlled:
    frame = pl.from_arrow(to_table(CONTROLS, list(rows)))
    assert isinstance(frame, pl.DataFrame)
    return Controlled(frame, PROMPTS, no_counterpart or {})


METRICS = (row("tiny", 0.48), row("perpo", 0.58, 0.10))
NOTHING = {
    "prompt": control("prompt", 0.10, k=0),
    "blank": control("blank", 0.10),
    "mean_of_n": control("mean_of_n", 0.09, k=20),
    "sft_on_best": control("sft_on_best", 0.08),
}
"""Controls after which nearly all of the gain remains."""


def written(*changed: dict[str, Any], metrics: tuple[dict[str, Any], ...] = METRICS, **more: Any) -> list[str]:
    """The sentences on `perpo`, with `changed` controls in addition to those of `NOTHING`."""
    rows = {**NOTHING, **{r["control"]: r for r in changed}}
    frame = table(*metrics)
    (result,) = results(frame)
    found = sentences(frame, result, NOISE, controlled(*rows.values(), **more))
    return [": ".join(filter(None, pair)) for pair in found]


def test_a_gain_that_nothing_explains() -> None:
    (sentence,) = written()
    assert sentence == (
        "perpo: the gain is not explained by any control: another prompt (the base scores best with the original one), "
        "a blank image (accounts for 0.0 of 10.0 points), the mean of 20 answers (accounts for 1.0 of 10.0 points), "
        "SFT on the best answers (accounts for 2.0 of 10.0 points)"
    )


def test_a_gain_that_the_prompt_explains() -> None:
    first, rest = written(control("prompt", -0.006, half=0.014, k=2))
    assert first == (
        "perpo: explained by another prompt: with prompt 2 (\u201c{question} A box.\u201d) the base scores 58.6 %, the policy 58.0 %; "
        "the paired difference, \u22120.6 [\u22122.0, +0.8] points, includes 0"
    )
    assert rest.startswith(
        "perpo: not explained by a blank image (accounts for 0.0 of 10.0 points), the mean of 20 answers"
    )


def test_a_gain_that_is_also_present_without_the_image() -> None:
    first, _ = written(control("blank", 0.01))
    assert first == (
        "perpo: also present without the image: 9.0 of 10.0 points remain when the image is blanked; the gain that "
        "depends on the image, +1.0 [\u22121.0, +3.0] points, includes 0"
    )


def test_a_gain_that_sft_on_the_best_answers_also_has() -> None:
    first, _ = written(control("sft_on_best", -0.05))
    assert first == (
        "perpo: explained by SFT on the best answers: sft-on-best-n20-ranked, trained on the same lists with the same budget, "
        "scores 63.0 %, the policy 58.0 %; the paired difference, \u22125.0 [\u22127.0, \u22123.0] points, favours the control"
    )


def test_a_gain_that_the_mean_sampled_answer_of_the_base_also_has() -> None:
    first, _ = written(control("mean_of_n", 0.0, k=20))
    assert first.startswith(
        "perpo: explained by the mean of 20 answers: the base's 20 sampled answers average 58.0 %, the policy 58.0 %; "
    )


def test_a_gain_that_is_explained_in_part() -> None:
    first, _ = written(control("sft_on_best", 0.04))
    assert "partly explained by SFT on the best answers, which accounts for 6.0 of 10.0 points: " in first
    assert first.endswith("the paired difference, +4.0 [+2.0, +6.0] points, excludes 0")


def test_few_questions_leave_it_undecided() -> None:
    first, _ = written(control("prompt", 0.08, half=0.09, k=1))
    assert "undecided for another prompt, which accounts for 2.0 of 10.0 points" in first
    assert first.endswith("+8.0 [\u22121.0, +17.0] points, includes 0; more questions are needed")


@pytest.mark.parametrize(
    ("left", "half", "expected"),
    [
        (0.05, 0.06, "explained"), (0.05, 0.05, "explained"), (0.05, 0.049, "partly"), (0.051, 0.06, "undecided"),
        (0.051, 0.05, "not"), (0.1, 0.01, "not"), (-0.1, 0.01, "explained"), (0.12, 0.2, "undecided"),
    ],
)  # fmt: skip
def test_the_rule(left: float, half: float, expected: str) -> None:
    assert explanation(control("prompt", left, half)) == expected


def test_the_rule_where_lower_is_better() -> None:
    ned = {"metric": "ned", "gain": -0.10}
    assert accounted(control("prompt", -0.02, **ned)) == pytest.approx(0.08)
    assert explanation(control("prompt", -0.02, 0.03, **ned)) == "explained"
    assert explanation(control("prompt", -0.02, 0.01, **ned)) == "partly"
    assert explanation(control("prompt", -0.09, 0.01, **ned)) == "not"
    assert explanation(control("prompt", 0.05, 0.01, **ned)) == "explained"  # the control is better


def test_the_base_is_compared_under_its_best_prompt() -> None:
    rows = [control("prompt", 0.10, k=0), control("prompt", 0.03, k=1), control("prompt", 0.05, k=2)]
    frame = table(*METRICS)
    (result,) = results(frame)
    part = control_section(frame, result, {}, controlled(*rows), {})
    assert part is not None
    assert part["rows"][0]["cells"][1]["detail"] == "base 55.0 %, prompt 1"
    lower = [r | {"metric": "ned", "gain": -0.1, "difference": -r["difference"]} for r in rows]
    metrics = [m | {"metric": "ned"} for m in (row("tiny", 0.68), row("perpo", 0.58, -0.10))]
    (result,) = results(table(*metrics))
    lower = [r | {"control_value": 0.58 - r["difference"]} for r in lower]
    part = control_section(table(*metrics), result, {}, controlled(*lower), {})
    assert part is not None
    assert part["rows"][0]["cells"][1]["detail"] == "base 0.610, prompt 1"


def test_the_best_of_many_and_noise_put_a_gain_in_context() -> None:
    best = {"condition": "best_of_n", "k": 20, "base_value": 0.95}
    more = (*METRICS, row("tiny", 0.95, **best), row("perpo", 0.96, 0.01, **best))
    more += tuple(row("perpo", 0.5, gain, view=view) for view, gain in (("noise-0.1", 0.08), ("noise-0.4", 0.01)))
    more += tuple(row("tiny", 0.4, view=view) for view in ("noise-0.1", "noise-0.4"))
    _, best_of_n, under_noise = written(metrics=more)
    assert best_of_n == (
        "perpo: best of 20 answers: 96.0 %, base 95.0 % (+1.0 [\u22122.0, +4.0]); not distinguishable: within 20 answers, "
        "training selected among those that the base already gives"
    )
    assert under_noise == "perpo: under noise the gain persists at sigma 0.1 but not at 0.4"
    better = written(metrics=(*METRICS, row("tiny", 0.8, **best), row("perpo", 0.9, 0.1, **best)))
    assert better[1].endswith("better than the base, so the policy gives answers that the base did not sample")
    worse = written(metrics=(*METRICS, row("tiny", 0.8, **best), row("perpo", 0.7, -0.1, **best)))
    assert worse[1].endswith("worse than the base, so training lost answers that the base samples")


def test_a_policy_without_a_gain_or_an_sft_counterpart() -> None:
    assert written(metrics=(row("tiny", 0.48), row("perpo", 0.49, 0.01))) == [
        "no gain has an interval that excludes 0, so there is nothing to explain"
    ]
    found = written(no_counterpart={"perpo": "it learns from pairs"})
    assert found[1] == "perpo: no SFT counterpart: it learns from pairs"


def test_the_headline_names_what_explains_which_gain() -> None:
    frame = table(*METRICS, row("dpo", 0.57, 0.09))
    (result,) = results(frame)
    of_dpo = {**NOTHING, "sft_on_best": control("sft_on_best", 0.01), "blank": control("blank", 0.04)}
    by_policy = {"dpo": of_dpo, "perpo": NOTHING}
    rows = [r | {"policy": policy} for policy, found in by_policy.items() for r in found.values()]
    assert headline(result, controlled(*rows)) == (
        "controls: the gain of perpo is not explained by any control; the gain of dpo is explained by SFT on the best answers, "
        "partly explained by a blank image"
    )
    unexplained = [r | {"policy": policy} for policy in by_policy for r in NOTHING.values()]
    assert headline(result, controlled(*unexplained)) == (
        "controls: the gains of perpo and dpo are not explained by any control"
    )


def test_many_gains_are_counted() -> None:
    names = [f"run-{i}" for i in range(12)]
    frame = table(row("tiny", 0.48), *(row(p, 0.58 + i / 100, 0.10 + i / 100) for i, p in enumerate(names)))
    (result,) = results(frame)
    rows = [
        r | {"policy": p, "gain": 0.10 + i / 100}
        for i, p in enumerate(names)
        for r in (control("prompt", 0.1, k=0), control("sft_on_best", 0.01 if i < 3 else 0.09))
    ]
    assert [sentence for _, sentence in sentences(frame, result, {}, controlled(*rows))] == [
        "another prompt explains 0 of 12 gains",
        "SFT on the best answers explains 3 of 12 gains, the largest for run-2",
        "9 of 12 gains are not explained by any control",
    ]


def test_the_text_has_a_table_and_fits() -> None:
    frame = table(*METRICS, row("tiny", 0.3, view="noise-0.4"), row("perpo", 0.32, 0.02, view="noise-0.4"))
    lines = list(control_lines(frame, results(frame), NOISE, controlled(*NOTHING.values())))
    text = results_as_text(frame, lines)
    assert TITLE in text
    assert all(len(line) <= 100 for line in text.splitlines())
    (numbers,) = [line for line in lines if line.startswith("perpo ")]
    assert " ".join(numbers.split()) == "perpo +10.0 * +10.0 * +10.0 * +9.0 * +8.0 * +2.0"
    assert "perpo: the gain is not explained by any control: another prompt" in text
    assert "\u2212" not in "".join(lines)


def test_without_controls_there_is_no_section() -> None:
    frame = table(*METRICS)
    (result,) = results(frame)
    other = controlled(control("prompt", 0.1, task="ocr"))
    assert control_section(frame, result, {}, other, {}) is None
    assert list(control_lines(frame, [result], {}, other)) == []
