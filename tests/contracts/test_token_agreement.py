"""Agreement of selected tokens with a judge's labels: its jobs, and mistakes in the config."""

import copy
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from perceptune.contracts.errors import UserError
from perceptune.planning import policies as planning
from perceptune.planning.graph import graph
from perceptune.planning.policies import Plan
from perceptune.planning.rules import RULES, job_of
from perceptune.runtime.arguments import arguments_of, bound

from tests.workflow.inline import snakemake_object

ROUNDS: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "config/demo-rounds.yaml").read_text())
RULE = {"agreement": "a"}


def planned(endpoint: dict[str, Any] | None = None, /, **agreement: Any) -> Plan:
    """The demo of rounds, with labels of an endpoint."""
    raw = copy.deepcopy(ROUNDS)
    raw["judges"] = {"stub": {"model": "stub", "url": "http://localhost:8000/v1", **(endpoint or {})}}
    raw["agreements"] = {"a": agreement}
    return planning.load(raw)


def test_the_judge_labels_answers_of_the_last_round_or_of_another() -> None:
    plan = planned(tokens="cppo", judge="stub")
    nodes = graph(plan)
    assert {("label_tokens", (("agreement", "a"),)), ("measure_agreement", (("agreement", "a"),))} <= nodes.keys()
    assert ("select_tokens", (("experiment", "cppo@4"),)) in nodes
    job = job_of(plan, "label_tokens", RULE)
    assert job.inputs["selected"] == "<results>/selected_tokens/cppo@4.parquet"
    assert job.details["kept"] == "results/.judged/stub"
    for key in (("label_tokens", (("agreement", "a"),)), ("measure_agreement", (("agreement", "a"),))):
        rule = RULES[key[0]]
        run = getattr(import_module(rule.module), rule.function)
        arguments = bound(run, {**arguments_of(snakemake_object(key, nodes[key])), "halvings": 0})
        given = {name for name, files in nodes[key].job.inputs.items() if files and name in run.__annotations__}
        assert given
        assert all(arguments[name] for name in given), key
    other = planned(tokens="cppo@2", judge="stub")
    assert job_of(other, "label_tokens", RULE).inputs["selected"] == "<results>/selected_tokens/cppo@2.parquet"
    measured = job_of(other, "measure_agreement", RULE)
    assert measured.inputs["labelled"] == "<results>/labelled_tokens/a.parquet"
    assert measured.settings["policy"] == "cppo@2"


def test_what_the_judge_is_asked_is_tracked() -> None:
    def settings(endpoint: dict[str, Any] | None = None, /, **agreement: Any) -> Any:
        plan = planned(endpoint, **{"tokens": "cppo", "judge": "stub", **agreement})
        return job_of(plan, "label_tokens", RULE).settings

    variants = [
        settings(),
        settings({"model": "another"}),
        settings(limit=3),
        settings(seed=1),
        settings(tokens="cppo@3"),
    ]
    assert all(a != b for i, a in enumerate(variants) for b in variants[:i])
    assert settings({"concurrency": 3}, resamples=7, limit=100, tokens="cppo@4") == settings()


@pytest.mark.parametrize(
    ("agreement", "expected"),
    [
        ({"tokens": "grpo", "judge": "stub"}, "key `agreements.a.tokens`: `grpo` selects no tokens, expected `cppo`"),
        ({"tokens": "grpo@2", "judge": "stub"}, "key `agreements.a.tokens`: `grpo` selects no tokens, expected `cppo`"),
        ({"tokens": "tiny", "judge": "stub"}, "key `agreements.a.tokens`: `tiny` is not defined"),
        ({"tokens": "cppo@5", "judge": "stub"}, "key `agreements.a.tokens`: `cppo@5` is not defined"),
        ({"tokens": "cppo", "judge": "stubb"}, "key `agreements.a.judge`: `stubb` is not defined"),
        ({"tokens": "cppo"}, "`tokens` needs a `judge` and no `labels`"),
        ({"tokens": "cppo", "judge": "stub", "policies": ["cppo"]}, "`policies` belongs to `benchmark`"),
        ({"tokens": "cppo", "judge": "stub", "comparison": "c"}, "expected either `benchmark`, `comparison` or `tokens`"),
    ],
)  # fmt: skip
def test_mistakes_are_named(agreement: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        planned(**agreement)
    (line,) = str(caught.value).splitlines()[1:]
    assert expected in line
