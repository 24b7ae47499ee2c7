"""P2-DPO (arXiv:2606.03376): focus pairs with calibration, and robust pairs, dynamically weighted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from perceptune.core.methods.logprob_queries import Look, Pairs
from perceptune.core.methods.method import Group, GroupMethod, MethodParameters, Stored

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-8
"""Lower bound of the image's CLIP score, which is a divisor (as in the paper's code)."""


class P2DPOParameters(MethodParameters):
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Scale of the implicit reward."""
    calibration: Annotated[float, Field(ge=0)] = 0.3
    """lambda_calib, the weight of the calibration loss; 0 disables it."""
    focus: bool = True
    """Train on focus pairs."""
    robust: bool = True
    """Train on robust pairs."""
    weighting: Literal["dynamic", "static"] = "dynamic"
    """Weights of focus and robust pairs: from the CLIP scores of crop and image, or equal."""
    alpha_max: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """Largest shift of the dynamic weights from 0.5."""
    tau: Annotated[float, Field(gt=0)] = 0.1
    """Temperature of the dynamic weights; smaller values shift them faster."""


class P2DPO(GroupMethod):
    name = "p2dpo"
    Parameters = P2DPOParameters
    groups = "pairs"

    def stored(self, parameters: P2DPOParameters, view: str) -> tuple[Stored, ...]:
        """Reference log-probs under the training view, the calibration's views and the noisy image.

        Views of losses that the parameters disable are left out.
        """
        focus = (view, "enhanced", "degraded") if parameters.calibration else (view,)
        views = (*(focus if parameters.focus else ()), *(("noise",) if parameters.robust else ()))
        return tuple(Stored("reference", name) for name in views)

    def looks(self, rewards: Sequence[float], pairs: Pairs, parameters: P2DPOParameters, view: str) -> list[Look]:
        """Six log-probs of a complete record.

        Both focus responses, the chosen one under two more views, and both robust responses.
        """
        looks = []
        if parameters.focus and "focus" in pairs:
            looks.append(Look(view, pairs["focus"]))
            if parameters.calibration:
                looks += [Look(shown, pairs["focus"][:1]) for shown in ("enhanced", "degraded")]
        if parameters.robust and "robust" in pairs:
            looks.append(Look("noise", pairs["robust"]))
        return looks

    def loss(self, group: Group, parameters: P2DPOParameters) -> Tensor:
        """w_focus (L_dpo_focus + lambda L_calib) + w_rob L_rob; weight 1 for a single kind.

        The constant of L_calib is the reference's on the *rejected* response, as in the paper.
        """
        losses = []
        if parameters.focus and "focus" in group.pairs:
            focus = preference_loss(group, "focus", parameters.beta)
            if parameters.calibration:
                focus = focus + parameters.calibration * calibration_loss(group, parameters.beta)
            losses.append(focus)
        if parameters.robust and "robust" in group.pairs:
            losses.append(preference_loss(group, "robust", parameters.beta, "noise"))
        if len(losses) == 1:
            return losses[0]
        weight = focus_weight(group.numbers, parameters)
        return weight * losses[0] + (1 - weight) * losses[1]

    def metrics(self, group: Group, parameters: P2DPOParameters) -> dict[str, float]:
        """Margins of both kinds of pairs, and the log-probs of the calibration's two views."""
        nan = math.nan
        names = (
            "chosen_logps",
            "rejected_logps",
            "margin",
            "robust_margin",
            "chosen_enhanced_logps",
            "chosen_degraded_logps",
        )
        metrics = dict.fromkeys(names, nan)
        if parameters.focus and "focus" in group.pairs:
            chosen, rejected = group.pairs["focus"]
            metrics["chosen_logps"], metrics["rejected_logps"] = (
                group.logps[chosen].item(),
                group.logps[rejected].item(),
            )
            metrics["margin"] = (group.scores[chosen] - group.scores[rejected]).item()
            if parameters.calibration:
                for shown in ("enhanced", "degraded"):
                    metrics[f"chosen_{shown}_logps"] = group.views[shown][0][chosen].item()
        if parameters.robust and "robust" in group.pairs:
            chosen, rejected = group.pairs["robust"]
            policy, reference = group.views["noise"]
            metrics["robust_margin"] = ((policy - reference)[chosen] - (policy - reference)[rejected]).item()
        return metrics


def preference_loss(group: Group, kind: str, beta: float, view: str | None = None) -> Tensor:
    """DPO on one pair under `view`: -log sigmoid(beta (s_chosen - s_rejected))."""
    from torch.nn.functional import softplus

    chosen, rejected = group.pairs[kind]
    if view is None:
        scores = group.scores
    else:
        policy, reference = group.views[view]
        scores = policy - reference
    return softplus(-beta * (scores[chosen] - scores[rejected]))


def calibration_loss(group: Group, beta: float) -> Tensor:
    """-log sigmoid(beta ([log pi(y_w|aug) - log pi(y_w|deg)] - [log pi_ref(y_l|aug) - log
    pi_ref(y_l|deg)])).
    """
    from torch.nn.functional import softplus

    chosen, rejected = group.pairs["focus"]
    (enhanced, enhanced_reference), (degraded, degraded_reference) = group.views["enhanced"], group.views["degraded"]
    gain = enhanced[chosen] - degraded[chosen]
    threshold = enhanced_reference[rejected] - degraded_reference[rejected]
    return softplus(-beta * (gain - threshold))


def focus_weight(numbers: Mapping[str, float], parameters: P2DPOParameters) -> float:
    """Dynamic deficit weighting: 0.5 + alpha_max tanh((r - 1) / tau), r = CLIPScore(P, crop) /
    CLIPScore(P, image).

    0.5 for static weights, and for a record without CLIP scores.
    """
    if parameters.weighting == "static" or "clip_crop" not in numbers:
        return 0.5
    ratio = numbers["clip_crop"] / max(numbers["clip_image"], SMALLEST)
    return 0.5 + parameters.alpha_max * math.tanh((ratio - 1) / parameters.tau)


METHOD = P2DPO()
