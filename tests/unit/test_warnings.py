"""Warnings of the report about training that can hardly have learned anything."""

import polars as pl
import pytest
from perceptune.report.results import Result
from perceptune.report.sections.rounds import Rounds
from perceptune.report.sections.warnings import warnings


def log(experiment: str, steps: int, **metrics: float) -> list[dict[str, object]]:
    """The training table of one policy, with constant metrics."""
    values = {"loss": 0.5, **metrics}
    return [
        {"experiment": experiment, "step": step, "metric": name, "value": value}
        for step in range(1, steps + 1)
        for name, value in values.items()
    ]


def table(*logs: list[dict[str, object]]) -> pl.DataFrame:
    schema = {"experiment": pl.String, "step": pl.Int32, "metric": pl.String, "value": pl.Float64}
    return pl.DataFrame([row for rows in logs for row in rows], schema=schema)


GRPO = Rounds("grpo", {1: "grpo@1", 2: "grpo@2"}, 2)


def test_a_usual_run_has_none() -> None:
    training = table(log("dpo", 40), *(log(f"grpo@{k}", 6, zero_variance=0.5) for k in (1, 2)))
    assert warnings(training, {"lists": {"kept": 500, "dropped": {"margin": 20}}}, [GRPO]) == []
    assert warnings(None, {}, []) == []


@pytest.mark.parametrize(
    ("steps", "said"),
    [(1, "dpo was trained for a single optimizer step"), (9, "dpo was trained for only 9 optimizer steps")],
)
def test_few_steps(steps: int, said: str) -> None:
    assert warnings(table(log("dpo", steps), log("perpo", 10)), {}, []) == [said]


def test_steps_of_rounds_are_added_up() -> None:
    assert warnings(table(log("grpo@1", 4), log("grpo@2", 5)), {}, [GRPO]) == [
        "grpo was trained for only 9 optimizer steps"
    ]


def test_few_groups() -> None:
    assert warnings(None, {"tiny/own": {"kept": 1, "dropped": {"margin": 11, "one distinct answer": 2}}}, []) == [
        "tiny/own: only 1 of 14 groups to train on"
    ]


def test_equal_rewards() -> None:
    training = table(log("grpo@1", 20, zero_variance=1.0), log("grpo@2", 20, zero_variance=0.9))
    assert warnings(training, {}, [GRPO]) == ["grpo@1: 100% of the groups had equal rewards, which teach nothing"]


def result(n: int, **failed: int) -> Result:
    """The result of policies on `n` questions, of whose answers so many could not be parsed."""
    rows = {policy: {"exact": {"n": n, "n_failed": count}} for policy, count in (failed or {"tiny": 0}).items()}
    return Result("photos", "test", "ocr", "original", ("exact",), rows)


def test_few_questions() -> None:
    assert warnings(None, {}, [], [result(4), result(30), result(1)]) == [
        "photos / ocr: only 4 questions, too few to tell policies apart",
        "photos / ocr: a single question, too few to tell policies apart",
    ]


def test_answers_that_cannot_be_read() -> None:
    said = "photos / ocr: answers that cannot be read: tiny (all), dpo (51%); check the prompt and the reward"
    assert warnings(None, {}, [], [result(100, tiny=100, dpo=51, perpo=50)]) == [said]
    many = warnings(None, {}, [], [result(100, tiny=0, **{f"p{i}": 100 for i in range(9)})])
    assert many == ["photos / ocr: answers that cannot be read: 9 of 10 policies; check the prompt and the reward"]


@pytest.mark.parametrize(("median", "warned"), [(0.0042, True), (0.01, False)])
def test_small_crops(median: float, warned: bool) -> None:
    pairs = {"tiny/photos": {"kept": 40, "dropped": {}, "strength": {"enhanced": {"median": median}}}}
    found = warnings(None, {}, [], [], pairs)
    assert bool(found) is warned
    assert all(line.startswith("tiny/photos: half of the crops cover 0.42 % of the image or less; ") for line in found)
    assert warnings(None, {}, [], [], {"a": {"kept": 40, "strength": {"enhanced": None}}}) == []


def test_few_pairs() -> None:
    pairs = {"tiny/photos": {"kept": 3, "dropped": {"margin": 5}, "strength": {}}}
    assert warnings(None, {}, [], [], pairs) == ["tiny/photos: only 3 of 8 groups to train on"]
