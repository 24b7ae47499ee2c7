"""One call of the kernel per layer of a vision tower gives what one call per window gives."""

from pathlib import Path

import pytest
import torch
from perceptune.engines.training import branch_attention, image_attention
from perceptune.engines.training.shared_prefix import branched, token_logps
from perceptune.models.placement import bare

from .test_shared_prefix import TOLERANCE, Setup, largest_difference, relative

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_all_windows_at_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup(name, tmp_path)
    tower = bare(setup.model).model.visual
    groups = [setup.group("a", [(224, 56), (112, 112)], [2]), setup.group("b", [(112, 70)], [3, 1])]
    batch = branched(groups, setup.family)

    def passed() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logps = token_logps(setup.model, batch)
        return logps.detach(), setup.gradients(logps.sum())

    calls: list[int] = []
    kernel = branch_attention.kernel_of
    monkeypatch.setattr(image_attention, "use", lambda model: None)
    expected, slopes = passed()
    monkeypatch.undo()
    image_attention.use(bare(setup.model))
    monkeypatch.setattr(branch_attention, "kernel_of", lambda states: calls.append(states.shape[1]) or kernel(states))
    found, others = passed()
    assert relative(found, expected) < TOLERANCE
    assert largest_difference(others, slopes) < TOLERANCE
    # once forward and once backward; the language model has more heads
    assert calls.count(tower.config.num_heads) == 2 * len(tower.blocks)


def test_other_towers_are_left_alone(tmp_path: Path) -> None:
    model = bare(Setup("llava", tmp_path).model)
    before = model.model.vision_tower.config._attn_implementation
    image_attention.use(model)
    assert model.model.vision_tower.config._attn_implementation == before
