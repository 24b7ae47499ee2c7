"""Log-probabilities that do not change while training: computed once, without gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from perceptune.contracts.progress import Progress
from perceptune.engines.lists import Encoder, RankedList
from perceptune.engines.shared_prefix import token_logps


def reference_logps(
    model: PreTrainedModel, encoder: Encoder, lists: Sequence[RankedList], batch_size: int
) -> Iterator[tuple[str, list[list[float]]]]:
    """(group id, log-probabilities [response][token], float32) under the model's own weights, in any order.

    The encoder must look at all responses of a list, once. Lists of similar length are packed together; the numbers do not
    depend on it beyond rounding.
    """
    model.eval()
    order = sorted(range(len(lists)), key=lambda i: lists[i].tokens)
    with Progress("reference log-probabilities", len(lists), "lists") as progress:
        for start in range(0, len(order), batch_size):
            chosen = [lists[i] for i in order[start : start + batch_size]]
            batch = encoder(chosen).packed
            with torch.inference_mode():
                logps = token_logps(model, batch).cpu()
            lengths = [len(response) for one in chosen for response in one.responses]
            # a list that was split over several rows has its responses in order all the same
            per_response = iter(logps.split(lengths))
            for one in chosen:
                yield one.group_id, [next(per_response).tolist() for _ in one.responses]
            progress.advance(len(chosen))
