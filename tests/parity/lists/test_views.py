"""Methods on lists that show an image under several views, P2-DPO and mDPO: compared with separate
forward passes, and what they learn.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.core.data.images import open_image
from perceptune.core.views.apply import pictures_shown
from perceptune.core.views.view import Recipe
from perceptune.engines.training import groups, trainer
from perceptune.engines.training.groups import Encoder, RankedList, Shown, all_under, per_look
from perceptune.engines.training.shared_prefix import response_logps
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, load_processor, outline
from PIL import Image
from transformers import PreTrainedModel

from tests.parity.adapters import largest_difference
from tests.parity.separate import SeparatePasses
from tests.plugins import METHODS

from .trainings import encoder_of, trained, with_reference

pytestmark = pytest.mark.slow
VIEWS = {
    "original": Recipe("original"),
    "enhanced": Recipe("enhanced", {}, 0, (20.0, 30.0, 80.0, 90.0)),
    "degraded": Recipe("degraded", {}, 0, (20.0, 30.0, 80.0, 90.0)),
    "noise": Recipe("noise", {"sigma": 0.2}, 3),
}


@pytest.fixture(scope="module")
def records(model: ModelBlock, lists: list[RankedList]) -> list[RankedList]:
    """P2-DPO records with all twelve stored log-probs; the second has no robust pair, the third no
    focus pair.
    """
    made = []
    for number, one in enumerate(lists[:6]):
        (text,) = (c for c in one.views["original"].messages[0]["content"] if c["type"] == "text")
        views = {}
        for view, recipe in VIEWS.items():
            content = [{"type": "image", "text": None}] * pictures_shown(recipe, 1) + [text]
            views[view] = Shown(recipe, [{"role": "user", "content": content}])
        pairs = {"focus": (0, 1), "robust": (2, 3)}
        kept = {k: v for k, v in pairs.items() if (number, k) not in ((1, "robust"), (2, "focus"))}
        numbers = {"clip_image": 0.2, "clip_crop": 0.2 + 0.01 * number}
        made.append(RankedList(one.group_id, one.images, views, one.responses, [0.0] * 4, None, kept, numbers))
    return with_reference(model, made)


def another_policy(model: ModelBlock) -> PreTrainedModel:
    """The model with other weights in its language model."""
    policy = load_model(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in policy.model.language_model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return policy


def test_twelve_terms_equal_separate_forward_passes(model: ModelBlock, records: list[RankedList]) -> None:
    """The inputs of the loss for a policy that differs from the reference, compared with float64
    passes of one sequence each.
    """
    policy, method = another_policy(model), METHODS["p2dpo"]
    batch = encoder_of(model, policy, method, method.Parameters(), budget=9)(records)
    with torch.inference_mode():
        values = per_look(response_logps(policy, batch.packed), batch)
    exact, base = (SeparatePasses(model, one) for one in (policy, load_model(model, torch.float64)))
    compared = 0
    for one, asked, found in zip(records, batch.looks, values, strict=True):
        group = trainer.group_of(one, asked, found, "original")
        seen = {"original": (group.logps, group.reference), **group.views}
        for look in asked:
            for place in look.responses:
                expected = exact.summed(one, place, look.view).item()
                assert float(seen[look.view][0][place]) == pytest.approx(expected, abs=2e-4)
                compared += 1
        for view, (_, reference) in seen.items():
            assert reference is not None
            expected = base.summed(one, 1, view).item()
            assert float(reference[1]) == pytest.approx(expected, abs=2e-4)
    assert compared == 4 * 6 + 4 + 2  # four complete records, one without a robust and one without a focus pair


def test_p2dpo_learns_both_kinds_of_pairs(model: ModelBlock, records: list[RankedList], tmp_path: Path) -> None:
    _, log = trained(model, records, tmp_path, method="p2dpo", epochs=12, learning_rate=1e-2)
    assert log[0]["loss"] > log[-1]["loss"]
    for margin in ("margin", "robust_margin"):
        assert log[0][margin] == pytest.approx(0, abs=1e-3)
        assert log[-1][margin] > 1
    gains = [entry["chosen_enhanced_logps"] - entry["chosen_degraded_logps"] for entry in (log[0], log[-1])]
    assert gains[1] > gains[0]  # the calibration loss


def test_mdpo_equals_separate_forward_passes(model: ModelBlock, lists: list[RankedList]) -> None:
    """Loss and gradient of a policy that differs from the reference, compared with the paper's
    terms in float64, answer by answer.
    """
    policy, exact, base = another_policy(model), another_policy(model).double(), load_model(model, torch.float64)
    method = METHODS["mdpo"]
    settings = method.Parameters.model_validate({"beta": 0.3, "delta": 0.2, "conditional": 0.7, "anchor": 1.3})
    some = lists[:3]
    for one in (policy, exact):
        one.model.language_model.requires_grad_()
    batch = encoder_of(model, policy, method, settings, budget=9)(some)
    values = per_look(response_logps(policy, batch.packed), batch)
    asked = zip(some, batch.looks, values, strict=True)
    found = sum(method.loss(trainer.group_of(*each, "original"), settings) for each in asked)
    found.backward()
    plain, reference = SeparatePasses(model, exact), SeparatePasses(model, base)
    expected = torch.zeros((), dtype=torch.float64)
    for one in some:
        chosen, rejected, hidden = (
            plain.summed(one, place, view) - reference.summed(one, place, view).detach()
            for place, view in ((0, "original"), (3, "original"), (0, "corrupted"))
        )
        expected = expected - (0.3 * chosen - 0.3 * rejected).sigmoid().log()
        expected = expected - 0.7 * (0.3 * chosen - 0.3 * hidden).sigmoid().log()
        expected = expected - 1.3 * (0.3 * chosen - 0.2).sigmoid().log()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    pairs = zip(policy.model.language_model.named_parameters(), exact.model.language_model.parameters(), strict=True)
    gradients = {name: (ours.grad, theirs.grad) for (name, ours), theirs in pairs if theirs.grad is not None}
    size = max(float(theirs.abs().max()) for _, theirs in gradients.values())
    assert size > 1e-3
    assert max(float((ours.double() - theirs).abs().max()) for ours, theirs in gradients.values()) < 1e-3 * size


def test_mdpo_learns_its_three_terms(model: ModelBlock, lists: list[RankedList], tmp_path: Path) -> None:
    _, log = trained(model, lists, tmp_path, method="mdpo", epochs=10, learning_rate=1e-2)
    assert log[0]["conditional_margin"] == pytest.approx(0, abs=1e-3)
    assert log[0]["anchor_reward"] == pytest.approx(0, abs=1e-3)
    assert log[-1]["conditional_margin"] > 0.5
    assert log[-1]["anchor_reward"] > 0.1


def test_micro_batches_do_not_change_p2dpo(model: ModelBlock, records: list[RankedList], tmp_path: Path) -> None:
    whole, _ = trained(model, records, tmp_path / "a", method="p2dpo", batch_size=6, micro_batch_size=6)
    single, _ = trained(model, records, tmp_path / "b", method="p2dpo", batch_size=6, micro_batch_size=1)
    assert largest_difference(whole, single) < 1e-4


def test_a_view_with_other_pixels_is_refused(model: ModelBlock, records: list[RankedList]) -> None:
    one = records[0]
    views = {**one.views, "noise": Shown(one.views["noise"].recipe, one.views["noise"].messages, "0" * 64)}
    encoder = Encoder(family_of(model), load_processor(model), load_model(model), all_under("noise"))
    with pytest.raises(UserError, match="view `noise`: the pixels have changed"):
        encoder([replace(one, views=views)])


def test_each_image_of_a_batch_is_opened_once(
    model: ModelBlock, records: list[RankedList], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four views of three records, the third of which has the first's image; some are queried twice."""
    opened: list[Any] = []

    def counting(image: Any) -> Image.Image:
        opened.append(image["path"])
        return open_image(image)

    monkeypatch.setattr(groups, "open_image", counting)
    asked = [*records[:2], replace(records[0], group_id="third")]
    method = METHODS["p2dpo"]
    once = encoder_of(model, outline(model), method, method.Parameters())
    encoder = replace(once, looks=lambda one: once.looks(one) * 2)
    batch = encoder(asked)
    assert len({look.view for looks in batch.looks for look in looks}) == 4
    assert sorted(opened) == sorted(one.images[0]["path"] for one in records[:2])
    assert all(not one.images for one in batch.lists)
    opened.clear()
    encoder.per_view(asked, ["original", "noise"])
    assert len(opened) == 2


def test_pixels_are_sent_in_the_dtype_of_the_model(model: ModelBlock, records: list[RankedList]) -> None:
    """As the model would convert them."""
    plain, half = (
        Encoder(family_of(model), load_processor(model), outline(model), all_under("noise"), None, dtype)(records)
        for dtype in (None, torch.bfloat16)
    )
    assert half.packed.inputs.keys() == plain.packed.inputs.keys()
    for name, values in plain.packed.inputs.items():
        expected = values.to(torch.bfloat16) if name == "pixel_values" else values
        assert torch.equal(half.packed.inputs[name], expected)
