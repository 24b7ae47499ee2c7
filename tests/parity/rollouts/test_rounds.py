"""A round as a whole: settings that must not change the result, kills, limits, the optimiser's state,
and mistakes.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from perceptune.contracts.config import LoraBlock, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.core.views.view import Recipe
from perceptune.engines.training.groups import Rollout, Shown
from perceptune.models.loading import load_model, load_trained
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.parity.adapters import EVERYTHING, largest_difference, trained_weights
from tests.plugins import METHODS

from . import rounds
from .rounds import CASES, a_round, first_drawn, fresh

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("case", ["grpo", "papo live", "by longest", "cppo full"])
@pytest.mark.parametrize("changes", [{"micro_batch_size": 1}, {"micro_batch_size": 2, "gradient_checkpointing": True}])
def test_memory_settings_do_not_change_a_round(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path, case: str, changes: dict[str, Any]
) -> None:
    """Also if the last step has one group."""
    name, given = CASES[case]
    expected, (expected_log, _) = a_round(
        model, rollouts, tmp_path / "a", name, given, batch_size=4, micro_batch_size=4
    )
    found, (log, _) = a_round(model, rollouts, tmp_path / "b", name, given, batch_size=4, **changes)
    for here, there in zip(log, expected_log, strict=True):
        for metric in ("loss", "grad_norm", *METHODS[name].watched):  # type: ignore[attr-defined]
            assert here.get(metric) == pytest.approx(there.get(metric), rel=1e-3, abs=1e-5), metric
    # AdamW divides by the gradient's size, which amplifies rounding in small ones
    assert largest_difference(found, expected) < 5e-4


@pytest.mark.parametrize("case", ["grpo", "cppo full"])
def test_two_processes_train_the_same_adapter(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path, case: str
) -> None:
    name, given = CASES[case]
    expected, (expected_log, _) = a_round(model, rollouts[:4], tmp_path / "one", name, given)
    torch.save((model, rollouts[:4], name, given), tmp_path / "job.pt")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*torchrun, "-m", rounds.__name__, str(tmp_path)], check=True, env=environment)
    found, log = torch.load(tmp_path / "done.pt", weights_only=False)
    # AdamW is invariant to the scale of gradients
    for metric in ("loss", "grad_norm", "response_tokens", "step"):
        values = [[entry[metric] for entry in one] for one in (log, expected_log)]
        assert values[0] == pytest.approx(values[1], rel=1e-3, abs=2e-6), metric
    assert largest_difference(found, expected) < 5e-4


@pytest.mark.parametrize("case", ["grpo", "cppo k3"])
def test_a_killed_round_goes_on_from_its_newest_complete_checkpoint(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path, case: str
) -> None:
    """With the optimiser state of an earlier round, which the checkpoint's state replaces."""
    name, given = CASES[case]
    before = {"save_optimizer": tmp_path / "before"}
    a_round(model, rollouts, tmp_path / "first", name, given, files=before)
    files = {"optimizer": tmp_path / "before", "save_optimizer": tmp_path / "after"}
    expected, (expected_log, _) = a_round(model, rollouts, tmp_path / "whole", name, given, number=2, files=files)
    state = load_file(tmp_path / "after")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoint-3")
    (tmp_path / "killed" / "checkpoint-3").mkdir()  # half-written
    found, (log, _) = a_round(model, rollouts, tmp_path / "killed", name, given, number=2, files=files)
    assert largest_difference(found, expected) == 0
    assert largest_difference(load_file(tmp_path / "after"), state) == 0
    assert [e["loss"] for e in log] == [e["loss"] for e in expected_log]


