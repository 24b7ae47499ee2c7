"""Losses over response tokens for methods that learn from their own samples (GRPO and what builds on it).

Every tensor has one entry per response token, shape (T,), or per response, shape (R,), float32. Formulas with their sources:
`docs/methods.md`. Everything here is a function of log-probabilities that somebody else has computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Aggregation = Literal["token_mean", "seq_mean_token_mean", "seq_mean_token_sum_norm", "chunk_token_mean"]
Estimator = Literal["k1", "k2", "k3", "abs"]

EXPONENT = 20.0
"""Differences of log-probabilities are cut here before they are exponentiated (EasyR1)."""
LARGEST_KL = 10.0
"""k3 is cut here (EasyR1, verl); beyond it there is no gradient."""


def group_advantages(rewards: Tensor, groups: Tensor, scale: Literal["group", "none"], epsilon: float = 1e-6) -> Tensor:
    """(R_i - mean) / (std + epsilon) in each group, with the unbiased std; without division for Dr. GRPO (dossier a.2).

    `groups` (R,): number of each response's group. A group of one, and one whose rewards are equal, has advantages 0.
    """
    exact = rewards.double()
    advantages = torch.zeros_like(exact)
    for group in groups.unique():
        members = groups == group
        centred = exact[members] - exact[members].mean()
        centred = torch.where(centred.abs() < 1e-12, 0.0, centred)  # rounding is no difference
        if scale == "group":
            spread = exact[members].std() if int(members.sum()) > 1 else exact.new_zeros(())
            centred = centred / (spread + epsilon)
        advantages[members] = centred
    return advantages.float()


@dataclass(frozen=True)
class Step:
    """The whole optimiser step that some responses belong to, over all processes."""

    tokens: int
    responses: int
    longest: int
    """Tokens that a response may have at most."""
    processes: int = 1


def token_weights(lengths: Sequence[int], step: Step, aggregation: Aggregation, chunk: int = 4) -> Tensor:
    """What each token's loss is multiplied by, (T,): over the whole step the sum of weight times loss is the mean (dossier a.4).

    `lengths` are the tokens of this process's responses in the step, in their order. `chunk_token_mean` is the mean over
    chunks of `chunk` responses of each chunk's token mean, what EasyR1 and verl's older engine do under the name of token mean.
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
    """The clipped objective per token, and which tokens were clipped."""

    losses: Tensor
    clipped_high: Tensor
    """The ratio is above its limit and the advantage positive: no gradient."""
    clipped_low: Tensor
    """Below its limit with a negative advantage, or cut by the dual clip: no gradient."""


def clipped_surrogate(
    logps: Tensor, old: Tensor, advantages: Tensor, low: float, high: float, dual: float | None
) -> Surrogate:
    """max(-A r, -A clip(r, 1 - low, 1 + high)), and for A < 0 at most -A dual; r = exp(logps - old) (dossier a.3).

    Clipped in the logarithm, so that the ratio cannot overflow. All (T,).
    """
    difference = (logps - old).clamp(-EXPONENT, EXPONENT)
    inside = difference.clamp(torch.tensor(1 - low).log().item(), torch.tensor(1 + high).log().item())
    free, bounded = -advantages * difference.exp(), -advantages * inside.exp()
    losses = torch.maximum(free, bounded)
    too_high = (advantages > 0) & (bounded > free)
    too_low = (advantages < 0) & (bounded > free)
    if dual is not None:
        most = -advantages * dual
        cut = (advantages < 0) & (most < losses)
        losses, too_low = torch.where(cut, most, losses), too_low | cut
    return Surrogate(losses, too_high, too_low)


def kl_estimate(
    logps: Tensor, other: Tensor, estimator: Estimator = "k3", largest: float | None = LARGEST_KL
) -> Tensor:
    """Per-token estimate of KL(policy || other) on the policy's own samples, x = logps - other (dossier a.5).

    k1 = x, k2 = x^2 / 2, k3 = exp(-x) + x - 1, abs = |x|; k3's exponent and value are cut as in the published code.
    """
    x = logps - other
    if estimator == "k1":
        return x if largest is None else x.clamp(-largest, largest)
    if estimator == "k2":
        return x.square() / 2
    if estimator == "abs":
        return x.abs()
    x = x.clamp(-EXPONENT, EXPONENT)
    value = torch.exp(-x) + x - 1
    return value if largest is None else value.clamp(-largest, largest)


def engine_correction(old: Tensor, sampled: Tensor, cap: float) -> Tensor:
    """Importance weights (T,) for the mismatch of sampling engine and trainer, without gradient.

    Each token's exp(old - sampled), truncated at `cap` (truncated importance sampling).
    """
    difference = (old - sampled).detach()
    return difference.clamp(-EXPONENT, EXPONENT).exp().clamp(max=cap)


def perception_scores(entropy: Tensor, removed: Tensor, rule: Literal["normalised", "difference"]) -> Tensor:
    """How much a token's entropy rises where the image's information is gone, (T,), 0 where it does not (dossier c.2).

    `normalised`: relu(H- - H) / (H- + 1e-6), as in the code; `difference`: relu(H- - H).
    """
    rise = (removed - entropy).clamp(min=0)
    return rise if rule == "difference" else rise / (removed + 1e-6)


def perception_tokens(
    scores: Tensor, owners: Tensor, share: float, rounding: Literal["floor", "ceil"], ties: bool
) -> Tensor:
    """Mask (T,) bool: in each response the `share` of its tokens with positive scores that have the highest ones (dossier c.2).

    At least one of them, if there is any; with `ties`, also those that equal the last one taken.
    """
    mask = torch.zeros_like(scores, dtype=torch.bool)
    for owner in owners.unique():
        places = ((owners == owner) & (scores > 0)).nonzero()[:, 0]
        if not len(places):
            continue
        part = len(places) * share
        count = max(1, int(part) if rounding == "floor" else -int(-part // 1))
        values, order = scores[places].sort(descending=True, stable=True)
        mask[places[scores[places] >= values[count - 1]] if ties else places[order[:count]]] = True
    return mask


def contrastive_perception(preserved: Tensor, removed: Tensor, temperature: float) -> Tensor:
    """softplus((K+ - K-) / temperature) per token: InfoNCE with one positive and one negative view (dossier c.1).

    K+ and K- (T,) are the divergences from the anchor to the view that keeps and the one that lacks the information.
    """
    return torch.nn.functional.softplus((preserved - removed) / temperature)
