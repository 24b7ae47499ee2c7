"""The trainer: what must not change the trajectory, resuming, and that learning separates good from bad."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from perceptune.contracts.config import LoraBlock, ModelBlock, TrainingBlock
from perceptune.contracts.errors import UserError
from perceptune.core.methods import METHODS
from perceptune.engines import training
from perceptune.engines.lists import Encoder, RankedList
from perceptune.engines.reference import reference_logps
from perceptune.models import tiny
from perceptune.models.families import family_of
from perceptune.models.loading import load_model, load_processor
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelBlock:
    folder = tiny.build_tiny_llava(tmp_path_factory.mktemp("model"), 0)
    return ModelBlock(path=str(folder), family="llava", dtype="float32")


@pytest.fixture(scope="module")
def lists(model: ModelBlock, tmp_path_factory: pytest.TempPathFactory) -> list[RankedList]:
    """Ten lists of four answers with reference terms; the last optimiser step of an epoch is smaller than the others."""
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("images")
    made = []
    for number in range(10):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (112, 112, 3), dtype=np.uint8)).save(path)
        content: list[dict[str, Any]] = [{"type": "image", "text": None}, {"type": "text", "text": "read the text."}]
        responses = [random.integers(270, 380, length).tolist() for length in (5, 1, 3, 7)]
        images = [{"bytes": None, "path": str(path)}]
        made.append(
            RankedList(str(number), [{"role": "user", "content": content}], images, responses, [0.9, 0.6, 0.3, 0.0])
        )
    base = load_model(model)
    encoder = Encoder(family_of(model), load_processor(model), base, "original")
    terms = dict(reference_logps(base, encoder, made, 4))
    return [RankedList(**{**vars(one), "reference": [sum(v) for v in terms[one.group_id]]}) for one in made]


def trained(
    model: ModelBlock, lists: list[RankedList], folder: Path, method: str = "perpo", **changes: Any
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    settings: dict[str, Any] = {
        "method": method, "lora": LoraBlock(r=4, alpha=8), "learning_rate": 5e-3, "batch_size": 4, "micro_batch_size": 4,
        "epochs": 2, "save_steps": 2,
    }  # fmt: skip
    block = TrainingBlock(**{**settings, **changes})
    base = load_model(model)
    adapted = training.with_adapter(base, block, family_of(model).lora_targets, model.path)
    log = training.train(
        adapted,
        Encoder(family_of(model), load_processor(model), base, block.view),
        lists,
        method=METHODS[block.method],
        parameters=METHODS[block.method].Parameters(),
        block=block,
        dtype="float32",
        checkpoints=folder,
        fingerprint="same",
    )
    return {n: p.detach().clone() for n, p in adapted.named_parameters() if p.requires_grad}, log


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    return max((first[name] - second[name]).abs().max().item() for name in first)


@pytest.mark.parametrize(
    "changes", [{"micro_batch_size": 1}, {"micro_batch_size": 3}, {"gradient_checkpointing": True}]
)
def test_memory_settings_do_not_change_the_trajectory(
    model: ModelBlock, lists: list[RankedList], tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Micro batches of 1, or the largest divisor of 4 up to 3, also in the epoch's last step of two lists."""
    expected, expected_log = trained(model, lists, tmp_path / "a")
    found, log = trained(model, lists, tmp_path / "b", **changes)
    assert [e["loss"] for e in log] == pytest.approx([e["loss"] for e in expected_log], rel=1e-4)
    # AdamW divides by the gradient's size, so rounding in small gradients shows; a wrong scale would show as 5e-3 a step
    assert largest_difference(found, expected) < 5e-4


def test_a_killed_run_goes_on_from_its_newest_complete_checkpoint(
    model: ModelBlock, lists: list[RankedList], tmp_path: Path
) -> None:
    expected, expected_log = trained(model, lists, tmp_path / "whole")
    folder = tmp_path / "killed"
    shutil.copytree(tmp_path / "whole", folder)
    steps = sorted(int(c.name.rpartition("-")[2]) for c in folder.glob("checkpoint-*"))
    assert steps[-1] == 6
    shutil.rmtree(folder / "checkpoint-6")
    (folder / "checkpoint-5").mkdir()  # half-written: killed before its mark
    found, log = trained(model, lists, folder)
    assert largest_difference(found, expected) == 0
    assert [e["loss"] for e in log] == [e["loss"] for e in expected_log]


def test_checkpoints_of_other_settings_are_not_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    (folder / "checkpoint-3").mkdir(parents=True)
    (folder / "checkpoint-3" / training.COMPLETE).write_text("{}")
    (folder / "fingerprint").write_text("one")
    assert training.newest_checkpoint(folder, "one") == folder / "checkpoint-3"
    assert training.newest_checkpoint(folder, "two") is None
    assert not (folder / "checkpoint-3").exists()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_training_moves_what_the_method_is_about(
    model: ModelBlock, lists: list[RankedList], tmp_path: Path, method: str
) -> None:
    cut = [
        RankedList(
            **{**vars(one), **{k: [getattr(one, k)[i] for i in keep] for k in ("responses", "rewards", "reference")}}
        )
        for one in lists
        for keep in [METHODS[method].responses(one.rewards, METHODS[method].Parameters())]
    ]
    _, log = trained(model, cut, tmp_path, method=method, epochs=10, learning_rate=1e-2)
    if method == "sft":
        assert log[-1]["chosen_logps"] > log[0]["chosen_logps"] + 1
    else:
        assert log[0]["margin"] == pytest.approx(0, abs=1e-3)  # the reference is the model itself before the first step
        assert log[-1]["margin"] > 1
        assert log[-1]["ranking_accuracy"] == 1
    assert log[-1]["loss"] < log[0]["loss"]
    assert {"loss", "grad_norm", "learning_rate", "response_tokens", "tokens_per_second"} <= log[0].keys()


def test_a_loss_that_is_not_finite_names_the_list(model: ModelBlock, lists: list[RankedList], tmp_path: Path) -> None:
    broken = [RankedList(**{**vars(one), "reference": [float("nan")] * 4}) for one in lists]
    with pytest.raises(UserError, match=r"the loss of list `[0-9]` is nan"):
        trained(model, broken, tmp_path)


def test_batches_that_processes_cannot_share_are_refused() -> None:
    block = TrainingBlock(method="dpo", batch_size=6, micro_batch_size=4)
    assert training.micro_batches(block, 1) == (3, 2)
    assert training.micro_batches(block, 2) == (3, 1)
    with pytest.raises(UserError, match="`batch_size`: 6 lists cannot be shared evenly by 4 processes"):
        training.micro_batches(block, 4)
