"""The loss of a step of GRPO, DAPO, PAPO and CPPO by plain loops over answers and tokens."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
from peft import PeftModel
from perceptune.contracts.config import ModelBlock
from perceptune.engines.training.groups import Rollout
from torch import Tensor

from tests.parity.separate import SeparatePasses
from tests.plugins import METHODS

from .rounds import LONGEST


@dataclass(frozen=True)
class Answer:
    """One answer of a group, and the log-probs of which its loss is made."""

    group: Rollout
    place: int
    advantage: float
    rows: Callable[[str], Tensor]
    """Maps a view to the log-probs of the whole vocabulary at each token."""

    def logps(self, view: str) -> list[Tensor]:
        """Log-prob of each token, with its gradient."""
        return [row[token] for row, token in zip(self.rows(view), self.group.responses[self.place], strict=True)]

    def stored(self, term: Literal["reference", "old"], view: str = "original") -> Sequence[float]:
        return self.group.stored[term, view].logps[self.place]

    @property
    def sampled(self) -> Sequence[float]:
        return self.group.sampled[self.place]


class Reference:
    """The loss of groups, with one float64 pass per answer and view."""

    def __init__(self, model: ModelBlock, policy: PeftModel, groups: Sequence[Rollout]) -> None:
        self.passes, self.groups = SeparatePasses(model, policy), groups

    def answers(self) -> Iterator[Answer]:
        for one in self.groups:
            mean = sum(one.rewards) / len(one.rewards)
            std = (sum((reward - mean) ** 2 for reward in one.rewards) / (len(one.rewards) - 1)) ** 0.5
            for place, reward in enumerate(one.rewards):
                yield Answer(one, place, (reward - mean) / (std + 1e-6), cache(partial(self.passes.logps, one, place)))

    def loss(self, name: str, given: dict[str, Any]) -> Tensor:
        settings: Any = METHODS[name].Parameters.model_validate(given)
        answers = list(self.answers())
        total = mean([losses(settings, answer) for answer in answers], settings)
        if of_views := [value for answer in answers for value in contrasts(settings, answer)]:
            total = total + settings.contrast * torch.stack(of_views).mean()
        if of_entropy := [value for answer in answers for value in entropies(settings, answer)]:
            total = total + torch.stack(of_entropy).mean()
        return total


def mean(of_answers: Sequence[Tensor], settings: Any) -> Tensor:
    """The mean of the losses per token of each answer, as `aggregation` says."""
    if settings.aggregation == "token_mean":
        return torch.cat([*of_answers]).mean()
    if settings.aggregation == "seq_mean_token_mean":
        return torch.stack([losses.mean() for losses in of_answers]).mean()
    if settings.aggregation == "seq_mean_token_sum_norm":
        return torch.cat([*of_answers]).sum() / (len(of_answers) * LONGEST)
    chunks = [of_answers[i : i + settings.chunk] for i in range(0, len(of_answers), settings.chunk)]
    return torch.stack([torch.cat([*chunk]).mean() for chunk in chunks]).mean()


def k3(x: Tensor) -> Tensor:
    return (torch.exp(-x.clamp(-20, 20)) + x - 1).clamp(-10, 10)


def losses(settings: Any, answer: Answer) -> Tensor:
    """The loss of every token, shape (len(answer),): clipped policy gradient, correction, KL terms."""
    advantage, old, found = answer.advantage, answer.stored("old"), []
    gamma = getattr(settings, "gamma", 0)
    hidden: Sequence[Any] = answer.stored("old", "masked")
    if gamma and settings.masked_kl == "live":
        hidden = answer.logps("masked")
    for t, logp in enumerate(answer.logps("original")):
        ratio = torch.exp(logp - old[t])
        loss = torch.max(-advantage * ratio, -advantage * ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high))
        if advantage < 0 and settings.dual_clip:
            loss = torch.min(loss, torch.tensor(-advantage * settings.dual_clip).double())
        if settings.correction != "none":
            loss = loss * min(np.exp(old[t] - answer.sampled[t]), settings.correction_cap)
        if settings.beta:
            loss = loss + settings.beta * k3(logp - answer.stored("reference")[t])
        if gamma:
            loss = loss - gamma * k3(logp - hidden[t])
        found.append(loss)
    return torch.stack(found)


def entropies(settings: Any, answer: Answer) -> list[Tensor]:
    """PAPO's entropy terms of every token."""
    if not getattr(settings, "eta", 0):
        return []
    hidden = answer.logps("masked") if settings.masked_entropy == "live" else answer.stored("old", "masked")
    pairs = zip(answer.logps("original"), hidden, strict=True)
    return [-settings.eta * logp - settings.eta_masked * masked for logp, masked in pairs]


def contrasts(settings: Any, answer: Answer) -> list[Tensor]:
    """CPPO's contrasts of the selected tokens."""
    if not getattr(settings, "contrast", 0) or (settings.gate and answer.advantage <= 0):
        return []
    here, *others = (answer.rows(view) for view in ("original", "preserving", "removing"))
    logps, found = answer.logps("original"), []
    of_others = [answer.logps(view) for view in ("preserving", "removing")]
    for t, chosen in enumerate(selected(settings, here, others[1])):
        if not chosen:
            continue
        if settings.divergence == "full":
            near, far = ((here[t].exp() * (here[t] - rows[t])).sum() for rows in others)
        else:
            gaps = [logps[t] - other[t] for other in of_others]
            near, far = gaps if settings.divergence == "k1" else map(k3, gaps)
        found.append(torch.log1p(torch.exp((near - far) / settings.temperature)))
    return found


def selected(settings: Any, here: Tensor, lacking: Tensor) -> list[bool]:
    """For every token, whether its entropy rises most without what is removed."""
    if settings.tokens == "all":
        return [True] * len(here)
    clear, without = ([-(row.exp() * row).sum().item() for row in rows] for rows in (here, lacking))
    scores = [
        max(w - c, 0) / (w + 1e-6 if settings.score == "normalised" else 1) for c, w in zip(clear, without, strict=True)
    ]
    rising = sorted((score for score in scores if score > 0), reverse=True)
    limit = rising[max(1, int(len(rising) * settings.share)) - 1] if rising else np.inf
    return [score >= limit for score in scores]
