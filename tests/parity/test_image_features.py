"""The cache of image features changes no bit of log-probs and gradients, for every family, and runs the
vision tower once per prompt.
"""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from perceptune.contracts.config import LoraBlock, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.core.views.view import Recipe
from perceptune.engines.training import image_features
from perceptune.engines.training.feeding import Layout
from perceptune.engines.training.groups import Encoder, RankedList, Shown, all_under
from perceptune.engines.training.image_features import FeatureCache, ImageFeatures, feature_cache, finish, why_not
from perceptune.engines.training.shared_prefix import Packed, response_logps
from perceptune.models.adapters import new_adapter
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, load_processor, outline
from perceptune.runtime.tensors import _content
from PIL import Image
from torch import nn

from tests.tiny_models import BUILDERS, OTHERS

from .adapters import moved

SEPARATE = ("gemma3", "paligemma")
"""Models that cannot share a prefix."""


class Setup:
    """A tiny model with an adapter of its language model, and lists with and without images."""

    def __init__(self, name: str, folder: Path) -> None:
        path = {**BUILDERS, **OTHERS}[name](folder, 0)
        family = name if name in BUILDERS else "auto"
        self.block = ModelBlock(path=str(path), family=family, dtype="float32", feature_cache=True)
        self.family = family_of(self.block)
        self.model = moved(new_adapter(load_model(self.block), LoraBlock(r=4, alpha=8), self.family))
        self.separate = name in SEPARATE
        self.encoder = Encoder(
            self.family, load_processor(self.block), outline(self.block), all_under("original"), separate=self.separate
        )
        random = np.random.default_rng(0)

        def image(width: int, height: int) -> dict[str, Any]:
            file = io.BytesIO()
            Image.fromarray(random.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(file, "PNG")
            return {"bytes": file.getvalue(), "path": None}

        shapes = [[(112, 112)], [(150, 64)], [(56, 112), (112, 70)], []]
        if name == "paligemma":  # has one image in every prompt
            shapes = [[(112, 112)], [(150, 64)], [(56, 112)]]
        self.lists = []
        for number, sizes in enumerate(shapes):
            content = [*({"type": "image", "text": None} for _ in sizes), {"type": "text", "text": "read."}]
            views = {"original": Shown(Recipe("original"), [{"role": "user", "content": content}])}
            responses = [random.integers(20, 250, length).tolist() for length in (3 + number, 1)]
            self.lists.append(RankedList(str(number), [image(*size) for size in sizes], views, responses, [1.0, 0.0]))

    def passed(self, batch: Packed) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Log-probs of responses, and the gradient of their sum."""
        self.model.zero_grad()
        logps = response_logps(self.model, batch)
        logps.sum().backward()
        return logps.detach(), {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}

    def towers(self, monkeypatch: pytest.MonkeyPatch) -> list[None]:
        """Grows with every call of the vision tower from now on."""
        calls: list[None] = []
        inner = self.model.get_base_model().model
        plain = inner.get_image_features
        monkeypatch.setattr(inner, "get_image_features", _counting(plain, calls))
        return calls


def _counting(plain: Callable[..., Any], calls: list[None]) -> Callable[..., Any]:
    def counted(*given: Any, **named: Any) -> Any:
        calls.append(None)
        return plain(*given, **named)

    counted.__wrapped__ = plain  # type: ignore[attr-defined]  # its signature
    return counted


@pytest.fixture(scope="module", params=[*sorted(BUILDERS), *sorted(OTHERS)])
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return Setup(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def features(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureCache:
    monkeypatch.setattr(image_features, "RESERVE", 0)
    found = feature_cache(tmp_path, setup.block, "w", setup.model, "float32")
    assert found is not None
    return found


def same(
    found: tuple[torch.Tensor, dict[str, torch.Tensor]], other: tuple[torch.Tensor, dict[str, torch.Tensor]]
) -> bool:
    assert found[1].keys() == other[1].keys()
    return torch.equal(found[0], other[0]) and all(torch.equal(found[1][name], other[1][name]) for name in found[1])


def test_no_bit_changes(setup: Setup, features: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list at a time: with features that are computed, used again by a second pass, and read."""
    expected = [setup.passed(setup.encoder([one]).packed) for one in setup.lists]
    calls = setup.towers(monkeypatch)
    for one, plain in zip(setup.lists, expected, strict=True):
        batch = setup.encoder([one], Layout(features=features)).packed
        assert same(setup.passed(batch), plain)
        assert same(setup.passed(batch), plain)
    assert len(calls) == 3
    finish(features)
    for one, plain in zip(setup.lists, expected, strict=True):
        batch = setup.encoder([one], Layout(features=features)).packed
        assert "pixel_values" not in batch.inputs
        assert same(setup.passed(batch), plain)
    assert len(calls) == 3


def test_batches_with_prompts_in_several_rows(
    setup: Setup, features: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every layout that the model has, sent by a worker; only one of the prompts is stored."""
    response_logps(setup.model, setup.encoder(setup.lists[:1], Layout(features=features)).packed)
    finish(features)
    split = Encoder(**{**vars(setup.encoder), "budget": 3})
    layouts = [(setup.encoder, False), *([] if setup.separate else [(split, False), (setup.encoder, True)])]
    for encoder, unpadded in layouts:
        expected = response_logps(setup.model, encoder(setup.lists, Layout(unpadded)).packed)
        batch = encoder(setup.lists, Layout(unpadded, features)).packed
        assert batch.images is not None
        monkeypatch.setattr(image_features.Session, "write", lambda *given: None)
        with monkeypatch.context() as patch:
            calls = setup.towers(patch)
            found = response_logps(setup.model, _sent(batch))
        assert len(calls) == 2
        # the vision tower alone runs on one prompt instead of three, and rounds differently on some CPUs
        assert torch.allclose(found, expected, rtol=1e-6, atol=0)


def _sent(batch: Packed) -> Packed:
    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol=5)
    pickler.dispatch_table = {torch.Tensor: _content}
    pickler.dump(batch)
    return pickle.loads(file.getvalue())


def test_what_the_cache_cannot_be_used_for(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained vision towers and projectors, and towers that are not the same in every pass."""
    assert why_not(setup.model) is None
    if setup.block.family == "llava":  # as others: PEFT wraps the layers
        for block in ({"parts": ("language", "projector")}, {"parts": ("vision", "projector"), "full": ("projector",)}):
            adapted = new_adapter(load_model(setup.block), LoraBlock(r=4, alpha=8, **block), setup.family)
            assert "is trained, not only the language model" in str(why_not(adapted))
    plain = setup.model.get_base_model()
    with monkeypatch.context() as patch:
        patch.setattr(plain.model, "extra", nn.Dropout(0.1), raising=False)
        assert why_not(setup.model) == "`model.extra` (Dropout) computes something else in training"
        plain.model.extra.p = 0.0
        assert why_not(setup.model) is None
        patch.setattr(plain.config.vision_config, "attention_dropout", 0.1, raising=False)
        assert "`attention_dropout` of its vision tower is 0.1" in str(why_not(setup.model))
    assert why_not(setup.model) is None


def test_a_model_that_reads_more_is_refused() -> None:
    output = ImageFeatures(lambda: [{"pooler_output": torch.zeros(1, 2, 3)}])
    assert output.pooler_output.shape == (1, 2, 3)
    assert not hasattr(output, "_fields")
    with pytest.raises(UserError, match=r"reads `last_hidden_state`.*\nhint: set `feature_cache: false`"):
        output.last_hidden_state  # noqa: B018
