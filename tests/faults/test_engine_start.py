"""Engines that cannot start: one line says why."""

from pathlib import Path

import pytest
from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError

pytestmark = pytest.mark.slow


def test_a_longer_context_than_the_model_has_is_one_line(tmp_path: Path) -> None:
    """No copy of the weights is left in `merged`."""
    from perceptune.engines.vllm.sampler import Sampler

    merged = tmp_path / "merged"
    merged.mkdir()
    block = ModelBlock(path="resources/tiny-llava/model", family="llava", dtype="float32", max_model_len=4096)
    with pytest.raises(UserError) as stopped:
        Sampler(block, None, 1, merged)
    expected = "key `max_model_len`: 4096, expected at most the 2048 of model `resources/tiny-llava/model`"
    assert stopped.value.args == (expected,)
    assert not merged.exists()


def test_a_build_without_its_device_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As vLLM's build for GPUs on a machine without one."""
    from perceptune.engines.vllm import sampler
    from vllm.platforms.interface import UnspecifiedPlatform

    monkeypatch.setattr(sampler, "current_platform", UnspecifiedPlatform())
    block = ModelBlock(path="resources/tiny-llava/model", family="llava", dtype="float32", max_model_len=512)
    with pytest.raises(UserError, match="vLLM sees no GPU"):
        sampler.Sampler(block, None, 1, tmp_path / "merged")
