"""The estimate of disk space, against files of the workflow's own formats."""

import copy
import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.planning import policies
from perceptune.planning.disk import RESPONSE_TOKEN, estimate, size, too_little
from perceptune.planning.preflight import warnings
from perceptune.planning.questions import asked, counted

from .demo_configs import DEMO, P2DPO, ROUNDS, edited

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    monkeypatch.chdir(tmp_path)


def kinds(config: dict[str, Any]) -> dict[str, float]:
    return estimate(policies.load(copy.deepcopy(config)), exports=True).kinds


def test_the_demo_is_counted_by_its_blocks() -> None:
    found = kinds(DEMO)
    # 1,000 questions x 20 answers; for three policies 500 questions x (2 views + 20 samples)
    answers, tokens = 1000 * 20 + 3 * 500 * 22, 24
    assert found["answers and rewards"] == pytest.approx(answers * (tokens * (10 + 2.5) + 34))
    # lists of 12 with one table of log-probs, which both experiments share
    assert found["lists and log-probs"] == pytest.approx(1000 * 12 * tokens * (5 + 5.2))
    weights = (ROOT / "resources/tiny-llava/model/model.safetensors").stat().st_size
    assert found["weights with an adapter"] == pytest.approx(weights, rel=0.01)
    assert found["exported models"] == 2 * found["weights with an adapter"]
    assert found["checkpoints"] == 3 * 3 * found["adapters"] / 2
    assert found["answers being sampled"] == pytest.approx(2 * 1000 * 20 * tokens * 10)


def test_finished_files_need_no_space() -> None:
    before = kinds(DEMO)
    for file in ("adapters/dpo/adapter_model.safetensors", "responses/tiny/shapes/n20.parquet"):
        (Path("results") / file).parent.mkdir(parents=True)
        (Path("results") / file).touch()
    after = kinds(DEMO)
    assert after["adapters"] == before["adapters"] / 2
    assert before["answers and rewards"] - after["answers and rewards"] == pytest.approx(20_000 * 24 * 10)
    rehearsal = kinds({**DEMO, "rehearse": 20})
    assert rehearsal["adapters"] == before["adapters"]  # in another folder
    assert rehearsal["answers and rewards"] < before["answers and rewards"] / 20


def test_rounds_carry_their_optimizer_and_pairs_need_maps() -> None:
    rounds = policies.load(copy.deepcopy(ROUNDS))
    one = kinds(ROUNDS)
    reset = copy.deepcopy(ROUNDS)
    for training in reset["trainings"].values():
        training["optimizer"] = "reset"
    assert one["adapters"] == pytest.approx(3 * kinds(reset)["adapters"])
    assert len(rounds.trained) > len(rounds.config.experiments)
    assert kinds(P2DPO)["attention and saliency maps"] > 0


def test_features_of_images_are_counted_once_for_all_that_read_them() -> None:
    """Two trainings and their log-probs have the same images; 16 bits give log-probs features of their own.
    A trained projector leaves only the latter. Rounds go through all questions."""
    assert "image features" not in kinds(DEMO)
    cached = edited("models.tiny.feature_cache", True)
    width = json.loads((ROOT / "resources/tiny-llava/model/config.json").read_text())["text_config"]["hidden_size"]
    assert cached["models"]["tiny"]["dtype"] == "float32"
    each = 1024 * width * 4
    assert kinds(cached)["image features"] == 1000 * each
    half = edited("models.tiny.dtype", "bfloat16", cached)
    assert kinds(half)["image features"] == 2 * 1000 * each / 2
    for training in half["trainings"].values():
        training["lora"] = {**training["lora"], "parts": ["language", "projector"]}
    assert kinds(half)["image features"] == 1000 * each / 2
    rounds = edited("models.tiny.feature_cache", True, ROUNDS)
    grpo = ROUNDS["experiments"]["grpo"]
    for number, questions in ((4, 4 * 64), (12, 600)):
        few = edited("experiments", {"grpo": {**grpo, "rounds": number}}, rounds)
        assert kinds(few)["image features"] == questions * each


def test_a_trained_projector_makes_the_cache_of_features_useless() -> None:
    cached = edited("models.tiny.feature_cache", True)
    assert list(warnings(policies.load(copy.deepcopy(cached)))) == []
    cached["trainings"]["perpo"]["lora"] = {**cached["trainings"]["perpo"]["lora"], "parts": ["language", "projector"]}
    assert list(warnings(policies.load(cached))) == [
        "key `models.tiny.feature_cache`: training `perpo` does not use it, because `projector` in `lora.parts` "
        "changes the features of images"
    ]


