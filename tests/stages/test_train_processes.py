"""Trainings in processes of their own: two at once, sharded, on two nodes, killed and resumed."""

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
from perceptune.contracts.config import LoraBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.core.weights import read_header
from perceptune.engines.training import callbacks, trainer
from safetensors.numpy import load_file

from . import trainings
from .trainings import WEIGHTS, largest_difference, logged, store_logprobs, trained

pytestmark = pytest.mark.slow
folder = trainings.folder
EVERYTHING = LoraBlock(r=4, alpha=8, parts=("language", "projector", "vision"), full=("projector",), use_dora=True)


@pytest.fixture(scope="module")
def partly_blind(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same lists, all but two of them without an image."""
    target = tmp_path_factory.mktemp("blind")
    (target / "model").symlink_to(folder / "model")
    examples, lists = (
        read_table(folder / f"{table.name}.parquet", table).to_pylist() for table in (EXAMPLES, PREFERENCES)
    )
    for example, one in zip(examples[:6], lists[:6], strict=True):
        example |= {"images": [], "image_sha256": [], "image_hashes": [], "image_sizes": [], "box": None}
        one["messages"][0]["content"] = one["messages"][0]["content"][1:]
    write_table(target / "examples.parquet", EXAMPLES, examples, {})
    write_table(target / "preferences.parquet", PREFERENCES, lists, {})
    store_logprobs(target, target / "terms.parquet")
    return target


def test_lists_without_images_teach_nothing_about_them(partly_blind: Path, tmp_path: Path) -> None:
    """All weights are vision weights, and most steps have no image."""
    lora = LoraBlock(r=4, alpha=8, parts=("projector", "vision"), full=("projector",))
    _, rows = trained(partly_blind, tmp_path, lora=lora, batch_size=1, epochs=1)
    assert sorted(norm > 0 for norm in logged(rows, "grad_norm")) == [False] * 6 + [True] * 2


def test_two_processes_train_what_one_trains(partly_blind: Path, tmp_path: Path) -> None:
    """Also where one process has an image and the other none."""
    one, log = trained(partly_blind, tmp_path / "one", lora=EVERYTHING)
    two, log_of_two = trained(partly_blind, tmp_path / "two", lora=EVERYTHING, devices=2)
    losses, losses_of_two = (logged(rows, "loss") for rows in (log, log_of_two))
    assert len(losses) == 4
    assert losses_of_two == pytest.approx(losses, rel=1e-4)
    # AdamW amplifies rounding in small gradients
    assert largest_difference(one, two) < 5e-4


def until_third_checkpoint(
    work: Callable[..., Any], *arguments: Path, **options: Any
) -> tuple[SpawnProcess, list[psutil.Process]]:
    """Starts a process that trains in the last of `arguments`, to be killed once its third checkpoint is
    complete; returns also the processes that it has started.
    """
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments, kwargs=options)
    process.start()
    complete = arguments[-1] / "checkpoints/checkpoint-3" / callbacks.COMPLETE
    deadline = time.monotonic() + 300
    while not complete.exists():
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process, psutil.Process(process.pid).children(recursive=True)


RESUMED = {"save_steps": 1, "epochs": 4, "lora": LoraBlock(r=4, alpha=8, dropout=0.2)}
"""Settings with dropout and a checkpoint after every step."""


def train_slowly(folder: Path, target: Path) -> None:
    """With two workers and a pause after every step, to be killed there."""
    step = trainer.ListTrainer.training_step

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.5)
        return step(*arguments, **options)

    trainer.ListTrainer.training_step = slow  # type: ignore[method-assign]
    trained(folder, target, workers=2, keep_epochs=True, **RESUMED)


def test_sigkill_and_resume_give_the_same_adapter_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    """Dropout is on: data order, random states, optimiser and schedule must all be restored. The number
    of workers and whether epochs are kept, in which the runs differ, change nothing; and no worker outlives
    the killed run. Epoch 1, after two steps, ended before it.
    """
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process, started = until_third_checkpoint(train_slowly, folder, killed)
    assert sum("forkserver" in " ".join(one.cmdline()) for one in started) == 1 + 2
    process.kill()
    process.join()
    assert not (killed / "adapter").exists()
    first = (killed / "checkpoints/checkpoint-2" / WEIGHTS).read_bytes()  # the Trainer's own
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive
    _, log = trained(folder, whole, workers=0, **RESUMED)
    _, resumed = trained(folder, killed, workers=1, keep_epochs=True, **RESUMED)
    epochs = {path.name: (path / WEIGHTS).read_bytes() for path in (killed / "adapter/epochs").iterdir()}
    assert epochs.keys() == {"1", "2", "3"} and epochs["1"] == first and len(set(epochs.values())) == 3
    assert not (whole / "adapter/epochs").exists()
    one, other = ((path / "adapter" / WEIGHTS).read_bytes() for path in (whole, killed))
    assert one == other
    timed = ("tokens_per_second", "data_wait_seconds")
    timeless = [[row for row in rows if row["metric"] not in timed] for rows in (log, resumed)]
    assert timeless[0] == timeless[1]
    assert len({row["step"] for row in timeless[0]}) == 8


SRUN = """#!/bin/sh
# Stands for `srun`: every node is this machine. Nodes come one after another, options of srun are words with `--`.
while [ "${1#--}" != "$1" ]; do
  case "$1" in --nodes=*) nodes="${1#--nodes=}" ;; esac
  shift
