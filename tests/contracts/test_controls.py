"""The `controls` section: what it adds to a config, and what it leaves unchanged."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from perceptune.contracts.errors import UserError
from perceptune.planning import policies as planning
from perceptune.planning.benchmarks import benchmark_blocks
from perceptune.planning.policies import Plan
from perceptune.planning.rules import job_of

ROOT = Path(__file__).parents[2]


def shipped(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "config" / name).read_text()))


DEMO, FULL, P2DPO, ROUNDS = map(shipped, ("config.yaml", "demo-full.yaml", "demo-p2dpo.yaml", "demo-rounds.yaml"))
TWIN = "sft-on-best-n20-ranked"


def switched(base: dict[str, Any] = DEMO, **controls: Any) -> dict[str, Any]:
    return {**copy.deepcopy(base), "controls": controls}


def test_without_the_switch_nothing_is_added() -> None:
    for base in (DEMO, FULL, P2DPO, ROUNDS):
        absent, null = planning.load(base), planning.load({**base, "controls": None})
        assert absent.config == null.config
        assert absent.config.experiments.keys() == base["experiments"].keys()
        assert absent.controlled == []
        assert absent.without_counterpart() == {}


def test_every_benchmark_of_an_experiment_gets_views_prompts_and_samples() -> None:
    raw = switched(n=4)
    raw["benchmarks"] |= {
        "few": {**raw["benchmarks"]["shapes-test"], "n": 0, "views": ["original"], "prompt": "{question}\n{format}"},
        "idle": {**raw["benchmarks"]["shapes-test"], "n": 0},
    }
    raw["experiments"]["dpo"]["benchmarks"] = ["shapes-test", "few"]
    plan = planning.load(raw)
    views = ("original", "blank", "noise-0.1", "noise-0.2", "noise-0.4")
    shapes, few, idle = (plan.config.benchmarks[name] for name in ("shapes-test", "few", "idle"))
    assert (shapes.views, shapes.n) == (views, 20)
    assert (few.views, few.n) == (views, 4)
    assert (idle.views, idle.n, idle.prompts) == (("original", "blank"), 0, ())
    assert plan.config.views["noise-0.2"].parameters == {"sigma": 0.2}
    assert "{question}" not in shapes.prompts and len(shapes.prompts) == 3  # without the benchmark's own
    assert "{question}" in few.prompts and "{question}\n{format}" not in few.prompts


def test_what_a_benchmark_says_itself_goes_before() -> None:
    raw = switched(P2DPO, sigmas=[0.1, 0.3], blank=False)
    raw["benchmarks"]["shapes-p2-test"] |= {"prompts": ["Well? {question}"], "views": ["original", "mine"]}
    raw["views"]["mine"] = {"type": "noise", "parameters": {"sigma": 0.3, "side": 336}}
    block = planning.load(raw).config.benchmarks["shapes-p2-test"]
    assert block.prompts == ("Well? {question}",)
    assert block.views == ("original", "mine", "noise-0.1")  # the existing view of that sigma, at any size


def test_a_view_of_that_noise_is_taken_and_another_of_that_name_refused() -> None:
    raw = switched(sigmas=[0.2])
    raw["views"] = {"grain": {"type": "noise", "parameters": {"sigma": 0.2}}}
    assert planning.load(raw).config.benchmarks["shapes-test"].views == ("original", "blank", "grain")
    raw["views"] = {"noise-0.2": {"type": "blur"}}
    with pytest.raises(
        UserError, match=r"`views\.noise-0\.2`: found another view, expected Gaussian noise of sigma 0\.2"
    ):
        planning.load(raw)


@pytest.mark.parametrize(
    ("controls", "expected"),
    [
        ({"prompts": ["Where is it?"]}, r"key `controls\.prompts\.0`: expected text that contains `\{question\}`"),
        ({"sigma": [0.1]}, r"key `controls\.sigma`: unknown key.*did you mean `sigmas`"),
        ({"sigmas": [0]}, r"key `controls\.sigmas\.0`: input should be greater than 0"),
        ({"n": -1}, r"key `controls\.n`: input should be greater than or equal to 0"),
    ],
)
def test_mistakes_are_named(controls: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        planning.load(switched(**controls))


def test_experiments_with_the_same_lists_and_budget_share_a_twin() -> None:
    plan = planning.load(switched())
    assert plan.policies == ["tiny", "dpo", "perpo", TWIN]
    assert plan.counterpart("dpo") == plan.counterpart("perpo") == TWIN
    assert plan.counterpart(TWIN) is None
    ours, theirs = plan.training(TWIN), plan.training("dpo")
    assert (ours.method, ours.parameters) == ("sft", {"source": "best_of_n"})
    assert ours.model_copy(update={"method": "dpo", "parameters": theirs.parameters}) == theirs
    assert plan.preferences(TWIN) == plan.preferences("dpo")


def test_another_budget_or_other_lists_have_a_twin_of_their_own() -> None:
    raw = switched()
    raw["trainings"]["dpo"]["learning_rate"] = 5e-5
    raw["trainings"]["perpo"]["micro_batch_size"] = 4  # untracked
    raw["selections"]["wide"] = {**raw["selections"]["ranked"], "min_margin": 0.1}
    raw["experiments"]["wide"] = {**raw["experiments"]["perpo"], "selection": "wide"}
    plan = planning.load(raw)
    assert {e: plan.counterpart(e) for e in ("dpo", "perpo", "wide")} == {
        "dpo": TWIN,
        "perpo": f"{TWIN}-perpo",
        "wide": "sft-on-best-n20-wide",
    }
    assert plan.training(TWIN).learning_rate == 5e-5
    assert plan.config.experiments["sft-on-best-n20-wide"].selection == "wide"


def test_a_sweep_of_a_methods_parameters_has_one_twin() -> None:
    raw = switched()
    raw["trainings"]["perpo"]["parameters"] = {"beta": [0.05, 0.1, 0.2], "gamma": 0.5}
    plan = planning.load(raw)
    assert [p for p in plan.policies if p.startswith("sft")] == [TWIN]
    assert len({plan.counterpart(f"perpo-beta_{beta}") for beta in (0.05, 0.1, 0.2)}) == 1


def test_an_experiment_that_is_the_twin_already_is_taken_and_tested_on_what_the_others_are() -> None:
    raw = switched(FULL)
    raw["benchmarks"]["more"] = dict(raw["benchmarks"]["shapes-full-test"])
    raw["experiments"]["perpo"]["benchmarks"] = ["shapes-full-test", "more"]
    plan = planning.load(raw)
    assert set(plan.config.experiments) == set(FULL["experiments"])
    assert {plan.counterpart(e) for e in ("sft", "dpo", "lipo", "lipo-lambda", "perpo")} == {"sft-best"}
    assert plan.benchmarks("sft-best") == ["shapes-full-test", "more"]
    assert plan.benchmarks("dpo") == ["shapes-full-test"]


def test_a_twin_may_be_unwanted() -> None:
    plan = planning.load(switched(FULL, sft_on_best=False))
    assert plan.counterpart("dpo") is None
    assert plan.without_counterpart() == {}


def test_pairs_and_rounds_have_no_twin_and_say_why() -> None:
    said = planning.load(switched(P2DPO)).without_counterpart()
    assert "it learns from pairs" in said["p2dpo"]
    assert "dpo" not in said
    plan = planning.load(switched(ROUNDS))
    assert set(plan.controlled) == {"grpo@4", "papo_g@4", "cppo@4"}  # the last rounds
    assert "it learns in rounds" in plan.without_counterpart()["cppo@4"]
    assert plan.policies == planning.load(ROUNDS).policies


def settings_of(plan: Plan, policy: str) -> tuple[Any, Any]:
    rules = ("plan_benchmarks", "evaluate_policy")
    asked, evaluated = (job_of(plan, rule, {"policy": policy}).settings for rule in rules)
    return asked, evaluated


def test_other_prompts_concern_base_models_only() -> None:
    ours, theirs = planning.load(switched()), planning.load(switched(prompts=["Well? {question}"]))
    for policy in ("dpo", "perpo", TWIN):
        assert settings_of(ours, policy) == settings_of(theirs, policy)
        assert all(not block.prompts for block in benchmark_blocks(ours, policy).values())
    assert settings_of(ours, "tiny") != settings_of(theirs, "tiny")


def test_without_prompts_trained_policies_are_asked_the_same_as_with_them() -> None:
    raw = copy.deepcopy(DEMO)
    raw["benchmarks"]["shapes-test"]["prompts"] = ["Well? {question}"]
    assert settings_of(planning.load(DEMO), "perpo") == settings_of(planning.load(raw), "perpo")