def test_every_request_plan_is_counted() -> None:
    """As `Plan.request_plans` names them, for every policy."""
    from perceptune.planning.disk import _request_plans

    for config in (DEMO, P2DPO, ROUNDS):
        plan = policies.load(copy.deepcopy(config))
        policies_ = dict.fromkeys([*plan.policies, *plan.trained])
        assert {p: set(n) for p, n in _request_plans(plan).items()} == {
            p: set(plan.request_plans(p)) for p in policies_ if plan.request_plans(p)
        }


def test_own_data_counts_once_it_is_imported(tmp_path: Path) -> None:
    Path("a.png").write_bytes(b"x" * 500)
    own = edited("datasets.shapes", {"kind": "jsonl", "path": "own.jsonl"})
    own["samplings"]["n20"]["limit"] = 2
    plan = policies.load(copy.deepcopy(own))
    assert estimate(plan, exports=True).uncounted == ("dataset `shapes`",)
    assert "answers and rewards" not in estimate(plan, exports=True).kinds
    row = {
        "task": "grounding", "question": "?", "images": [{"bytes": None, "path": "a.png"}], "image_sha256": ["0"], "image_hashes": [b""], "image_sizes": [[8, 8]],
        "target": None, "box": None, "source": None, "reason": None,
    }  # fmt: skip
    rows = [{**row, "example_id": str(i), "split": "train" if i < 5 else "test"} for i in range(8)]
    rows += [{**row, "example_id": "bad", "split": "train", "reason": "no image"}]
    checked = tmp_path / "elsewhere/shapes.parquet"
    write_table(checked, EXAMPLES, rows, {})
    before = estimate(plan, exports=True, tables={"shapes": checked})
    write_table(Path("results/examples/shapes.parquet"), EXAMPLES, rows, {})
    assert before.uncounted == ()
    assert before.kinds == estimate(plan, exports=True).kinds
    assert dict(counted(plan.config)["shapes"]) == {("train", "grounding"): 5, ("test", "grounding"): 3}
    (one,) = asked(plan, "tiny", "shapes/n20")
    assert one.questions(counted(plan.config)) == 2
    assert estimate(plan, exports=True).uncounted == ()
    answers = 2 * 20 + 3 * 3 * 22
    assert estimate(plan, exports=True).kinds["answers and rewards"] == pytest.approx(answers * (24 * 12.5 + 34))
    exporting = {**own, "exports": {"out": {"experiment": "dpo", "format": "trl"}}}
    assert kinds(exporting)["images of exported preferences"] == pytest.approx(500, abs=100)


@pytest.mark.parametrize(("vocabulary", "length"), [(32_000, 8), (150_000, 100)])
def test_responses_in_their_table_are_not_larger_than_estimated(vocabulary: int, length: int) -> None:
    """Tokens of random words, drawn by Zipf's law, and random log-probs: hardly compressible."""
    generator = np.random.default_rng(0)
    share = 1 / np.arange(1, vocabulary + 1)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    number = 40_000 // length
    drawn = generator.choice(vocabulary, (number, length), p=share / share.sum())
    words = {token: "".join(generator.choice(letters, generator.integers(1, 6))) for token in np.unique(drawn)}
    rows = [
        {
            "request_id": f"row-{i // 20}", "example_id": f"row-{i // 20}", "view": "original", "sample_index": i % 20,
            "text": " ".join(words[token] for token in ids), "token_ids": ids.tolist(),
            "logprobs": (-generator.exponential(0.5, length)).tolist(), "finish_reason": "stop", "prompt_tokens": 600,
            "reason": None, "key": f"{i // 20:064x}",
        }
        for i, ids in enumerate(drawn)
    ]  # fmt: skip
    write_table(Path("responses.parquet"), RESPONSES, rows, {})
    assert 0.75 < Path("responses.parquet").stat().st_size / (number * length * RESPONSE_TOKEN) < 1.1


def test_too_little_space_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = policies.load(copy.deepcopy(DEMO))
    assert list(too_little(estimate(plan, exports=True))) == []
    assert list(warnings(plan)) == []
    usage = namedtuple("usage", ("total", "used", "free"))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 10**9 - 5_000_000, 5_000_000))
    (line,) = warnings(plan)
    assert line.startswith("the run may write up to ")
    assert line.endswith("to `results`, where 5.0 MB are free; `perceptune check` shows what for")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_600, "100 kB"),
        (3_210_000_000, "3.2 GB"),
        (2.5e15, "2500.0 TB"),
    ],
)
def test_sizes_are_readable(number: float, expected: str) -> None:
    assert size(number) == expected
