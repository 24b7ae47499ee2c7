"""Training on ranked lists: settings that must not change the trajectory, resuming, trackers, and that
every method separates good from bad answers.
"""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from perceptune.contracts.config import LoraBlock, ModelBlock, TrainingBlock
from perceptune.contracts.errors import UserError
from perceptune.engines.training import branch_attention, callbacks, trainer
from perceptune.engines.training.groups import RankedList
from perceptune.engines.training.trackers import Run
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from tests.parity.adapters import EVERYTHING, largest_difference
from tests.plugins import METHODS

from .trainings import trained

pytestmark = pytest.mark.slow
INSTALLED = Path(__file__).parents[2] / "installed"


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
    broken = [replace(one, reference={"original": [float("nan")] * 4}) for one in lists]
    with pytest.raises(UserError, match=r"method `\w+`: the loss of list `[0-9]` is nan"):
        trained(model, broken, tmp_path)


def test_batches_that_processes_cannot_share_are_refused() -> None:
    block = TrainingBlock(method="dpo", batch_size=6, micro_batch_size=4)
    assert trainer.micro_batches(block, 1) == (3, 2)
    assert trainer.micro_batches(block, 2) == (3, 1)
    with pytest.raises(UserError, match="`batch_size`: 6 lists cannot be shared evenly by 4 processes"):
        trainer.micro_batches(block, 4)


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
