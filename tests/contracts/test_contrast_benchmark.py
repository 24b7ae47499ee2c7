"""Contrastive decoding of a benchmark: what it needs is planned, and its mistakes are reported."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from perceptune.contracts.errors import UserError
from perceptune.planning import policies as planning
from perceptune.planning.rules import job_of
from perceptune.planning.views import requested_views

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "config/config.yaml").read_text())


def config(view: str) -> dict[str, Any]:
    raw = copy.deepcopy(CONFIG)
    raw["views"] = {**raw.get("views", {}), "noisy": {"type": "noise", "parameters": {"sigma": 0.4}}}
    raw["benchmarks"]["shapes-test"]["contrast"] = {"view": view, "strength": 1.0}
    return raw


def test_the_amateurs_view_is_planned_for_every_policy() -> None:
    plan, plain = planning.load(config("noisy")), planning.load(CONFIG)
    for policy in plan.policies:
        added = set(requested_views(plan, policy, "benchmarks")) - set(requested_views(plain, policy, "benchmarks"))
        assert added == {"noisy"}
        assert "noisy" in job_of(plan, "plan_benchmarks", {"policy": policy}).settings["blocks"]


def test_an_unknown_view_is_reported() -> None:
    with pytest.raises(UserError, match=r"benchmarks.shapes-test.contrast.view.*`nosy`.*did you mean `noisy`"):
        planning.load(config("nosy"))
