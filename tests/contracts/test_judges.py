"""Judges in the config: valid combinations, and settings that affect verdicts."""

from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.errors import UserError
from perceptune.planning import policies as planning
from perceptune.planning.benchmarks import judging_settings, verdict_tables
from perceptune.planning.rules import job_of

from .demo_configs import DEMO, edited

MMHAL = {"dataset": "mmhal", "protocol": "mmhal", "judge": "stub"}


def configured(judge: dict[str, Any] | None = None, /, **benchmark: Any) -> dict[str, Any]:
    """The demo's experiments, also evaluated on MMHal-Bench."""
    config = edited("datasets.mmhal", {"kind": "mmhal", "path": "mmhal.json"})
    config["models"]["tiny"]["max_model_len"] = 2048  # the protocol's answers have up to 1024 tokens
    config["judges"] = {"stub": {"model": "stub", "url": "http://localhost:8000/v1", **(judge or {})}}
    config["benchmarks"]["mmhal"] = MMHAL | benchmark
    for name in config["experiments"]:
        config["experiments"][name]["benchmarks"] = ["shapes-test", "mmhal"]
    return config


def settings(judge: dict[str, Any] | None = None, /, **benchmark: Any) -> dict[str, Any]:
    return judged_by(planning.load(configured(judge, **benchmark)))


def judged_by(plan: planning.Plan) -> dict[str, Any]:
    return judging_settings(plan, "stub", plan.config.benchmarks["mmhal"].judge_prompt)


def test_settings_that_affect_verdicts_are_tracked(tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("{answer}")
    variants = [
        settings(),
        settings({"model": "another"}),
        settings({"url": "http://elsewhere/v1"}),
        settings({"max_tokens": 7}),
        settings({"model": "tiny", "url": None}),
        settings(judge_prompt=str(prompt)),
    ]
    prompt.write_text("{answer}!")
    variants.append(settings(judge_prompt=str(prompt)))
    assert all(a != b for i, a in enumerate(variants) for b in variants[:i])


def test_settings_of_the_connection_are_not_tracked() -> None:
    assert settings({"concurrency": 3, "retries": 1, "timeout": 5.0, "key": "SOME_KEY"}) == settings()
    assert settings(resamples=7, seed=9) == settings()


def test_a_local_judge_counts_by_its_weights_and_settings() -> None:
    here = settings({"model": "tiny", "url": None})
    assert here["model"]["weights"] == planning.load(DEMO).model_settings("tiny")["weights"]
    config = configured({"model": "tiny", "url": None})
    config["models"]["tiny"]["dtype"] = "bfloat16"
    assert judged_by(planning.load(config)) != here
    config["models"]["tiny"]["dtype"] = "float32"
    config["models"]["tiny"]["reasoning"] = ["<r>", "</r>"]
    assert judged_by(planning.load(config)) != here
    del config["models"]["tiny"]["reasoning"]
    config["models"]["tiny"]["engine"] = {"max_num_seqs": 3}
    assert judged_by(planning.load(config)) == here


def settings_of(plan: planning.Plan, rule: str) -> Any:
    return job_of(plan, rule, {"policy": "tiny"}).settings


def test_a_local_judge_of_family_auto_is_probed_first() -> None:
    config = configured({"model": "judge", "url": None})
    config["models"]["judge"] = {**config["models"]["tiny"], "family": "auto"}
    wildcards = {"policy": "tiny", "benchmark": "mmhal"}
    assert job_of(planning.load(config), "judge_answers", wildcards).inputs["probe"] == "<results>/probes/judge.parquet"
    plan = planning.load(configured({"model": "tiny", "url": None}))  # its family is declared
    assert job_of(plan, "judge_answers", wildcards).inputs["probe"] is None
    assert job_of(planning.load(configured()), "judge_answers", wildcards).inputs["probe"] is None  # an endpoint


def test_another_judge_reruns_no_sampling() -> None:
    """Responses do not depend on the judge."""
    one, other = planning.load(configured()), planning.load(configured({"model": "another"}, judge_prompt="p.txt"))
    assert settings_of(one, "plan_benchmarks") == settings_of(other, "plan_benchmarks")
    assert settings_of(one, "evaluate_policy") != settings_of(other, "evaluate_policy")


def test_verdicts_are_of_the_benchmarks_with_a_judge() -> None:
    plan = planning.load(configured())
    assert verdict_tables(plan, "perpo") == {"mmhal": "<results>/verdicts/perpo/mmhal.parquet"}
    assert verdict_tables(plan, "tiny", "perpo") == {"mmhal": "<results>/verdicts/tiny/mmhal.parquet"}
    assert verdict_tables(planning.load(DEMO), "tiny") == {}


@pytest.mark.parametrize(
    ("judge", "benchmark", "expected"),
    [
        ({}, {"judge": None}, "key `benchmarks.mmhal.judge`: missing, protocol `mmhal` needs a judge"),
        ({}, {"judge": "stubb"}, "`stubb` is not defined, expected one of 'stub'; did you mean `stub`?"),
        ({"url": None}, {}, "key `judges.stub.model`: `stub` is not defined, expected one of 'tiny'"),
        (
            {"url": "localhost:8000"},
            {},
            "key `judges.stub.url`: string should match pattern '^https?://', got `localhost:8000`",
        ),
        ({"url": "https://me:secret@host/v1"}, {}, "key `judges.stub.url`: looks like a password or access token"),
        ({"key": "sk-0123456789abcdefghijklmno"}, {}, "key `judges.stub.key`: looks like a password or access token"),
        (
            {},
            {"protocol": "llava_bench", "judge_prompt": "p.txt"},
            "key `benchmarks.mmhal.judge_prompt`: no judge here takes a prompt; remove this key",
        ),
        (
            {},
            {"protocol": None, "reward": "perception"},
            "key `benchmarks.mmhal.judge`: judges need a `protocol`; remove this key",
        ),
    ],
)
def test_invalid_combinations_are_named(judge: dict[str, Any], benchmark: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        planning.load(configured(judge, **benchmark))
    assert expected in str(caught.value)


def test_a_missing_prompt_is_named() -> None:
    with pytest.raises(UserError, match=r"judge prompt `nowhere\.txt` does not exist"):
        settings(judge_prompt="nowhere.txt")


def test_a_name_without_any_to_choose_from() -> None:
    config = {**configured(), "judges": {}}
    with pytest.raises(UserError) as caught:
        planning.load(config)
    assert "key `benchmarks.mmhal.judge`: `stub` is not defined, and there are none to choose from" in str(caught.value)
