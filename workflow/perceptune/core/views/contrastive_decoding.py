"""Contrastive decoding of an expert against an amateur (VCD, arXiv:2311.16922; P2-DPO)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def amplified(expert: Tensor, amateur: Tensor, strength: Tensor | float, plausibility: Tensor | float) -> Tensor:
    """(1 + lambda) z_expert - lambda z_amateur where p_expert >= plausibility * max p_expert, -inf
    elsewhere.

    Logits have shape (..., V); `strength` (lambda) and `plausibility` (in [0, 1]; 0 keeps every
    token) are numbers or broadcast as (..., 1). To be applied before temperature and top-p.
    """
    import torch

    if isinstance(plausibility, float | int):
        slack: Tensor | float = math.log(plausibility) if plausibility > 0 else -math.inf
    else:
        slack = plausibility.log()
    plausible = expert >= expert.amax(dim=-1, keepdim=True) + slack
    combined = torch.addcmul(
        expert, torch.as_tensor(strength, dtype=expert.dtype, device=expert.device), expert - amateur
    )
    return combined.masked_fill(~plausible, -math.inf)
