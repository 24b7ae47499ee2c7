"""Attention rows equal transformers' eager `output_attentions`, for every family."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from perceptune.contracts.config import ModelBlock
from perceptune.engines.vision.attention_capture import look, watching
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, load_processor
from PIL import Image
from transformers import AutoModelForImageTextToText

from tests import tiny_models as tiny

pytestmark = pytest.mark.slow
TOLERANCE = 1e-5


class Case:
    """A tiny random-weight model, a prompt with a non-square image, and an answer."""

    def __init__(self, family: str, folder: Path, images: int = 1) -> None:
        self.block = ModelBlock(path=str(tiny.BUILDERS[family](folder, 0)), family=family, dtype="float32")  # type: ignore[arg-type]
        self.family, processor = family_of(self.block), load_processor(self.block)
        random = np.random.default_rng(0)
        pictures = [Image.fromarray(random.integers(0, 255, (80, 110, 3), dtype=np.uint8)) for _ in range(images)]
        content: list[dict[str, Any]] = [{"type": "image", "text": None}] * images
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": "is there a red circle?"}]}]
        self.prefix = self.family.prefix(processor, messages, pictures)
        self.grid = self.family.grids(processor, self.prefix)[0]
        self.model = load_model(self.block).eval()
        answer = self.family.answer_ids(processor, "yes")
        self.inputs, self.last = self.family.with_answer(self.model, self.prefix, answer)
        self.image, self.whole = self.family.image_positions(processor, self.prefix)

    def eager(self) -> tuple[Any, Any]:
        """(model, output) of a plain forward pass that materialises all attention matrices."""
        model = AutoModelForImageTextToText.from_pretrained(
            self.block.path, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        return model, model(**self.inputs, output_attentions=True, use_cache=False)


@pytest.fixture(params=sorted(tiny.BUILDERS))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return Case(request.param, tmp_path)


def test_the_grid_has_as_many_cells_as_the_map_has_tokens(case: Case) -> None:
    assert len(case.image) == case.grid[0] * case.grid[1]


def test_maps_and_shares_equal_eager_attention(case: Case) -> None:
    with watching(case.model):
        found = look(case.model, case.inputs, case.last, case.image, whole=case.whole)
    _, output = case.eager()
    rows = slice(case.last, case.inputs["input_ids"].shape[1] - 1)
    assert len(output.attentions) == len(found.maps)
    for layer, attention in enumerate(output.attentions):
        expected = attention[0, :, case.last][:, case.image].mean(dim=0)
        assert (found.maps[layer] - expected).abs().max() <= TOLERANCE
        shares = attention[0, :, rows][..., case.whole].sum(dim=-1).mean()
        assert abs(found.shares[layer] - shares) <= TOLERANCE
        assert expected.max() > 100 * TOLERANCE  # the tolerance is small compared with the values


@pytest.mark.parametrize("layer", [0, 1])
def test_gradient_weighted_attention_equals_autograd_through_eager(case: Case, layer: int) -> None:
    with watching(case.model):
        found = look(case.model, case.inputs, case.last, case.image, gradient_layer=layer)
    _, output = case.eager()
    logp = output.logits[0, case.last].log_softmax(dim=-1).max()
    (gradient,) = torch.autograd.grad(logp, output.attentions[layer])
    weighted = output.attentions[layer][0, :, case.last] * gradient[0, :, case.last].clamp(min=0)
    expected = weighted[:, case.image].mean(dim=0).detach()
    assert found.gradient is not None
    assert (found.gradient - expected).abs().max() <= TOLERANCE * max(1.0, float(expected.max()))
    assert expected.max() > 0
    assert (
        found.gradient / expected.max() - expected / expected.max()
    ).abs().max() <= 1e-3  # also where the attention is tiny


def test_the_answer_does_not_change_the_map(case: Case) -> None:
    """The position that predicts the first token does not attend to later tokens."""
    short, last = case.family.with_answer(case.model, case.prefix, [])
    with watching(case.model):
        alone = look(case.model, short, last, case.image)
        followed = look(case.model, case.inputs, case.last, case.image)
    assert torch.allclose(alone.maps, followed.maps, atol=1e-6)


def test_the_model_is_left_as_it_was(case: Case) -> None:
    before = case.model(**case.inputs, use_cache=False).logits
    trained = [p.requires_grad for p in case.model.parameters()]
    with watching(case.model):
        look(case.model, case.inputs, case.last, case.image, gradient_layer=0)
    assert [p.requires_grad for p in case.model.parameters()] == trained
    assert torch.equal(case.model(**case.inputs, use_cache=False).logits, before)


def test_only_the_first_of_two_images_is_mapped(tmp_path: Path) -> None:
    case = Case("llava", tmp_path, images=2)
    assert len(case.image) == 64
    with watching(case.model):
        found = look(case.model, case.inputs, case.last, case.image)
    assert found.maps.shape == (2, 64)


def test_a_layer_that_is_not_there_is_refused(case: Case) -> None:
    with watching(case.model), pytest.raises(ValueError, match="layer 7, expected one of 0 to 1"):
        look(case.model, case.inputs, case.last, case.image, gradient_layer=7)


@pytest.mark.parametrize(
    ("fit", "size", "region"),
    [
        ("pad", (640, 480), (0, -80, 640, 560)),
        ("pad", (480, 641), (-80, 0, 561, 641)),
        ("crop", (640, 480), (80, 0, 560, 480)),
        ("crop", (300, 300), (0, 0, 300, 300)),
    ],
)
def test_what_llava_sees_of_an_image(
    fit: str, size: tuple[int, int], region: tuple[float, ...], tmp_path: Path
) -> None:
    """The region maps the preprocessed image to the original: a marked pixel appears at the mapped
    position.
    """
    block = ModelBlock(path=str(tiny.build_tiny_llava(tmp_path, 0)), family="llava", image_fit=fit)  # type: ignore[arg-type]
    family, processor = family_of(block), load_processor(block)
    assert family.covered(size) == region
    image = Image.new("RGB", size, (0, 0, 0))
    image.putpixel((200, 100), (255, 0, 0))
    prepared = family.prepare_image(image, processor)
    assert prepared.size == (region[2] - region[0], region[3] - region[1])
    assert prepared.getpixel((int(200 - region[0]), int(100 - region[1]))) == (255, 0, 0)
