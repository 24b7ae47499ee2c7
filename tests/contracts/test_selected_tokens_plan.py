"""`report.tokens`: which jobs show the tokens that a method selects."""

import copy
from pathlib import Path
from typing import Any

import yaml
from perceptune.planning import policies as planning
from perceptune.planning.graph import graph
from perceptune.planning.policies import Plan
from perceptune.planning.rules import job_of

ROUNDS: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "config/demo-rounds.yaml").read_text())


def showing(count: int, **parameters: Any) -> Plan:
    raw = copy.deepcopy(ROUNDS)
    raw["report"]["tokens"] = count
    raw["trainings"]["cppo"]["parameters"] |= parameters
    return planning.load(raw)


def test_the_last_round_of_a_method_that_selects_tokens() -> None:
    plan = showing(3)
    assert {e: plan.selects_by(e) for e in plan.config.experiments} == {
        "grpo": None,
        "papo_g": None,
        "cppo": "removing",
    }
    nodes = {(rule, dict(of).get("experiment") or dict(of).get("stored")) for rule, of in graph(plan)}
    assert {one for rule, one in nodes if rule == "select_tokens"} == {"cppo@4"}
    assert ("compute_logprobs", "old@removing") in nodes
    report = job_of(plan, "write_report", {})
    assert report.inputs["tokens"] == {"cppo": "<results>/selected_tokens/cppo@4.parquet"}


def test_it_reads_the_round_that_trains_the_policy() -> None:
    job = job_of(showing(3, removing="preserving"), "select_tokens", {"experiment": "cppo@3"})
    place = "cppo@2/shapes-rounds/g8/overlap/all"
    assert job.inputs["preferences"] == f"<results>/preferences/{place}.parquet"
    assert job.inputs["removed"] == f"<results>/logprobs/{place}/old@preserving.parquet"
    assert str(job.inputs["terms"]).startswith(f"<results>/logprobs/{place}/old@original")
    assert job.gpus == 0


def test_without_answers_to_show_or_a_contrast_nothing_is_computed() -> None:
    for plan in (showing(0), showing(3, contrast=0)):
        assert "select_tokens" not in {rule for rule, _ in graph(plan)}
        assert job_of(plan, "write_report", {}).inputs["tokens"] == {}
