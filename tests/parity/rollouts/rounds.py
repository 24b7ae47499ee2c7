"""Rounds of GRPO and derived methods on a tiny model. Run as a script, one of several processes that
train a round.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from perceptune.contracts.config import LoraBlock, ModelBlock, TrainingBlock
from perceptune.contracts.seeds import derived_seed
from perceptune.core.methods.rollout import RolloutMethod
from perceptune.core.views.view import Recipe
from perceptune.engines.training.groups import Encoder, PartEncoder, Rollout, all_under
from perceptune.engines.training.rollout_trainer import RoundLog, train_round, views_of
from perceptune.engines.training.stored_logprobs import stored_terms
from perceptune.engines.training.trainer import with_adapter
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, load_processor
from torch import Tensor

from tests.feeds import fed
from tests.parity.adapters import EVERYTHING, moved, trained_weights
from tests.plugins import METHODS

VIEWS = {
    "original": Recipe("original"),
    "masked": Recipe("masked", {}, 5),
    "preserving": Recipe("noise", {"sigma": 0.05}, 3),
    "removing": Recipe("rectangles", {}, 7),
}
LONGEST = 8
ALL_PARTS = EVERYTHING.model_copy(update={"use_dora": False})
"""Without DoRA, which cannot scale the rows of zeros of the bundled model."""
STRONG = {"contrast": 0.5, "temperature": 1.0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "grpo": ("grpo", {"beta": 0.1}),
    "per response": ("grpo", {"aggregation": "seq_mean_token_mean"}),
    "by longest": ("grpo", {"aggregation": "seq_mean_token_sum_norm"}),
    "by chunk": ("grpo", {"aggregation": "chunk_token_mean", "chunk": 3}),
    "dapo": ("dapo", {}),
    "token correction": ("grpo", {"correction": "token_truncate", "correction_cap": 1.01}),
    "papo": ("papo_g", {"gamma": 0.2, "eta": 0.3, "eta_masked": 0.3}),
    "papo live": ("papo_g", {"gamma": 0.2, "eta": 0.3, "eta_masked": 0.3, "masked_entropy": "live"}),
    "papo recomputed": (
        "papo_g",
        {"gamma": 0.2, "eta": 0.1, "eta_masked": 0.3, "masked_entropy": "live", "masked_kl": "live"},
    ),
    "papo per response": ("papo_d", {"aggregation": "seq_mean_token_mean"}),
    "cppo k3": ("cppo", STRONG),
    "cppo k1": ("cppo", {**STRONG, "divergence": "k1"}),
    "cppo full": ("cppo", {**STRONG, "divergence": "full", "gate": False}),
    "cppo all tokens": ("cppo", {**STRONG, "tokens": "all", "aggregation": "seq_mean_token_mean"}),
    "cppo raw": ("cppo", {**STRONG, "score": "difference", "share": 0.2}),
}


def block(**changes: Any) -> TrainingBlock:
    settings: dict[str, Any] = {
        "method": "grpo", "lora": LoraBlock(r=4, alpha=8), "learning_rate": 5e-3, "batch_size": 2, "micro_batch_size": 2,
        "save_steps": 1, "scheduler": "constant",
    }  # fmt: skip
    return TrainingBlock(**{**settings, **changes})


def encoder_for(model: ModelBlock, base: Any, view: str = "original", budget: int | None = None) -> Encoder:
    return Encoder(family_of(model), load_processor(model), base, all_under(view), budget)


def with_terms(
    model: ModelBlock,
    policy: Any,
    groups: Sequence[Rollout],
    views: Sequence[str] = tuple(VIEWS),
    at_once: int = 3,
    autocast: str | None = None,
) -> list[Rollout]:
    """The groups with all stored log-probs; the engine's are slightly lower than the trainer's."""
    base = load_model(model)
    stored: dict[str, dict[Any, Any]] = {one.group_id: {} for one in groups}
    asked = [("reference", base, "original"), *(("old", policy, view) for view in views)]
    for term, answering, view in asked:
        encoder = encoder_for(model, base, view)
        for group, found in stored_terms(answering, fed(encoder, groups), at_once, entropies=True, autocast=autocast):
            stored[group][term, view] = found
    made = []
    for one in groups:
        old = stored[one.group_id]["old", "original"].logps
        sampled = [[value - 0.01 for value in row] for row in old]
        made.append(replace(one, sampled=sampled, stored=stored[one.group_id]))
    return made


def fresh(model: ModelBlock, spread: float = 0.0, **changes: Any) -> PeftModel:
    """A new adapter; with `spread`, one that differs from the base model."""
    policy = with_adapter(load_model(model), block(**changes), family_of(model), model.path)
    return moved(policy, spread) if spread else policy


def a_round(
    model: ModelBlock,
    groups: Sequence[Rollout],
    folder: Path,
    name: str = "grpo",
    given: dict[str, Any] | None = None,
    policy: PeftModel | None = None,
    number: int = 1,
    budget: int | None = None,
    files: dict[str, Path] | None = None,
    **changes: Any,
) -> tuple[dict[str, Tensor], RoundLog]:
    """(the adapter, the log) of a round of method `name` with the parameters `given`.

    `files`: those of the optimiser state. `changes`: of the training block.
    """
    method = METHODS[name]
    assert isinstance(method, RolloutMethod)
    policy = policy or fresh(model)
    parameters = method.Parameters.model_validate(given or {})
    encoder = encoder_for(model, policy.get_base_model(), budget=budget)
    log = train_round(
        policy, fed(PartEncoder(encoder, views_of(method, parameters, "original")), groups), method=method,
        parameters=parameters, block=block(**{"method": name, **changes}), round=number,
        longest=LONGEST, dtype="float32", checkpoints=folder, fingerprint="same", **(files or {}),
    )  # fmt: skip
    return trained_weights(policy), log


def first_drawn(groups: Sequence[Rollout], number: int, count: int) -> list[Rollout]:
    """The first groups of a round, in the order that the Trainer draws."""
    generator = torch.Generator().manual_seed(derived_seed(block().seed, number) % 2**32)
    return [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()][:count]


def main(folder: Path) -> None:
    """Trains the round described in `job.pt`; the first process writes `done.pt`."""
    model, groups, name, given = torch.load(folder / "job.pt", weights_only=False)
    adapter, (log, _) = a_round(model, groups, folder / "checkpoints", name, given)
    if os.environ["RANK"] == "0":
        torch.save((adapter, log), folder / "done.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
