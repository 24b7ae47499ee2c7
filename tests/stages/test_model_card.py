"""The model card says which benchmarks were not held out."""

import json
from pathlib import Path

import pytest
from perceptune.contracts.config import Leakage, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.lineage import FILE
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.leakage import LEAKAGE
from perceptune.contracts.tables.training import TRAINING
from perceptune.stages.export import card

ROOT = Path(__file__).parents[2]
MADE = {"stage": "test"}
SAID = "training data d/s share 1 of 8 images and 2 of 9 questions with benchmark "


def written(folder: Path, mode: Leakage) -> str:
    """The card of a policy whose training data share images with both benchmarks of the table, of which
    it is evaluated on `one`."""
    difference = {"mean": 0.001, "max": 0.01}
    parity = {
        "tokens": 5, "answers": 2, "dtype": "float32", "accepted": difference,
        "differences": dict.fromkeys(card.COMPARED, difference), "effect_of_the_adapter": difference,
    }  # fmt: skip
    record = {
        "parameters": {"weights": "w"}, "inputs": {}, "code": "c", "versions": {}, "adapter": {"inputs": {}, "code": "a"}
    }  # fmt: skip
    (folder / "parity.json").write_text(json.dumps(parity))
    (folder / FILE).write_text(json.dumps(record))
    write_table(folder / "training", TRAINING, [{"experiment": "p", "step": 3, "metric": "loss", "value": 1.0}], MADE)
    counts = {
        "images": 8,
        "same_images": 1,
        "similar_images": 0,
        "questions": 9,
        "same_questions": 2,
        "similar_questions": 0,
    }
    shared = [{"kind": "same image", "training_id": "t", "benchmark_id": "b"}]
    rows = [{"benchmark": name, **counts, "examples": shared} for name in ("one", "two")]
    write_table(folder / "leakage", LEAKAGE, rows, MADE)
    lora = {"r": 8}
    card.run(
        policy="p",
        base="tiny",
        parity=folder / "parity.json",
        training=folder / "training",
        metrics=None,
        card=folder / "README.md",
        model=ModelBlock(path=str(ROOT / "resources/tiny-llava/model"), family="llava"),
        config={
            "datasets": {"d": {"kind": "shapes"}},
            "trainings": {"t": {"method": "dpo", "lora": lora, "parameters": {}}},
            "experiments": {
                "p": {"model": "tiny", "dataset": "d", "sampling": "s", "training": "t", "benchmarks": ["one"]}
            },
        },
        leakage={"d/s": folder / "leakage"},
        leakage_mode=mode,
    )
    return (folder / "README.md").read_text()


def test_the_card_warns_about_leakage(tmp_path: Path) -> None:
    text = written(tmp_path, "warn")
    assert f"> Not held out: {SAID}one.\n" in text
    assert SAID + "two" not in text
    assert text.index("## Results") < text.index(SAID) < text.index("## Verification")


def test_the_card_does_not_warn_if_leakage_is_allowed(tmp_path: Path) -> None:
    text = written(tmp_path, "allow")
    assert "Not held out" not in text
    assert "## Results\n\nThis policy was not evaluated.\n" in text


def test_no_card_is_written_if_leakage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="with benchmark one"):
        written(tmp_path, "refuse")
    assert not (tmp_path / "README.md").exists()
