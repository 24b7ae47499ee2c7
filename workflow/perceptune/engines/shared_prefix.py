"""See the image once: all responses of a list branch off one encoded prefix (design, sec. 2).

A packed row is `[padding | prefix | r1 | r2 | ... | rN | padding]`. A response attends to the prefix and to itself only and its
positions continue the prefix's, so every token sees exactly what it would see alone: the result equals N separate
forward passes up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from perceptune.models.family import Family
from perceptune.models.placement import bare, on_device

LOGITS_AT_ONCE = 2**26
"""Numbers in a block of logits (256 MiB in float32); the softmax is taken block by block."""


@dataclass(frozen=True)
class Prompted:
    """One list: its encoded prompt and the tokens of its responses."""

    prefix: Mapping[str, Tensor]
    """The processor's tensors; `input_ids` (1, P)."""
    positions: Tensor
    """Position ids of the prefix, (axes, P)."""
    responses: Sequence[Sequence[int]]
    """Token ids of each response, end of sequence included; none is empty."""


@dataclass(frozen=True)
class Packed:
    """Rows ready for a forward pass.

    B rows of length L; the prefixes end at column `start` in every row.
    """

    inputs: dict[str, Tensor]
    """`input_ids` (B, L), `attention_mask` (B, 1, L, L) bool, `position_ids`, and the images."""
    start: int
    """Column of the prefixes' last token: it predicts the first token of every response."""
    targets: Tensor
    """Token ids (T,) of all responses of all rows, one after the other."""
    rows: Tensor
    """Row of each target, (T,)."""
    predictors: Tensor
    """Column, counted from `start`, of the token that predicts each target, (T,)."""
    owners: Tensor
    """Number of the response that each target belongs to, counted through all lists of the batch, (T,)."""
    counts: list[int]
    """Responses per list."""


def packed(groups: Sequence[Prompted], family: Family, padding: int, budget: int | None = None) -> Packed:
    """Packs lists into rows of at most `budget` response tokens (None: one row per list; a single longer response fits)."""
    rows = [(g, part) for g in range(len(groups)) for part in _parts(groups[g].responses, budget)]
    prefix_length = max(g.positions.shape[1] for g in groups)
    longest = max(sum(len(groups[g].responses[r]) for r in part) for g, part in rows)
    length, axes = prefix_length + longest, groups[0].positions.shape[0]
    ids = torch.full((len(rows), length), padding)
    positions = torch.zeros((axes, len(rows), length), dtype=torch.long)
    branch = torch.full((len(rows), length), -1)  # -1 padding, 0 prefix, 1.. responses
    targets: list[int] = []
    row_of: list[int] = []
    predictor: list[int] = []
    owner: list[int] = []
    first = [sum(len(g.responses) for g in groups[:i]) for i in range(len(groups))]
    for row, (g, part) in enumerate(rows):
        group = groups[g]
        left = prefix_length - group.positions.shape[1]
        ids[row, left:prefix_length] = group.prefix["input_ids"][0]
        positions[:, row, left:prefix_length] = group.positions
        branch[row, left:prefix_length] = 0
        column, after = prefix_length, group.positions.max() + 1
        for number, response in enumerate(part, 1):
            tokens = group.responses[response]
            end = column + len(tokens)
            ids[row, column:end] = torch.tensor(tokens)
            positions[:, row, column:end] = after + torch.arange(len(tokens))
            branch[row, column:end] = number
            targets += tokens
            row_of += [row] * len(tokens)
            # the first token is predicted by the prefix's last position, the others by the token before
            predictor += [0, *range(column - prefix_length + 1, end - prefix_length)]
            owner += [first[g] + response] * len(tokens)
            column = end
    inputs = {
        "input_ids": ids,
        "attention_mask": _mask(branch),
        "position_ids": family.shaped_positions(positions),
        **family.model_inputs([groups[g].prefix for g, _ in rows]),
    }
    at = [torch.tensor(values, dtype=torch.long) for values in (targets, row_of, predictor, owner)]
    return Packed(inputs, prefix_length - 1, at[0], at[1], at[2], at[3], [len(g.responses) for g in groups])


def _parts(responses: Sequence[Sequence[int]], budget: int | None) -> Iterator[list[int]]:
    part: list[int] = []
    used = 0
    for number, response in enumerate(responses):
        if part and budget is not None and used + len(response) > budget:
            yield part
            part, used = [], 0
        part.append(number)
        used += len(response)
    yield part


def _mask(branch: Tensor) -> Tensor:
    """(B, 1, L, L) bool: causal, to the prefix and the own response. Padding sees itself, or its softmax would be NaN."""
    query, key = branch[:, :, None], branch[:, None, :]
    length = branch.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen = causal & (key >= 0) & ((key == 0) | (key == query))
    return (seen | torch.eye(length, dtype=torch.bool))[:, None]


def token_logps(model: nn.Module, batch: Packed) -> Tensor:
    """Log-probability of every target under `model`, (T,) float32, with gradient where the model has one.

    `model` is the family's model, bare or wrapped by PEFT or DistributedDataParallel. Logits exist for response positions
    only, a block at a time.
    """
    inner = bare(model)
    device = inner.device
    inputs = on_device(batch.inputs, inner)
    keep = torch.arange(batch.start, inputs["input_ids"].shape[1], device=device)
    with _hidden_states_for_logits(inner) as head:
        hidden = model(**inputs, logits_to_keep=keep, use_cache=False).logits
        chosen = hidden[batch.rows.to(device), batch.predictors.to(device)]
        return _logps_of(head, chosen, batch.targets.to(device))


@contextmanager
def _hidden_states_for_logits(model: PreTrainedModel) -> Iterator[nn.Module]:
    """The model gives hidden states in place of logits meanwhile; yields the head that it would have used."""
    head = model.get_output_embeddings()
    model.set_output_embeddings(nn.Identity())
    try:
        yield head
    finally:
        model.set_output_embeddings(head)


def _logps_of(head: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    vocabulary = head.weight.shape[0]  # type: ignore[union-attr, index]
    step = max(1, LOGITS_AT_ONCE // int(vocabulary))

    def block(states: Tensor, tokens: Tensor) -> Tensor:
        logits = head(states).float()
        return logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(dim=1)

    if len(targets) <= step:
        return block(hidden, targets)
    parts = zip(hidden.split(step), targets.split(step), strict=True)
    if torch.is_grad_enabled():  # keep no block of logits for the backward pass
        return torch.cat([checkpoint(block, states, tokens, use_reentrant=False) for states, tokens in parts])
    return torch.cat([block(states, tokens) for states, tokens in parts])


def response_logps(model: nn.Module, batch: Packed) -> Tensor:
    """Summed log-probability of every response of the batch, (R,) float32."""
    logps = token_logps(model, batch)
    sums = torch.zeros(sum(batch.counts), dtype=logps.dtype, device=logps.device)
    return sums.index_add(0, batch.owners.to(logps.device), logps)
