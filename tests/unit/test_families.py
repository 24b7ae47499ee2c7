"""How the families write boxes, in which coordinates, and how the box parser reads their answers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from perceptune.contracts.config import ModelBlock
from perceptune.core.answers.boxes import parse_box, to_pixels
from perceptune.models.coordinates import coordinate_frame, framed, resized_sizes
from perceptune.models.families.family import family_of
from transformers import Qwen2VLImageProcessor

from tests.plugins import FAMILIES

BOX = (40.0, 30.0, 120.0, 90.0)
SIZE = (160, 120)
"""Width and height: the padded square has 160 pixels a side, of which the first 20 rows are
padding."""

WRITTEN = {
    "llava": "[0.25, 0.31, 0.75, 0.69]",  # (30 + 20) / 160 = 0.3125, (90 + 20) / 160 = 0.6875
    "llava_next": "[0.25, 0.31, 0.75, 0.69]",
    "llava_onevision": "[0.25, 0.31, 0.75, 0.69]",
    "qwen2_vl": "<|box_start|>(250,250),(750,750)<|box_end|>",  # 40 / 160, 30 / 120, 120 / 160, 90 / 120
    "qwen3_vl": "[250, 250, 750, 750]",
    "internvl": "[[250, 250, 750, 750]]",
}


FRAMES = {
    "llava": "padded_square", "llava_next": "padded_square", "llava_onevision": "padded_square", "internvl": "thousand",
    "qwen2_vl": "thousand", "qwen2_5_vl": "resized_pixels", "qwen3_vl": "thousand", "auto": None,
}  # fmt: skip


def test_every_family_declares_itself() -> None:
    assert {name: coordinate_frame(ModelBlock(path="m", family=name)) for name in FAMILIES} == FRAMES
    assert coordinate_frame(ModelBlock(path="m", family="llava", coordinates="original")) == "original"
    assert {name for name, family in FAMILIES.items() if family.resizes_by_pixels} == {
        "qwen2_vl", "qwen2_5_vl", "qwen3_vl",
    }  # fmt: skip
    types = [kind for family in FAMILIES.values() for kind in family.model_types]
    assert sorted(types) == sorted(set(types)) == sorted({*FRAMES} - {"auto"})  # each file belongs to one family


def test_declarations_are_read_without_anything_heavy() -> None:
    """The plan loads the families that a config names."""
    heavy = "torch transformers vllm peft numpy PIL"
    code = (
        "import sys; from perceptune.contracts.plugins import load, names; "
        "print([load('family', name).frame for name in names('family')], file=sys.stderr); "
        f"print([m for m in '{heavy}'.split() if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_the_true_box_in_the_familys_notation(name: str) -> None:
    model = ModelBlock(path="model", family=name)
    example = {"example_id": "e", "box": list(BOX), "target": None, "image_sizes": [list(SIZE)]}
    text = family_of(model).ground_truth(*framed(example, model))
    assert text == WRITTEN[name]
    shown = text.removeprefix("<|box_start|>").removesuffix("<|box_end|>")  # as decoded: without special tokens
    numbers = parse_box(shown)
    assert numbers is not None
    pixels = to_pixels(np.array([numbers]), coordinate_frame(model), np.array([SIZE], dtype=float))
    assert np.abs(pixels - BOX).max() <= 160 * 0.005  # half a unit of the second decimal


def test_qwen2_5_vl_writes_pixels_of_the_resized_image() -> None:
    """For instance, 160 x 120 becomes 168 x 112: 40 * 168 / 160 = 42, 30 * 112 / 120 = 28, 126, 84."""
    example = {"example_id": "e", "box": list(BOX), "target": None, "image_sizes": [list(SIZE)]}
    text = FAMILIES["qwen2_5_vl"].ground_truth(example, "resized_pixels", (168, 112))
    assert text == "[42, 28, 126, 84]"


def test_an_image_that_the_processor_refuses_has_no_resized_size(tmp_path: Path) -> None:
    """No request about it was answered, and it must not stop the scoring of all others."""
    Qwen2VLImageProcessor().save_pretrained(tmp_path)
    model = ModelBlock(path=str(tmp_path), family="qwen2_5_vl")
    sizes = np.array([(301, 1), (560, 280), (np.nan, np.nan), (1, 1)])
    expected = np.array([(np.nan, np.nan), (560, 280), (np.nan, np.nan), (56, 56)])
    assert np.array_equal(resized_sizes(model, sizes), expected, equal_nan=True)
    example = {"example_id": "e", "box": [0.0, 0.0, 9.0, 1.0], "target": None, "image_sizes": [[301, 1]]}
    with pytest.raises(ValueError, match="absolute aspect ratio"):
        framed(example, model)


def test_shares_keep_their_decimals_whatever_the_family() -> None:
    """A block's `coordinates` may differ from the family's default."""
    shares = np.array([0.25, 0.5, 0.75, 1.0])
    assert FAMILIES["qwen3_vl"].box_text(shares, "original") == "[0.25, 0.50, 0.75, 1.00]"
    assert FAMILIES["llava"].box_text(1000 * shares, "thousand") == "[250, 500, 750, 1000]"


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("(161,119),(322,357)", (161, 119, 322, 357)),
        ("the cat ( 1 , 2 ) , ( 3 , 4.5 ) sits", (1, 2, 3, 4.5)),
        ("(1,2),(3,4) or [5, 6, 7, 8]", (1, 2, 3, 4)),
        ("[5, 6, 7, 8] or (1,2),(3,4)", (5, 6, 7, 8)),
        ("(1,2) (3,4)", None),
        ("(1,2),(3)", None),
    ],
)
def test_boxes_of_two_points_are_read(text: str, box: tuple[float, ...] | None) -> None:
    assert parse_box(text) == box


@pytest.mark.parametrize("name", sorted(name for name, family in FAMILIES.items() if family.places_tokens))
def test_maps_cover_the_image(name: str) -> None:
    """All families but LLaVA-1.5, which pads to a square, see the image from edge to edge."""
    expected = (0.0, -20.0, 160.0, 140.0) if name == "llava" else (0.0, 0.0, 160.0, 120.0)
    assert FAMILIES[name].covered(SIZE) == expected
