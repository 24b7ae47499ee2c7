"""vLLM's log-probabilities of its sampled tokens equal those of transformers."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from perceptune.contracts.config import ModelBlock
from perceptune.models.loading import load_model

from tests import tiny_models as tiny
from tests.plugins import FAMILIES

from .vllm_logps import engine_against_transformers

pytestmark = pytest.mark.slow

BUILDERS = {"llava": tiny.build_tiny_llava, "qwen2_5_vl": tiny.build_tiny_qwen2_5_vl}
TOLERANCE = 2e-4
"""Largest allowed difference in a token's log-probability, in nats: two float32 implementations
with different kernels and orders of summation.
"""


def adapter_of(family: str, folder: Path, target: Path) -> Path:
    """A LoRA adapter whose update is non-zero."""
    torch.manual_seed(3)
    block = ModelBlock(path=str(folder), family=family, dtype="float32")
    config = LoraConfig(
        r=8, lora_alpha=16, target_modules=FAMILIES[family].lora_targets["language"], init_lora_weights=False
    )
    get_peft_model(load_model(block), config).save_pretrained(target)
    return target


@pytest.mark.parametrize("family", sorted(BUILDERS))
@pytest.mark.parametrize("adapted", [False, True])
def test_log_probabilities_agree(family: str, adapted: bool, tmp_path: Path) -> None:
    folder = BUILDERS[family](tmp_path / "model", 0)
    adapter = adapter_of(family, folder, tmp_path / "adapter") if adapted else None
    found = engine_against_transformers(family, folder, adapter)
    assert found["worst"] <= TOLERANCE, found
    assert found["greedy_equal"], found
    assert found["tokens"] > 60  # twelve sampled and four greedy answers of up to twelve tokens
    assert found["distinct"] > 5
