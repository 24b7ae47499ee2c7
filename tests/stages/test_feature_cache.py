"""Stored log-probs, trainings and rounds with a cache of image features: the same bytes as without."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perceptune.contracts.config import LoraBlock, ModelBlock
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.terms import TERMS
from perceptune.engines.training import image_features
from transformers import LlavaModel

from . import test_rounds as in_rounds
from . import trainings
from .trainings import logged, store_logprobs, trained

pytestmark = pytest.mark.slow
folder = trainings.folder
rounds = in_rounds.folder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(image_features, "RESERVE", 0)


@pytest.fixture
def towers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of each call of the vision tower, in this process."""
    plain, calls = LlavaModel.get_image_features, list[int]()

    def counted(self: LlavaModel, pixel_values: Any, **named: Any) -> Any:
        calls.append(len(pixel_values))
        return plain(self, pixel_values, **named)

    monkeypatch.setattr(LlavaModel, "get_image_features", counted)
    return calls


def use_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has all stages below use it."""

    def block(folder: Path, workers: int | None = None) -> ModelBlock:
        path = str(folder / "model")
        return ModelBlock(path=path, family="llava", dtype="float32", workers=workers, feature_cache=True)

    monkeypatch.setattr(trainings, "model_block", block)
    monkeypatch.setattr(in_rounds, "model_of", block)


def counts(text: str) -> list[tuple[int, int]]:
    """Prompts that were read and computed, by job."""
    return [
        (int(a), int(b)) for a, b in re.findall(r"image features: (\d+) prompts read from \S+ (\d+) computed", text)
    ]


def test_trainings_are_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, towers: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """The second epoch reads what the first one has stored, and log-probs and another training what this one
    has; also a worker does.
    """
    plain, log = trained(folder, tmp_path / "plain", micro_batch_size=1)
    assert towers == [1] * 16
    use_cache(monkeypatch)
    towers.clear()
    found, rows = trained(folder, tmp_path / "first", micro_batch_size=1, workers=0)
    assert towers == [1] * 8
    assert counts(capsys.readouterr().out) == [(8, 8)]
    assert found.keys() == plain.keys()
    assert all(np.array_equal(found[name], plain[name]) for name in plain)
    assert logged(rows, "loss") == logged(log, "loss")
    again, _ = trained(folder, tmp_path / "second", micro_batch_size=1, workers=1, gradient_checkpointing=True)
    assert towers == [1] * 8
    assert counts(capsys.readouterr().out) == [(16, 0)]
    assert all(np.array_equal(again[name], plain[name]) for name in plain)
    store_logprobs(folder, tmp_path / "terms.parquet")
    assert towers == [1] * 8
    terms, expected = (read_table(path / "terms.parquet", TERMS).to_pylist() for path in (tmp_path, folder))
    for one, other in zip(terms, expected, strict=True):  # there, eight images are computed at once
        assert np.concatenate(one["logprobs"]) == pytest.approx(np.concatenate(other["logprobs"]), rel=1e-5)
    assert {file.suffix for file in Path("results/.features").rglob("*") if file.is_file()} == {".safetensors"}


def test_a_trained_projector_has_no_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lora = LoraBlock(r=4, alpha=8, parts=("language", "projector"))
    plain, _ = trained(folder, tmp_path / "plain", lora=lora, epochs=1)
    use_cache(monkeypatch)
    found, _ = trained(folder, tmp_path / "cached", lora=lora, epochs=1)
    said = capsys.readouterr().out
    assert "`feature_cache` is not used: `model.multi_modal_projector.linear_1` is trained" in said
    assert not counts(said)
    assert not Path("results").exists()
    assert all(np.array_equal(found[name], plain[name]) for name in plain)


def test_rounds_are_the_same_bytes(
    rounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, towers: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """CPPO goes through its batches twice, under three views; the log-probs before have one of these."""
    settings: dict[str, Any] = {"method": "cppo", "micro_batch_size": 1}
    plain = in_rounds.trained(rounds, tmp_path / "plain", **settings)
    groups = in_rounds.GROUPS
    assert len(towers) > groups + 3 * groups
    use_cache(monkeypatch)
    towers.clear()
    first = in_rounds.trained(rounds, tmp_path / "first", **settings)
    assert towers == [1] * (groups + 2 * groups)
    again = in_rounds.trained(rounds, tmp_path / "again", **settings)
    assert towers == [1] * (groups + 2 * groups)
    read = [(0, groups), (groups, 2 * groups), (groups, 0), (3 * groups, 0)]
    assert counts(capsys.readouterr().out) == read
    files = ("adapter_model.safetensors", "optimizer.safetensors")
    for found in (first, again):
        assert all((found / file).read_bytes() == (plain / file).read_bytes() for file in files)
    terms, expected = (read_table(tmp_path / name / "terms.parquet", TERMS) for name in ("first", "plain"))
    assert terms == expected
