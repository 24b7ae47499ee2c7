"""Two processes that share the weights of a model train what one process trains, for every family."""

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.parity import sharded

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.extended
def test_sharded_weights_train_the_same_adapter(tmp_path: Path) -> None:
    """In float32, with activations computed again in the backward pass, logits in blocks, a list without
    images in one of the processes, which skips the vision tower there, and with a head that shares its
    weight with the embedding.
    """
    sharded.build(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*command, "-m", "tests.parity.sharded", str(tmp_path)], check=True, cwd=ROOT)
    for name in sharded.NAMES:
        expected = sharded.trained(name, tmp_path, tmp_path / f"{name}-alone")
        found = load_file(tmp_path / f"{name}.safetensors")
        assert expected is not None
        assert found.keys() == expected.keys()
        worst = max((found[key] - expected[key]).abs().max().item() for key in found)
        print(f"sharded against one process, {name}: {worst:.1e}")
        assert worst < 1e-5
        moved = max(found[key].abs().max().item() for key in found if "lora_B" in key)
        assert moved > 1e-4  # two steps of 1e-4 from 0
