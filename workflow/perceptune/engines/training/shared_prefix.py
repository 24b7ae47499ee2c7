"""Shared-prefix passes: all responses of a list branch off one encoded prompt with its images.

A response attends to the prefix and to itself only, and its positions continue those of the prefix.
Every token therefore sees exactly what it would see alone: the result equals N separate forward
passes up to rounding. There are two layouts with the same values:

* rows with a mask, `[padding | prefix | r1 | r2 | ... | rN | padding]`, for any model and device
* one row for all lists of a batch, without padding and mask: see `branch_attention`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from perceptune.engines.training import branch_attention, image_attention
from perceptune.engines.training.branch_attention import Branches
from perceptune.engines.training.image_features import Images, PackedImages
from perceptune.models.families.family import Family
from perceptune.models.placement import bare, on_device

LOGITS_AT_ONCE = 2**26
"""Numbers in a block of logits (256 MiB in float32); the softmax is computed block by block."""


@dataclass(frozen=True)
class Prompted:
    """One list: its encoded prompt and the tokens of its responses."""

    prefix: Mapping[str, Tensor]
    """The processor's tensors; `input_ids` has shape (1, P)."""
    positions: Tensor
    """Position ids of the prefix, (axes, P)."""
    responses: Sequence[Sequence[int]]
    """Token ids of each response, including the end-of-sequence token; none is empty."""
    images: Images | None = None
    """The prompt's images if they are not part of `prefix`, because there is a cache of image features."""


@dataclass(frozen=True)
class Packed:
    """Rows ready for a forward pass: B rows of length L."""

    inputs: dict[str, Tensor]
    """`input_ids` (B, L), `attention_mask` (B, 1, L, L) bool, `position_ids`, and the images."""
    keep: Tensor
    """Columns whose hidden states predict a target in some row, (K,)."""
    targets: Tensor
    """Token ids of all responses of all rows, concatenated, (T,)."""
    rows: Tensor
    """Row of each target, (T,)."""
    predictors: Tensor
    """Column of the token that predicts each target, as an index into `keep`, (T,)."""
    owners: Tensor
    """Index of each target's response within the batch, (T,)."""
    counts: list[int]
    """Responses per list."""
    branches: Branches | None = None
    """Where prefixes and responses are if there is a single row and no mask."""
    images: PackedImages | None = None
    """The images that are not part of `inputs`."""

    def pinned(self) -> Packed:
        """The same in page-locked memory: its tensors are copied without waiting for the GPU's work so far."""
        return replace(
            self,
            inputs={name: tensor.pin_memory() for name, tensor in self.inputs.items()},
            **{name: getattr(self, name).pin_memory() for name in ("keep", "targets", "rows", "predictors", "owners")},
            branches=self.branches and self.branches.pinned(),
            images=self.images and self.images.pinned(),
        )


def packed(groups: Sequence[Prompted], family: Family, padding: int, budget: int | None = None) -> Packed:
    """Packs lists into rows of at most `budget` response tokens.

    None: one row per list. A single response longer than the budget gets a row of its own.
    """
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
            # the prefix's last position predicts the first token, each token the next one
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
    keep = torch.arange(prefix_length - 1, length)
    images = PackedImages.of(groups[g].images for g, _ in rows)
    return Packed(inputs, keep, at[0], at[1], at[2], at[3], [len(g.responses) for g in groups], images=images)


