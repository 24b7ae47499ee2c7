"""From requests for pairs to filtered preferences, on small tables without an engine."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perceptune.contracts.config import (
    AnswerBlock,
    ContrastBlock,
    CropBlock,
    FilterBlock,
    PairBlock,
    PairingBlock,
    ViewBlock,
)
from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.digests import sha256_of_file
from perceptune.contracts.tables.attention import ATTENTION
from perceptune.contracts.tables.clips import CLIPS
from perceptune.contracts.tables.crops import CROPS
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.contracts.tables.terms import TERMS
from perceptune.core.views.view import Recipe
from perceptune.stages.attention import crops
from perceptune.stages.preferences import filter_pairs as filtering
from perceptune.stages.preferences import pairs
from perceptune.stages.sampling import requests
from PIL import Image

COUNT = 6
VIEWS = {
    "enhanced": ViewBlock(type="enhanced", crop="salient"),
    "degraded": ViewBlock(type="degraded", crop="salient"),
    "noisy": ViewBlock(type="noise", parameters={"sigma": 0.2}),
}
PAIRING = PairingBlock(
    focus=PairBlock(
        chosen=AnswerBlock(view="enhanced", prompt="Look at both: {question}", temperature=0),
        rejected=AnswerBlock(view="degraded", temperature=0),
    ),
    robust=PairBlock(
        chosen=AnswerBlock(contrast=ContrastBlock(view="noisy", strength=0.1)), rejected=AnswerBlock(view="noisy")
    ),
)
# (example, role) to text and log-probs; all others are good pairs
ODD = {
    ("0", "focus_rejected"): ("A", [-0.5]),  # identical to the chosen one
    ("1", "robust_chosen"): ("  ", [-0.5]),
    ("2", "focus_rejected"): ("B", [-2.0, -2.0]),
    ("3", "robust_rejected"): ("B", [-0.9, -0.3]),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six examples with maps (one empty), crops and planned requests."""
    random = np.random.default_rng(0)
    examples, maps = [], []
    for number in range(COUNT):
        path = tmp_path / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(path)
        examples.append({
            "example_id": str(number), "task": "existence", "question": f"{number}?", "images": [{"bytes": None, "path": str(path)}],
            "image_sha256": [sha256_of_file(path)], "image_hashes": [], "image_sizes": [[80, 60]], "target": "yes", "box": None, "split": "train",
            "source": None, "reason": None,
        })  # fmt: skip
        attention = random.random((6, 8)) * (number != 5)
        maps.append({
            "example_id": str(number), "size": [80, 60], "grid": [6, 8], "attention": attention.ravel().tolist(),
            "afr": None, "layer_afr": None, "image_share": None, "reason": None,
        })  # fmt: skip
    write_table(tmp_path / "examples.parquet", EXAMPLES, examples, {})
    write_table(tmp_path / "attention.parquet", ATTENTION, maps, {})
    crops.run(
        attention=tmp_path / "attention.parquet",
        crops=tmp_path / "salient.parquet",
        config=CropBlock(attention_map="a", base=(30, 30)),
    )
    plan(tmp_path)
    return tmp_path


def plan(folder: Path, **changes: Any) -> None:
    requests.run_pairs(
        dataset="mine",
        examples=folder / "examples.parquet",
        requests=folder / "requests.parquet",
        config=PAIRING.model_copy(update=changes),
        views=requests.Views(VIEWS, {"salient": folder / "salient.parquet"}),
    )


def answered(folder: Path) -> None:
    rows = []
    for row in read_table(folder / "requests.parquet", REQUESTS).to_pylist():
        usual = (
            "A" if "chosen" in row["condition"] else "B",
            [-0.5, -0.5] if "chosen" in row["condition"] else [-0.6, -0.6],
        )
        text, logprobs = ODD.get((row["example_id"], row["condition"]), usual)
        rows.append({
            "request_id": row["request_id"], "example_id": row["example_id"], "view": row["view"], "sample_index": 0, "text": text,
            "token_ids": [300 + i for i in range(len(logprobs))], "logprobs": logprobs, "finish_reason": "stop", "prompt_tokens": 9,
            "reason": None,
        })  # fmt: skip
    write_table(folder / "responses.parquet", RESPONSES, rows, {})


def made(folder: Path, config: PairingBlock = PAIRING) -> dict[str, dict[str, Any]]:
    answered(folder)
    pairs.run(
        requests=folder / "requests.parquet",
        responses=folder / "responses.parquet",
        examples=folder / "examples.parquet",
        pairs=folder / "pairs.parquet",
        config=config,
    )
    return {row["group_id"]: row for row in read_table(folder / "pairs.parquet", PREFERENCES).to_pylist()}


