"""Stored log-probs of a round: equal to separate forward passes, and to those of the first step."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from perceptune.contracts.config import ModelBlock
from perceptune.engines.training import stored_logprobs, trainer
from perceptune.engines.training.groups import Rollout
from perceptune.engines.training.stored_logprobs import stored_terms
from perceptune.models.loading import load_model, load_trained

from tests.feeds import fed
from tests.parity.adapters import largest_difference, trained_weights
from tests.parity.separate import SeparatePasses
from tests.plugins import METHODS

from .rounds import ALL_PARTS, a_round, encoder_for, first_drawn, fresh, with_terms

pytestmark = pytest.mark.slow


def test_stored_terms_equal_separate_passes(model: ModelBlock, bare: list[Rollout]) -> None:
    """Of a policy with an adapter, compared with float64 passes of one sequence each."""
    policy = fresh(model, 0.02)
    encoder = encoder_for(model, policy.get_base_model(), "masked", 9)
    found = dict(stored_terms(policy, fed(encoder, bare), 2, entropies=True))
    without = dict(stored_terms(policy, fed(encoder, bare), 5))
    plain = SeparatePasses(model, policy)
    for one in bare:
        numbers = found[one.group_id]
        assert without[one.group_id].entropies is None
        assert numbers.entropies is not None
        for place, answer in enumerate(one.responses):
            with torch.no_grad():
                logps = plain.logps(one, place, "masked")
            assert numbers.logps[place] == pytest.approx([float(logps[t, a]) for t, a in enumerate(answer)], abs=1e-4)
            assert without[one.group_id].logps[place] == pytest.approx(numbers.logps[place], abs=1e-5)
            assert numbers.entropies[place] == pytest.approx((-(logps.exp() * logps).sum(1)).tolist(), abs=1e-4)


ALL = sorted(name for name, method in METHODS.items() if method.groups == "rollouts")


@pytest.mark.parametrize("name", ALL)
def test_the_first_ratio_is_1_and_all_that_is_watched_is_logged(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path, name: str
) -> None:
    """Stored log-probs come from different batches than the training pass."""
    _, (log, stopped) = a_round(model, rollouts, tmp_path, name)
    assert stopped is None
    assert len(log) == 3
    assert log[0]["policy_gap"] < 1e-6
    assert log[0]["largest_policy_gap"] < 1e-5
    assert log[0]["ratio"] == pytest.approx(1, abs=1e-6)
    assert log[1]["policy_gap"] > 1e-4
    assert log[0]["engine_gap"] == pytest.approx(0.01, abs=1e-6)
    first = [reward for one in first_drawn(rollouts, 1, 2) for reward in one.rewards]
    assert log[0]["reward"] == pytest.approx(np.mean(first))
    always = {"loss", "grad_norm", "learning_rate", "response_tokens", "tokens_per_second", "data_wait_seconds"}
    method: Any = METHODS[name]
    assert always <= log[0].keys() <= {*always, *method.watched, "step", "epoch"}
    assert sum(entry["response_tokens"] for entry in log) == sum(one.tokens for one in rollouts)


@pytest.mark.parametrize(("name", "changes"), [("grpo", {}), ("cppo", {}), ("grpo", {"lora": ALL_PARTS})])
def test_the_first_ratio_is_1_in_mixed_precision(
    model: ModelBlock,
    bare: list[Rollout],
    tmp_path: Path,
    name: str,
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Mixed precision as on a GPU, run on the CPU: exactly 1 if passes have the same size,
    otherwise within bfloat16 precision.
    """
    arguments = trainer.TrainingArguments
    monkeypatch.setattr(trainer, "TrainingArguments", lambda **given: arguments(**{**given, "bf16": True}))
    monkeypatch.setattr(stored_logprobs, "mixed_precision", lambda dtype: torch.autocast("cpu", getattr(torch, dtype)))
    half = model.model_copy(update={"dtype": "bfloat16"})
    groups = with_terms(half, fresh(half, 0.02, **changes), bare, at_once=1, autocast="bfloat16")
    policy = fresh(half, 0.02, **changes)
    _, (log, _) = a_round(half, groups, tmp_path, name, policy=policy, batch_size=6, micro_batch_size=1)
    assert log[0]["largest_policy_gap"] == 0
    assert log[0]["ratio"] == 1


def test_stored_numbers_of_other_answers_are_refused(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path
) -> None:
    groups = [replace(rollouts[0], stored=rollouts[1].stored)]
    with pytest.raises(ValueError, match="group `g0`: old original log-probabilities do not match its responses"):
        a_round(model, groups, tmp_path)


@pytest.mark.parametrize(
    ("dtype", "changes"),
    [("float32", {}), ("bfloat16", {}), ("float32", {"lora": ALL_PARTS}), ("bfloat16", {"lora": ALL_PARTS})],
)
def test_a_loaded_adapter_is_like_a_fresh_one(
    model: ModelBlock, tmp_path: Path, dtype: Any, changes: dict[str, Any]
) -> None:
    """Moved by less than 16 bits resolve."""
    here = model.model_copy(update={"dtype": dtype})
    new = fresh(here, 1e-5, **changes)
    new.save_pretrained(tmp_path)
    loaded = load_trained(load_model(here), tmp_path)
    frozen = load_trained(load_model(here), tmp_path, trainable=False)

    def formats(policy: PeftModel) -> dict[str, tuple[torch.dtype, bool]]:
        return {name: (p.dtype, p.requires_grad) for name, p in policy.named_parameters()}

    assert formats(loaded) == formats(new)
    assert {dtype for dtype, learns in formats(loaded).values() if learns} == {torch.float32}
    assert not any(learns for _, learns in formats(frozen).values())
    assert largest_difference(trained_weights(loaded), trained_weights(new)) == 0
    assert loaded.peft_config["default"].base_model_name_or_path == model.path
    assert not loaded.peft_config["default"].inference_mode
