"""The settings of vLLM's environment are known to the installed version, which ignores others."""

import re
from pathlib import Path

import perceptune
from perceptune.engines.vllm import environment  # noqa: F401

# isort: split
from vllm import envs

FOLDER = Path(perceptune.__file__).parent / "engines/vllm"


def test_vllm_knows_the_settings() -> None:
    code = "".join((FOLDER / file).read_text() for file in ("environment.py", "sampler.py"))
    names = set(re.findall(r'"(VLLM_\w+)"', code))
    assert {"VLLM_USE_FLASHINFER_SAMPLER", "VLLM_BATCH_INVARIANT"} <= names
    assert names - {*envs.environment_variables} == set()


def test_no_sampler_is_compiled_with_nvcc() -> None:
    assert not envs.VLLM_USE_FLASHINFER_SAMPLER
    assert envs.VLLM_WORKER_MULTIPROC_METHOD == "spawn"
