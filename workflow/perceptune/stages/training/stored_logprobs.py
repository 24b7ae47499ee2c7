"""Stored log-probs of the reference model, and of the policy before a round."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from perceptune.contracts.config import ModelBlock, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import module_of
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.terms import TERMS
from perceptune.core.methods.method import Stored
from perceptune.engines.training.groups import Encoder, StoredTokens, all_under
from perceptune.engines.training.stored_logprobs import stored_terms
from perceptune.models.loading import load_model, load_trained
from perceptune.stages.training.encodable import Prompts
from perceptune.stages.training.groups import kept_lists, view_ops

AT_ONCE = {False: (16, 4096), True: (1, 8192)}
"""Groups per pass, and response tokens per packed row, by `of_round`.

For rounds, they match training: with 16-bit weights, other shapes round differently, and the first
ratios would not be 1.
"""


def run(
    *,
    preferences: Path,
    examples: Path,
    terms: Path,
    model: ModelBlock,
    weights: str,
    stored: Sequence[Stored],
    adapter: Path | None,
    views: dict[str, ViewBlock],
    of_round: bool = False,
    saliencies: Mapping[str, Path] | None = None,
    halvings: int = 0,
) -> None:
    """Writes the `terms` table: per-token log-probs of all kept responses, for each of `stored`.

    `reference` is the base model; `old` is the policy, which is the base model if there is no
    `adapter`. A view is either stored with the groups or one of the config's blocks `views`. Groups
    `of_round` also have entropies. `saliencies` are the tables that the views need, by block.
    `weights` is the digest of the model's files. Each of the `halvings` halves the batch size,
    without changing the result. Raises `UserError` for a log-prob that is NaN or infinite.
    """
    shown = list(dict.fromkeys(s.view for s in stored))
    groups_at_once, budget = AT_ONCE[of_round]
    prompts = Prompts(model)
    lists = kept_lists(preferences, examples, shown, views, prompts, redrawn=of_round, saliencies=saliencies)
    found: dict[Stored, dict[str, StoredTokens]] = {}
    source: dict[Stored, Stored] = {one: Stored("reference", one.view) if adapter is None else one for one in stored}
    if lists:
        loaded = load_model(model)
        policy = loaded if adapter is None else load_trained(loaded, adapter, trainable=False)
        for one in dict.fromkeys(source.values()):
            encoder = Encoder(prompts.family, prompts.processor, loaded, all_under(one.view), budget >> halvings)
            shown_lists = [group for group in lists if one.view in group.views]
            plain = one.term == "reference" and adapter is not None
            with policy.disable_adapter() if plain else nullcontext():
                found[one] = dict(
                    stored_terms(
                        policy,
                        encoder,
                        shown_lists,
                        max(groups_at_once >> halvings, 1),
                        entropies=of_round,
                        autocast=model.dtype if of_round else None,
                    )
                )
    for one, groups in found.items():
        for group_id, tokens in groups.items():
            if not all(math.isfinite(x) for response in tokens.logps for x in response):
                raise UserError(
                    f"group `{group_id}`, view `{one.view}`: the {one.term}'s log-probs are NaN or infinite",
                    f"check the weights of `{model.path}`; `dtype: float16` can overflow, use `bfloat16`",
                )
    rows = [
        {"group_id": group.group_id, "term": one.term, "view": one.view}
        | {"logprobs": numbers.logps, "entropies": numbers.entropies}
        for one in stored
        for group in lists
        if (numbers := found[source[one]].get(group.group_id)) is not None
    ]
    parameters = {"model": model.model_dump(mode="json"), "weights": weights, "stored": [list(s) for s in stored]}
    parameters |= {"views": {name: block.model_dump(mode="json") for name, block in views.items()}}
    inputs = {"preferences": preferences, "examples": examples}
    inputs |= {f"saliency {name}": path for name, path in (saliencies or {}).items()}
    if adapter is not None:
        inputs["adapter"] = adapter / "adapter_model.safetensors"
    ops = view_ops(group.views[view] for view in shown for group in lists if view in group.views)
    plugins = [module_of("family", model.family), *(module_of("view", op) for op in ops)]
    write_table(terms, TERMS, rows, lineage("training.stored_logprobs", parameters, inputs, plugins))
