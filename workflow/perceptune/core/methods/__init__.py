"""Training methods by name. A new one is a file here, a test, and a line in the dict."""

from __future__ import annotations

from perceptune.core.methods.cppo import CPPO
from perceptune.core.methods.cppo_frozen import FrozenCPPO
from perceptune.core.methods.dapo import DAPO
from perceptune.core.methods.dpo import DPO
from perceptune.core.methods.dr_grpo import DrGRPO
from perceptune.core.methods.grpo import GRPO
from perceptune.core.methods.lipo import LiPO
from perceptune.core.methods.method import Method
from perceptune.core.methods.p2dpo import P2DPO
from perceptune.core.methods.papo_d import PAPOD
from perceptune.core.methods.papo_g import PAPOG
from perceptune.core.methods.perpo import PerPO
from perceptune.core.methods.sft import SFT

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        CPPO(),
        DAPO(),
        DPO(),
        DrGRPO(),
        FrozenCPPO(),
        GRPO(),
        LiPO(),
        P2DPO(),
        PAPOD(),
        PAPOG(),
        PerPO(),
        SFT(),
    )
}
