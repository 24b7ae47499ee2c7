"""Training waits for the comparison with benchmarks, but its results sample nothing again."""

from typing import Any

import pytest
from perceptune.planning import policies
from perceptune.planning.graph import Key, Node, graph, reruns
from perceptune.planning.rules import job_of

from .demo_configs import edited

TABLE = "<results>/leakage/shapes/n20.parquet"
SAMPLES = {"policy": "tiny", "dataset": "shapes", "sampling": "n20"}


def nodes(config: dict[str, Any]) -> dict[Key, Node]:
    return graph(policies.load(config))


def rules(keys: set[Key]) -> set[str]:
    return {rule for rule, _ in keys}


def test_all_experiments_on_the_same_questions_share_one_table() -> None:
    plan = policies.load(edited("experiments.dpo.benchmarks", []))
    assert plan.leakage(plan.config.experiments) == {"shapes/n20": TABLE}
    job = job_of(plan, "find_leakage", {"dataset": "shapes", "source": "n20"})
    assert job.settings == {
        "training": {"dataset": "shapes", "split": "train", "tasks": [], "limit": None},
        "benchmarks": {"shapes-test": {"dataset": "shapes", "split": "test", "tasks": [], "limit": None}},
    }


@pytest.mark.parametrize("mode", ["refuse", "warn", "allow"])
def test_requests_wait_for_the_table_without_its_date(mode: str) -> None:
    job = job_of(policies.load(edited("leakage", mode)), "plan_samples", SAMPLES)
    assert job.inputs["leakage"] == TABLE
    assert job.undated == ("leakage",)
    assert job.details["refused"] == ({"shapes/n20": TABLE} if mode == "refuse" else {})


@pytest.mark.parametrize(
    ("key", "value"),
    [("leakage", "refuse"), ("leakage", "allow")],
)
def test_another_mode_writes_only_the_report_again(key: str, value: str) -> None:
    assert rules(reruns(nodes(edited("leakage", "warn")), nodes(edited(key, value)))) == {"write_report"}


def test_a_changed_benchmark_is_compared_again_and_trains_nothing() -> None:
    changed = rules(reruns(nodes(edited("leakage", "warn")), nodes(edited("benchmarks.shapes-test.limit", 9))))
    assert "find_leakage" in changed
    assert not changed & {"plan_samples", "select_preferences", "compute_logprobs", "train_adapter"}


def test_an_unknown_mode_is_a_mistake() -> None:
    with pytest.raises(policies.UserError, match="key `leakage`: input should be 'refuse', 'warn' or 'allow'"):
        policies.load(edited("leakage", "ignore"))
