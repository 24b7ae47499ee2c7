"""LoRA in mixed precision, here that of CPUs: inputs are cast once, and no bit changes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from perceptune.contracts.config import LoraBlock, ModelBlock
from perceptune.engines.training.shared_prefix import Prompted, packed, token_logps
from perceptune.models.adapters import leave_casts_to_autocast, new_adapter
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, load_processor
from PIL import Image

from tests.tiny_models import build_tiny_llava

from .adapters import moved

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("dora", [False, True])
def test_inputs_of_lora_are_cast_once(dora: bool, tmp_path: Path) -> None:
    block = ModelBlock(path=str(build_tiny_llava(tmp_path)), family="llava", dtype="bfloat16")
    family, processor, base = family_of(block), load_processor(block), load_model(block)
    model = moved(new_adapter(base, LoraBlock(r=4, alpha=8, use_dora=dora), family))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (112, 112, 3), dtype=np.uint8))
    content = [{"type": "image", "text": None}, {"type": "text", "text": "read"}]
    prefix = family.prefix(processor, [{"role": "user", "content": content}], [picture])
    batch = packed([Prompted(prefix, family.positions(base, prefix), [[300, 301], [302]])], family, 0)
    cast: set[torch.dtype] = set()
    for name, module in model.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_hook(lambda _, inputs, output: cast.add(inputs[0].dtype))

    def passed() -> list[torch.Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logps = token_logps(model, batch)
        logps.sum().backward()
        return [logps.detach(), *(w.grad.clone() for w in model.parameters() if w.grad is not None)]

    expected, before = passed(), set(cast)
    cast.clear()
    leave_casts_to_autocast(model)
    found = passed()
    assert before == {torch.float32}
    assert cast == ({torch.float32} if dora else {torch.bfloat16})
    assert len(found) > 10
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
