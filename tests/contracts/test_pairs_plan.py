"""Plans of experiments that learn from pairs of responses."""

from typing import Any

import pytest
from perceptune.contracts.errors import UserError
from perceptune.core.methods.method import Stored
from perceptune.planning import policies as planning
from perceptune.planning.jobs.evaluation import noise_levels
from perceptune.planning.views import views_trained

from .demo_configs import DEMO, P2DPO, edited


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("views.noisy.type", "nois", "key `views.noisy.type`: `nois` is not defined, expected one of"),
        ("views.noisy.parameters", {"sigmma": 1}, "key `views.noisy.parameters.sigmma`: unknown key; did you mean `sigma`?"),
        ("views.noisy.crop", "salient", "key `views.noisy.crop`: `noise` does not use a crop, got `salient`"),
        ("views.enhanced.crop", None, "key `views.enhanced.crop`: `enhanced` needs a crop, got `None`"),
        ("views.blank", {"type": "blank"}, "view `blank` is built in, expected another name"),
        ("crops.salient.attention_map", "first", "key `crops.salient.attention_map`: `first` is not defined"),
        ("filters.central.clip_score", "vit", "key `filters.central.clip_score`: `vit` is not defined"),
        ("benchmarks.shapes-p2-test.views", ["original", "noise-0.3"], "key `benchmarks.shapes-p2-test.views`: `noise-0.3` is not defined"),
        ("benchmarks.shapes-p2-test.attention_map", "x", "key `benchmarks.shapes-p2-test.attention_map`: `x` is not defined"),
        ("pair_generations.self-made.focus.chosen.view", "noisy", "key `pair_generations.self-made.focus.chosen.view`: `noisy`, expected a view with a crop"),
        ("pair_generations.self-made.robust.rejected.view", "enhanced", "key `pair_generations.self-made.robust.rejected.view`: `enhanced`, expected a view without a crop"),
        ("pair_generations.self-made", {}, "key `pair_generations.self-made`: found neither `focus` nor `robust`, expected at least one"),
        ("pair_generations.n8", P2DPO["pair_generations"]["self-made"], "`n8` is both a sampling and a pair_generation"),
        ("trainings.dpo.view", "enhanced", "key `trainings.dpo.view`: `enhanced` needs a crop; ranked lists have none, crops are available only for pairs"),
        ("experiments.p2dpo.training", "dpo", "key `experiments.p2dpo`: method `dpo` learns from lists, expected `sampling`, `reward` and `selection`"),
        ("experiments.dpo.training", "p2dpo", "key `experiments.dpo`: method `p2dpo` learns from pairs, expected `pair_generation` and `filter`"),
        ("experiments.dpo.pair_generation", "self-made", "has `sampling`, `reward`, `selection`, `pair_generation`, expected either `sampling`, `reward` and `selection`, or `dataset_preference`, or `pair_generation` and `filter`, or `rollout`, `reward` and `batch_selection`"),
        ("experiments.p2dpo.filter", None, "has `pair_generation`, expected either"),
    ],
)  # fmt: skip
def test_incompatible_blocks_of_pairs(path: str, value: Any, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        planning.load(edited(path, value, P2DPO))
    assert expected in str(caught.value)


def test_an_ablation_needs_fewer_stored_log_probs() -> None:
    plan = planning.load(P2DPO)
    views = {e: [stored.view for stored in plan.stored_logprobs(e)] for e in plan.config.experiments}
    assert views == {
        "dpo": ["original"],
        "p2dpo": ["original", "enhanced", "degraded", "noise"],
        "p2dpo-static": ["original", "enhanced", "degraded", "noise"],
        "p2dpo-no-focus": ["noise"],
        "p2dpo-no-robust": ["original", "enhanced", "degraded"],
        "p2dpo-no-calibration": ["original", "noise"],
    }
    noise = Stored("reference", "noise")
    four_bits = planning.load(edited("trainings.p2dpo.quantisation", "nf4", P2DPO)).stored_logprobs("p2dpo")[noise]
    assert four_bits == plan.stored_logprobs("p2dpo")[noise].replace("@noise", "@noise~nf4")  # of another base model
    assert plan.stored_logprobs("p2dpo")[noise] == plan.stored_logprobs("p2dpo-no-focus")[noise]  # the same file


def test_noise_levels_are_those_of_the_benchmarks() -> None:
    levels = noise_levels(planning.load(P2DPO))
    assert levels == {"original": 0.0, "noise-0.05": 0.05, "noise-0.1": 0.1, "noise-0.2": 0.2, "noise-0.4": 0.4}
    assert noise_levels(planning.load(DEMO)) == {}


def test_jobs_of_a_pair_method_get_the_views_behind_its_responses() -> None:
    plan = planning.load(P2DPO)
    assert views_trained(plan, "p2dpo") == ["original", "enhanced", "degraded", "noisy"]
    assert views_trained(plan, "p2dpo-no-focus") == ["original", "noisy"]
