"""The model of a config: the user's folder, or the bundled tiny one."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from perceptune.commands.init.detection import name_of
from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load, names
from perceptune.core.answers.boxes import Frame
from perceptune.models.families.family import Family
from perceptune.planning.model_folders import check_complete

TINY = "resources/tiny-llava/model"
"""The bundled model, in a clone of the repository."""
LENGTHS = {"llava": 2048, "llava_onevision": 8192, "internvl": 8192, "auto": 8192}
"""Tokens for prompt and answer, by family. LLaVA-OneVision's images have up to 7,290, InternVL's 3,328."""
LENGTH = 4096
PIXELS = (3136, 1003520)
"""Smallest and largest image for Qwen-VL: about 1,300 tokens at most."""
FRAMES: tuple[Frame, ...] = ("thousand", "original", "padded_square")
"""Coordinates of boxes that a model whose family declares none may use, the likeliest first."""


@dataclass(frozen=True)
class Model:
    """A model folder, and what its `config.json` says."""

    name: str
    path: str
    family: Family
    positions: int | None = None
    """Tokens that the model was made for."""
    bundled: bool = False

    @property
    def length(self) -> int:
        """`max_model_len`: tokens of prompt and answer."""
        wanted = 512 if self.bundled else LENGTHS.get(self.family.name, LENGTH)
        return min(wanted, self.positions or wanted)


def bundled() -> Model:
    """The bundled tiny LLaVA. Raises `UserError` if the package is installed without it."""
    folder = Path(TINY)
    if not folder.is_dir():
        folder = Path(__file__).parents[4] / TINY
    if not folder.is_dir():
        raise UserError("the bundled model is only in a clone of the repository", "`--model FOLDER` names your own")
    return Model("tiny", str(folder), load("family", "llava"), bundled=True)


def model_in(folder: Path) -> Model:
    """The model in a folder. Raises `UserError` for a folder without a complete model."""
    path = os.path.normpath(folder)
    check_complete(ModelBlock(path=path, family="auto"))
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = settings.get("model_type")
    families = [load("family", name) for name in names("family")]
    family = next((one for one in families if kind in one.model_types), None) or load("family", "auto")
    text = settings.get("text_config")
    positions = (text if isinstance(text, dict) else settings).get("max_position_embeddings")
    name = name_of(Path(path).absolute().name, "model")
    return Model(name, path, family, positions if isinstance(positions, int) else None)
