"""A reward declares its components and metrics; omissions are reported when the file is loaded."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import ENVIRONMENT, load, module_of, names, use_folders
from perceptune.core.rewards.metrics import mean
from perceptune.core.rewards.reward import Answers, Reward, RewardMetric, Scores
from perceptune.report.results import Measure, measure


def score(answers: Answers) -> Scores:
    ones = np.ones(len(answers.texts))
    return Scores(ones, list(answers.texts), {"good": ones}, [None] * len(ones))


GOOD = RewardMetric(mean("good"), "good answers", component="good")


def declared(**changes: Any) -> Reward:
    fields = {
        "name": "mine",
        "summary": "1 for anything",
        "score": score,
        "components": ("good",),
        "metrics": {"good": GOOD},
    }
    return Reward(**{**fields, **changes})  # type: ignore[arg-type]


def metric(function: Any, **changes: Any) -> dict[str, Any]:
    return {"metrics": {"m": RewardMetric(function, "m", **changes)}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"summary": " "}, "`summary` is empty or has several lines"),
        ({"needs": "target"}, "`needs` is 'target', expected 'answer' or 'box' or None"),
        ({"components": "good"}, r"`components` is text, expected a tuple: `\('good',\)`"),
        ({"components": ()}, "`components` is empty, expected the names"),
        ({"metrics": {}}, "`metrics` is empty, expected at least one metric, the primary one first"),
        ({"metrics": {"m": mean("good")}}, "metric `m`: expected a `RewardMetric` with a function of columns"),
        (metric(None), "metric `m`: expected a `RewardMetric` with a function of columns"),
        (metric(mean("god")), "metric `m` reads unknown component 'god', expected one of `good`"),
        (metric(mean("good"), component="god"), "metric `m` has unknown component `god`, expected one of `good`"),
        (metric(mean("good"), only_with="good"), "`only_with` is `good`, expected one of `optional`"),
        (
            metric(mean("good"), component="good", of_one=np.mean),
            r"`of_one` of metric `m` returns shape \(\) for an array of shape \(2, 3\), expected \(2, 3\)",
        ),
        (
            metric(lambda columns: columns["good"].mean()),
            r"returns shape \(\) for columns of shape \(2, 3\), expected \(2,\)",
        ),
    ],
)
def test_an_incomplete_declaration_is_refused(changes: dict[str, Any], expected: str) -> None:
    assert declared().metrics == {"good": GOOD}
    with pytest.raises(ValueError, match=expected):
        declared(**changes)


def test_the_error_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rewards").mkdir()
    file = tmp_path / "rewards/half_done.py"
    file.write_text(
        "from perceptune.core.rewards.reward import Reward\n"
        "REWARD = Reward('half_done', 'nothing', lambda answers: None, ('good',), {})\n"
    )
    monkeypatch.setenv(ENVIRONMENT, "")
    use_folders([tmp_path])
    with pytest.raises(UserError) as caught:
        load("reward", "half_done")
    assert caught.value.args[0] == (
        f"reward `half_done` cannot be loaded from `{file}`, line 2: ValueError: `metrics` is empty, expected at least one metric, "
        "the primary one first"
    )


@pytest.mark.parametrize("name", ["iou", "pope", "pope_vcd", "reward"])
def test_a_column_name_of_ours_is_recognised_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "rewards").mkdir()
    (tmp_path / f"rewards/{name}.py").write_text("REWARD = None\n")
    monkeypatch.setenv(ENVIRONMENT, "")
    with pytest.raises(UserError, match=f"a built-in plug-in is already named `{name}`, expected another name"):
        use_folders([tmp_path])


def test_the_parts_of_a_benchmark_are_no_names_of_rewards() -> None:
    assert {"pope", "pope_vcd"} <= set(names("reward")) and not {"answers", "data", "metrics"} & set(names("reward"))


@pytest.mark.parametrize("name", names("reward"))
def test_single_answers_average_to_the_metric(name: str) -> None:
    """If a metric is defined for single responses, its mean over them is the metric of all."""
    reward = load("reward", name)
    columns = {c: np.array([0.0, 0.25, 0.5, 1.0]) for c in (*reward.components, *reward.optional)}
    for declared in reward.metrics.values():
        if declared.component:
            single = declared.of_one(columns[declared.component])
            assert single.shape == (4,)
            assert single.mean() == pytest.approx(float(declared.metric(columns)))


class Watched(Answers):
    """Answers that note which ground truth is read."""

    read: ClassVar[set[str]] = set()

    def __getattribute__(self, name: str) -> Any:
        if name in ("targets", "boxes"):
            Watched.read.add({"targets": "answer", "boxes": "box"}[name])
        return super().__getattribute__(name)


@pytest.mark.parametrize(
    "name", [n for n in names("reward") if module_of("reward", n).startswith("perceptune.core.rewards.")]
)
def test_a_general_reward_needs_the_ground_truth_that_it_reads(name: str) -> None:
    reward = load("reward", name)
    answers = Watched([r"\boxed{yes}"], ["yes"], np.array([[1.0, 2, 30, 40]]), np.array([[64.0, 48.0]]), "original")
    Watched.read.clear()
    reward.score(answers)
    assert Watched.read == ({reward.needs} if reward.needs else set())


def test_labels_come_from_the_declarations() -> None:
    assert measure("exact") == Measure("exact")
    assert measure("ned") == Measure("edit distance (NED)", percent=False, lower_is_better=True)
    assert measure("answered") == Measure("answered", percent=False)
    assert measure("amber_score").label == "AMBER score: mean of 1 - CHAIR and F1"
    assert measure("not_declared") == Measure("not declared", percent=False)
