"""Two processes that share the weights of a model train what one process trains, for every family."""

import subprocess
import sys
from pathlib import Path

import pytest
from perceptune.engines.training import image_features
from safetensors.torch import load_file

from tests.parity import sharded

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.extended
def test_sharded_weights_train_the_same_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, with activations computed again in the backward pass, logits in blocks, a list without
    images in one of the processes, which skips the vision tower there, with a head that shares its
    weight with the embedding, and with image features that one process finds and the other computes.
    """
    sharded.build(tmp_path)
    monkeypatch.setattr(image_features, "RESERVE", 0)
    missing = []
    for name in sharded.LANGUAGE_ONLY:
        sharded.trained(name, tmp_path, tmp_path / f"{name}-filled", tmp_path / "features", **sharded.CACHED)
        entries = sorted((tmp_path / "features").rglob("*.safetensors"), key=lambda file: file.stat().st_mtime_ns)
        missing.append(entries[-1])
        entries[-1].unlink()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*command, "-m", "tests.parity.sharded", str(tmp_path)], check=True, cwd=ROOT)
    assert all(file.exists() for file in missing)
    works = [(name, name, {}) for name in sharded.NAMES]
    works += [(name, f"{name}-cached", sharded.CACHED) for name in sharded.LANGUAGE_ONLY]
    for name, result, changes in works:
        expected = sharded.trained(name, tmp_path, tmp_path / f"{result}-alone", **changes)
        found = load_file(tmp_path / f"{result}.safetensors")
        assert expected is not None
        assert found.keys() == expected.keys()
        worst = max((found[key] - expected[key]).abs().max().item() for key in found)
        print(f"sharded against one process, {result}: {worst:.1e}")
        assert worst < 1e-5
        moved = max(found[key].abs().max().item() for key in found if "lora_B" in key)
        assert moved > 1e-4  # two steps of 1e-4 from 0