def branched(groups: Sequence[Prompted], family: Family) -> Packed:
    """All lists in one row without padding: their prefixes, then their responses.

    Only for models that `branch_attention.plain` accepts. No budget: a list is never split, because
    the row needs no mask and a second copy of the prefix would only cost memory.
    """
    prompts = [one.positions.shape[1] for one in groups]
    # the last token predicts nothing; alone it stays, because the kernel knows no empty answers
    rest = [[list(response[:-1] or response) for response in one.responses] for one in groups]
    ids = torch.cat([*(one.prefix["input_ids"][0] for one in groups), *(torch.tensor(r) for own in rest for r in own)])
    after = [
        (one.positions.max() + 1 + torch.arange(len(tokens))).expand(len(one.positions), -1)
        for one, own in zip(groups, rest, strict=True)
        for tokens in own
    ]
    positions = torch.cat([*(one.positions for one in groups), *after], dim=1)
    inputs = {
        "input_ids": ids[None],
        # four dimensions, or transformers would build a mask from the positions
        "attention_mask": torch.ones(1, 1, 0, 0, dtype=torch.bool),
        "position_ids": family.shaped_positions(positions[:, None]),
        **family.model_inputs([one.prefix for one in groups]),
    }
    predictors, column = [], len(groups)
    for number, (one, own) in enumerate(zip(groups, rest, strict=True)):
        for response, tokens in zip(one.responses, own, strict=True):
            # the prefix's last position predicts the first token, each token the next one
            predictors += [number, *range(column, column + len(response) - 1)]
            column += len(tokens)
    targets = [torch.tensor(response) for one in groups for response in one.responses]
    lengths = torch.tensor([len(response) for response in targets])
    return Packed(
        inputs,
        keep=torch.cat([torch.tensor(prompts).cumsum(0) - 1, torch.arange(sum(prompts), len(ids))]),
        targets=torch.cat(targets),
        rows=torch.zeros(int(lengths.sum()), dtype=torch.long),
        predictors=torch.tensor(predictors),
        owners=torch.arange(len(lengths)).repeat_interleave(lengths),
        counts=[len(one.responses) for one in groups],
        branches=Branches.of(prompts, [[len(tokens) for tokens in own] for own in rest]),
        images=PackedImages.of(one.images for one in groups),
    )


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
    """Attention mask, (B, 1, L, L) bool: causal, limited to prefix and own response.

    Padding attends to itself, or its softmax would be NaN.
    """
    query, key = branch[:, :, None], branch[:, None, :]
    length = branch.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen = causal & (key >= 0) & ((key == 0) | (key == query))
    return (seen | torch.eye(length, dtype=torch.bool))[:, None]


def token_logps(model: nn.Module, batch: Packed) -> Tensor:
    """Log-prob of every target under `model`, (T,) float32, with gradient if the model has one."""
    head, states = token_states(model, batch)
    return logps_of(head, states, batch.targets)


class TokenValues(NamedTuple):
    """A model's values per token, (T,) float32 each."""

    logps: Tensor
    entropies: Tensor
    """Entropy of the full distribution that each token was drawn from, in nats; no gradient."""


def token_values(model: nn.Module, batch: Packed) -> TokenValues:
    """Log-prob of every target and the entropy of its distribution, from the same logits."""
    head, states = token_states(model, batch)
    return values_of(head, states, batch.targets)


def token_states(model: nn.Module, batch: Packed) -> tuple[nn.Module, Tensor]:
    """The language-model head, and the hidden state that predicts every target, (T, width).

    `model` is the family's model, bare or wrapped by PEFT or DistributedDataParallel.
    """
    inner = bare(model)
    device = inner.device
    inputs: dict[str, Any] = {**on_device(batch.inputs, inner), "logits_to_keep": _moved(batch.keep, device)}
    if batch.branches is not None:
        branch_attention.use(inner)
        image_attention.use(inner)
        inputs["branches"] = batch.branches.on(device)
    if batch.images is not None:
        inputs["mm_encoder_outputs"] = {"image": batch.images.output(inner)}
    with _hidden_states_for_logits(inner) as head:
        hidden = model(**inputs, use_cache=False).logits
    # under mixed precision they are float32, while the head keeps its own dtype
    states = hidden[_moved(batch.rows, device), _moved(batch.predictors, device)].to(head.weight.dtype)
    return head, states


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)


@contextmanager
def _hidden_states_for_logits(model: PreTrainedModel) -> Iterator[nn.Module]:
    """Makes the model return hidden states instead of logits; yields its actual head."""
    head = model.get_output_embeddings()
    model.set_output_embeddings(nn.Identity())
    try:
        yield head
    finally:
        model.set_output_embeddings(head)


