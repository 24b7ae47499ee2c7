"""Saliency maps: the engine against DINOv2 in NumPy, the stage's table, and views that use it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from perceptune.contracts.config import BenchmarkBlock, SaliencyBlock, SamplingBlock, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.digests import sha256_of_file
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.saliency import SALIENCY
from perceptune.core.views.patch_saliency import salient_cells
from perceptune.core.views.view import Recipe
from perceptune.engines.vision.dinov2 import Dino
from perceptune.stages.attention import saliency
from perceptune.stages.sampling import requests
from PIL import Image
from safetensors.numpy import load_file
from scipy.special import erf, softmax
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from tests import tiny_models as tiny

pytestmark = pytest.mark.slow
HEADS, LAYERS, PATCH, GRID = 2, 4, 14, 8
SIDE = PATCH * GRID
BLACKENED = {"hidden": ViewBlock(type="semantic", parameters={"share": 0.5}, saliency_map="dino")}


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_tiny_dinov2(tmp_path_factory.mktemp("dino"), layers=LAYERS)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def plain(folder: Path, image: Image.Image, first: int, last: int) -> np.ndarray:
    """The attention that patches receive, computed by hand in float64: (patches,)."""
    weights = {name: value.astype(float) for name, value in load_file(folder / "model.safetensors").items()}
    told = json.loads((folder / "preprocessor_config.json").read_text())
    pixels = (np.asarray(image, dtype=float) / 255 - told["image_mean"]) / told["image_std"]
    kernel = weights["embeddings.patch_embeddings.projection.weight"]
    rows = [
        [pixels[PATCH * r : PATCH * (r + 1), PATCH * c : PATCH * (c + 1)] for c in range(GRID)] for r in range(GRID)
    ]
    patches = [np.einsum("yxc,ocyx->o", patch, kernel) for row in rows for patch in row]
    patches = np.stack(patches) + weights["embeddings.patch_embeddings.projection.bias"]
    tokens = (
        np.concatenate([weights["embeddings.cls_token"][0], patches]) + weights["embeddings.position_embeddings"][0]
    )

    def normed(values: np.ndarray, name: str) -> np.ndarray:
        centred = values - values.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(values: np.ndarray, name: str) -> np.ndarray:
        return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    kept = []
    for number in range(last + 1):
        layer = next(p for p in (f"encoder.layer.{number}", f"layer.{number}") if f"{p}.norm1.weight" in weights)
        attention = next(k for k in weights if k.startswith(layer) and ("query.weight" in k or "q_proj.weight" in k))
        named = ("query", "key", "value") if "query" in attention else ("q_proj", "k_proj", "v_proj")
        base = attention.rpartition(f".{named[0]}")[0]
        inside = normed(tokens, f"{layer}.norm1")
        query, key, value = (np.stack(np.split(linear(inside, f"{base}.{name}"), HEADS, axis=1)) for name in named)
        attended = softmax(query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1]), axis=-1)
        if number >= first:
            kept.append(attended)
        out = "o_proj" if named[0] == "q_proj" else "output.dense"
        mixed = linear(
            np.concatenate(list(attended @ value), axis=1),
            f"{base if out == 'o_proj' else base.rpartition('.')[0]}.{out}",
        )
        tokens = tokens + mixed * weights[f"{layer}.layer_scale1.lambda1"]
        wide = linear(normed(tokens, f"{layer}.norm2"), f"{layer}.mlp.fc1")
        wide = linear(wide * (1 + erf(wide / np.sqrt(2))) / 2, f"{layer}.mlp.fc2")
        tokens = tokens + wide * weights[f"{layer}.layer_scale2.lambda1"]
    mean = np.mean(kept, axis=(0, 1))  # over layers and heads
    return np.array([sum(mean[sender, receiver] for sender in range(1, len(mean))) for receiver in range(1, len(mean))])


@pytest.mark.parametrize("layers", [(0, 0), (1, 2), (0, 3), (3, 3)])
def test_the_engine_matches_a_plain_dinov2(dino: Path, layers: tuple[int, int]) -> None:
    images = [noise(SIDE, SIDE, seed) for seed in range(3)]
    found = Dino(SaliencyBlock(path=str(dino), layers=layers, size=SIDE)).received(images)
    assert found.shape == (3, GRID * GRID)  # N - 1 of N = 65 tokens
    for image, ours in zip(images, found, strict=True):
        expected = plain(dino, image, *layers)
        assert ours == pytest.approx(expected, rel=1e-4)
        assert np.ptp(expected) > 0.3 * expected.mean()  # the map is not flat
        assert salient_cells(ours, 0.6) == salient_cells(expected, 0.6)
        assert len(salient_cells(ours, 0.6)) == 38  # floor(0.6 x 64), not of 65


def test_images_of_any_size_are_seen_whole(dino: Path) -> None:
    """Not centre-cropped, as the folder's processor would do."""
    model = Dino(SaliencyBlock(path=str(dino), layers=(1, 2), size=70))
    assert model.grid == (5, 5)
    wide = noise(300, 40)
    scaled = wide.resize((70, 70), Image.Resampling.BICUBIC)
    one, other, both = (model.received(images) for images in ([wide], [scaled], [wide, scaled]))
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert both == pytest.approx(np.concatenate([one, other]), rel=1e-5)
    wide.paste((0, 0, 0), (0, 0, 20, 40))
    assert np.abs(model.received([wide]) - one).max() > 1e-3


