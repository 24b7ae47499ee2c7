"""The demo that compares all methods on ranked lists compares like with like."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from perceptune.core.methods.method import Stored
from perceptune.planning import policies
from perceptune.planning.policies import Plan
from perceptune.planning.rules import job_of

from tests.plugins import METHODS

CONFIG: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "config/demo-methods.yaml").read_text())
DEMO: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "config/config.yaml").read_text())
VARIANTS = {"sft-best": {"source": "best_of_n"}, "lipo-lambda": {"weighting": "lambda"}}
"""Trainings whose parameters are not the defaults of their method."""


@pytest.fixture(scope="module")
def plan() -> Plan:
    return policies.load(CONFIG)


def test_every_method_on_lists_is_trained_with_its_default_parameters(plan: Plan) -> None:
    trained = {name: plan.training(name) for name in plan.config.experiments}
    assert {block.method for block in trained.values()} == {n for n, m in METHODS.items() if m.groups == "lists"}
    for name, block in trained.items():
        parameters = METHODS[block.method].Parameters
        assert parameters.model_validate(block.parameters) == parameters.model_validate(VARIANTS.get(name, {})), name


def test_all_share_lists_and_budget_with_the_demo(plan: Plan) -> None:
    demo = policies.load(DEMO)
    assert {plan.preferences(name) for name in plan.config.experiments} == {demo.preferences("dpo")}
    assert plan.model_settings("tiny") == demo.model_settings("tiny")
    for section in ("datasets", "samplings", "rewards", "selections"):
        assert CONFIG[section] == DEMO[section]
    changes = {"method": "dpo", "parameters": demo.training("dpo").parameters}
    budgets = [plan.training(name).model_copy(update=changes) for name in plan.config.experiments]
    assert all(budget == demo.training("dpo") for budget in budgets)


def test_only_methods_with_a_reference_wait_for_its_log_probs(plan: Plan) -> None:
    stored = {name: plan.stored_logprobs(name) for name in plan.config.experiments}
    assert {name for name, tables in stored.items() if not tables} == {"sft", "sft-best", "simpo", "orpo"}
    assert {name for name, tables in stored.items() if len(tables) > 1} == {"mdpo"}
    assert {term for tables in stored.values() for term in tables} == {
        Stored("reference", "original"),
        Stored("reference", "corrupted"),
    }
    asked = {name: job_of(plan, "train_adapter", {"experiment": name}).inputs["terms"] for name in ("dpo", "simpo")}
    assert bool(asked["dpo"]) and not asked["simpo"]
