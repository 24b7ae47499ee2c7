"""The reasons that Snakemake shows for jobs that run again because of their params."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from perceptune.planning import policies
from perceptune.planning.graph import graph
from perceptune.planning.reasons import Places, described, short_reasons
from perceptune.planning.rules import code_lines, job_of
from snakemake.logging import DefaultFormatter
from snakemake.persistence import ParamsChange
from snakemake_interface_logger_plugins.common import LogEvent

from .demo_configs import DEMO, edited

REASON = "Missing output files: x; Params have changed since last execution: {}"
SAMPLED = {"policy": "tiny", "dataset": "shapes", "sampling": "n20", "reward": "perception"}
SELECTED = {**SAMPLED, "selection": "ranked"}
SCORED = {"policy": "tiny", "plan": "shapes/n20", "reward": "perception"}


def params(rule: str, config: dict[str, Any], **wildcards: str) -> set[str]:
    """The params of a job as Snakemake records them."""
    job = job_of(policies.load(config), rule, wildcards)
    return {repr(code_lines(*job.modules)), repr(dict(job.settings))}


def shown(rule: str, old: dict[str, Any], new: dict[str, Any], **wildcards: str) -> list[str]:
    """What a dry run shows of a job after the config has changed."""
    before, after = (params(rule, config, **wildcards) for config in (old, new))
    change = ParamsChange(only_old=before - after, only_new=after - before, files={"one", "two"})
    dag = SimpleNamespace(
        jobid=lambda job: {"this": 3}[job],
        needrun_jobs=lambda exclude_finished: ["this"],
        reason=lambda job: {"this": SimpleNamespace(params_changed=change)}[job],
    )
    workflow = SimpleNamespace(dag=dag, is_main_process=True)
    return logged(workflow, policies.load(new), rule, REASON.format(change), wildcards)


def logged(workflow: Any, plan: Any, rule: str, reason: str, wildcards: dict[str, str]) -> list[str]:
    """Lines of Snakemake's own formatter from the reason to the wildcards."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(DefaultFormatter().format(record))  # type: ignore[method-assign]
    logger = logging.Logger("test_reasons")
    logger.addHandler(handler)
    short_reasons(workflow, plan, logger)
    files: dict[str, Any] = {"input": [], "output": ["o"], "log": [], "benchmark": None, "resources": {}}
    about = {"event": LogEvent.JOB_INFO, "jobid": 3, "rule_msg": None, "rule_name": rule, "local": False, **files}
    extra = {**about, "wildcards": wildcards, "reason": reason, "priority": 0, "threads": 1, "is_checkpoint": False}
    logger.info(f"Rule: {rule}", extra=extra)
    lines = said[0].splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith("    reason: ")]
    return [line for line in lines[start:] if not line.startswith("    wildcards: ")]


@pytest.mark.parametrize(
    ("rule", "wildcards", "key", "value", "expected"),
    [
        ("train_adapter", {"experiment": "perpo"}, "trainings.perpo.parameters.beta", 0.2, "trainings.perpo.parameters.beta: 0.1 -> 0.2"),
        ("train_adapter", {"experiment": "perpo"}, "trainings.perpo.lora.dropout", 0.5, "trainings.perpo.lora.dropout: 0.0 -> 0.5"),
        ("train_adapter", {"experiment": "dpo"}, "models.tiny.dtype", "bfloat16", 'models.tiny.dtype: "float32" -> "bfloat16"'),
        ("select_preferences", SELECTED, "selections.ranked.list_size", 7, "selections.ranked.list_size: 12 -> 7"),
        ("plan_benchmarks", {"policy": "tiny"}, "benchmarks.shapes-test.n", 5, "benchmarks.shapes-test.n: 20 -> 5"),
        ("evaluate_policy", {"policy": "dpo"}, "benchmarks.shapes-test.n", 5, "benchmarks.shapes-test.n: 20 -> 5"),
        ("score_responses", SCORED, "rewards.perception.tasks.open", "exact_match", 'rewards.perception.tasks.open: new, "exact_match"'),
        ("make_shapes", {"dataset": "shapes"}, "datasets.shapes.train.grounding", 9, "datasets.shapes.train.grounding: 1000 -> 9"),
        ("write_report", {}, "report.gallery", 5, "report.gallery: 12 -> 5"),
    ],
)  # fmt: skip
def test_a_reason_names_the_key_of_the_config(
    rule: str, wildcards: dict[str, str], key: str, value: Any, expected: str
) -> None:
    assert shown(rule, DEMO, edited(key, value), **wildcards) == [
        "    reason: " + REASON.format("").rstrip(),
        f"        {expected}",
    ]