def logps_of(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
    """Log-prob of every target from its hidden state, (T,) float32."""

    def block(states: Tensor, targets: Tensor) -> tuple[Tensor]:
        return (_log_softmax_at(head(states).float(), targets),)

    return _in_blocks(head, block, states, _moved(targets, states.device))[0]


def values_of(head: nn.Module, states: Tensor, targets: Tensor) -> TokenValues:
    """Log-prob of every target from its hidden state, and the entropy of its distribution."""

    def block(states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(states).float()
        return _log_softmax_at(logits, targets), entropies_of(logits)

    return TokenValues(*_in_blocks(head, block, states, _moved(targets, states.device)))


@torch.no_grad()
def entropies_of(logits: Tensor) -> Tensor:
    """-sum p log p over the vocabulary, (T, V) to (T,), in nats; no gradient.

    With d = l - max l <= 0 and Z = sum exp(d), it is log Z - sum d exp(d) / Z. No term is negative,
    so none cancels: the result is never negative and keeps its digits for nearly certain tokens,
    where log sum exp(l) - sum p l loses them all. Needs two more blocks of the logits' size.
    """
    largest, place = logits.max(dim=1, keepdim=True)
    below = logits - largest
    weights = below.exp().scatter_(1, place, 0)  # without the largest, whose d is 0
    rest = weights.sum(dim=1)  # Z - 1: added to the 1, small weights would vanish
    return rest.log1p() - weights.mul_(below).sum(dim=1) / (1 + rest)


def full_kl(head: nn.Module, p_states: Tensor, q_states: Tensor) -> Tensor:
    """KL(p || q) over the vocabulary for the predictions from two sets of hidden states.

    (T,) float32, in nats.
    """

    def block(p_states: Tensor, q_states: Tensor) -> tuple[Tensor]:
        first, second = (head(states).float().log_softmax(dim=1) for states in (p_states, q_states))
        return ((first.exp() * (first - second)).sum(dim=1),)

    return _in_blocks(head, block, p_states, q_states)[0]


def _log_softmax_at(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(dim=1)


def _in_blocks(head: nn.Module, block: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """Applies `block` to the tensors, (T, ...) each, in chunks that bound the logits' size.

    Of its results, (T,) each, only the first one has a gradient; each number depends on one row.
    """
    step = max(1, LOGITS_AT_ONCE // int(head.weight.shape[0]))  # type: ignore[index]
    if len(tensors[0]) <= step:
        return block(*tensors)
    parts = zip(*(tensor.split(step) for tensor in tensors), strict=True)
    # neither branch keeps logits for the backward pass
    if torch.is_grad_enabled() and any(weight.requires_grad for weight in head.parameters()):
        found = [checkpoint(block, *part, use_reentrant=False) for part in parts]
    elif torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        found = [_Rowwise.apply(block, *part) for part in parts]  # type: ignore[no-untyped-call]
    else:
        found = [block(*part) for part in parts]
    return tuple(torch.cat(pieces) for pieces in zip(*found, strict=True))


class _Rowwise(torch.autograd.Function):
    """A block under a frozen head, with its derivatives computed at once: no logits are kept, and
    none are computed again.

    The derivative of the values' sum has, in each row, the derivative of that row's value.
    """

    @staticmethod
    def forward(ctx: Any, block: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
        """The block's results."""
        wanted = ctx.needs_input_grad[1:]
        with torch.enable_grad():
            given = [tensor.detach().requires_grad_(needed) for tensor, needed in zip(tensors, wanted, strict=True)]
            values, *others = block(*given)
            slopes = iter(torch.autograd.grad(values.sum(), [t for t in given if t.requires_grad]))
        ctx.save_for_backward(*(next(slopes) if needed else None for needed in wanted))
        ctx.mark_non_differentiable(*others)
        return values.detach(), *others

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the tensors."""
        found = [None if slope is None else (gradient[:, None] * slope).to(slope.dtype) for slope in ctx.saved_tensors]
        return None, *found


def response_logps(model: nn.Module, batch: Packed) -> Tensor:
    """Summed log-prob of every response of the batch, (R,) float32."""
    logps = token_logps(model, batch)
    sums = torch.zeros(sum(batch.counts), dtype=logps.dtype, device=logps.device)
    return sums.index_add(0, _moved(batch.owners, logps.device), logps)
