"""The trainer: settings that must not change the trajectory, resuming, and that training separates
good from bad answers.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from perceptune.contracts.config import LoraBlock, ModelBlock, TrainingBlock
from perceptune.contracts.errors import UserError
from perceptune.core.data.images import open_image
from perceptune.core.views.apply import pictures_shown, shown
from perceptune.core.views.view import Recipe
from perceptune.engines.training import branch_attention, callbacks, groups, trainer
from perceptune.engines.training.groups import Encoder, RankedList, Shown, all_under, per_look
from perceptune.engines.training.shared_prefix import response_logps
from perceptune.engines.training.stored_logprobs import stored_terms
from perceptune.engines.training.trackers import Run
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, load_processor, outline
from PIL import Image
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from tests import tiny_models as tiny
from tests.feeds import fed
from tests.plugins import METHODS

from .adapters import EVERYTHING

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelBlock:
    folder = tiny.build_tiny_llava(tmp_path_factory.mktemp("model"), 0)
    return ModelBlock(path=str(folder), family="llava", dtype="float32")


@pytest.fixture(scope="module")
def lists(model: ModelBlock, tmp_path_factory: pytest.TempPathFactory) -> list[RankedList]:
    """Ten lists of four answers with reference log-probs; the last optimiser step of an epoch is
    smaller than the others.
    """
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("images")
    made = []
    for number in range(10):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (112, 112, 3), dtype=np.uint8)).save(path)
        content: list[dict[str, Any]] = [{"type": "image", "text": None}, {"type": "text", "text": "read the text."}]
        responses = [random.integers(270, 380, length).tolist() for length in (5, 1, 3, 7)]
        images = [{"bytes": None, "path": str(path)}]
        recipes = {"original": Recipe("original"), "corrupted": Recipe("random_crop", {}, number)}
        views = {name: Shown(recipe, [{"role": "user", "content": content}]) for name, recipe in recipes.items()}
        made.append(RankedList(str(number), images, views, responses, [0.9, 0.6, 0.3, 0.0]))
    base = load_model(model)
    reference: dict[str, dict[str, list[float]]] = {one.group_id: {} for one in made}
    for view in ("original", "corrupted"):
        encoder = Encoder(family_of(model), load_processor(model), base, all_under(view))
        for group, found in stored_terms(base, fed(encoder, made), 4):
            reference[group][view] = [sum(values) for values in found.logps]
    return [RankedList(**{**vars(one), "reference": reference[one.group_id]}) for one in made]


def trained(
    model: ModelBlock,
    lists: list[RankedList],
    folder: Path,
    method: str = "perpo",
    run: Run | None = None,
    **changes: Any,
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    settings: dict[str, Any] = {
        "method": method, "lora": LoraBlock(r=4, alpha=8), "learning_rate": 5e-3, "batch_size": 4, "micro_batch_size": 4,
        "epochs": 2, "save_steps": 2,
    }  # fmt: skip
    block = TrainingBlock(**{**settings, **changes})
    base = load_model(model)
    chosen = METHODS[block.method]
    adapted = trainer.with_adapter(base, block, family_of(model), model.path)
    encoder = Encoder(
        family_of(model),
        load_processor(model),
        base,
        lambda one: chosen.looks(one.rewards, one.pairs, chosen.Parameters(), block.view),
    )
    log = trainer.train(
        adapted,
        fed(encoder, lists),
        method=chosen,
        parameters=chosen.Parameters(),
        block=block,
        dtype="float32",
        checkpoints=folder,
        fingerprint="same",
        run=run,
    )
    return {n: p.detach().clone() for n, p in adapted.named_parameters() if p.requires_grad}, log


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    return max((first[name] - second[name]).abs().max().item() for name in first)


@pytest.mark.parametrize(
    ("changes", "unpadded"),
    [
        ({"micro_batch_size": 1}, False),
        ({"micro_batch_size": 3}, False),
        ({"gradient_checkpointing": True, "lora": EVERYTHING}, False),
        ({"gradient_checkpointing": True, "lora": EVERYTHING}, True),
    ],
)
def test_memory_settings_do_not_change_the_trajectory(
    model: ModelBlock,
    lists: list[RankedList],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    unpadded: bool,
) -> None:
    """Micro-batches of 1, or the largest divisor of 4 up to 3, also in the epoch's last step of two
    lists; and the layout of GPUs.
    """
    lora = {"lora": changes["lora"]} if "lora" in changes else {}
    expected, expected_log = trained(model, lists, tmp_path / "a", **lora)
    monkeypatch.setattr(branch_attention, "suits", lambda *_: unpadded)
    attended: list[None] = []
    kernel = branch_attention.kernel_of
    monkeypatch.setattr(branch_attention, "kernel_of", lambda states: attended.append(None) or kernel(states))
    found, log = trained(model, lists, tmp_path / "b", **changes)
    assert bool(attended) == unpadded
    assert [e["loss"] for e in log] == pytest.approx([e["loss"] for e in expected_log], rel=1e-4)
    # AdamW divides by the gradient's size, which amplifies rounding in small gradients; a wrong
    # scale would show as 5e-3 per step
    assert largest_difference(found, expected) < 5e-4


def test_checkpointing_does_not_recompute_a_frozen_vision_tower(
    model: ModelBlock, lists: list[RankedList], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[bool] = []
    whole = CLIPEncoderLayer.forward

    def counted(self: CLIPEncoderLayer, states: torch.Tensor, *rest: Any, **named: Any) -> Any:
        passes.append(states.requires_grad)
        return whole(self, states, *rest, **named)

    monkeypatch.setattr(CLIPEncoderLayer, "forward", counted)
    expected, _ = trained(model, lists, tmp_path / "a", epochs=1)
    without, passes[:] = list(passes), []
    found, _ = trained(model, lists, tmp_path / "b", epochs=1, gradient_checkpointing=True)
    assert without
    assert passes == without
    assert not any(passes)
    assert largest_difference(found, expected) < 5e-4


@pytest.mark.parametrize("lora", [LoraBlock(r=4, alpha=8), EVERYTHING])
def test_a_killed_run_goes_on_from_its_newest_complete_checkpoint(
    model: ModelBlock, lists: list[RankedList], tmp_path: Path, lora: LoraBlock
) -> None:
    expected, expected_log = trained(model, lists, tmp_path / "whole", lora=lora)
    folder = tmp_path / "killed"
    shutil.copytree(tmp_path / "whole", folder)
    steps = sorted(int(c.name.rpartition("-")[2]) for c in folder.glob("checkpoint-*"))
    assert steps[-1] == 6
    shutil.rmtree(folder / "checkpoint-6")
    (folder / "checkpoint-5").mkdir()  # incomplete: killed before it was marked as complete
    found, log = trained(model, lists, folder, lora=lora)
    assert largest_difference(found, expected) == 0
    assert [e["loss"] for e in log] == [e["loss"] for e in expected_log]


def test_checkpoints_of_other_settings_are_not_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    (folder / "checkpoint-3").mkdir(parents=True)
    (folder / "checkpoint-3" / callbacks.COMPLETE).write_text("{}")
    (folder / "fingerprint").write_text("one")
    assert callbacks.newest_checkpoint(folder, "one") == folder / "checkpoint-3"
    assert callbacks.newest_checkpoint(folder, "two") is None
    assert not (folder / "checkpoint-3").exists()


@pytest.mark.parametrize("method", sorted(name for name, method in METHODS.items() if method.groups == "lists"))
def test_training_moves_what_the_method_is_about(
    model: ModelBlock, lists: list[RankedList], tmp_path: Path, method: str
) -> None:
    _, log = trained(model, lists, tmp_path, method=method, epochs=6, learning_rate=1e-2, save_steps=100)
    if not METHODS[method].stored(METHODS[method].Parameters(), "original"):  # without a reference
        assert log[-1]["chosen_logps"] > log[0]["chosen_logps"] + 1
    else:
        assert log[0]["margin"] == pytest.approx(0, abs=1e-3)  # the reference is the model itself before the first step
        assert log[-1]["margin"] > 1
        assert log[-1]["ranking_accuracy"] == 1
    assert log[-1]["loss"] < log[0]["loss"]
    assert {"loss", "grad_norm", "learning_rate", "response_tokens", "tokens_per_second"} <= log[0].keys()


def test_a_loss_that_is_not_finite_names_the_list(model: ModelBlock, lists: list[RankedList], tmp_path: Path) -> None:
    broken = [RankedList(**{**vars(one), "reference": {"original": [float("nan")] * 4}}) for one in lists]
    with pytest.raises(UserError, match=r"the loss of list `[0-9]` is nan"):
        trained(model, broken, tmp_path)


def test_batches_that_processes_cannot_share_are_refused() -> None:
    block = TrainingBlock(method="dpo", batch_size=6, micro_batch_size=4)
    assert trainer.micro_batches(block, 1) == (3, 2)
    assert trainer.micro_batches(block, 2) == (3, 1)
    with pytest.raises(UserError, match="`batch_size`: 6 lists cannot be shared evenly by 4 processes"):
        trainer.micro_batches(block, 4)


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
    base = load_model(model)
    family, processor = family_of(model), load_processor(model)
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
        record = RankedList(one.group_id, one.images, views, one.responses, [0.0] * 4, None, kept, numbers)
        made.append(record)
    reference: dict[str, dict[str, list[float]]] = {one.group_id: {} for one in made}
    for view in VIEWS:
        encoder = Encoder(family, processor, base, all_under(view))
        for group, found in stored_terms(base, fed(encoder, made), 3):
            reference[group][view] = [sum(values) for values in found.logps]
    return [RankedList(**{**vars(one), "reference": reference[one.group_id]}) for one in made]


def separate_logp(model: ModelBlock, base: Any, one: RankedList, view: str, response: int) -> float:
    """Log-probability of one answer under one view, from a plain float64 forward pass."""
    with torch.inference_mode():
        return float(separate_pass(model, base, one, view, response))


def separate_pass(model: ModelBlock, base: Any, one: RankedList, view: str, response: int) -> torch.Tensor:
    """The same with its gradient."""
    family, processor = family_of(model), load_processor(model)
    images = shown(one.views[view].recipe, [open_image(image) for image in one.images])
    prefix = family.prefix(processor, one.views[view].messages, images)
    inputs, last = family.with_answer(base, prefix, one.responses[response])
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    logps = base(**inputs, use_cache=False).logits[0].log_softmax(dim=-1)
    return sum(logps[last + i, token] for i, token in enumerate(one.responses[response]))


def test_twelve_terms_equal_separate_forward_passes(model: ModelBlock, records: list[RankedList]) -> None:
    """The inputs of the loss for a policy that differs from the reference, compared with float64
    passes of one sequence each.
    """
    policy = load_model(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in policy.model.language_model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    method = METHODS["p2dpo"]
    parameters = method.Parameters()

    def looks(one: RankedList) -> Any:
        return method.looks(one.rewards, one.pairs, parameters, "original")

    batch = Encoder(family_of(model), load_processor(model), policy, looks, 9)(records)
    with torch.inference_mode():
        values = per_look(response_logps(policy, batch.packed), batch)
    exact, base = load_model(model, torch.float64), load_model(model, torch.float64)
    exact.load_state_dict(policy.double().state_dict())
    compared = 0
    for one, asked, found in zip(records, batch.looks, values, strict=True):
        group = trainer.group_of(one, asked, found, "original")
        seen = {"original": (group.logps, group.reference), **group.views}
        for look in asked:
            for place in look.responses:
                expected = separate_logp(model, exact, one, look.view, place)
                assert float(seen[look.view][0][place]) == pytest.approx(expected, abs=2e-4)
                compared += 1
        for view, (_, reference) in seen.items():
            assert reference is not None
            expected = separate_logp(model, base, one, view, 1)
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
    policy, exact, base = load_model(model), load_model(model, torch.float64), load_model(model, torch.float64)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in policy.model.language_model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    exact.load_state_dict({name: value.double() for name, value in policy.state_dict().items()})
    method = METHODS["mdpo"]
    settings = method.Parameters.model_validate({"beta": 0.3, "delta": 0.2, "conditional": 0.7, "anchor": 1.3})
    some = lists[:3]
    for one in (policy, exact):
        one.model.language_model.requires_grad_()

    def looks(one: RankedList) -> Any:
        return method.looks(one.rewards, one.pairs, settings, "original")

    batch = Encoder(family_of(model), load_processor(model), policy, looks, 9)(some)
    values = per_look(response_logps(policy, batch.packed), batch)
    groups = [trainer.group_of(*each, "original") for each in zip(some, batch.looks, values, strict=True)]
    found = sum(method.loss(group, settings) for group in groups)
    found.backward()
    expected = torch.zeros((), dtype=torch.float64)
    for one in some:
        asked = [("original", 0), ("original", 3), ("corrupted", 0)]
        ratios = [separate_pass(model, exact, one, *which) - separate_logp(model, base, one, *which) for which in asked]
        chosen, rejected, hidden = ratios
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
    changed = RankedList(**{**vars(one), "views": views})
    encoder = Encoder(family_of(model), load_processor(model), load_model(model), all_under("noise"))
    with pytest.raises(UserError, match="view `noise`: the pixels have changed"):
        encoder([changed])


def test_each_image_of_a_batch_is_opened_once(
    model: ModelBlock, records: list[RankedList], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four views of three records, the third of which has the first's image; some are queried twice."""
    opened: list[Any] = []

    def counting(image: Any) -> Image.Image:
        opened.append(image["path"])
        return open_image(image)

    monkeypatch.setattr(groups, "open_image", counting)
    third = RankedList(**{**vars(records[0]), "group_id": "third"})
    method = METHODS["p2dpo"]
    encoder = Encoder(
        family_of(model),
        load_processor(model),
        outline(model),
        lambda one: method.looks(one.rewards, one.pairs, method.Parameters(), "original") * 2,
    )
    batch = encoder([records[0], records[1], third])
    assert len({view for looks in batch.looks for view in (look.view for look in looks)}) == 4
    assert sorted(opened) == sorted(one.images[0]["path"] for one in records[:2])
    assert all(not one.images for one in batch.lists)
    opened.clear()
    encoder.per_view([records[0], records[1], third], ["original", "noise"])
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


