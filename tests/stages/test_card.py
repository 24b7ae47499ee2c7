"""The model card: the code in it asks as perceptune does, and it shows no folders of this machine."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from perceptune.contracts.config import EngineBlock, ModelBlock
from perceptune.contracts.provenance.lineage import FILE
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.training import TRAINING
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_processor
from perceptune.stages.export import card
from PIL import Image

from tests.tiny_models import build_tiny_llava, build_tiny_qwen2_5_vl

QUESTION = "Locate this: Where is the red cup?"


def written(folder: Path, family: str) -> tuple[str, ModelBlock]:
    """The card of a policy whose weights and data are outside of the working directory."""
    model = ModelBlock(
        path=str(folder), family=family, dtype="float32", max_model_len=512, engine=EngineBlock(enforce_eager=True)
    )
    digests = {"examples": {"path": "/home/someone/secret/photos.parquet", "sha256": "e" * 64}}
    adapter = {"inputs": digests, "code": "c" * 64}
    record = {"parameters": {"weights": "w"}, "inputs": {}, "code": "d", "versions": {}, "adapter": adapter}
    differences = {name: {"mean": 1e-6, "max": 1e-5} for name in card.COMPARED}
    report = {
        "tokens": 10, "answers": 2, "dtype": "float32", "accepted": {"mean": 1e-4, "max": 1e-3},
        "differences": differences, "effect_of_the_adapter": {"mean": 0.1, "max": 1.0},
    }  # fmt: skip
    (folder / FILE).write_text(json.dumps(record))
    (folder / "parity.json").write_text(json.dumps(report))
    steps = [{"experiment": "dpo", "step": 3, "metric": "loss", "value": 0.5}]
    write_table(folder / "training.parquet", TRAINING, steps, {})
    config: dict[str, Any] = {
        "experiments": {
            "dpo": {"model": "m", "dataset": "photos", "sampling": "n8", "training": "dpo", "benchmarks": []}
        },
        "datasets": {"photos": {"kind": "jsonl", "path": "/home/someone/secret/photos.jsonl"}},
        "samplings": {"n8": {"n": 8, "prompt": "Locate this: {question}"}},
        "trainings": {"dpo": {"method": "dpo", "parameters": {"beta": 0.1}, "lora": {"r": 8}}},
    }
    card.run(
        policy="dpo",
        base="m",
        parity=folder / "parity.json",
        training=folder / "training.parquet",
        metrics=None,
        card=folder / "README.md",
        model=model,
        config=config,
    )
    return (folder / "README.md").read_text(), model


@pytest.mark.parametrize(("family", "build"), [("llava", build_tiny_llava), ("qwen2_5_vl", build_tiny_qwen2_5_vl)])
def test_the_example_asks_as_perceptune_does(
    family: str, build: Callable[[Path, int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, model = written(build(tmp_path / "model", 0), family)
    assert "/home/someone" not in text
    assert "photos.parquet" in text
    assert str(tmp_path) not in text
    loading, _, asking = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    Image.effect_mandelbrot((80, 60), (-2, -1.5, 1, 1.5), 20).convert("RGB").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(loading + asking, found)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    image = Image.open("photo.jpg").convert("RGB")
    expected = family_of(model).prefix(load_processor(model), messages, [image])
    for key in ("input_ids", "pixel_values"):
        assert torch.equal(found["inputs"][key], expected[key]), key
