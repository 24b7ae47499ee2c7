"""Rounds on real tables: stored log-probs, training from the previous adapter, early stops."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perceptune.contracts.config import BatchBlock, LoraBlock, ModelBlock, SaliencyBlock, TrainingBlock, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.digests import sha256_of_file
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_lineage, read_table, write_table
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.contracts.tables.saliency import SALIENCY
from perceptune.contracts.tables.terms import TERMS
from perceptune.contracts.tables.training import TRAINING
from perceptune.stages.attention import saliency
from perceptune.stages.preferences import select_batch
from perceptune.stages.training import stored_logprobs, train_round
from perceptune.stages.training.round_status import Ending, Stop
from PIL import Image
from safetensors.numpy import load_file

from tests import tiny_models as tiny
from tests.plugins import METHODS

pytestmark = pytest.mark.slow
VIEWS = {
    "masked": ViewBlock(type="masked"),
    "preserving": ViewBlock(type="jitter"),
    "removing": ViewBlock(choice=("covered", "zoomed")),
    "covered": ViewBlock(type="rectangles"),
    "zoomed": ViewBlock(type="zoom"),
    "hidden": ViewBlock(type="semantic", saliency_map="dino"),
    "untouched": ViewBlock(type="semantic", parameters={"share": 0}, saliency_map="dino"),
}
GROUPS, ANSWERS = 6, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Examples, a random model, and a round's requests, responses and rewards."""
    folder = tmp_path_factory.mktemp("rounds")
    tiny.build_tiny_llava(folder / "model", 0)
    random = np.random.default_rng(0)
    examples, requests, responses, rewards = [], [], [], []
    for number in range(GROUPS):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (112, 112, 3), dtype=np.uint8)).save(path)
        content = [{"type": "image", "text": None}, {"type": "text", "text": "locate the red circle."}]
        name = f"mine/{number}/original/round-1"
        examples.append({
            "example_id": str(number), "task": "grounding", "question": "?", "images": [{"bytes": None, "path": str(path)}],
            "image_sha256": [sha256_of_file(path)], "image_hashes": [], "image_sizes": [[112, 112]], "target": None, "box": None, "split": "train",
            "source": None, "reason": None,
        })  # fmt: skip
        requests.append({
            "request_id": name, "example_id": str(number), "dataset": "mine", "benchmark": None, "condition": "round-1",
            "view": "original", "recipe": "{}", "contrast": None, "messages": [{"role": "user", "content": content}], "n": ANSWERS,
            "temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_tokens": 6, "seed": 0,
        })  # fmt: skip
        for index in range(ANSWERS):
            tokens = random.integers(270, 380, 2 + index).tolist()
            shared = {
                "request_id": name,
                "example_id": str(number),
                "view": "original",
                "sample_index": index,
                "text": str(index),
            }
            responses.append({
                **shared, "token_ids": tokens, "logprobs": random.normal(-6, 0.1, len(tokens)).tolist(),
                "finish_reason": "length" if index == 3 else "stop", "prompt_tokens": 9, "reason": None,
            })  # fmt: skip
            right = float(number < 5 and index % 2)  # the last group is all wrong
            rewards.append({
                **shared, "task": "grounding", "benchmark": None, "condition": "round-1", "target": None, "reward": right,
                "parsed": None, "components": [{"name": "accuracy", "value": right}], "reason": None,
            })  # fmt: skip
    tables = ((EXAMPLES, examples), (REQUESTS, requests), (RESPONSES, responses), (REWARDS, rewards))
    for table, rows in tables:
        write_table(folder / f"{table.name}.parquet", table, rows, {})
    select(folder, folder / "preferences.parquet")
    return folder


def select(folder: Path, target: Path, **settings: Any) -> dict[str, Any]:
    select_batch.run(
        requests=folder / "requests.parquet", responses=folder / "responses.parquet", rewards=folder / "rewards.parquet",
        preferences=target, statistics=target.with_suffix(".json"), config=BatchBlock(**settings),
    )  # fmt: skip
    return dict(json.loads(target.with_suffix(".json").read_text()))


def model_of(folder: Path, workers: int | None = None) -> ModelBlock:
    return ModelBlock(path=str(folder / "model"), family="llava", dtype="float32", workers=workers)


