"""The model card: which benchmarks were not held out, code that asks as perceptune does, and no folders
of this machine."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from perceptune.contracts.config import EngineBlock, Leakage, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.lineage import FILE
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.leakage import LEAKAGE
from perceptune.contracts.tables.training import TRAINING
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_processor
from perceptune.stages.export import card
from PIL import Image

from tests.tiny_models import build_tiny_llava, build_tiny_qwen2_5_vl

ROOT = Path(__file__).parents[2]
QUESTION = "Locate this: Where is the red cup?"
SAID = "training data photos/n8 share 1 of 8 images and 2 of 9 questions with benchmark "


def written(folder: Path, model: ModelBlock, lora: dict[str, Any] | None = None, **leakage: Any) -> str:
    """The card of a policy whose data are outside of the working directory, evaluated on `one`."""
    digests = {"examples": {"path": "/home/someone/secret/photos.parquet", "sha256": "e" * 64}}
    record = {
        "parameters": {"weights": "w"}, "inputs": {}, "code": "d", "versions": {},
        "adapter": {"inputs": digests, "code": "c" * 64},
    }  # fmt: skip
    difference = {"mean": 0.001, "max": 0.01}
    report = {
        "tokens": 10, "answers": 2, "dtype": "float32", "accepted": difference,
        "differences": dict.fromkeys(card.COMPARED, difference), "effect_of_the_adapter": difference,
    }  # fmt: skip
    (folder / FILE).write_text(json.dumps(record))
    (folder / "parity.json").write_text(json.dumps(report))
    steps = [{"experiment": "dpo", "step": 3, "metric": "loss", "value": 0.5}]
    write_table(folder / "training.parquet", TRAINING, steps, {})
    experiment = {"model": "m", "dataset": "photos", "sampling": "n8", "training": "dpo", "benchmarks": ["one"]}
    card.run(
        policy="dpo",
        base="m",
        parity=folder / "parity.json",
        training=folder / "training.parquet",
        metrics=None,
        card=folder / "README.md",
        model=model,
        config={
            "experiments": {"dpo": experiment},
            "datasets": {"photos": {"kind": "jsonl", "path": "/home/someone/secret/photos.jsonl"}},
            "samplings": {"n8": {"n": 8, "prompt": "Locate this: {question}"}},
            "trainings": {"dpo": {"method": "dpo", "parameters": {"beta": 0.1}, "lora": lora or {"r": 8}}},
        },
        **leakage,
    )
    return (folder / "README.md").read_text()


def leaking(folder: Path, mode: Leakage) -> str:
    """The card of a policy whose training data share images with benchmarks `one` and `two`."""
    counts = {
        "images": 8, "same_images": 1, "similar_images": 0, "questions": 9, "same_questions": 2, "similar_questions": 0,
    }  # fmt: skip
    shared = [{"kind": "same image", "training_id": "t", "benchmark_id": "b"}]
    rows = [{"benchmark": name, **counts, "examples": shared} for name in ("one", "two")]
    write_table(folder / "leakage.parquet", LEAKAGE, rows, {})
    model = ModelBlock(path=str(ROOT / "resources/tiny-llava/model"), family="llava")
    return written(folder, model, leakage={"photos/n8": folder / "leakage.parquet"}, leakage_mode=mode)


def test_the_card_warns_about_leakage(tmp_path: Path) -> None:
    text = leaking(tmp_path, "warn")
    assert f"> Not held out: {SAID}one.\n" in text
    assert SAID + "two" not in text
    assert text.index("## Results") < text.index(SAID) < text.index("## Verification")


def test_the_card_does_not_warn_if_leakage_is_allowed(tmp_path: Path) -> None:
    text = leaking(tmp_path, "allow")
    assert "Not held out" not in text
    assert "## Results\n\nThis policy was not evaluated.\n" in text


def test_no_card_is_written_if_leakage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="with benchmark one"):
        leaking(tmp_path, "refuse")
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize(
    ("lora", "expected"),
    [
        ({"r": 8}, "a LoRA adapter (rank 8) of the language model,"),
        ({"r": 8, "use_dora": True, "target_modules": ["q_proj"]}, "a DoRA adapter (rank 8) of layers `q_proj` of the language model,"),
        (
            {"parts": ["language", "vision", "projector"], "full": ["projector"], "use_rslora": True},
            "a rank-stabilised LoRA adapter (rank 128) of the language model and the vision tower, and the projector in full,",
        ),
    ],
)  # fmt: skip
def test_the_card_says_what_was_trained(lora: dict[str, Any], expected: str, tmp_path: Path) -> None:
    model = ModelBlock(path=str(ROOT / "resources/tiny-llava/model"), family="llava")
    assert f"trained with dpo by perceptune: {expected}\n" in written(tmp_path, model, lora)


@pytest.mark.parametrize(("family", "build"), [("llava", build_tiny_llava), ("qwen2_5_vl", build_tiny_qwen2_5_vl)])
def test_the_example_asks_as_perceptune_does(
    family: str, build: Callable[[Path, int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build(tmp_path / "model", 0)
    model = ModelBlock(
        path=str(folder), family=family, dtype="float32", max_model_len=512, engine=EngineBlock(enforce_eager=True)
    )
    text = written(folder, model)
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
