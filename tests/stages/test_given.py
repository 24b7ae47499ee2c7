"""Dataset preferences: answers from the dataset as ranked lists."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from perceptune.contracts.config import FileDataset, GivenBlock, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_processor
from perceptune.stages.data import import_examples
from perceptune.stages.preferences import dataset_preferences
from PIL import Image

from tests.tiny_models import build_tiny_llava, build_tiny_qwen2_5_vl

RECORDS: list[dict[str, Any]] = [
    {"id": "pair", "prompt": "is there a red circle?", "chosen": "yes", "rejected": "no"},
    {"id": "same", "prompt": "is there a red circle?", "chosen": "yes", "rejected": " yes"},
    {"id": "scored", "prompt": "is there a red circle?", "chosen": "yes", "rejected": "no", "score_chosen": 7, "score_rejected": 6.5},
    {"id": "empty", "prompt": "is there a red circle?", "chosen": "yes", "rejected": " "},
    {"id": "long", "prompt": "is there a red circle?", "chosen": "yes", "rejected": "ab" * 400},
    {"id": "token", "prompt": "is there a red circle?", "chosen": "yes", "rejected": "<image>"},
    {"id": "end", "prompt": "is there a red circle?", "chosen": "yes</s>", "rejected": "no"},
    {"id": "turn", "prompt": "is there a red circle?</s>", "chosen": "yes", "rejected": "no"},
    {"id": "other", "prompt": "is there a red circle?", "chosen": "yes", "rejected": "no", "split": "test"},
]  # fmt: skip
LISTS: list[dict[str, Any]] = [
    {"id": "ranked", "answers_given": [{"text": text, "reward": None} for text in ("a", "b", "c", "b", "d")]},
    {"id": "half", "answers_given": [{"text": "a", "reward": 1.0}, {"text": "b", "reward": None}]},
    {"id": "none"},
    {"id": "huge", "answers_given": [{"text": "a", "reward": 10**400}, {"text": "b", "reward": 0}]},
    {"id": "unsorted", "answers_given": [{"text": "a", "reward": 0.25}, {"text": "b", "reward": 0.75}]},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelBlock:
    folder = build_tiny_llava(tmp_path_factory.mktemp("model"), 0)
    return ModelBlock(path=str(folder), family="llava", dtype="float32", max_model_len=512)


def taken(folder: Path, kind: str, records: list[dict[str, Any]], model: ModelBlock, **settings: Any) -> pl.DataFrame:
    Image.new("RGB", (30, 20), "red").save(folder / "1.png")
    data = folder / "data.jsonl"
    data.write_text("\n".join(json.dumps({"image": "1.png", **record}) for record in records))
    import_examples.run(
        config=FileDataset(kind=kind, path=str(data), task="open"), examples=folder / "examples.parquet"
    )
    dataset_preferences.run(
        dataset="own", examples=folder / "examples.parquet", preferences=folder / "preferences.parquet",
        statistics=folder / "statistics.json", config=GivenBlock(**settings), model=model, weights="w",
    )  # fmt: skip
    return pl.read_parquet(folder / "preferences.parquet")


def test_every_example_is_a_row_with_its_answers_or_its_reason(tmp_path: Path, model: ModelBlock) -> None:
    table = taken(tmp_path, "trl", RECORDS, model)
    assert dict(table.select("example_id", "reason").iter_rows()) == {
        "pair": None,
        "same": "one distinct answer",
        "scored": None,
        "empty": "empty answer",
        "long": "prompt and answer exceed max_model_len",
        "token": "an answer contains the model's image token `<image>`",
        "end": "an answer contains the model's special token `</s>`",
        "turn": "the question contains the model's special token `</s>`",
    }
    (pair,) = table.filter(example_id="pair").to_dicts()
    family, processor = family_of(model), load_processor(model)
    assert [(r["text"], r["reward"]) for r in pair["responses"]] == [("yes", 1.0), ("no", 0.0)]
    assert [r["token_ids"] for r in pair["responses"]] == [family.answer_ids(processor, text) for text in ("yes", "no")]
    assert pair["messages"][0]["content"][1]["text"] == "is there a red circle?"
    (scored,) = table.filter(example_id="scored").to_dicts()
    assert [r["reward"] for r in scored["responses"]] == [7.0, 6.5]
    counted = json.loads((tmp_path / "statistics.json").read_text())
    assert (counted["groups"], counted["kept"]) == (8, 2)
    # every scored answer is in a bin, including those of 7 and 6.5: three examples with two answers
    assert sum(counted["reward_histogram"]["counts"]) == 6
    assert counted["reward_histogram"]["edges"][-1] == 7.0


def test_without_rewards_the_order_is_the_reward(tmp_path: Path, model: ModelBlock) -> None:
    records = [{"question": "what?", **record} for record in LISTS]
    table = taken(tmp_path, "jsonl", records, model, list_size=3, prompt="{question} Answer.")
    rows = {row["example_id"]: row for row in table.to_dicts()}
    # five answers in even steps from 1 to 0; the second `b` is dropped; of a, b, c, d, the best,
    # the worst and one in between are kept
    assert [(r["text"], r["reward"]) for r in rows["ranked"]["responses"]] == [("a", 1.0), ("c", 0.5), ("d", 0.0)]
    assert rows["ranked"]["messages"][0]["content"][1]["text"] == "what? Answer."
    assert [r["text"] for r in rows["unsorted"]["responses"]] == ["b", "a"]
    assert rows["half"]["reason"] == "rewards must be finite numbers for all answers, or missing for all"
    assert rows["huge"]["reason"] == rows["half"]["reason"]
    assert rows["none"]["reason"] == "no dataset preferences"


def test_data_without_preferences_stops_with_a_hint(tmp_path: Path, model: ModelBlock) -> None:
    with pytest.raises(UserError, match=r"none of 1 dataset preferences is kept: no dataset preferences \(1\)"):
        taken(tmp_path, "jsonl", [{"id": "none", "question": "what?"}], model)


def test_a_question_or_answer_with_the_video_token_is_dropped(tmp_path: Path) -> None:
    folder = build_tiny_qwen2_5_vl(tmp_path / "model", 0)
    model = ModelBlock(path=str(folder), family="qwen2_5_vl", dtype="float32", max_model_len=512)
    records = [
        {"id": "good", "prompt": "what is it?", "chosen": "a cup", "rejected": "a dog"},
        {"id": "asked", "prompt": "what is <|video_pad|>?", "chosen": "a cup", "rejected": "a dog"},
        {"id": "answered", "prompt": "what is it?", "chosen": "a <|video_pad|>", "rejected": "a dog"},
    ]
    table = taken(tmp_path, "trl", records, model)
    assert dict(table.select("example_id", "reason").iter_rows()) == {
        "good": None,
        "asked": "the question contains the model's video token `<|video_pad|>`",
        "answered": "an answer contains the model's video token `<|video_pad|>`",
    }