done
while [ "$nodes" -gt 1 ]; do "$@" & nodes=$((nodes - 1)); done
"$@" && wait
"""
SHARDED = {
    "sharding": "fsdp", "save_steps": 1, "epochs": 8, "keep_epochs": True, "learning_rate": 1e-4,
    "lora": LoraBlock(r=4, alpha=8, parts=("projector", "vision"), full=("projector",)),
}  # fmt: skip
"""Sixteen steps so small that AdamW, which amplifies rounding in small gradients, keeps to 1e-5. In most of
them, a process has no images, and so nothing to learn."""


def test_sharded_processes_killed_and_resumed_on_two_nodes_train_what_one_trains(
    partly_blind: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FSDP2 on CPUs: two processes of a node are killed; two nodes with one process each go on."""
    target = tmp_path / "two"
    process, started = until_third_checkpoint(trained, partly_blind, target, **SHARDED, devices=2)
    for child in started:
        child.kill()
    process.join()
    assert [*target.glob("checkpoints/*/pytorch_model_fsdp_0/.metadata")]  # sharded, not only distributed
    assert not (target / "adapter").exists()
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    two, log_of_two = trained(partly_blind, target, **SHARDED, nodes=2)
    one, log = trained(partly_blind, tmp_path / "one", **{**SHARDED, "sharding": "none"})
    losses, losses_of_two = (logged(rows, "loss") for rows in (log, log_of_two))
    assert len(losses) == 16
    assert losses_of_two == pytest.approx(losses, rel=1e-5)
    assert largest_difference(one, two) < 1e-5
    for epoch in range(1, 8):  # the first was kept by the killed processes
        one, two = (load_file(tmp_path / name / f"adapter/epochs/{epoch}" / WEIGHTS) for name in ("one", "two"))
        assert largest_difference(one, two) < 1e-5
    ours, theirs = (read_header(tmp_path / name / "adapter" / WEIGHTS) for name in ("one", "two"))
    assert ours == theirs  # the same bytes, but for the weights
    configs = ((tmp_path / name / "adapter/adapter_config.json").read_text() for name in ("one", "two"))
    assert len(set(configs)) == 1


def test_several_nodes_outside_of_slurm_are_one_message(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match="key `nodes`: 2, but this job does not run in SLURM"):
        trained(folder, tmp_path, nodes=2)


def test_a_mistake_in_several_processes_is_one_message(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`batch_size`: 3 lists cannot be shared evenly by 2 processes"):
        trained(folder, tmp_path, devices=2, batch_size=3)
