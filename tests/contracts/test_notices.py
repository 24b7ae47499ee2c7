"""What the report says about bundled models."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from perceptune.planning import policies as planning
from perceptune.planning.graph import graph
from perceptune.planning.jobs.evaluation import write_report
from perceptune.planning.origin import is_bundled

DEMO = yaml.safe_load((Path(__file__).parents[2] / "config/config.yaml").read_text())


def with_photos() -> dict[str, Any]:
    """The demo with a benchmark on other images."""
    raw = copy.deepcopy(DEMO)
    raw["datasets"]["photos"] = {"kind": "jsonl", "path": "photos.jsonl"}
    raw["benchmarks"]["photos-test"] = {**next(iter(raw["benchmarks"].values())), "dataset": "photos"}
    for experiment in raw["experiments"].values():
        experiment["benchmarks"] = [*raw["benchmarks"]]
    return raw


def test_a_bundled_model_is_named_where_it_answers_about_other_images() -> None:
    plan = planning.load(with_photos())
    (notice,) = write_report(plan).details["notices"]
    assert notice.startswith("`tiny` is the bundled tiny model, which knows only coloured shapes")
    told = {rule for (rule, _), node in graph(plan).items() if notice in str(node.job)}
    assert told == {"write_report"}
    assert write_report(planning.load(DEMO)).details["notices"] == []


def test_another_model_is_not_named() -> None:
    raw = with_photos()
    raw["models"]["tiny"]["path"] = "models/mine"
    assert write_report(planning.load(raw)).details["notices"] == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("resources/tiny-llava/model", True),
        ("/home/me/perceptune/resources/tiny-llava/model", True),
        ("resources/tiny-llava-2/model", False),
        ("models/tiny-llava", False),
    ],
)
def test_bundled_models_are_known_by_their_paths(path: str, expected: bool) -> None:
    assert is_bundled(path) is expected