def test_a_reason_names_removed_keys_and_other_code() -> None:
    old, new = edited("trainings.perpo.method", "dpo"), DEMO
    old["trainings"]["perpo"]["parameters"] = {"beta": 0.1}
    _, *lines = shown("train_adapter", new, old, experiment="perpo")
    assert 'trainings.perpo.method: "perpo" -> "dpo"' in lines[0]
    assert "        trainings.perpo.parameters.gamma: removed, was 0.5" in lines
    assert "        code added: perceptune.core.methods.dpo" in [line.partition(",")[0] for line in lines]
    assert any(line.startswith("        code no longer used: ") and "methods.perpo" in line for line in lines)


def test_equal_blocks_are_told_apart_by_the_experiment() -> None:
    old = edited("trainings.other", DEMO["trainings"]["dpo"])
    new = edited("trainings.dpo.epochs", 3, edited("trainings.other.epochs", 3, old))
    expected = ["        trainings.dpo.epochs: 1.0 -> 3.0"]
    assert shown("train_adapter", old, new, experiment="dpo")[1:] == expected


def located(location: tuple[str | int, ...], settings: Any) -> str:
    return ".".join(map(str, location))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": 1.0}, ["a: 1 -> 1.0"]),
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": True}]}, ["a.1.b: null -> true"]),
        ({"a": [1]}, {"a": [1, 2]}, ["a: [1] -> [1, 2]"]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, ["the same settings in another order"]),
        ({"a": "0" * 64}, {"a": "1" * 64}, ["a: 000000000000... -> 111111111111..."]),
        ({"a": "x" * 99}, {"a": "x" * 99 + "y"}, ['a: ...xxxxxxxxxxxx" -> ...xxxxxxxxxxxxy"']),
        ({}, {"a": "x" * 99}, ['a: new, "' + "x" * 59 + "..."]),
        ({}, dict.fromkeys("abcdefg", 0), [*(f"{n}: new, 0" for n in "abcde"), "and 2 more"]),
        ({"a": "\u202e"}, {"a": "\n"}, ['a: "\\u202e" -> "\\n"']),
    ],
)  # fmt: skip
def test_what_differs(old: Any, new: Any, expected: list[str]) -> None:
    assert described([repr(old)], [repr(new)], located) == expected


def test_what_differs_between_several_outputs_and_one_job() -> None:
    old = [repr({"a": 1}), repr({"a": 2}), "'module one 0'", "['module one 0', 'module two 0']"]
    new = [repr({"a": 3}), "'module one 1'", "['module one 1', 'module three 0']"]
    code = ["code changed: one", "code added: three", "code no longer used: two"]
    assert described(old, new, located) == ["a: 1 -> 3", "a: 2 -> 3", *code]


def test_every_rule_can_be_described() -> None:
    """Also after an older version recorded no settings, or others."""
    plan = policies.load(DEMO)
    places = Places(plan)
    rules = set()
    for rule, wildcards in graph(plan):
        new = repr(dict(job_of(plan, rule, dict(wildcards)).settings))
        for old in ([], ["{'before': 1}"], ["<object>"]):
            lines = described(old, [new], lambda location, settings: places.key(location, settings, set()))
            assert all(0 < len(line) < 300 for line in lines)
            assert len(lines) <= 6
        rules.add(rule)
    assert {"make_shapes", "plan_samples", "write_report"} <= rules


def test_other_messages_stay_as_they_are() -> None:
    dag = SimpleNamespace(jobid=lambda job: 0, needrun_jobs=lambda exclude_finished: [])
    workflow = SimpleNamespace(dag=dag, is_main_process=True)
    for rule in ("train_adapter", "mine"):
        assert logged(workflow, policies.load(DEMO), rule, "Missing output files: x", {"a": "b"}) == [
            "    reason: Missing output files: x"
        ]
