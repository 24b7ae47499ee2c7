"""Trainings on ranked lists with a tiny model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from perceptune.contracts.config import LoraBlock, ModelBlock, TrainingBlock
from perceptune.engines.training import trainer
from perceptune.engines.training.groups import Encoder, RankedList, all_under
from perceptune.engines.training.stored_logprobs import stored_terms
from perceptune.engines.training.trackers import Run
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, load_processor
from torch import Tensor
from transformers import PreTrainedModel

from tests.feeds import fed
from tests.parity.adapters import trained_weights
from tests.plugins import METHODS


def with_reference(model: ModelBlock, lists: Sequence[RankedList]) -> list[RankedList]:
    """The lists with the reference's log-probs of all answers under all views."""
    base = load_model(model)
    reference: dict[str, dict[str, list[float]]] = {one.group_id: {} for one in lists}
    for view in lists[0].views:
        encoder = Encoder(family_of(model), load_processor(model), base, all_under(view))
        for group, found in stored_terms(base, fed(encoder, lists), 4):
            reference[group][view] = [sum(values) for values in found.logps]
    return [replace(one, reference=reference[one.group_id]) for one in lists]


def encoder_of(
    model: ModelBlock,
    base: PreTrainedModel,
    method: Any,
    parameters: Any,
    view: str = "original",
    budget: int | None = None,
) -> Encoder:
    """Encodes what a method queries of each list."""

    def looks(one: RankedList) -> Any:
        return method.looks(one.rewards, one.pairs, parameters, view)

    return Encoder(family_of(model), load_processor(model), base, looks, budget)


def trained(
    model: ModelBlock,
    lists: Sequence[RankedList],
    folder: Path,
    method: str = "perpo",
    run: Run | None = None,
    **changes: Any,
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """(the weights that were trained, the log)."""
    settings: dict[str, Any] = {
        "method": method, "lora": LoraBlock(r=4, alpha=8), "learning_rate": 5e-3, "batch_size": 4, "micro_batch_size": 4,
        "epochs": 2, "save_steps": 2,
    }  # fmt: skip
    block = TrainingBlock(**{**settings, **changes})
    base, chosen = load_model(model), METHODS[block.method]
    parameters = chosen.Parameters()
    adapted = trainer.with_adapter(base, block, family_of(model), model.path)
    encoder = encoder_of(model, base, chosen, parameters, block.view)
    log = trainer.train(
        adapted, fed(encoder, lists), method=chosen, parameters=parameters, block=block, dtype="float32",
        checkpoints=folder, fingerprint="same", run=run,
    )  # fmt: skip
    return trained_weights(adapted), log
