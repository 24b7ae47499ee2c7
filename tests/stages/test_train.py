"""The stored-log-probs and training stages on real tables, in one process and in two."""

import math
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from perceptune.contracts.config import LoraBlock, ModelBlock, SaliencyBlock, TrainingBlock, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load, module_of
from perceptune.contracts.provenance.code import code_digest
from perceptune.contracts.provenance.digests import sha256_of_file
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_lineage, read_table, write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.terms import TERMS
from perceptune.contracts.tables.training import TRAINING
from perceptune.core.methods.method import Stored
from perceptune.core.weights import read_header
from perceptune.engines.training import callbacks, trainer
from perceptune.engines.training.groups import StoredTokens
from perceptune.models import loading
from perceptune.runtime import distributed
from perceptune.stages.attention import saliency
from perceptune.stages.training import stored_logprobs, train
from PIL import Image
from safetensors.numpy import load_file

from tests import tiny_models as tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight lists of three answers, one of them dropped by the selection; a random model."""
    folder = tmp_path_factory.mktemp("train")
    tiny.build_tiny_llava(folder / "model", 0)
    random = np.random.default_rng(0)
    examples, preferences = [], []
    for number in range(9):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (112, 112, 3), dtype=np.uint8)).save(path)
        examples.append({
            "example_id": str(number), "task": "grounding", "question": "?", "images": [{"bytes": None, "path": str(path)}],
            "image_sha256": [sha256_of_file(path)], "image_hashes": [], "image_sizes": [[112, 112]], "target": None, "box": [11.2, 11.2, 56.0, 56.0], "split": "train",
            "source": None, "reason": None,
        })  # fmt: skip
        content = [{"type": "image", "text": None}, {"type": "text", "text": "locate the red circle."}]
        responses = [
            {
                "sample_index": i,
                "text": "",
                "token_ids": random.integers(270, 380, 2 + i).tolist(),
                "reward": reward,
                "role": None,
            }
            for i, reward in enumerate((0.9, 0.5, 0.1))
        ]
        preferences.append({
            "group_id": str(number), "example_id": str(number), "request_id": str(number), "task": "grounding", "view": "original",
            "messages": [{"role": "user", "content": content}], "responses": responses, "kept": number < 8,
            "views": [], "pairs": [], "numbers": [],
            "reason": None if number < 8 else "margin below 0.8",
        })  # fmt: skip
    write_table(folder / "examples.parquet", EXAMPLES, examples, {})
    write_table(folder / "preferences.parquet", PREFERENCES, preferences, {})
    stored_logprobs.run(
        preferences=folder / "preferences.parquet", examples=folder / "examples.parquet", terms=folder / "terms.parquet",
        model=model_block(folder), weights="w", stored=[Stored("reference", "original")], adapter=None, views={},
    )  # fmt: skip
    return folder


def model_block(folder: Path, workers: int | None = None) -> ModelBlock:
    return ModelBlock(path=str(folder / "model"), family="llava", dtype="float32", workers=workers)


def trained(
    folder: Path,
    target: Path,
    halvings: int = 0,
    *,
    terms: dict[str, Path] | None = None,
    views: dict[str, ViewBlock] | None = None,
    saliencies: dict[str, Path] | None = None,
    workers: int | None = None,
    **changes: Any,
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    settings: dict[str, Any] = {
        "method": "perpo", "lora": LoraBlock(r=4, alpha=8), "learning_rate": 5e-3, "batch_size": 4, "micro_batch_size": 2, "epochs": 2,
    }  # fmt: skip
    train.run(
        experiment="e", preferences=folder / "preferences.parquet", examples=folder / "examples.parquet",
        terms=terms or {"original": folder / "terms.parquet"}, views=views or {}, saliencies=saliencies, adapter=target / "adapter", training=target / "training.parquet",
        checkpoints=target / "checkpoints", model=model_block(folder, workers), weights="w", config=TrainingBlock(**{**settings, **changes}),
        halvings=halvings,
    )  # fmt: skip
    assert not (target / "checkpoints").exists()
    weights = load_file(target / "adapter/adapter_model.safetensors")
    return weights, read_table(target / "training.parquet", TRAINING).to_pylist()


def test_logprobs_are_stored_per_token_of_kept_lists(folder: Path) -> None:
    rows = read_table(folder / "terms.parquet", TERMS).to_pylist()
    assert [r["group_id"] for r in rows] == [str(n) for n in range(8)]
    assert [[len(v) for v in r["logprobs"]] for r in rows] == [[2, 3, 4]] * 8
    assert all(v < 0 for r in rows for values in r["logprobs"] for v in values)


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
    stored_logprobs.run(
        preferences=target / "preferences.parquet", examples=target / "examples.parquet", terms=target / "terms.parquet",
        model=model_block(target), weights="w", stored=[Stored("reference", "original")], adapter=None, views={},
    )  # fmt: skip
    return target


def test_lists_without_images_teach_nothing_about_them(partly_blind: Path, tmp_path: Path) -> None:
    """All weights are vision weights, and most steps have no image."""
    lora = LoraBlock(r=4, alpha=8, parts=("projector", "vision"), full=("projector",))
    _, rows = trained(partly_blind, tmp_path, lora=lora, batch_size=1, epochs=1)
    norms = [row["value"] for row in rows if row["metric"] == "grad_norm"]
    assert sorted(norm > 0 for norm in norms) == [False] * 6 + [True] * 2


def test_two_processes_train_what_one_trains(partly_blind: Path, tmp_path: Path) -> None:
    """Also where one process has an image and the other none."""
    one, log = trained(partly_blind, tmp_path / "one", lora=EVERYTHING)
    two, log_of_two = trained(partly_blind, tmp_path / "two", lora=EVERYTHING, devices=2)
    losses, losses_of_two = ([r["value"] for r in rows if r["metric"] == "loss"] for rows in (log, log_of_two))
    assert len(losses) == 4
    assert losses_of_two == pytest.approx(losses, rel=1e-4)
    # AdamW amplifies rounding in small gradients
    assert max(np.abs(one[name] - two[name]).max() for name in one) < 5e-4


def test_weights_that_the_last_step_breaks_are_no_adapter(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the only step is finite; its gradient is not."""
    step = trainer.ListTrainer.training_step

    def broken(self: Any, model: Any, *arguments: Any, **options: Any) -> Any:
        loss = step(self, model, *arguments, **options)
        for weight in model.parameters():
            if weight.grad is not None:
                weight.grad.fill_(math.nan)
        return loss

    monkeypatch.setattr(trainer.ListTrainer, "training_step", broken)
    with pytest.raises(
        UserError, match="tensors of the adapter are not finite after the last step, such as `"
    ) as caught:
        trained(folder, tmp_path, batch_size=8, epochs=1)
    assert "lower `learning_rate`" in str(caught.value)
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / "training.parquet").exists()


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_logprobs_that_are_not_finite_are_not_stored(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    terms = stored_logprobs.stored_terms

    def broken(*arguments: Any, **options: Any) -> Any:
        for group_id, numbers in terms(*arguments, **options):
            yield (
                group_id,
                StoredTokens([[*numbers.logps[0][:-1], value], *numbers.logps[1:]]) if group_id == "5" else numbers,
            )

    monkeypatch.setattr(stored_logprobs, "stored_terms", broken)
    with pytest.raises(UserError, match="group `5`, view `original`: the reference's log-probs are NaN or infinite"):
        stored_logprobs.run(
            preferences=folder / "preferences.parquet", examples=folder / "examples.parquet", terms=tmp_path / "terms.parquet",
            model=model_block(folder), weights="w", stored=[Stored("reference", "original")], adapter=None, views={},
        )  # fmt: skip
    assert not (tmp_path / "terms.parquet").exists()


RESUMED = {"save_steps": 1, "epochs": 4, "lora": LoraBlock(r=4, alpha=8, dropout=0.2)}
"""Settings with dropout and a checkpoint after every step."""


def train_slowly(folder: Path, target: Path) -> None:
    """In a separate process with two workers, with a pause after every step, to be killed there."""
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
    process = multiprocessing.get_context("spawn").Process(target=train_slowly, args=(folder, killed))
    process.start()
    deadline = time.monotonic() + 300
    while not (killed / "checkpoints/checkpoint-3" / callbacks.COMPLETE).exists():
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    started = psutil.Process(process.pid).children(recursive=True)
    assert sum("forkserver" in " ".join(one.cmdline()) for one in started) == 1 + 2
    process.kill()
    process.join()
    assert not (killed / "adapter").exists()
    weights = "adapter_model.safetensors"
    first = (killed / "checkpoints/checkpoint-2" / weights).read_bytes()  # the Trainer's own
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive
    _, log = trained(folder, whole, workers=0, **RESUMED)
    _, resumed = trained(folder, killed, workers=1, keep_epochs=True, **RESUMED)
    epochs = {path.name: (path / weights).read_bytes() for path in (killed / "adapter/epochs").iterdir()}
    assert epochs.keys() == {"1", "2", "3"} and epochs["1"] == first and len(set(epochs.values())) == 3
    assert not (whole / "adapter/epochs").exists()
    one, other = ((path / "adapter/adapter_model.safetensors").read_bytes() for path in (whole, killed))
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


def train_sharded(folder: Path, target: Path) -> None:
    """In a separate process, to be killed with the processes that it starts."""
    trained(folder, target, **SHARDED, devices=2)


def test_sharded_processes_killed_and_resumed_on_two_nodes_train_what_one_trains(
    partly_blind: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FSDP2 on CPUs: two processes of a node are killed; two nodes with one process each go on."""
    process = multiprocessing.get_context("spawn").Process(target=train_sharded, args=(partly_blind, tmp_path / "two"))
    process.start()
    checkpoint = tmp_path / "two/checkpoints/checkpoint-3"
    deadline = time.monotonic() + 300
    while not (checkpoint / callbacks.COMPLETE).exists():
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for started in psutil.Process(process.pid).children(recursive=True):
        started.kill()
    process.join()
    assert [*checkpoint.parent.glob("*/pytorch_model_fsdp_0/.metadata")]  # sharded, not only distributed
    assert not (tmp_path / "two/adapter").exists()
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    two, log_of_two = trained(partly_blind, tmp_path / "two", **SHARDED, nodes=2)
    one, log = trained(partly_blind, tmp_path / "one", **{**SHARDED, "sharding": "none"})
    losses, losses_of_two = ([r["value"] for r in rows if r["metric"] == "loss"] for rows in (log, log_of_two))
    assert len(losses) == 16
    assert losses_of_two == pytest.approx(losses, rel=1e-5)
    assert max(np.abs(one[name] - two[name]).max() for name in one) < 1e-5
    for epoch in range(1, 8):  # the first was kept by the killed processes
        one, two = (
            load_file(tmp_path / n / f"adapter/epochs/{epoch}/adapter_model.safetensors") for n in ("one", "two")
        )
        assert max(np.abs(one[name] - two[name]).max() for name in one) < 1e-5
    ours, theirs = (read_header(tmp_path / name / "adapter/adapter_model.safetensors") for name in ("one", "two"))
    assert ours == theirs  # the same bytes, but for the weights
    configs = ((tmp_path / name / "adapter/adapter_config.json").read_text() for name in ("one", "two"))
    assert len(set(configs)) == 1


def test_logprobs_do_not_depend_on_workers(folder: Path, tmp_path: Path) -> None:
    """Nor does an image that has changed: the error is the same line."""
    arguments: dict[str, Any] = {
        "preferences": folder / "preferences.parquet", "terms": tmp_path / "terms.parquet", "model": model_block(folder, 1),
        "weights": "w", "stored": [Stored("reference", "original")], "adapter": None, "views": {},
    }  # fmt: skip
    stored_logprobs.run(examples=folder / "examples.parquet", **arguments)
    found, expected = (read_table(path / "terms.parquet", TERMS) for path in (tmp_path, folder))
    assert found == expected
    rows = read_table(folder / "examples.parquet", EXAMPLES).to_pylist()
    rows[5]["image_sha256"] = ["0" * 64]
    write_table(tmp_path / "examples.parquet", EXAMPLES, rows, {})
    with pytest.raises(
        UserError, match=r"^error: image `.*5\.png` of example `5`: the image has changed since"
    ) as caught:
        stored_logprobs.run(examples=tmp_path / "examples.parquet", **arguments)
    assert "\n" not in str(caught.value)


def test_an_attempt_with_less_memory_gives_the_same_result(folder: Path, tmp_path: Path) -> None:
    """After running out of memory: smaller passes, the same lists per optimiser step."""
    one, _ = trained(folder, tmp_path / "one", halvings=0, micro_batch_size=4)
    two, _ = trained(folder, tmp_path / "two", halvings=12, micro_batch_size=4)
    # AdamW amplifies rounding in small gradients
    assert max(np.abs(one[name] - two[name]).max() for name in one) < 5e-4
    stored_logprobs.run(
        preferences=folder / "preferences.parquet", examples=folder / "examples.parquet", terms=tmp_path / "terms.parquet",
        model=model_block(folder), weights="w", stored=[Stored("reference", "original")], adapter=None, views={}, halvings=12,
    )  # fmt: skip
    ours, theirs = (read_table(path / "terms.parquet", TERMS).to_pylist() for path in (folder, tmp_path))
    assert [v for row in ours for values in row["logprobs"] for v in values] == pytest.approx(
        [v for row in theirs for values in row["logprobs"] for v in values], abs=1e-5
    )


def test_sft_learns_the_ground_truth_in_the_models_notation(folder: Path, tmp_path: Path) -> None:
    _, log = trained(folder, tmp_path, method="sft", epochs=4)
    tokens = [r["value"] for r in log if r["metric"] == "response_tokens"]
    assert tokens[0] == 4 * 6  # "[" and four coordinates are five tokens, then end of sequence
    losses = [r["value"] for r in log if r["metric"] == "loss"]
    assert losses[-1] < losses[0]


def test_bad_rows_do_not_stop_sft(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A missing ground truth, one that is too long, one with the image token, a question with it."""
    rows = read_table(folder / "examples.parquet", EXAMPLES).to_pylist()
    for row, target in zip(rows, (None, "ab" * 3000, "![a](<image>)"), strict=False):
        row.update(box=None, target=target)
    groups = read_table(folder / "preferences.parquet", PREFERENCES).to_pylist()
    groups[3]["messages"][0]["content"][1]["text"] = "locate the <image>."
    write_table(tmp_path / "examples.parquet", EXAMPLES, rows, {})
    write_table(tmp_path / "preferences.parquet", PREFERENCES, groups, {})
    (tmp_path / "model").symlink_to(folder / "model")
    _, log = trained(tmp_path, tmp_path / "sft", method="sft", terms={"original": folder / "terms.parquet"}, epochs=1)
    assert {row["step"] for row in log} == {1}  # four lists
    printed = capfd.readouterr().out
    assert (
        "7 of 8 lists can be encoded; dropped: the question contains the model's image token `<image>` (1)" in printed
    )
    assert (
        "4 of 7 lists have a ground truth to learn from; dropped: no ground truth (1), prompt and ground truth exceed"
        " max_model_len (1), the ground truth contains the model's image token `<image>` (1)" in printed
    )


def test_a_bad_row_is_left_out_of_logprobs_and_training_alike(folder: Path, tmp_path: Path) -> None:
    groups = read_table(folder / "preferences.parquet", PREFERENCES).to_pylist()
    groups[3]["messages"][0]["content"][1]["text"] = "locate the <image>."
    write_table(tmp_path / "preferences.parquet", PREFERENCES, groups, {})
    for name in ("model", "examples.parquet"):
        (tmp_path / name).symlink_to(folder / name)
    stored_logprobs.run(
        preferences=tmp_path / "preferences.parquet", examples=tmp_path / "examples.parquet", terms=tmp_path / "terms.parquet",
        model=model_block(tmp_path), weights="w", stored=[Stored("reference", "original")], adapter=None, views={},
    )  # fmt: skip
    rows = read_table(tmp_path / "terms.parquet", TERMS).to_pylist()
    assert [row["group_id"] for row in rows] == ["0", "1", "2", "4", "5", "6", "7"]
    _, log = trained(tmp_path, tmp_path / "perpo", epochs=1)
    assert {row["step"] for row in log} == {1, 2}  # seven lists


def seeing(saliencies: dict[str, Path], share: float = 0.6) -> dict[str, Any]:
    """Job arguments for a second view that may be a crop or a semantic mask."""
    views = {
        "part": ViewBlock(type="random_crop"),
        "hidden": ViewBlock(type="semantic", parameters={"share": share}, saliency_map="dino"),
        "corrupted": ViewBlock(choice=("part", "hidden")),
    }
    return {"views": views, "saliencies": saliencies}


def test_a_list_method_with_a_second_view(folder: Path, tmp_path: Path) -> None:
    """Its pixels are the same in stored log-probs and training, are part of the lineage, and
    changed pixels start anew.
    """
    saliency.run(
        dataset="mine", examples=folder / "examples.parquet", saliency=tmp_path / "dino.parquet", weights="w",
        config=SaliencyBlock(path=str(tiny.build_tiny_dinov2(tmp_path / "dino")), layers=(1, 2), size=112),
    )  # fmt: skip
    second, table = seeing({"dino": tmp_path / "dino.parquet"}), tmp_path / "terms.parquet"
    stored_logprobs.run(
        preferences=folder / "preferences.parquet", examples=folder / "examples.parquet", terms=table,
        model=model_block(folder), weights="w", stored=[Stored("reference", "corrupted")], adapter=None, **second,
    )  # fmt: skip
    assert {row["view"] for row in read_table(table, TERMS).to_pylist()} == {"corrupted"}
    asked = {"original": folder / "terms.parquet", "corrupted": table}
    _, log = trained(folder, tmp_path / "1", method="mdpo", terms=asked, **second)
    margins = [row["value"] for row in log if row["metric"] == "conditional_margin"]
    assert margins[0] == pytest.approx(0, abs=1e-4)
    assert abs(margins[-1]) > 1e-3
    record = read_lineage(tmp_path / "1/training.parquet")
    assert {"terms original", "terms corrupted", "saliency dino"} < record["inputs"].keys()
    assert record["parameters"]["views"].keys() == {"part", "hidden", "corrupted"}
    views = [module_of("view", name) for name in ("original", "random_crop", "semantic")]
    assert record["code"] == code_digest(
        train.__name__, module_of("family", "llava"), module_of("method", "mdpo"), *views
    )


def test_a_killed_run_does_not_go_on_with_other_pixels(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All views of the method are part of a checkpoint's fingerprint."""
    seen = []

    def fingerprint(settings: Any, inputs: Any, module: str, plugins: Any) -> str:
        seen.append(distributed.fingerprint(settings, inputs, module, plugins))
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "fingerprint", fingerprint)
    asked = dict.fromkeys(("original", "corrupted"), folder / "terms.parquet")
    for seed in (0, 0, 1):
        with pytest.raises(KeyboardInterrupt):
            views = {"corrupted": ViewBlock(type="random_crop", seed=seed)}
            trained(folder, tmp_path, method="mdpo", terms=asked, views=views)
    assert seen[0] == seen[1] != seen[2]


def test_querying_an_undeclared_view_is_rejected(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load("method", "mdpo"), "views", lambda parameters, view: (view,), raising=False)
    asked = dict.fromkeys(("original", "corrupted"), folder / "terms.parquet")
    with pytest.raises(UserError, match="method `mdpo` queries view `corrupted`, which its `views` does not declare"):
        trained(folder, tmp_path, method="mdpo", terms=asked, views={"corrupted": ViewBlock(type="random_crop")})


def test_stored_logprobs_of_other_lists_are_rejected(folder: Path, tmp_path: Path) -> None:
    rows = read_table(folder / "terms.parquet", TERMS).to_pylist()
    rows[3]["logprobs"][0].append(-1.0)
    write_table(tmp_path / "terms.parquet", TERMS, rows, {})
    with pytest.raises(UserError, match=r"terms\.parquet` does not match group `3`"):
        train.run(
            experiment="e", preferences=folder / "preferences.parquet", examples=folder / "examples.parquet",
            terms={"original": tmp_path / "terms.parquet"}, adapter=tmp_path / "a", training=tmp_path / "t.parquet",
            checkpoints=tmp_path / "c", model=model_block(folder), weights="w", config=TrainingBlock(method="perpo"), views={},
        )  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_four_bits_without_a_gpu_are_one_message(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training and in its stored log-probs."""
    message = "`quantisation: nf4` needs an NVIDIA GPU, and this process sees none"
    with pytest.raises(UserError, match=message):
        trained(folder, tmp_path, quantisation="nf4")
    with pytest.raises(UserError, match=message):
        stored_logprobs.run(
            preferences=folder / "preferences.parquet", examples=folder / "examples.parquet", terms=tmp_path / "terms.parquet",
            model=model_block(folder), weights="w", stored=[Stored("reference", "original")], adapter=None, views={},
            quantisation="nf4",
        )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(loading, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(UserError, match="needs bitsandbytes, which is not installed") as caught:
        trained(folder, tmp_path, quantisation="nf4")
    assert caught.value.hint == "uv pip install bitsandbytes"


def test_several_nodes_outside_of_slurm_are_one_message(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match="key `nodes`: 2, but this job does not run in SLURM"):
        trained(folder, tmp_path, nodes=2)


def test_a_mistake_in_several_processes_is_one_message(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`batch_size`: 3 lists cannot be shared evenly by 2 processes"):
        trained(folder, tmp_path, devices=2, batch_size=3)
