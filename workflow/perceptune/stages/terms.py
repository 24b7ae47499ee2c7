"""Reference log-probabilities of preference lists, once for every method, beta and gamma."""

from __future__ import annotations

from pathlib import Path

from perceptune.contracts.config import ModelBlock, ViewBlock
from perceptune.contracts.lineage import lineage, plugin
from perceptune.contracts.tables import write_table
from perceptune.engines.lists import Encoder, all_under
from perceptune.engines.reference import reference_logps
from perceptune.models.families import family_of
from perceptune.models.loading import load_model, load_processor
from perceptune.stages.lists import kept_lists, view_ops

LISTS_AT_ONCE = 16
BUDGET = 4096
"""Response tokens per packed row."""


def run(
    *,
    preferences: Path,
    examples: Path,
    terms: Path,
    model: ModelBlock,
    weights: str,
    view: str,
    views: dict[str, ViewBlock],
    halvings: int = 0,
) -> None:
    """Writes the `terms` table: per-token log-probabilities of all responses of the kept lists under the base weights.

    `view` is one that the lists bring themselves, or one of the config's blocks `views`. `weights` is the digest of the
    model's files. Each of the `halvings` halves what is computed at once, not the result.
    """
    lists = [one for one in kept_lists(preferences, examples, [view], views) if view in one.views]
    loaded = load_model(model)
    encoder = Encoder(family_of(model), load_processor(model), loaded, all_under(view), BUDGET >> halvings)
    found = dict(reference_logps(loaded, encoder, lists, max(LISTS_AT_ONCE >> halvings, 1)))
    rows = [
        {"group_id": one.group_id, "term": "reference", "view": view, "logprobs": found[one.group_id]} for one in lists
    ]
    parameters = {"model": model.model_dump(mode="json"), "weights": weights, "view": view}
    inputs = {"preferences": preferences, "examples": examples}
    plugins = [
        plugin("family", model.family),
        *(plugin("view", op) for op in view_ops(one.views[view] for one in lists)),
    ]
    write_table(terms, "terms", rows, lineage("terms", parameters, inputs, plugins))