def filtered(folder: Path, **settings: Any) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    groups = made(folder)
    terms = [
        {
            "group_id": name, "term": "reference", "view": "original",
            "logprobs": [[-1.0 - 0.1 * place] * len(r["token_ids"]) for place, r in enumerate(row["responses"])],
        }
        for name, row in groups.items() if row["kept"]
    ]  # fmt: skip
    write_table(folder / "terms.parquet", TERMS, terms, {})
    scores = [{"example_id": str(i), "image": 0.2, "crop": 0.24, "inverse": 0.1, "reason": None} for i in range(COUNT)]
    write_table(folder / "clip_scores.parquet", CLIPS, scores, {})
    filtering.run(
        pairs=folder / "pairs.parquet",
        terms=folder / "terms.parquet",
        clips=folder / "clip_scores.parquet",
        preferences=folder / "kept.parquet",
        statistics=folder / "kept.json",
        config=FilterBlock(**settings),
    )
    rows = {row["group_id"]: row for row in read_table(folder / "kept.parquet", PREFERENCES).to_pylist()}
    return rows, json.loads((folder / "kept.json").read_text())


def verdicts(rows: dict[str, dict[str, Any]]) -> dict[tuple[str, str], str | None]:
    return {(name, pair["kind"]): pair["reason"] for name, row in rows.items() for pair in row["pairs"]}


def test_requests_carry_what_the_model_is_shown(folder: Path) -> None:
    rows = [r for r in read_table(folder / "requests.parquet", REQUESTS).to_pylist() if r["example_id"] == "0"]
    by_role = {row["condition"]: row for row in rows}
    assert list(by_role) == ["focus_chosen", "focus_rejected", "robust_chosen", "robust_rejected"]
    items = {role: [c["type"] for c in row["messages"][0]["content"]] for role, row in by_role.items()}
    assert items["focus_chosen"] == ["image", "image", "text"]
    assert items["focus_rejected"] == items["robust_chosen"] == items["robust_rejected"] == ["image", "text"]
    assert by_role["focus_chosen"]["messages"][0]["content"][-1]["text"] == "Look at both: 0?"
    noisy = Recipe.read(by_role["robust_rejected"]["recipe"])
    assert by_role["robust_chosen"]["contrast"] == {"recipe": noisy.text(), "strength": 0.1, "plausibility": 0.1}
    crop = read_table(folder / "salient.parquet", CROPS).to_pylist()[0]["box"]
    assert Recipe.read(by_role["focus_rejected"]["recipe"]).box == tuple(crop)


