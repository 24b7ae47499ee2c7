"""Losses over response tokens for on-policy methods (GRPO and its variants).

Every tensor has one entry per response token, shape (T,), or per response, shape (R,), float32. All
functions are pure: they take log-probs that the caller has computed. Formulas and sources are in
`docs/methods.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.shares import exact_share

Aggregation = Literal["token_mean", "seq_mean_token_mean", "seq_mean_token_sum_norm", "chunk_token_mean"]
Estimator = Literal["k1", "k2", "k3", "abs"]

EXPONENT = 20.0
"""Log-prob differences are clamped to this magnitude before exponentiation (EasyR1)."""
LARGEST_KL = 10.0
"""k3 is clamped to this value (EasyR1, verl), and so is k1 in CPPO's contrast (its asynchronous
code); beyond it, there is no gradient."""


def group_advantages(rewards: Tensor, groups: Tensor, scale: Literal["group", "none"], epsilon: float = 1e-6) -> Tensor:
    """(R_i - mean) / (std + epsilon) in each group (GRPO), or R_i - mean with scale `none` (Dr.
    GRPO).

    The standard deviation is unbiased. `groups` (R,): index of each response's group. Groups with
    one response or equal rewards have advantages 0.
    """
    exact = rewards.double()
    advantages = torch.zeros_like(exact)
    for group in groups.unique():
        members = groups == group
        centred = exact[members] - exact[members].mean()
        centred = torch.where(centred.abs() < 1e-12, 0.0, centred)  # rounding errors of equal rewards
        if scale == "group":
            spread = exact[members].std() if int(members.sum()) > 1 else exact.new_zeros(())
            centred = centred / (spread + epsilon)
        advantages[members] = centred
    return advantages.float()


@dataclass(frozen=True)
class Step:
    """The whole optimiser step that the responses belong to, over all processes."""

    tokens: int
    responses: int
    longest: int
    """Maximum number of tokens of a response."""
    processes: int = 1


def token_weights(lengths: Sequence[int], step: Step, aggregation: Aggregation, chunk: int = 4) -> Tensor:
    """Weight of each token's loss, (T,): sum(weight * loss) over the step is the aggregate.

    `lengths` are the token counts of this process's responses in the step, in order.
    `chunk_token_mean` is the mean over chunks of `chunk` responses of each chunk's token mean;
    EasyR1 and verl's older engine call this token mean.
    """
    counts = torch.tensor(lengths)
    if aggregation == "token_mean":
        per_response = torch.full((len(lengths),), 1 / step.tokens, dtype=torch.float64)
    elif aggregation == "seq_mean_token_mean":
        per_response = 1 / (counts.double() * step.responses)
    elif aggregation == "seq_mean_token_sum_norm":
        per_response = torch.full((len(lengths),), 1 / (step.responses * step.longest), dtype=torch.float64)
    else:
        chunks = counts.split(chunk)
        means = [torch.full((len(c),), 1 / (int(c.sum()) * len(chunks) * step.processes)) for c in chunks]
        per_response = torch.cat(means).double()
    return per_response.repeat_interleave(counts).float()


@dataclass(frozen=True)
class Surrogate:
    """The clipped objective per token and the tokens without gradient, (T,) each."""

    losses: Tensor
    clipped: Tensor
    """The clipped loss is the larger one, for either sign of the advantage."""
    clipped_high: Tensor
    """The ratio exceeds its limit and the advantage is positive."""
    clipped_low: Tensor
    """The ratio is below its limit and the advantage negative, or the dual clip applies."""


def clipped_surrogate(
    logps: Tensor, old: Tensor, advantages: Tensor, low: float, high: float, dual: float | None
) -> Surrogate:
    """max(-A r, -A clip(r, 1 - low, 1 + high)), for A < 0 at most -A dual; r = exp(logps - old).

    Clipped in log space, so that the ratio cannot overflow. All tensors (T,).
    """
    difference = (logps - old).clamp(-EXPONENT, EXPONENT)
    inside = difference.clamp(torch.tensor(1 - low).log().item(), torch.tensor(1 + high).log().item())
    free, bounded = -advantages * difference.exp(), -advantages * inside.exp()
    losses = torch.maximum(free, bounded)
    clipped = bounded > free
    too_high, too_low = clipped & (advantages > 0), clipped & (advantages < 0)
    if dual is not None:
        most = -advantages * dual
        cut = (advantages < 0) & (most < losses)
        losses, too_low = torch.where(cut, most, losses), too_low | cut
    return Surrogate(losses, clipped, too_high, too_low)


def kl_estimate(logps: Tensor, other: Tensor, estimator: Estimator = "k3") -> Tensor:
    """Estimate (T,) of KL(policy || other) on the policy's samples, x = logps - other.

    k1 = x, k2 = x^2 / 2, k3 = exp(-x) + x - 1, abs = |x|. The exponent of k3 and its value are
    clamped as in EasyR1 and verl; the others are not.
    """
    x = logps - other
    if estimator == "k1":
        return x
    if estimator == "k2":
        return x.square() / 2
    if estimator == "abs":
        return x.abs()
    x = x.clamp(-EXPONENT, EXPONENT)
    return (torch.exp(-x) + x - 1).clamp(max=LARGEST_KL)


def engine_correction(old: Tensor, sampled: Tensor, cap: float) -> Tensor:
    """Truncated importance weights (T,) for the mismatch between sampling engine and trainer.

    min(exp(old - sampled), cap) per token, without gradient.
    """
    difference = (old - sampled).detach()
    return difference.clamp(-EXPONENT, EXPONENT).exp().clamp(max=cap)


def perception_scores(entropy: Tensor, removed: Tensor, rule: Literal["normalised", "difference"]) -> Tensor:
    """Rise of each token's entropy under the removing view, (T,); 0 if it falls (CPPO).

    `normalised`: relu(H- - H) / (H- + 1e-6), as in the code; `difference`: relu(H- - H).
    """
    rise = (removed - entropy).clamp(min=0)
    return rise if rule == "difference" else rise / (removed + 1e-6)


def perception_tokens(
    scores: Tensor, owners: Tensor, share: float, rounding: Literal["floor", "ceil"], ties: bool
) -> Tensor:
    """Mask (T,) bool of the `share` of each response's positive scores that are highest (CPPO).

    At least one token per response if any score is positive; with `ties`, also tokens whose score
    equals the last selected one.
    """
    mask = torch.zeros_like(scores, dtype=torch.bool)
    for owner in owners.unique():
        places = ((owners == owner) & (scores > 0)).nonzero()[:, 0]
        if not len(places):
            continue
        part = exact_share(share, len(places))
        count = max(1, math.floor(part) if rounding == "floor" else math.ceil(part))
        values, order = scores[places].sort(descending=True, stable=True)
        mask[places[scores[places] >= values[count - 1]] if ties else places[order[:count]]] = True
    return mask


def as_many_random(chosen: Tensor, owners: Tensor, old: Tensor) -> Tensor:
    """Mask (T,) bool of as many tokens per response as in `chosen`, drawn at random from all its
    tokens.

    The draw depends only on the response's old log-probs, so it is the same on any number of
    devices and in every step of a round.
    """
    mask = torch.zeros_like(chosen)
    for owner in owners.unique():
        places = (owners == owner).nonzero()[:, 0]
        seed = derived_seed("random tokens", old[places].float().cpu().numpy().tobytes().hex())
        order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed)).to(places.device)
        mask[places[order[: int(chosen[places].sum())]]] = True
    return mask


def contrastive_perception(preserved: Tensor, removed: Tensor, temperature: float) -> Tensor:
    """softplus((K+ - K-) / temperature) per token: InfoNCE with one negative view (CPPO).

    K+ and K- (T,) are the divergences between the training view and the preserving (K+) or removing
    (K-) view.
    """
    return torch.nn.functional.softplus((preserved - removed) / temperature)
