"""The attention and CLIP stages on small random models: complete tables, clear errors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perceptune.contracts.config import AttentionBlock, ClipBlock, CropBlock, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.digests import sha256_of_file
from perceptune.contracts.tables.attention import ATTENTION
from perceptune.contracts.tables.clips import CLIPS
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.stages.attention import clip_scores, crops, maps
from PIL import Image

from tests import tiny_models as tiny

pytestmark = pytest.mark.slow
CLIP = Path("resources/tiny-clip/model")


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three examples with non-square images: with a box, without ground truth, without an image."""
    target = tmp_path_factory.mktemp(request.param)
    builder = {"llava": tiny.build_tiny_llava, "qwen2_5_vl": tiny.build_tiny_qwen2_5_vl}[request.param]
    builder(target / "model", 0)
    random = np.random.default_rng(0)
    rows = []
    for number in range(3):
        path = target / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (70, 112, 3), dtype=np.uint8)).save(path)
        bare = number == 2
        rows.append({
            "example_id": str(number), "task": "grounding", "question": "locate the red circle.",
            "images": [] if bare else [{"bytes": None, "path": str(path)}], "image_sha256": [] if bare else [sha256_of_file(path)],
            "image_hashes": [], "image_sizes": [] if bare else [[112, 70]], "target": None, "box": [10.0, 10.0, 60.0, 50.0] if number == 0 else None,
            "split": "train", "source": None, "reason": None,
        })  # fmt: skip
    write_table(target / "examples.parquet", EXAMPLES, rows, {})
    return target


def measured(folder: Path, **settings: Any) -> list[dict[str, Any]]:
    family: Any = "llava" if "llava" in folder.name else "qwen2_5_vl"
    maps.run(
        dataset="d",
        examples=folder / "examples.parquet",
        attention=folder / "attention.parquet",
        model=ModelBlock(path=str(folder / "model"), family=family, dtype="float32"),
        weights="w",
        adapter=None,
        config=AttentionBlock(**settings),
    )
    return read_table(folder / "attention.parquet", ATTENTION).to_pylist()


def test_every_example_has_its_row(folder: Path) -> None:
    boxed, bare, blind = measured(folder)
    rows, columns = boxed["grid"]
    assert rows < columns  # the image is wide, and padding is not part of it
    assert len(boxed["attention"]) == rows * columns
    assert boxed["afr"] > 0
    assert len(boxed["layer_afr"]) == len(boxed["image_share"]) == 2
    assert boxed["global_afr"] == pytest.approx(boxed["afr"], rel=1e-5)  # the map of all layers
    assert all(0 < share < 1 for share in boxed["image_share"])
    assert (bare["afr"], bare["layer_afr"]) == (None, None)
    assert len(bare["attention"]) == rows * columns
    assert (blind["attention"], blind["reason"]) == (None, "no image")


def test_one_layer_or_the_mean_of_several(folder: Path) -> None:
    single = [np.array(measured(folder, layers=(layer, layer))[0]["attention"]) for layer in (0, 1)]
    both = np.array(measured(folder)[0]["attention"])
    assert np.allclose(both, (single[0] + single[1]) / 2, atol=1e-7)
    weighted = np.array(measured(folder, layers=(1, 1), method="gradient")[0]["attention"])
    assert not np.allclose(weighted, single[1])


def test_the_afr_of_all_layers_does_not_depend_on_those_of_the_map(folder: Path) -> None:
    """Layers with more attention on the image count for more than in the mean of the layers' AFRs."""
    every, last = measured(folder)[0], measured(folder, layers=(1, 1))[0]
    assert last["global_afr"] == every["global_afr"]
    assert last["afr"] == last["layer_afr"][1] != last["global_afr"]
    assert min(last["layer_afr"]) < last["global_afr"] < max(last["layer_afr"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"layers": (1, 7)}, r"key `layers`: \[1, 7\], expected first and last of the model's layers 0 to 1"),
     ({"layers": (0, 1), "method": "gradient"}, "expected the same layer twice for `method: gradient`")],
)  # fmt: skip
def test_missing_layers_are_reported(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        measured(folder, **settings)


def test_crops_and_their_scores(folder: Path) -> None:
    measured(folder)
    crops.run(
        attention=folder / "attention.parquet",
        crops=folder / "crops.parquet",
        config=CropBlock(attention_map="a", base=(30, 30)),
    )
    clip_scores.run(
        examples=folder / "examples.parquet", crops=folder / "crops.parquet", clips=folder / "clip_scores.parquet",
        config=ClipBlock(path=str(CLIP)), weights="w",
    )  # fmt: skip
    scores = read_table(folder / "clip_scores.parquet", CLIPS).to_pylist()
    assert [row["example_id"] for row in scores] == ["0", "1", "2"]
    assert all(-1 <= scores[0][name] <= 1 for name in ("image", "crop", "inverse"))
    assert (scores[2]["image"], scores[2]["reason"]) == (None, "no image")


def test_the_clip_sees_what_the_question_names() -> None:
    """The bundled model prefers the question about a red circle to one about a blue square."""
    from perceptune.core.data.shapes import Scene, Thing, render
    from perceptune.engines.vision.clip import Clip

    scene = Scene((240, 240, 240), (0, 0, 0), (Thing("red", "circle", (214, 40, 40), (30, 30, 80, 80)),))
    ((right,), (wrong,)) = Clip(ClipBlock(path=str(CLIP))).cosines(
        ["is there a red circle?", "is there a blue square?"], [[render(scene)], [render(scene)]]
    )
    assert right > 0.2 > wrong


@pytest.mark.parametrize(
    ("name", "message"), [("absent", "cannot be loaded"), ("model", "expected a CLIP model|cannot be loaded")]
)
def test_a_folder_without_clip_is_reported(folder: Path, name: str, message: str) -> None:
    from perceptune.engines.vision.clip import Clip

    with pytest.raises(UserError, match=message):
        Clip(ClipBlock(path=str(folder / name)))


@pytest.mark.parametrize(
    ("base", "said"),
    [((40, 40), "the median crop covers 0.05% of its image; images have about 3000 x 1000 pixels"), ((200, 200), None)],
)
def test_crops_that_are_tiny_are_reported(base: tuple[int, int], said: str | None) -> None:
    config = CropBlock(attention_map="mean", base=base)
    share = crops._share([10.0, 10.0, 10.0 + base[0], 10.0 + base[1]], [3000, 1000])
    found = crops._tiny([share], [[3000, 1000], [3000, 1000]], config)
    assert found is None if said is None else (found or "").startswith(said)
    assert crops._tiny([], [], config) is None