def test_without_a_crop_there_is_no_focus_pair(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan(folder)
    conditions = [
        r["condition"] for r in read_table(folder / "requests.parquet", REQUESTS).to_pylist() if r["example_id"] == "5"
    ]
    assert conditions == ["robust_chosen", "robust_rejected"]
    assert "1 questions left out: view `enhanced`: no crop: empty map" in capsys.readouterr().out


def test_crops_of_other_examples_do_not_count(folder: Path) -> None:
    table = read_table(folder / "salient.parquet", CROPS).slice(0, 2)
    write_table(folder / "salient.parquet", CROPS, table, {})
    with pytest.raises(UserError, match="crop `salient` has no row for example `2`"):
        plan(folder)


def test_pairs_side_by_side(folder: Path) -> None:
    found = made(folder)
    assert verdicts(found) == {
        **{(str(i), kind): None for i in range(COUNT) for kind in ("focus", "robust") if (i, kind) != (5, "focus")},
        ("0", "focus"): "identical answers",
        ("1", "robust"): "empty answer",
    }
    good = found["4"]
    assert [r["role"] for r in good["responses"]] == [
        "focus_chosen",
        "focus_rejected",
        "robust_chosen",
        "robust_rejected",
    ]
    (focus, robust) = good["pairs"]
    assert (focus["chosen"], focus["rejected"], robust["chosen"], robust["rejected"]) == (0, 1, 2, 3)
    assert focus["margin"] == pytest.approx(0.1, abs=1e-6)
    assert focus["ppl_rejected"] == pytest.approx(math.exp(0.6), rel=1e-6)
    assert [view["view"] for view in good["views"]] == ["enhanced", "degraded", "noise"]
    assert [view["view"] for view in found["5"]["views"]] == ["noise"]
    assert all(len(view["sha256"]) == 64 for view in good["views"])
    texts = {view["view"]: view["messages"][0]["content"][-1]["text"] for view in good["views"]}
    assert set(texts.values()) == {"4?"}
    assert good["messages"][0]["content"][-1]["text"] == "4?"


def test_the_calibration_loss_may_ask_with_the_prompt_of_the_enhanced_answer(folder: Path) -> None:
    config = PAIRING.model_copy(update={"loss_prompt": "enhanced"})
    texts = {v["view"]: v["messages"][0]["content"][-1]["text"] for v in made(folder, config)["4"]["views"]}
    assert texts == {"enhanced": "Look at both: 4?", "degraded": "4?", "noise": "4?"}


def test_the_filter_judges_each_pair_by_itself(folder: Path) -> None:
    rows, counted = filtered(folder, margin=(-0.174, 0.208), max_ppl=2.5)
    found = verdicts(rows)
    assert found["2", "focus"] == "perplexity"  # exp 2
    assert found["3", "robust"] is None  # means -0.5 and -0.6
    assert found["2", "robust"] is None
    assert rows["2"]["kept"]
    assert counted["kinds"]["focus"]["dropped"] == {"identical answers": 1, "perplexity": 1}
    assert counted["kept"] == 6
    assert rows["4"]["numbers"] == [
        {"name": "clip_image", "value": 0.2}, {"name": "clip_crop", "value": 0.24}, {"name": "clip_inverse", "value": 0.1},
    ]  # fmt: skip
    ips = {p["kind"]: p["ips"] for p in rows["4"]["pairs"]}
    # two tokens each, 0.1 apart
    assert ips == {"focus": pytest.approx(0.2), "robust": pytest.approx(0.2)}


def test_the_focus_pair_may_decide_for_the_record_as_in_the_papers_code(folder: Path) -> None:
    rows, _ = filtered(folder, margin=(-0.174, 0.208), max_ppl=2.5, applies_to="focus")
    assert verdicts(rows)["2", "robust"] == "perplexity"
    assert not rows["2"]["kept"]


def test_a_focus_pair_of_identical_answers_decides_as_well(folder: Path) -> None:
    """The answers saw different images, so they have numbers of their own."""
    (focus, robust) = filtered(folder, margin=None, max_ppl=2.5)[0]["0"]["pairs"]
    assert (focus["reason"], robust["reason"]) == ("identical answers", None)
    (focus, robust) = filtered(folder, margin=(0.05, 0.2), max_ppl=2.5, applies_to="focus")[0]["0"]["pairs"]
    assert not 0.05 <= focus["margin"] <= 0.2
    assert (focus["reason"], robust["reason"]) == ("identical answers", "margin")


@pytest.mark.parametrize("context", ["own", "original"])
def test_without_a_focus_pair_nothing_is_filtered_as_in_the_papers_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, context: str
) -> None:
    """Example 5 has no crop, and one focus answer of example 4 is empty; each robust pair is far off
    the limits."""
    monkeypatch.setitem(ODD, ("4", "focus_rejected"), (" ", [-0.1]))
    limits: dict[str, Any] = {"context": context, "margin": (0.3, 0.4), "max_ppl": None}
    with pytest.raises(UserError, match="no pair of the 6 records is kept"):
        filtered(folder, **limits)
    rows, counted = filtered(folder, **limits, applies_to="focus")
    found = verdicts(rows)
    assert {name for name, row in rows.items() if row["kept"]} == {"4", "5"}
    assert (found["4", "robust"], found["5", "robust"]) == (None, None)
    assert found["4", "focus"] == "empty answer"
    assert counted["kinds"]["robust"]["kept"] == 2


def test_the_context_may_be_the_original_image(folder: Path) -> None:
    rows, _ = filtered(folder, context="original", margin=(0.05, 0.15), max_ppl=None)
    focus = rows["2"]["pairs"][0]
    # from the stored log-probs, not from those of sampling
    assert focus["margin"] == pytest.approx(0.1, abs=1e-6)
    assert focus["kept"]


def test_limits_from_the_data(folder: Path) -> None:
    rows, counted = filtered(folder, central_quantile=0.5, max_ppl=None)
    margins = sorted(
        p["margin"] for r in rows.values() for p in r["pairs"] if p["kind"] == "focus" and p["ips"] is not None
    )
    low, high = np.quantile(margins, [0.25, 0.75])
    assert counted["limits"]["margin"]["focus"] == [pytest.approx(low), pytest.approx(high)]
    assert verdicts(rows)["2", "focus"] == "margin"


def test_at_most_so_many_records(folder: Path) -> None:
    rows, counted = filtered(folder, max_ppl=None, margin=None, max_groups=2)
    assert sum(row["kept"] for row in rows.values()) == counted["kept"] == 2
    again, _ = filtered(folder, max_ppl=None, margin=None, max_groups=2)
    assert [r["kept"] for r in again.values()] == [r["kept"] for r in rows.values()]


def test_nothing_left_is_an_error_that_says_why(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no pair of the 6 records is kept: .*perplexity"):
        filtered(folder, max_ppl=1.0)
