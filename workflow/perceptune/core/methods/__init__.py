"""Training methods by name. A new one is a file here, a test, and a line in the dict."""

from __future__ import annotations

from perceptune.core.methods.dpo import DPO
from perceptune.core.methods.lipo import LiPO
from perceptune.core.methods.method import Method
from perceptune.core.methods.p2dpo import P2DPO
from perceptune.core.methods.perpo import PerPO
from perceptune.core.methods.sft import SFT

METHODS: dict[str, Method] = {method.name: method for method in (DPO(), LiPO(), P2DPO(), PerPO(), SFT())}
