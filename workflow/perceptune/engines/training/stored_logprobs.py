"""Stored log-probs: values of response tokens that are constant during training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from perceptune.contracts.progress import Progress
from perceptune.engines.training import branch_attention
from perceptune.engines.training.feeding import Feed, Layout
from perceptune.engines.training.groups import Batch, StoredTokens
from perceptune.engines.training.image_features import FeatureCache
from perceptune.engines.training.shared_prefix import logps_of, token_states, values_of
from perceptune.models.adapters import leave_casts_to_autocast
from perceptune.models.placement import autocast_dtype, bare, mixed_precision


def stored_terms(
    model: PreTrainedModel | PeftModel,
    feed: Feed[Batch],
    batch_size: int,
    *,
    source: int = 0,
    lengths: Sequence[int] | None = None,
    entropies: bool = False,
    autocast: str | None = None,
    features: FeatureCache | None = None,
) -> Iterator[tuple[str, StoredTokens]]:
    """(group id, its float32 values) of the lists of a source of `feed` under `model` with its adapter,
    if any, in any order.

    `lengths`: response tokens of each list, if known without reading the lists, which are then read
    batch by batch. `autocast`: dtype of a model block. The pass then uses mixed precision as training
    does, so that the first ratio of a round is 1. `features`: where to look for features of images. The
    encoder must query all responses of a list, once. Lists of similar length are packed together; the
    values do not depend on it beyond rounding.
    """
    model.eval()
    if isinstance(model, PeftModel) and autocast_dtype(autocast) is not None:
        leave_casts_to_autocast(model)
    layout = Layout(branch_attention.suits(bare(model)), features)
    tokens = [one.tokens for one in feed.sources[source].groups] if lengths is None else lengths
    order = sorted(range(len(tokens)), key=tokens.__getitem__)
    places = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
    with Progress("log-probabilities", len(order), "lists") as progress:
        for packed, lists, _ in feed.batches(places, source, layout=layout):
            with torch.inference_mode():
                with mixed_precision(autocast):
                    head, states = token_states(model, packed)
                targets = packed.targets
                found = values_of(head, states, targets) if entropies else (logps_of(head, states, targets),)
            per_response = [len(response) for one in lists for response in one.responses]
            # responses are in order even if a list was split over several rows
            columns = [iter(values.cpu().split(per_response)) for values in found]
            for one in lists:
                numbers = [[next(column).tolist() for _ in one.responses] for column in columns]
                yield one.group_id, StoredTokens(*numbers)
            progress.advance(len(lists))
