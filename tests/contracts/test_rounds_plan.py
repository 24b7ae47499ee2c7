"""Plans of experiments in rounds: every round is a policy."""

import copy
from typing import Any

import pytest
from perceptune.contracts.errors import UserError
from perceptune.planning import policies as planning
from perceptune.planning.benchmarks import benchmark_settings

from .demo_configs import P2DPO, ROUNDS, edited


def test_every_round_is_a_policy_that_learns_from_the_previous_one() -> None:
    plan = planning.load(ROUNDS)
    assert plan.rounds("grpo") == ["grpo@1", "grpo@2", "grpo@3", "grpo@4"]
    assert [plan.behaviour_policy(policy) for policy in plan.rounds("grpo")] == ["tiny", "grpo@1", "grpo@2", "grpo@3"]
    assert [plan.answered_round(policy) for policy in ("tiny", "grpo@1", "grpo@3")] == [1, 2, 4]
    assert plan.base("cppo@3") == "tiny"
    assert plan.policies == ["tiny", *(policy for e in ("grpo", "papo_g", "cppo") for policy in plan.rounds(e))]


def test_methods_share_the_answers_of_the_first_round_only() -> None:
    plan = planning.load(ROUNDS)
    first = {plan.round_responses(f"{e}@1") for e in ("grpo", "papo_g", "cppo")}
    assert len(first) == 1
    assert len({plan.preferences(f"{e}@1") for e in ("grpo", "papo_g", "cppo")}) == 1
    assert len({plan.round_responses(f"{e}@2") for e in ("grpo", "papo_g", "cppo")}) == 3
    assert len(set(plan.stored_logprobs("papo_g@2").values())) == 1  # one table, so that the model is loaded once


def test_the_number_of_rounds_is_no_setting_of_any_of_them() -> None:
    more = copy.deepcopy(ROUNDS)
    more["experiments"]["grpo"]["rounds"] = 7
    ours, theirs = planning.load(ROUNDS), planning.load(more)
    for policy in ours.rounds("grpo"):
        assert ours.training(policy) == theirs.training(policy)
        assert ours.stored_logprobs(policy) == theirs.stored_logprobs(policy)
    assert benchmark_settings(ours, "grpo@4") == benchmark_settings(theirs, "grpo@4")


def test_only_some_rounds_are_tested_and_always_the_last() -> None:
    config = copy.deepcopy(ROUNDS)
    config["experiments"]["grpo"] |= {"rounds": 5, "evaluate_every": 2}
    plan = planning.load(config)
    assert plan.tested("grpo") == ["grpo@2", "grpo@4", "grpo@5"]
    assert len([policy for policy in plan.trained if policy.startswith("grpo@")]) == 5


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("rollouts.g8.temperature", 0.7, "key `rollouts.g8`: temperature 0.7, expected 1: probability ratios assume the sampling distribution"),
        ("exports", {"out": {"experiment": "grpo@5", "format": "trl"}}, "`grpo@5` is not defined, expected one of 'cppo', 'grpo', 'grpo@1', 'grpo@4', 'papo_g'"),
        ("exports", {"out": {"experiment": "grpo@01", "format": "trl"}}, "`grpo@01` is not defined, expected one of"),
        ("rollouts.g8.n", 1, "key `rollouts.g8.n`: input should be greater than or equal to 2, got `1`"),
        ("rollouts.g8.view", "blank", "key `experiments.grpo`: samples under view `blank` but trains under `original`, expected the same"),
        ("trainings.grpo.scheduler", "cosine", "key `trainings.grpo.scheduler`: expected `scheduler: constant` in rounds"),
        ("trainings.grpo.warmup_ratio", 0.1, "key `trainings.grpo.warmup_ratio`: expected `warmup_ratio: 0` in rounds"),
        ("trainings.grpo.lora.dropout", 0.1, "key `trainings.grpo.lora.dropout`: expected `lora.dropout: 0` in rounds"),
        ("trainings.grpo.limits", {"old_kll": [None, 1]}, "key `trainings.grpo.limits.old_kll`: `old_kll` is not defined"),
        ("trainings.grpo.limits", {"perception_kl": [None, 1]}, "`perception_kl` is not defined"),
        ("trainings.papo_g.parameters", {"mask": "maskd"}, "key `trainings.papo_g.parameters.mask`: view `maskd` is not defined; did you mean `masked`?"),
        ("trainings.papo_g.parameters", {"mask": "maskd", "gamma": 0}, "key `trainings.papo_g.parameters.mask`: view `maskd` is not defined; did you mean `masked`?"),
        ("trainings.papo_g.parameters", {"mask": "original"}, "key `trainings.papo_g.parameters.mask`: `original` is the training view, expected a different view"),
        ("views.masked", {"type": "noise", "parameters": {"side": 64}}, "key `trainings.papo_g`: view `masked` (`noise`) may change the image size, expected a view that keeps it"),
        ("views.removing", {"choice": ["preserving"]}, "key `views.removing.choice`: `preserving` has a `choice` of its own, expected views with a `type`"),
        ("views.removing", {"choice": ["cover"]}, "key `views.removing.choice`: `cover` is not defined"),
        ("views.removing", {"type": "zoom", "choice": ["covered"]}, "expected either `type` or `choice`"),
        ("experiments.grpo.rounds", None, "`rounds` and `rollout` go together"),
        ("experiments.grpo.batch_selection", None, "has `reward`, `rollout`, expected either"),
        ("experiments.grpo.batch_selection", "al", "key `experiments.grpo.batch_selection`: `al` is not defined, expected one of 'all'"),
        ("trainings.grpo.method", "dpo", "key `experiments.grpo`: method `dpo` learns from lists, expected `sampling`, `reward` and `selection`"),
        ("rollouts.g8.questions", 0, "key `rollouts.g8.questions`: input should be greater"),
    ],
)  # fmt: skip
def test_incompatible_blocks_of_rounds(path: str, value: Any, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        planning.load(edited(path, value, ROUNDS))
    assert expected in str(caught.value)


def test_rounds_have_no_crops() -> None:
    config = copy.deepcopy(P2DPO)
    config |= {key: ROUNDS[key] for key in ("rollouts", "batch_selections")}
    config["trainings"]["papo_g"] = {**ROUNDS["trainings"]["papo_g"], "parameters": {"mask": "degraded"}}
    with pytest.raises(
        UserError,
        match=r"key `trainings\.papo_g`: view `degraded` needs a crop; rounds have none, crops are available only for pairs",
    ):
        planning.load(config)


def test_a_wrong_parameter_of_a_method_with_rounds_is_named() -> None:
    config = copy.deepcopy(ROUNDS)
    config["trainings"]["papo_g"]["parameters"] = {"gama": 1}
    with pytest.raises(UserError, match=r"key `trainings\.papo_g\.parameters\.gama`: unknown key"):
        planning.load(config)


def test_any_round_can_be_exported() -> None:
    named = {"last": "grpo", "first": "grpo@1", "third": "grpo@3"}
    config = edited("exports", {n: {"experiment": e, "format": "trl"} for n, e in named.items()}, ROUNDS)
    plan = planning.load(config)
    assert [plan.exported(n) for n in named] == ["grpo@4", "grpo@1", "grpo@3"]


def test_only_rounds_have_limits() -> None:
    with pytest.raises(UserError, match=r"key `trainings\.dpo\.limits`: method `dpo` has no rounds; remove this key"):
        planning.load(edited("trainings.dpo.limits", {"loss": [0, 1]}))
