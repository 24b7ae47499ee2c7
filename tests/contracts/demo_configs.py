"""The configs of the demos, and edits of them."""

import copy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEMO: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text())
P2DPO: dict[str, Any] = yaml.safe_load((ROOT / "config/demo-p2dpo.yaml").read_text())
ROUNDS: dict[str, Any] = yaml.safe_load((ROOT / "config/demo-rounds.yaml").read_text())


def edited(path: str, value: Any, base: dict[str, Any] = DEMO) -> dict[str, Any]:
    config = copy.deepcopy(base)
    *outer, last = path.split(".")
    place = config
    for key in outer:
        place = place[key]
    place[last] = value
    return config