def test_a_carried_optimiser_goes_on_bit_for_bit(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path, gradients: list[dict[str, Tensor]]
) -> None:
    """Two rounds, the second from the first's adapter and state, equal one AdamW over the same
    gradients.
    """
    start = fresh(model)
    plain = {name: weight.requires_grad_() for name, weight in trained_weights(start).items()}
    a_round(model, rollouts, tmp_path / "one", policy=start, files={"save_optimizer": tmp_path / "state"})
    start.save_pretrained(tmp_path / "adapter")
    files = {"optimizer": tmp_path / "state", "save_optimizer": tmp_path / "state 2"}
    policies = [load_trained(load_model(model), tmp_path / "adapter") for _ in range(2)]
    carried, _ = a_round(model, rollouts, tmp_path / "two", policy=policies[0], number=2, files=files)
    reset, _ = a_round(model, rollouts, tmp_path / "three", policy=policies[1], number=2)
    optimizer = torch.optim.AdamW(plain.values(), lr=5e-3, weight_decay=0.0)
    assert len(gradients) == 9
    for step in gradients[:6]:
        for name, parameter in plain.items():
            parameter.grad = step[name]
        optimizer.step()
    assert largest_difference(carried, {n: p.detach() for n, p in plain.items()}) == 0
    assert largest_difference(reset, carried) > 1e-4
    state = load_file(tmp_path / "state 2")
    assert {float(value) for name, value in state.items() if name.endswith(".step")} == {6.0}
    assert len(state) == 3 * len(plain)


def test_an_optimiser_of_another_adapter_is_refused(model: ModelBlock, rollouts: list[Rollout], tmp_path: Path) -> None:
    save_file({"other.step": torch.tensor(1.0)}, tmp_path / "state")
    with pytest.raises(UserError, match="optimiser state of another adapter"):
        a_round(model, rollouts, tmp_path / "checkpoints", files={"optimizer": tmp_path / "state"})


def test_rounds_have_their_own_order(model: ModelBlock, rollouts: list[Rollout], tmp_path: Path) -> None:
    orders = [[one.group_id for one in first_drawn(rollouts, number, 5)] for number in (1, 3)]
    assert orders[0] != orders[1]
    for number in (1, 3):
        _, (log, _) = a_round(model, rollouts, tmp_path / str(number), number=number)
        first = first_drawn(rollouts, number, 2)
        assert log[0]["response_tokens"] == sum(one.tokens for one in first)


def test_a_limit_ends_the_round_and_a_killed_one_ends_there_again(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path
) -> None:
    limits = {"policy_gap": (None, 1e-4), "policy_gap_at_start": (None, 1e-3)}
    expected, (log, stopped) = a_round(model, rollouts, tmp_path / "a", limits=limits)
    assert len(log) == 2
    assert stopped is not None
    assert stopped.startswith("`policy_gap` is")
    assert "at step 2, above its limit 0.0001" in stopped
    assert not (tmp_path / "a" / "checkpoint-2").exists()
    found, again = a_round(model, rollouts, tmp_path / "a", limits=limits)
    assert again.stopped == stopped
    assert largest_difference(found, expected) == 0


def test_a_loss_that_is_not_finite_is_the_users(model: ModelBlock, rollouts: list[Rollout], tmp_path: Path) -> None:
    old = rollouts[0].stored["old", "original"]
    broken = replace(old, logps=[[float("nan")] * len(row) for row in old.logps])
    groups = [replace(one, stored={**one.stored, ("old", "original"): broken}) for one in rollouts[:1]]
    for name in ("grpo", "cppo"):
        with pytest.raises(UserError, match="the loss of step 1 is nan"):
            a_round(model, groups, tmp_path / name, name)


def test_a_live_view_of_another_size_is_refused(model: ModelBlock, rollouts: list[Rollout], tmp_path: Path) -> None:
    one = rollouts[0]
    (message,) = one.views["original"].messages
    two = Shown(
        Recipe("enhanced", {}, 0, (20.0, 30.0, 80.0, 90.0)),
        [{**message, "content": [message["content"][0], *message["content"]]}],
    )
    with pytest.raises(
        UserError, match=r"group `g0`, view `preserving`: the prompt's positions differ, \d+ tokens under `preserving`"
    ):
        a_round(model, [replace(one, views={**one.views, "preserving": two})], tmp_path, "cppo")


def test_dora_refuses_rows_of_zeros(model: ModelBlock) -> None:
    expected = (
        r"layer `model\.language_model\.layers\.2\.self_attn\.q_proj` has 20 rows of zeros, which DoRA cannot scale"
    )
    with pytest.raises(UserError, match=expected):
        fresh(model, lora=EVERYTHING)


def test_dropout_is_refused(model: ModelBlock, rollouts: list[Rollout], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"key `lora.dropout`: 0.1, expected 0"):
        a_round(model, rollouts, tmp_path, lora=LoraBlock(r=4, alpha=8, dropout=0.1))