def trained(
    folder: Path,
    target: Path,
    number: int = 1,
    before: Path | None = None,
    preferences: Path | None = None,
    saliencies: dict[str, Path] | None = None,
    workers: int | None = None,
    **changes: Any,
) -> Path:
    """Computes the stored log-probs and the adapter of a round; returns the adapter's folder."""
    settings: dict[str, Any] = {
        "method": "grpo", "lora": LoraBlock(r=4, alpha=8), "learning_rate": 5e-3, "batch_size": 2, "micro_batch_size": 2,
        "scheduler": "constant",
    }  # fmt: skip
    block = TrainingBlock(**{**settings, **changes})
    method = METHODS[block.method]
    preferences = preferences or folder / "preferences.parquet"
    shared: dict[str, Any] = {"preferences": preferences, "examples": folder / "examples.parquet", "views": VIEWS}
    shared |= {"model": model_of(folder, workers), "weights": "w", "saliencies": saliencies}
    stored_logprobs.run(
        **shared, terms=target / "terms.parquet", adapter=before, of_round=True,
        stored=method.stored(method.Parameters.model_validate(block.parameters), "original"),
    )  # fmt: skip
    train_round.run(
        **shared, experiment=f"e@{number}", number=number, responses=folder / "responses.parquet", terms=target / "terms.parquet",
        before=before, adapter=target / "adapter", training=target / "training.parquet", checkpoints=target / "checkpoints",
        config=block, longest=6,
    )  # fmt: skip
    assert not (target / "checkpoints").exists()
    return target / "adapter"


def metrics(target: Path, name: str) -> list[float]:
    rows = read_table(target / "training.parquet", TRAINING).to_pylist()
    return [row["value"] for row in rows if row["metric"] == name]


EVERYTHING = LoraBlock(r=4, alpha=8, parts=("language", "projector", "vision"), full=("projector",), use_dora=True)


def test_rounds_go_on_from_one_another(folder: Path, tmp_path: Path) -> None:
    """With all parts of the model, of which the reference has those of the base model."""
    one = trained(folder, tmp_path / "1", lora=EVERYTHING)
    two = trained(folder, tmp_path / "2", number=2, before=one, lora=EVERYTHING)
    assert Ending.read(two / "round.json") == Ending(2)
    assert metrics(tmp_path / "1", "policy_gap")[0] == metrics(tmp_path / "2", "policy_gap")[0] == 0
    assert metrics(tmp_path / "2", "old_kl")[1] > 0
    rows = read_table(tmp_path / "2/terms.parquet", TERMS).to_pylist()
    assert {(row["term"], row["view"]) for row in rows} == {("old", "original"), ("reference", "original")}
    old, reference = ([row["logprobs"] for row in rows if row["term"] == term] for term in ("old", "reference"))
    assert old != reference
    first = read_table(tmp_path / "1/terms.parquet", TERMS).to_pylist()
    assert reference == [row["logprobs"] for row in first if row["term"] == "reference"]
    assert metrics(tmp_path / "2", "reference_kl")[0] > 0
    steps = load_file(two / "optimizer.safetensors")
    # three per round
    assert {int(value) for name, value in steps.items() if name.endswith(".step")} == {6}


def test_the_first_policy_is_the_base_model(folder: Path, tmp_path: Path) -> None:
    trained(folder, tmp_path)
    rows = read_table(tmp_path / "terms.parquet", TERMS).to_pylist()
    old, reference = ([row["logprobs"] for row in rows if row["term"] == term] for term in ("old", "reference"))
    assert old == reference
    assert all(len(e) == len(v) for row in rows for e, v in zip(row["entropies"], row["logprobs"], strict=True))


def test_the_optimiser_can_start_anew(folder: Path, tmp_path: Path) -> None:
    one = trained(folder, tmp_path / "1")
    carried = load_file(trained(folder, tmp_path / "2", number=2, before=one) / "adapter_model.safetensors")
    anew = trained(folder, tmp_path / "3", number=2, before=one, optimizer="reset")
    assert not (anew / "optimizer.safetensors").exists()
    reset = load_file(anew / "adapter_model.safetensors")
    assert max(np.abs(carried[name] - reset[name]).max() for name in carried) > 1e-4
    with pytest.raises(UserError, match=r"optimizer\.safetensors` does not exist, so the optimiser cannot resume"):
        trained(folder, tmp_path / "4", number=3, before=anew)


