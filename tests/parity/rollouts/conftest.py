"""Groups of a round, with and without stored log-probs, and the gradients of its steps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perceptune.contracts.config import ModelBlock
from perceptune.engines.training import rollout_trainer as engine
from perceptune.engines.training.groups import Rollout, Shown
from perceptune.models.loading import load_model
from PIL import Image
from torch import Tensor
from transformers import TrainerCallback

from .rounds import LONGEST, VIEWS, with_terms

TINY = Path(__file__).parents[3] / "resources/tiny-llava/model"


@pytest.fixture(scope="package")
def model() -> ModelBlock:
    return ModelBlock(path=str(TINY), family="llava", dtype="float32")


@pytest.fixture(scope="package")
def bare(tmp_path_factory: pytest.TempPathFactory) -> list[Rollout]:
    """Five groups of four answers of different lengths; with two groups per step, the last step has
    one. One group has equal rewards.
    """
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("images")
    made = []
    for number in range(5):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (112, 112, 3), dtype=np.uint8)).save(path)
        content: list[dict[str, Any]] = [{"type": "image", "text": None}, {"type": "text", "text": "read the text."}]
        messages = [{"role": "user", "content": content}]
        lengths = random.integers(1, LONGEST + 1, 4).tolist()
        responses = [random.integers(270, 380, length).tolist() for length in lengths]
        rewards = [1.0, 0.0, 1.0, 0.1] if number != 3 else [1.0] * 4
        views = {name: Shown(recipe, messages) for name, recipe in VIEWS.items()}
        images = [{"bytes": None, "path": str(path)}]
        cut = [length == LONGEST for length in lengths]
        made.append(Rollout(f"g{number}", images, views, responses, rewards, sampled=[], truncated=cut, stored={}))
    return made


@pytest.fixture(scope="package")
def rollouts(model: ModelBlock, bare: list[Rollout]) -> list[Rollout]:
    """The groups with stored log-probs of a fresh adapter, which equals the base model."""
    return with_terms(model, load_model(model), bare)


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Records the gradients of every following optimiser step, after clipping."""
    seen: list[dict[str, Tensor]] = []
    original = engine.fitted

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            seen.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    def watched(trainer: Any, resume: Path | None) -> Any:
        trainer.add_callback(Keep())
        return original(trainer, resume)

    monkeypatch.setattr(engine, "fitted", watched)
    return seen
