"""Comparisons and agreements in the config: the jobs that they need, and combinations that cannot work."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.errors import UserError
from perceptune.planning import policies as planning
from perceptune.planning.graph import graph
from perceptune.planning.missing import missing
from perceptune.planning.rules import RULES, job_of
from perceptune.runtime.arguments import arguments_of, bound

from tests.workflow.inline import snakemake_object

from .test_judges import configured as with_judge

ERRORS = {"dataset": "mmhal", "protocol": "papo_eval", "variant": "errors", "judge": "stub", "max_tokens": 64}
AGAINST = {"policies": ["perpo", "dpo"], "benchmark": "mmhal"}
PLAN = "<results>/comparisons/c"


def configured(comparison: dict[str, Any] | None = None, agreement: dict[str, Any] | None = None) -> dict[str, Any]:
    """The demo with a comparison and an agreement on MMHal-Bench, and another judge."""
    config = with_judge()
    config["judges"]["second"] = {"model": "second", "url": "http://localhost:9000/v1"}
    config["benchmarks"]["errors"] = ERRORS
    config["experiments"]["perpo"]["benchmarks"] = ["shapes-test", "mmhal", "errors"]
    config["dataset_preferences"] = {"taken": {}}
    taken = {"model": "tiny", "dataset": "shapes", "dataset_preference": "taken", "training": "dpo", "benchmarks": []}
    config["experiments"]["given"] = taken
    if comparison is not None:
        config["comparisons"] = {"c": comparison}
    if agreement is not None:
        config["agreements"] = {"a": agreement}
    return config


def jobs(config: dict[str, Any]) -> set[tuple[str, ...]]:
    """Rule and wildcards of the jobs of judges and of what is measured from them."""
    found = graph(planning.load(config))
    return {
        (rule, *(value for _, value in wildcards))
        for rule, wildcards in found
        if (rule.startswith("judge_") and rule != "judge_answers")
        or rule in ("measure_comparison", "measure_agreement")
    }


def test_without_them_there_is_no_job() -> None:
    assert not jobs(configured())


def test_a_comparison_needs_answers_of_both_policies_and_verdicts() -> None:
    config = configured({**AGAINST, "judge": "second"})
    assert jobs(config) == {("judge_comparison", "c", "second"), ("measure_comparison", "c")}
    job = job_of(planning.load(config), "judge_comparison", {"comparison": "c", "judge": "second"})
    assert job.inputs["rewards"] == [f"<results>/rewards/{p}/benchmarks/mmhal.parquet" for p in ("perpo", "dpo")]
    assert job.details["kept"] == "results/.judged/second"
    assert "perceptune.core.benchmarks.mmhal.metrics" in job.modules


def test_without_a_judge_the_metrics_of_the_benchmark_are_compared() -> None:
    config = configured(AGAINST)
    assert jobs(config) == {("measure_comparison", "c")}
    job = job_of(planning.load(config), "measure_comparison", {"comparison": "c"})
    assert job.inputs["verdicts"] == [f"<results>/verdicts/{p}/mmhal.parquet" for p in ("perpo", "dpo")]


def test_pairs_of_an_experiment_are_compared() -> None:
    plan = planning.load(configured({"experiment": "given", "judge": "stub", "rubric": "grades"}))
    job = job_of(plan, "judge_comparison", {"comparison": "c", "judge": "stub"})
    assert job.inputs["preferences"] == "<results>/preferences/tiny/shapes/taken.parquet"
    assert job.details["given"] is True


def test_a_second_judge_is_asked_about_all_policies() -> None:
    config = configured(agreement={"benchmark": "errors", "judge": "second"})
    assert jobs(config) == {
        ("judge_again", "errors", "second", "perpo"),
        ("judge_again", "errors", "second", "tiny"),
        ("measure_agreement", "a"),
    }
    config = configured({**AGAINST, "judge": "stub"}, {"comparison": "c", "judge": "second"})
    compared = {("judge_comparison", "c", judge) for judge in ("stub", "second")}
    assert jobs(config) == {*compared, ("measure_comparison", "c"), ("measure_agreement", "a")}


def test_labels_count_by_their_content(tmp_path: Path) -> None:
    def settings(text: str) -> Any:
        (tmp_path / f"{text}.csv").write_text(text)
        config = configured(agreement={"benchmark": "errors", "labels": str(tmp_path / f"{text}.csv")})
        return job_of(planning.load(config), "measure_agreement", {"agreement": "a"}).settings

    assert settings("one")["labels_digest"] != settings("two")["labels_digest"]
    lost = planning.load(configured(agreement={"benchmark": "errors", "labels": "nowhere.csv"}))
    assert "agreements.a.labels: `nowhere.csv` does not exist" in missing(lost.config, {})
    with pytest.raises(UserError, match=r"labels `nowhere\.csv` does not exist"):
        job_of(lost, "measure_agreement", {"agreement": "a"})


def test_settings_of_the_judge_and_the_prompt_are_tracked(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("{question} {a} {b}")

    def settings(judge: dict[str, Any] | None = None, **comparison: Any) -> Any:
        config = configured({**AGAINST, "judge": "stub", **comparison})
        config["judges"]["stub"] |= judge or {}
        return job_of(planning.load(config), "judge_comparison", {"comparison": "c", "judge": "stub"}).settings

    variants = [
        settings(), settings({"model": "another"}), settings(orders="both"), settings(rubric="grades"), settings(seed=1),
        settings(prompt=str(tmp_path / "p.txt")), settings(policies=["dpo", "perpo"]),
    ]  # fmt: skip
    assert all(a != b for i, a in enumerate(variants) for b in variants[:i])
    assert settings({"concurrency": 3, "timeout": 5.0}, resamples=7) == settings()


def test_an_experiment_in_rounds_stands_for_its_last_round() -> None:
    config = configured({"policies": ["grpo", "grpo@1"], "benchmark": "shapes-test"})
    config["rollouts"] = {"g4": {"questions": 4, "n": 2, "max_tokens": 16}}
    config["batch_selections"] = {"all": {}}
    config["trainings"]["grpo"] = {"method": "grpo", "scheduler": "constant", "warmup_ratio": 0, "lora": {"dropout": 0}}
    config["experiments"]["grpo"] = {
        "model": "tiny", "dataset": "shapes", "rollout": "g4", "reward": "perception", "batch_selection": "all", "rounds": 2,
        "training": "grpo", "benchmarks": ["shapes-test"],
    }  # fmt: skip
    job = job_of(planning.load(config), "measure_comparison", {"comparison": "c"})
    assert job.settings["policies"] == ["grpo@2", "grpo@1"]
    config["experiments"]["grpo"]["evaluate_every"] = 2
    with pytest.raises(UserError, match=r"`grpo@1` is not evaluated on benchmark `shapes-test`"):
        planning.load(config)


@pytest.mark.parametrize(
    ("comparison", "agreement", "expected"),
    [
        ({"judge": "stub"}, None, "expected either `policies` and `benchmark`, or `experiment`"),
        ({**AGAINST, "experiment": "given"}, None, "expected either `policies` and `benchmark`, or `experiment`"),
        ({**AGAINST, "policies": ["dpo", "dpo"]}, None, "`policies` names `dpo` twice, expected two different policies"),
        ({"experiment": "given"}, None, "a comparison of an experiment's pairs needs a `judge`"),
        ({**AGAINST, "orders": "both"}, None, "`orders` needs a `judge`"),
        ({**AGAINST, "judge": "stubb"}, None, "key `comparisons.c.judge`: `stubb` is not defined"),
        ({**AGAINST, "policies": ["perpo", "dpoo"]}, None, "key `comparisons.c.policies`: `dpoo` is not defined"),
        ({**AGAINST, "benchmark": "errors"}, None, "`dpo` is not evaluated on benchmark `errors`, which has answers of `tiny`, `perpo`"),
        ({"experiment": "perpo", "judge": "stub"}, None, "`perpo` learns from ranked lists, expected pairs or dataset preferences"),
        (None, {"benchmark": "errors"}, "expected either `judge` or `labels`"),
        (None, {"judge": "second"}, "expected either `benchmark`, `comparison` or `tokens`"),
        (None, {"benchmark": "errors", "judge": "second", "limit": 3}, "`limit` belongs to `tokens`"),
        (None, {"benchmark": "errors", "judge": "stub"}, "key `agreements.a.judge`: `stub` is the first judge as well"),
        (None, {"benchmark": "shapes-test", "judge": "second"}, "key `agreements.a.benchmark`: `shapes-test` has no judge"),
        (None, {"comparison": "d", "judge": "second"}, "key `agreements.a.comparison`: `d` is not defined"),
        (AGAINST, {"comparison": "c", "judge": "second"}, "key `agreements.a.comparison`: `c` has no judge"),
        (AGAINST, {"comparison": "c", "judge": "second", "policies": ["dpo"]}, "`policies` belongs to `benchmark`"),
        (None, {"benchmark": "errors", "judge": "second", "policies": ["dpo"]}, "`dpo` is not evaluated on benchmark `errors`"),
    ],
)  # fmt: skip
def test_impossible_combinations_are_named(
    comparison: dict[str, Any] | None, agreement: dict[str, Any] | None, expected: str
) -> None:
    with pytest.raises(UserError) as caught:
        planning.load(configured(comparison, agreement))
    assert expected in str(caught.value)


def test_verdicts_that_are_no_labels_are_refused() -> None:
    config = configured(agreement={"benchmark": "llava", "judge": "second"})
    config["benchmarks"]["llava"] = {"dataset": "mmhal", "protocol": "llava_bench", "judge": "stub"}
    config["experiments"]["perpo"]["benchmarks"].append("llava")
    with pytest.raises(UserError, match=r"verdicts on `llava` are no labels, expected protocol .*`papo_eval_errors`"):
        planning.load(config)


@pytest.mark.parametrize(
    ("comparison", "agreement"),
    [
        ({**AGAINST, "judge": "stub"}, {"comparison": "c", "judge": "second"}),
        (AGAINST, {"benchmark": "errors", "judge": "second"}),
        ({"experiment": "given", "judge": "stub", "rubric": "grades"}, {"benchmark": "errors", "labels": "people.csv"}),
        ({"policies": ["perpo", "tiny"], "benchmark": "shapes-test"}, {"benchmark": "mmhal", "labels": "people.csv"}),
    ],
)
def test_jobs_fit_their_stages(comparison: dict[str, Any], agreement: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("example_id,label\n")
    if "labels" in agreement:
        agreement = {**agreement, "labels": str(tmp_path / "people.csv")}
    nodes = graph(planning.load(configured(comparison, agreement)))
    found = set()
    for key, node in nodes.items():
        rule = RULES[key[0]]
        if rule.job.__module__.endswith("judging"):
            run = getattr(import_module(rule.module), rule.function)
            arguments = bound(run, {**arguments_of(snakemake_object(key, node)), "halvings": 0})
            given = {name for name, files in node.job.inputs.items() if files and name in run.__annotations__}
            assert all(arguments[name] for name in given), key
            found.add(key[0])
    assert {"measure_comparison", "measure_agreement"} <= found
