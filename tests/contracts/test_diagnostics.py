"""The `diagnostics` section: which trainings it measures, and that it changes no other job."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from perceptune.contracts.errors import UserError
from perceptune.planning import policies
from perceptune.planning.diagnostics import diagnosed
from perceptune.planning.graph import graph, reruns
from perceptune.planning.rules import job_of

ROOT = Path(__file__).parents[2] / "config"
METHODS, PAIRS, ROUNDS = (
    yaml.safe_load((ROOT / f"demo-{name}.yaml").read_text()) for name in ("methods", "p2dpo", "rounds")
)


def switched(base: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {**copy.deepcopy(base), "diagnostics": keys}


def test_the_switch_adds_a_job_per_experiment_and_reruns_the_report_only() -> None:
    before, after = (graph(policies.load(raw)) for raw in (PAIRS, switched(PAIRS)))
    changed = {(rule, dict(wildcards).get("experiment")) for rule, wildcards in reruns(before, after)}
    assert changed == {("measure_gradients", name) for name in PAIRS["experiments"]} | {("write_report", None)}


def test_methods_that_compare_two_answers_are_measured() -> None:
    assert diagnosed(policies.load(METHODS).config) == []
    assert diagnosed(policies.load(switched(METHODS)).config) == [
        name for name in METHODS["experiments"] if name not in ("sft", "sft-best")
    ]
    assert diagnosed(policies.load(switched(ROUNDS)).config) == []
    assert diagnosed(policies.load(switched(METHODS, experiments=["perpo", "dpo"])).config) == ["dpo", "perpo"]


@pytest.mark.parametrize(
    ("base", "experiment", "expected"),
    [
        (METHODS, "sft-best", "`sft-best` has no pairs to measure: method `sft` compares no two answers"),
        (METHODS, "sft", "`sft` has no pairs to measure: method `sft` compares no two answers"),
        (ROUNDS, "grpo", "`grpo` has no pairs to measure: method `grpo` learns in rounds"),
        (METHODS, "ppo", "`ppo` is not defined, expected one of"),
    ],
)
def test_an_experiment_without_pairs_is_a_mistake(base: dict[str, Any], experiment: str, expected: str) -> None:
    with pytest.raises(UserError, match=r"key `diagnostics\.experiments`: ") as caught:
        policies.load(switched(base, experiments=[experiment]))
    assert expected in str(caught.value)


def test_a_job_reads_what_the_training_reads_and_its_adapter() -> None:
    plan = policies.load(switched(PAIRS, groups=7))
    trained, job = (job_of(plan, rule, {"experiment": "p2dpo"}) for rule in ("train_adapter", "measure_gradients"))
    assert job.inputs == {
        **{name: files for name, files in trained.inputs.items() if name != "terms"},
        "adapter": "<results>/adapters/p2dpo/adapter_model.safetensors",
    }
    assert job.settings == {**trained.settings, "measured": {"groups": 7, "seed": 0}}
    assert job.modules == trained.modules
    assert job.gpus == 1
