"""Gradients of single answers with respect to an adapter's weights.

One pair of answers is in memory at a time: its graph, and two gradients of the adapter's size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from peft import PeftModel
from torch import Tensor, nn

from perceptune.engines.training.groups import Batch
from perceptune.engines.training.shared_prefix import LOGITS_AT_ONCE, logps_of, response_logps, token_states
from perceptune.models.placement import language_model, mixed_precision

SCALES = {"float16": 2.0**10}
"""What log-probs are multiplied by before the backward pass, by dtype: in float16, gradients of
activations would otherwise be rounded to 0."""


@dataclass(frozen=True)
class PairGradients:
    """Squared norms, each by part of the weights, in float64."""

    chosen: Mapping[str, float]
    """Of the gradient of the chosen answer's summed log-prob."""
    rejected: Mapping[str, float]
    difference: Mapping[str, float]
    """Of chosen minus rejected."""
    chosen_drawn: Mapping[str, float]
    """The same as `chosen` with tokens drawn from the policy after the answer's own tokens."""
    rejected_drawn: Mapping[str, float]
    logps: tuple[float, float]
    """Summed log-probs of the chosen and the rejected answer."""


def weights_by_part(model: PeftModel) -> dict[str, list[nn.Parameter]]:
    """The weights that are trained, by part: `language` and `vision` (tower and projector)."""
    found: dict[str, list[nn.Parameter]] = {"language": [], "vision": []}
    inside = {id(weight) for weight in language_model(model).parameters()}
    for weight in model.parameters():
        if weight.requires_grad:
            found["language" if id(weight) in inside else "vision"].append(weight)
    return {part: weights for part, weights in found.items() if weights}


def recompute_activations(model: PeftModel) -> None:
    """Less memory, more time. Transformers does it in training mode only; no dropout is applied."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()


def pair_gradients(
    model: PeftModel, batch: Batch, weights: Mapping[str, Sequence[nn.Parameter]], uniforms: Tensor, dtype: str
) -> PairGradients:
    """The gradients of a batch with one query of two answers, chosen and rejected.

    `uniforms`, (T,) float64 in [0, 1), decide which tokens are drawn; `dtype` is that of the model
    block, for mixed precision as in training.
    """
    scale = SCALES.get(dtype, 1.0)
    with mixed_precision(dtype):
        head, states = token_states(model, batch.packed)
        drawn = drawn_tokens(head, states.detach(), uniforms.to(states.device))
        own = logps_of(head, states, batch.packed.targets)
        other = logps_of(head, states, drawn)
    owners = batch.packed.owners.to(own.device)
    sums = [torch.zeros(2, device=own.device).index_add(0, owners, logps) for logps in (own, other)]
    backward = _Backward(weights, scale)
    chosen = backward.of(sums[0][0])
    first, rejected = backward.squares(chosen), backward.of(sums[0][1])
    second = backward.squares(rejected)
    apart = backward.squares(_minus(a, b) for a, b in zip(chosen, rejected, strict=True))
    del chosen, rejected
    third = backward.squares(backward.of(sums[1][0]))
    fourth = backward.squares(backward.of(sums[1][1], last=True))
    return PairGradients(first, second, apart, third, fourth, (sums[0][0].item(), sums[0][1].item()))


@torch.no_grad()
def pair_logps(model: PeftModel, batch: Batch, dtype: str) -> tuple[float, float]:
    """The summed log-probs of such a batch alone."""
    with mixed_precision(dtype):
        chosen, rejected = response_logps(model, batch.packed).tolist()
    return chosen, rejected


@torch.no_grad()
def drawn_tokens(head: nn.Module, states: Tensor, uniforms: Tensor) -> Tensor:
    """A token from the distribution that each hidden state predicts, (T,).

    It is the first whose cumulative probability, in the order of the vocabulary, exceeds the uniform
    number, so the draw does not depend on the device's generator or on the batch.
    """
    step = max(1, LOGITS_AT_ONCE // 4 // int(head.weight.shape[0]))  # type: ignore[index]
    found = []
    for part, numbers in zip(states.split(step), uniforms.split(step), strict=True):
        below = head(part).double().softmax(dim=1).cumsum(dim=1)
        wanted = numbers.double()[:, None] * below[:, -1:]
        found.append(torch.searchsorted(below, wanted, right=True)[:, 0].clamp(max=below.shape[1] - 1))
    return torch.cat(found)


@dataclass(frozen=True)
class _Backward:
    weights: Mapping[str, Sequence[nn.Parameter]]
    scale: float

    def of(self, logp: Tensor, last: bool = False) -> list[Tensor | None]:
        """The gradient of a log-prob, times the scale; None for weights that it does not depend on."""
        everything = [weight for weights in self.weights.values() for weight in weights]
        return list(torch.autograd.grad(self.scale * logp, everything, retain_graph=not last, allow_unused=True))

    def squares(self, gradient: Iterable[Tensor | None]) -> dict[str, float]:
        """Squared norms of `all` weights and, if there are several, of each part."""
        tensors, found = iter(gradient), {}
        for part, weights in self.weights.items():
            own = [tensor for tensor in islice(tensors, len(weights)) if tensor is not None]
            sizes = [torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in own]
            found[part] = torch.stack(sizes).square().sum().item() / self.scale**2 if sizes else 0.0
        return {"all": sum(found.values()), **(found if len(found) > 1 else {})}


def _minus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """`a - b`, where None is a gradient of zeros."""
    if a is None or b is None:
        return a if b is None else -b
    return a - b