INSTALLED = Path(__file__).parents[1] / "installed"


def test_trackers_show_every_step_and_change_nothing(
    model: ModelBlock, lists: list[RankedList], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorBoard's files are in the folder of logs, by the name of the run."""
    monkeypatch.syspath_prepend(INSTALLED)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # so that tensorboardX is used
    settings: dict[str, Any] = {"micro_batch_size": 2, "epochs": 1}
    expected, _ = trained(model, lists, tmp_path / "a", **settings)
    run = Run("mine", tmp_path / "trackers")
    found, log = trained(model, lists, tmp_path / "b", run=run, report_to=["tensorboard"], **settings)
    assert largest_difference(found, expected) == 0
    lines = (tmp_path / "trackers/tensorboard/mine/scalars.jsonl").read_text().splitlines()
    scalars = {(name, step): value for name, value, step in map(json.loads, lines)}
    for entry in log:
        for name in ("loss", "margin", "grad_norm", "tokens_per_second", "data_wait_seconds"):
            assert scalars[f"train/{name}", entry["step"]] == entry[name]


def test_a_missing_key_of_a_tracker_is_one_line(
    model: ModelBlock, lists: list[RankedList], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packages/wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "run = None\nfrom wandb import errors\ndef init(**given): raise errors.UsageError('no key\\nmore')\n"
    )
    (package / "errors.py").write_text("class UsageError(Exception): ...\n")
    (package / "sdk/lib").mkdir(parents=True)
    (package / "sdk/lib/config_util.py").write_text("class ConfigError(Exception): ...\n")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    for variable in ("WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match=r"^error: key `report_to`: `wandb`: no key\nhint: `wandb login` stores a key"):
        trained(model, lists, tmp_path / "c", run=Run("mine", tmp_path / "trackers"), report_to=["wandb"])
    assert os.environ["WANDB_DIR"] == str(tmp_path / "trackers")
    for name in [name for name in sys.modules if name.partition(".")[0] == "wandb"]:
        del sys.modules[name]