def test_registers_do_not_count_as_patches(dino: Path, tmp_path: Path) -> None:
    config = Dinov2WithRegistersConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
        num_register_tokens=4,
    )
    torch.manual_seed(0)
    Dinov2WithRegistersModel(config).save_pretrained(tmp_path)
    shutil.copy(dino / "preprocessor_config.json", tmp_path)
    found = Dino(SaliencyBlock(path=str(tmp_path), layers=(0, 2), size=SIDE)).received([noise(SIDE, SIDE)])
    assert found.shape == (1, GRID * GRID)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": (2, 4)}, r"key `layers`: \[2, 4\], expected first and last of the model's layers 0 to 3"),
        ({"size": 100}, "key `size`: 100, expected a multiple of the model's patch of 14 pixels"),
        ({"path": "resources/tiny-clip/model"}, "holds a CLIPModel, expected a DINOv2 model"),
        ({"path": "facebook/dinov2-base"}, "DINOv2 model folder `facebook/dinov2-base` cannot be loaded"),
    ],
)
def test_unsuitable_settings_are_reported(dino: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Dino(SaliencyBlock(**{"path": str(dino), "layers": (0, 1), "size": 112, **settings}))


@pytest.fixture(scope="module")
def folder(dino: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Examples with one image, the same again, two, none, a deleted one, and of another split."""
    folder = tmp_path_factory.mktemp("examples")
    names = {"0": ["a"], "1": ["a"], "2": ["a", "b"], "3": [], "4": ["gone"], "5": ["b"]}
    for number, name in enumerate(("a", "b", "gone")):
        noise(60, 45, number).save(folder / f"{name}.png")
    rows = []
    for example, images in names.items():
        files = [folder / f"{name}.png" for name in images]
        rows.append({
            "example_id": example, "task": "open", "question": "?", "images": [{"bytes": None, "path": str(file)} for file in files],
            "image_sha256": [sha256_of_file(file) for file in files], "image_hashes": [], "image_sizes": [[60, 45]] * len(files), "target": None,
            "box": None, "split": "test" if example == "5" else "train", "source": None, "reason": None,
        })  # fmt: skip
    write_table(folder / "examples.parquet", EXAMPLES, rows, {})
    (folder / "gone.png").unlink()
    measured(dino, folder)
    return folder


def measured(dino: Path, folder: Path, halvings: int = 0) -> list[dict[str, Any]]:
    saliency.run(
        dataset="mine", examples=folder / "examples.parquet", saliency=folder / "dino.parquet", weights="w", halvings=halvings,
        config=SaliencyBlock(path=str(dino), layers=(1, 2), size=70),
    )  # fmt: skip
    return read_table(folder / "dino.parquet", SALIENCY).to_pylist()


def test_every_example_has_its_row(dino: Path, folder: Path) -> None:
    one, again, two, blind, gone = rows = measured(dino, folder)
    assert [row["example_id"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert one["grid"] == two["grid"] == [5, 5]
    assert [len(row["saliency"]) for row in rows[:4]] == [1, 1, 2, 0]
    assert one["saliency"][0] == again["saliency"][0] == two["saliency"][0] != two["saliency"][1]
    expected = Dino(SaliencyBlock(path=str(dino), layers=(1, 2), size=70)).received([noise(60, 45, 1)])[0]
    assert two["saliency"][1] == pytest.approx(expected, rel=1e-5)
    assert (blind["saliency"], blind["reason"]) == ([], None)  # no image, so nothing to black out
    assert (gone["grid"], gone["saliency"], gone["reason"]) == (None, None, "the file does not exist")


def test_smaller_batches_give_the_same_maps(dino: Path, folder: Path) -> None:
    one, other = measured(dino, folder), measured(dino, folder, halvings=5)
    assert [row["saliency"] and len(row["saliency"]) for row in one] == [
        row["saliency"] and len(row["saliency"]) for row in other
    ]
    assert np.allclose(one[2]["saliency"], other[2]["saliency"], rtol=1e-5)


def views(folder: Path, blocks: dict[str, ViewBlock] = BLACKENED) -> requests.Views:
    return requests.Views(blocks, saliencies={"dino": folder / "dino.parquet"})


def test_requests_carry_the_cells(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = folder / "requests.parquet"
    shared: dict[str, Any] = {"examples": folder / "examples.parquet", "requests": target}
    requests.run_samples(dataset="mine", **shared, config=SamplingBlock(view="hidden"), views=views(folder))
    rows = read_table(target, REQUESTS).to_pylist()
    assert [row["example_id"] for row in rows] == ["0", "1", "2", "3"]
    assert "1 questions left out: view `hidden`: no saliency map: the file does not exist" in capsys.readouterr().out
    maps = {row["example_id"]: row["saliency"] for row in read_table(folder / "dino.parquet", SALIENCY).to_pylist()}
    for row in rows:
        recipe = Recipe.read(row["recipe"])
        expected = [salient_cells(one, 0.5) for one in maps[row["example_id"]]]
        assert recipe == Recipe("semantic", {"share": 0.5, "grid": [5, 5], "cells": expected})
        assert all(len(cells) == 12 for cells in expected)  # floor(0.5 x 25)


def test_a_choice_of_a_view_may_need_a_saliency_map(folder: Path) -> None:
    blocks = {**BLACKENED, "masked": ViewBlock(type="masked"), "either": ViewBlock(choice=("hidden", "masked"))}
    ops = set()
    for seed in range(8):
        drawn = {**blocks, "either": ViewBlock(choice=("hidden", "masked"), seed=seed)}
        target = folder / "either.parquet"
        requests.run_samples(
            dataset="mine", examples=folder / "examples.parquet", requests=target, config=SamplingBlock(view="either"),
            views=views(folder, drawn),
        )  # fmt: skip
        ops |= {Recipe.read(row["recipe"]).op for row in read_table(target, REQUESTS).to_pylist()}
    assert ops == {"semantic", "masked"}


def test_a_saliency_map_that_does_not_cover_the_questions_is_reported(folder: Path) -> None:
    benchmark = BenchmarkBlock(dataset="mine", reward="r", split="test", n=0, views=("original", "hidden"))
    with pytest.raises(UserError, match="saliency map `dino` has no row for example `5`") as caught:
        requests.run_benchmarks(
            examples={"mine": folder / "examples.parquet"}, requests=folder / "b.parquet", benchmarks={"b": benchmark},
            views={"mine": views(folder)},
        )  # fmt: skip
    assert "must cover the split and the tasks" in str(caught.value.hint)