@pytest.mark.parametrize("method", ["papo_g", "papo_d", "cppo", "dapo", "dr_grpo"])
def test_every_method_runs_two_rounds(folder: Path, tmp_path: Path, method: str) -> None:
    one = trained(folder, tmp_path / "1", method=method)
    trained(folder, tmp_path / "2", number=2, before=one, method=method)
    assert np.isfinite(metrics(tmp_path / "2", "loss")).all()
    assert metrics(tmp_path / "2", "policy_gap")[0] == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def salient(folder: Path) -> dict[str, Path]:
    saliency.run(
        dataset="mine", examples=folder / "examples.parquet", saliency=folder / "dino.parquet", weights="w",
        config=SaliencyBlock(path=str(tiny.build_tiny_dinov2(folder / "dino")), layers=(1, 2), size=112),
    )  # fmt: skip
    return {"dino": folder / "dino.parquet"}


@pytest.mark.parametrize("entropy", ["stored", "live"])
def test_papo_with_its_semantic_mask(folder: Path, salient: dict[str, Path], tmp_path: Path, entropy: str) -> None:
    """Stored log-probs and live passes agree, and an empty mask hides nothing."""
    parameters = {"mask": "hidden", "eta_masked": 0.01, "masked_entropy": entropy}
    shared: dict[str, Any] = {"method": "papo_g", "saliencies": salient}
    one = trained(folder, tmp_path / "1", **shared, parameters=parameters)
    trained(folder, tmp_path / "2", number=2, before=one, **shared, parameters=parameters)
    assert np.isfinite(metrics(tmp_path / "2", "loss")).all()
    assert metrics(tmp_path / "1", "perception_kl")[0] > 1e-6
    record = read_lineage(tmp_path / "2/training.parquet")
    assert "saliency dino" in record["inputs"]
    trained(folder, tmp_path / "3", **shared, parameters={"mask": "untouched"})
    assert metrics(tmp_path / "3", "perception_kl")[0] == pytest.approx(0, abs=1e-9)


def test_two_processes_read_the_saliency_maps(folder: Path, salient: dict[str, Path], tmp_path: Path) -> None:
    shared: dict[str, Any] = {"method": "papo_g", "saliencies": salient, "parameters": {"mask": "hidden"}}
    one = load_file(trained(folder, tmp_path / "one", **shared) / "adapter_model.safetensors")
    two = load_file(trained(folder, tmp_path / "two", **shared, devices=2) / "adapter_model.safetensors")
    assert max(np.abs(one[name] - two[name]).max() for name in one) < 5e-4


def test_an_example_without_a_saliency_map_is_reported(folder: Path, salient: dict[str, Path], tmp_path: Path) -> None:
    rows = read_table(salient["dino"], SALIENCY).to_pylist()
    write_table(tmp_path / "less.parquet", SALIENCY, rows[:-1], {})
    with pytest.raises(UserError, match="saliency map `dino` has no row for example `5`"):
        trained(
            folder,
            tmp_path / "1",
            method="papo_g",
            saliencies={"dino": tmp_path / "less.parquet"},
            parameters={"mask": "hidden"},
        )
    rows[2] |= {"grid": None, "saliency": None, "reason": "the file does not exist"}
    write_table(tmp_path / "none.parquet", SALIENCY, rows, {})
    with pytest.raises(UserError, match="view `hidden` of example `2`: no saliency map: the file does not exist"):
        trained(
            folder,
            tmp_path / "1",
            method="papo_g",
            saliencies={"dino": tmp_path / "none.parquet"},
            parameters={"mask": "hidden"},
        )


def test_a_limit_keeps_the_adapter_before_and_says_why(folder: Path, tmp_path: Path) -> None:
    one = trained(folder, tmp_path / "1")
    two = trained(folder, tmp_path / "2", number=2, before=one, limits={"old_kl": (None, 1e-9)})
    ending = Ending.read(two / "round.json")
    assert ending.stopped is not None
    assert ending.stopped.round == 2
    assert "`old_kl` is" in ending.stopped.reason
    assert "at step 2, above its limit 1e-09" in ending.stopped.reason
    ours, theirs = ((path / "adapter_model.safetensors").read_bytes() for path in (one, two))
    assert ours == theirs
    assert len(metrics(tmp_path / "2", "loss")) == 2  # the steps until it stopped
    three = trained(folder, tmp_path / "3", number=3, before=two)
    assert Ending.read(three / "round.json") == Ending(3, ending.stopped)
    assert (three / "adapter_model.safetensors").read_bytes() == ours
    assert metrics(tmp_path / "3", "loss") == []


