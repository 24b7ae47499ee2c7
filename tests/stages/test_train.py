"""The stages of stored log-probs and training, in one process: bad rows, second views, mistakes."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from perceptune.contracts.config import SaliencyBlock, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load, module_of
from perceptune.contracts.provenance.code import code_digest
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_lineage, read_table, write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.terms import TERMS
from perceptune.engines.training import trainer
from perceptune.engines.training.groups import StoredTokens
from perceptune.models import loading
from perceptune.runtime import distributed
from perceptune.stages.attention import saliency
from perceptune.stages.training import stored_logprobs, train

from tests import tiny_models as tiny

from . import trainings
from .trainings import largest_difference, logged, store_logprobs, trained

pytestmark = pytest.mark.slow
folder = trainings.folder


def test_logprobs_are_stored_per_token_of_kept_lists(folder: Path) -> None:
    rows = read_table(folder / "terms.parquet", TERMS).to_pylist()
    assert [r["group_id"] for r in rows] == [str(n) for n in range(8)]
    assert [[len(v) for v in r["logprobs"]] for r in rows] == [[2, 3, 4]] * 8
    assert all(v < 0 for r in rows for values in r["logprobs"] for v in values)


def test_logprobs_do_not_depend_on_workers(folder: Path, tmp_path: Path) -> None:
    """Nor does an image that has changed: the error is the same line."""
    terms = tmp_path / "terms.parquet"
    store_logprobs(folder, terms, workers=1)
    found, expected = (read_table(path / "terms.parquet", TERMS) for path in (tmp_path, folder))
    assert found == expected
    rows = read_table(folder / "examples.parquet", EXAMPLES).to_pylist()
    rows[5]["image_sha256"] = ["0" * 64]
    write_table(tmp_path / "examples.parquet", EXAMPLES, rows, {})
    with pytest.raises(
        UserError, match=r"^error: image `.*5\.png` of example `5`: the image has changed since"
    ) as caught:
        store_logprobs(folder, terms, workers=1, examples=tmp_path / "examples.parquet")
    assert "\n" not in str(caught.value)


def test_an_attempt_with_less_memory_gives_the_same_result(folder: Path, tmp_path: Path) -> None:
    """After running out of memory: smaller passes, the same lists per optimiser step."""
    one, _ = trained(folder, tmp_path / "one", halvings=0, micro_batch_size=4)
    two, _ = trained(folder, tmp_path / "two", halvings=12, micro_batch_size=4)
    # AdamW amplifies rounding in small gradients
    assert largest_difference(one, two) < 5e-4
    store_logprobs(folder, tmp_path / "terms.parquet", halvings=12)
    ours, theirs = (
        [
            value
            for row in read_table(path / "terms.parquet", TERMS).to_pylist()
            for logps in row["logprobs"]
            for value in logps
        ]
        for path in (folder, tmp_path)
    )
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_sft_learns_the_ground_truth_in_the_models_notation(folder: Path, tmp_path: Path) -> None:
    _, log = trained(folder, tmp_path, method="sft", epochs=4)
    tokens = logged(log, "response_tokens")
    assert tokens[0] == 4 * 6  # "[" and four coordinates are five tokens, then end of sequence
    losses = logged(log, "loss")
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
    store_logprobs(tmp_path, tmp_path / "terms.parquet")
    rows = read_table(tmp_path / "terms.parquet", TERMS).to_pylist()
    assert [row["group_id"] for row in rows] == ["0", "1", "2", "4", "5", "6", "7"]
    _, log = trained(tmp_path, tmp_path / "perpo", epochs=1)
    assert {row["step"] for row in log} == {1, 2}  # seven lists


def test_a_list_method_with_a_second_view(folder: Path, tmp_path: Path) -> None:
    """Its pixels are the same in stored log-probs and training, are part of the lineage, and
    changed pixels start anew.
    """
    saliency.run(
        dataset="mine", examples=folder / "examples.parquet", saliency=tmp_path / "dino.parquet", weights="w",
        config=SaliencyBlock(path=str(tiny.build_tiny_dinov2(tmp_path / "dino")), layers=(1, 2), size=112),
    )  # fmt: skip
    views = {
        "part": ViewBlock(type="random_crop"),
        "hidden": ViewBlock(type="semantic", parameters={"share": 0.6}, saliency_map="dino"),
        "corrupted": ViewBlock(choice=("part", "hidden")),
    }
    second: dict[str, Any] = {"views": views, "saliencies": {"dino": tmp_path / "dino.parquet"}}
    table = tmp_path / "terms.parquet"
    store_logprobs(folder, table, view="corrupted", **second)
    assert {row["view"] for row in read_table(table, TERMS).to_pylist()} == {"corrupted"}
    asked = {"original": folder / "terms.parquet", "corrupted": table}
    _, log = trained(folder, tmp_path / "1", method="mdpo", terms=asked, **second)
    margins = logged(log, "conditional_margin")
    assert margins[0] == pytest.approx(0, abs=1e-4)
    assert abs(margins[-1]) > 1e-3
    record = read_lineage(tmp_path / "1/training.parquet")
    assert {"terms original", "terms corrupted", "saliency dino"} < record["inputs"].keys()
    assert record["parameters"]["views"].keys() == {"part", "hidden", "corrupted"}
    modules = [module_of("view", name) for name in ("original", "random_crop", "semantic")]
    modules += [module_of("family", "llava"), module_of("method", "mdpo")]
    assert record["code"] == code_digest(train.__name__, *modules)


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
        store_logprobs(folder, tmp_path / "terms.parquet")
    assert not (tmp_path / "terms.parquet").exists()


def test_stored_logprobs_of_other_lists_are_rejected(folder: Path, tmp_path: Path) -> None:
    rows = read_table(folder / "terms.parquet", TERMS).to_pylist()
    rows[3]["logprobs"][0].append(-1.0)
    write_table(tmp_path / "terms.parquet", TERMS, rows, {})
    with pytest.raises(UserError, match=r"terms\.parquet` does not match group `3`"):
        trained(folder, tmp_path, terms={"original": tmp_path / "terms.parquet"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_four_bits_without_a_gpu_are_one_message(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training and in its stored log-probs."""
    message = "`quantisation: nf4` needs an NVIDIA GPU, and this process sees none"
    with pytest.raises(UserError, match=message):
        trained(folder, tmp_path, quantisation="nf4")
    with pytest.raises(UserError, match=message):
        store_logprobs(folder, tmp_path / "terms.parquet", quantisation="nf4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(loading, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(UserError, match="needs bitsandbytes, which is not installed") as caught:
        trained(folder, tmp_path, quantisation="nf4")
    assert caught.value.hint == "uv pip install bitsandbytes"