def test_a_limit_in_the_first_round_leaves_the_base_model(folder: Path, tmp_path: Path) -> None:
    one = trained(folder, tmp_path, limits={"engine_gap_at_start": (None, 1e-9)})
    assert Ending.read(one / "round.json").stopped == Stop(1, Ending.read(one / "round.json").stopped.reason)  # type: ignore[union-attr]
    weights = load_file(one / "adapter_model.safetensors")
    assert all((value == 0).all() for name, value in weights.items() if "lora_B" in name)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_round_without_groups_ends_the_experiment_but_not_the_first(
    folder: Path, tmp_path: Path, devices: int
) -> None:
    one = trained(folder, tmp_path / "1")
    counted = select(folder, tmp_path / "none.parquet", keep="accuracy", below=0.3)
    assert counted == {
        "groups": 6,
        "kept": 0,
        "dropped": {"mean accuracy not above 0.01": 1, "mean accuracy not below 0.3": 5},
    }
    two = trained(folder, tmp_path / "2", number=2, before=one, preferences=tmp_path / "none.parquet", devices=devices)
    assert Ending.read(two / "round.json").stopped == Stop(2, "no group was kept, so there was nothing to learn from")
    with pytest.raises(UserError, match=r"none\.parquet` is kept, so there is nothing to learn from"):
        trained(folder, tmp_path / "3", preferences=tmp_path / "none.parquet")


def test_dynamic_sampling_leaves_groups_without_variance_out(folder: Path, tmp_path: Path) -> None:
    assert select(folder, tmp_path / "kept.parquet", keep="accuracy")["kept"] == 5
    trained(folder, tmp_path, preferences=tmp_path / "kept.parquet")
    assert set(metrics(tmp_path, "zero_variance")) == {0}
    trained(folder, tmp_path / "all")
    assert max(metrics(tmp_path / "all", "zero_variance")) == 0.5


def test_keep_must_be_a_component(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no component `acuracy`, expected one of `accuracy`, `reward`"):
        select(folder, tmp_path / "x.parquet", keep="acuracy")


def test_stored_logprobs_of_other_answers_are_rejected(folder: Path, tmp_path: Path) -> None:
    trained(folder, tmp_path / "1")
    rows = read_table(folder / "responses.parquet", RESPONSES).to_pylist()
    rows[2]["logprobs"] = rows[2]["logprobs"][:-1]
    other = tmp_path / "other"
    other.mkdir()
    write_table(other / "responses.parquet", RESPONSES, rows, {})
    with pytest.raises(UserError, match=r"responses\.parquet` does not match group `mine/0/original/round-1`"):
        train_round.run(
            experiment="e@1", number=1, preferences=folder / "preferences.parquet", responses=other / "responses.parquet",
            examples=folder / "examples.parquet", terms=tmp_path / "1/terms.parquet", before=None, adapter=other / "adapter",
            training=other / "training.parquet", checkpoints=other / "checkpoints", model=model_of(folder), weights="w",
            config=TrainingBlock(method="grpo", scheduler="constant"), views=VIEWS, longest=6,
        )  # fmt: skip


def test_two_processes_that_share_the_weights_train_the_round_that_one_trains(folder: Path, tmp_path: Path) -> None:
    """The second round, whose optimiser goes on from the first one's state. Each of the two has a worker."""
    shared: dict[str, Any] = {"method": "cppo", "number": 2, "lora": EVERYTHING}
    shared["before"] = trained(folder, tmp_path / "before", method="cppo", lora=EVERYTHING)
    one = trained(folder, tmp_path / "one", **shared)
    two = trained(folder, tmp_path / "two", **shared, devices=2, workers=1, sharding="fsdp")
    norms = [metrics(tmp_path / name, "grad_norm") for name in ("one", "two")]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)
    ours, theirs = (load_file(path / "adapter_model.safetensors") for path in (one, two))
    assert ours.keys() == theirs.keys()
    # AdamW amplifies rounding in small gradients
    assert max(np.abs(ours[name] - theirs[name]).max() for name in ours) < 5e-4
    ours, theirs = (load_file(path / "optimizer.safetensors") for path in (one, two))
    assert ours.keys() == theirs.keys()
    assert all(np.abs(ours[name] - theirs[name]).max() <= 1e-3 * np.abs(ours[name]).max() for name in ours)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"round": 1}', '{"round": 1, "stopped": {"round": 1}}'])
def test_a_broken_status_file_is_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / "round.json").write_text(text)
    with pytest.raises(UserError, match=r"round\.json` is not a valid status file of a round"):
        Ending.read(tmp_path / "round.json")
