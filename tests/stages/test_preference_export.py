"""Exported preferences: re-importing finds the same questions, images and answers."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
from perceptune.contracts.config import ExportBlock, FileDataset, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.core.data.images import open_image
from perceptune.core.views.view import Recipe
from perceptune.stages.data import import_examples
from perceptune.stages.export import preferences
from perceptune.stages.sampling.recipes import messages_for
from PIL import Image

from tests.plugins import EXPORTERS

ROWS: list[dict[str, Any]] = [
    {"id": "one", "image": "red.png", "question": "is it red?", "answer": "yes", "task": "existence"},
    {"id": "two", "images": ["red.png", "photo.jpg"], "question": "which is red?\nSay so.", "task": "open"},
    {"id": "boxed", "image": "photo.jpg", "question": "where?", "answer": "[0.03, 0.08, 0.63, 0.63]", "box": [1, 2, 20, 15], "task": "grounding", "split": "other"},
    {"id": "tied", "image": "red.png", "question": "is it blue?", "task": "open"},
    {"id": "marked", "image": "red.png", "question": "what is it?", "task": "open"},
    {"id": "turned", "image": "turned.jpg", "question": "which way?", "task": "open"},
    {"id": "glass", "image": "glass.png", "question": "what is behind it?", "task": "open"},
    {"id": "bare", "image": "red.png", "question": "what is written?", "answer": "", "task": "ocr"},
]  # fmt: skip
ANSWERS: dict[str, list[tuple[str, float]]] = {
    "one": [("yes", 1.0), ("maybe", 0.5), ("no", 0.5), ("none", 0.0)],
    "two": [("the first", 0.75), ("the second", 0.25)],
    "boxed": [("[0.1, 0.2]", 0.9), ("[0.3, 0.4]", 0.1)],
    "tied": [("no", 0.5), ("yes", 0.5)],
    "marked": [("![a picture](<image>)", 1.0), ("nothing", 0.0)],
    "turned": [("up", 1.0), ("down", 0.0)],
    "glass": [("a wall", 1.0), ("nothing", 0.0)],
    "bare": [("nothing", 1.0), ("a word", 0.0)],
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tables of eight examples, one of which was filtered out."""
    folder = tmp_path_factory.mktemp("tables")
    Image.new("RGB", (30, 20), "red").save(folder / "red.png")
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "photo.jpg")
    orientation = Image.Exif()
    orientation[0x0112] = 6
    Image.fromarray(noise).save(folder / "turned.jpg", exif=orientation)
    Image.new("RGBA", (10, 10), (0, 0, 255, 128)).save(folder / "glass.png")
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    config = FileDataset(kind="jsonl", path=str(folder / "data.jsonl"))
    import_examples.run(config=config, examples=folder / "examples.parquet")
    write_table(folder / "lists.parquet", PREFERENCES, [_group(row) for row in ROWS], {})
    pairs = [{**_group(ROWS[0]), "pairs": [_pair("focus", 0, 3, True), _pair("robust", 1, 2, False)]}]
    write_table(folder / "pairs.parquet", PREFERENCES, pairs, {})
    return folder


def _group(row: dict[str, Any]) -> dict[str, Any]:
    responses = [
        {"sample_index": place, "text": text, "token_ids": [1], "reward": reward, "role": None}
        for place, (text, reward) in enumerate(ANSWERS[row["id"]])
    ]
    return {
        "group_id": row["id"], "example_id": row["id"], "request_id": row["id"], "task": row["task"], "view": "original",
        "messages": messages_for(row["question"], Recipe("original"), len(row.get("images", [1]))), "responses": responses,
        "views": [], "pairs": [], "numbers": [], "kept": True, "reason": None,
    }  # fmt: skip


def _pair(kind: str, chosen: int, rejected: int, kept: bool) -> dict[str, Any]:
    return {"kind": kind, "chosen": chosen, "rejected": rejected, "kept": kept} | dict.fromkeys(
        ("ppl_chosen", "ppl_rejected", "margin", "ips", "reason")
    )


def exported(tables: Path, folder: Path, kind: str, pairs: Literal["extremes", "all"] = "extremes", of: str = "lists", view: str = "original") -> Path:  # fmt: skip
    preferences.run(
        name="mine", experiment="perpo", preferences=tables / f"{of}.parquet", examples=tables / "examples.parquet",
        folder=folder, config=ExportBlock(experiment="perpo", format=kind, pairs=pairs), view=view,
        views={"noisy": ViewBlock(type="noise", parameters={"sigma": 0.3})},
    )  # fmt: skip
    return folder / EXPORTERS[kind].file


def imported(file: Path, kind: str, folder: Path) -> dict[str, dict[str, Any]]:
    import_examples.run(config=FileDataset(kind=kind, path=str(file)), examples=folder / "again.parquet")
    return {row["example_id"]: row for row in pl.read_parquet(folder / "again.parquet").to_dicts()}


WRITTEN = ("one", "two", "boxed", "turned", "glass", "bare")


@pytest.mark.parametrize("kind", sorted(EXPORTERS))
def test_the_importer_finds_what_was_exported(tables: Path, tmp_path: Path, kind: str) -> None:
    again = imported(exported(tables, tmp_path / "mine", kind), kind, tmp_path)
    before = {row["example_id"]: row for row in pl.read_parquet(tables / "examples.parquet").to_dicts()}
    # answers with equal rewards make a list, but no pair; a literal image token would be read as an
    # image
    lists = EXPORTERS[kind].rows == "lists"
    assert set(again) == {*WRITTEN, *(["tied"] if lists else [])}
    for name in set(again) - {"turned", "glass"}:
        for column in ("question", "task", "split", "box", "image_sha256", "image_sizes"):
            assert again[name][column] == before[name][column], (name, column)
        given = json.loads(again[name]["source"])["answers_given"]
        expected = ANSWERS[name] if lists else [ANSWERS[name][0], ANSWERS[name][-1]]
        assert [(answer["text"], answer["reward"]) for answer in given] == expected
    assert again["one"]["target"] == "yes"
    assert again["bare"]["target"] == ""
    assert again["two"]["target"] is None
    # where the ground truth is trained on, it is the box in pixels, whatever the dataset's format
    assert again["boxed"]["target"] == ("[1.0, 2.0, 20.0, 15.0]" if lists else "[0.03, 0.08, 0.63, 0.63]")


@pytest.mark.parametrize("kind", sorted(EXPORTERS))
def test_images_are_what_perceptune_sees_for_any_reader(tables: Path, tmp_path: Path, kind: str) -> None:
    again = imported(exported(tables, tmp_path / "mine", kind), kind, tmp_path)
    for name, row in (("turned", ROWS[5]), ("glass", ROWS[6])):
        seen = open_image({"bytes": None, "path": str(tables / row["image"])})
        (image,) = again[name]["images"]
        data = image["bytes"] or Path(image["path"]).read_bytes()
        with Image.open(io.BytesIO(data)) as plain:
            assert plain.mode == "RGB"
            assert plain.tobytes() == seen.tobytes()
    if not EXPORTERS[kind].inside:
        files = sorted((tmp_path / "mine/images").iterdir())
        assert len(files) == 4  # at least two examples share a file
        assert all(hashlib.sha256(file.read_bytes()).hexdigest().startswith(file.stem) for file in files)


def test_all_pairs_are_those_with_different_rewards(tables: Path, tmp_path: Path) -> None:
    again = imported(exported(tables, tmp_path / "mine", "ms_swift", "all"), "ms_swift", tmp_path)
    # all six pairs of four answers with rewards 1, 1/2, 1/2, 0, except the middle one
    assert {name for name in again if name.startswith("one/")} == {
        f"one/{p}" for p in ("0-1", "0-2", "0-3", "1-3", "2-3")
    }
    given = json.loads(again["one/1-3"]["source"])["answers_given"]
    assert given == [{"text": "maybe", "reward": 0.5}, {"text": "none", "reward": 0.0}]


@pytest.mark.parametrize("kind", ["trl", "verl"])
def test_pairs_have_an_order_and_no_rewards(tables: Path, tmp_path: Path, kind: str) -> None:
    again = imported(exported(tables, tmp_path / "mine", kind, of="pairs"), kind, tmp_path)
    # rewards that an importer assigns to a pair without scores
    rewards = (None, None) if kind == "verl" else (1.0, 0.0)
    (row,) = again.values()
    given = json.loads(row["source"])["answers_given"]
    assert row["example_id"] == "one/focus"
    assert [(answer["text"], answer["reward"]) for answer in given] == [("yes", rewards[0]), ("none", rewards[1])]


@pytest.mark.parametrize("kind", ["trl", "easyr1", "verl"])
def test_images_are_shown_under_the_training_view(tables: Path, tmp_path: Path, kind: str) -> None:
    again = imported(exported(tables, tmp_path / "mine", kind, view="noisy"), kind, tmp_path)
    original = open_image({"bytes": None, "path": str(tables / "red.png")})
    picture = open_image(again["one"]["images"][0])
    assert picture.size == original.size
    assert picture.tobytes() != original.tobytes()
    assert again["boxed"]["box"] is None  # it may be elsewhere in another view
    assert again["boxed"]["target"] is None  # it contains positions as well
    assert again["boxed"]["task"] == "open"
    assert again["one"]["target"] == "yes"


def test_the_readme_lists_contents_and_omissions(tables: Path, tmp_path: Path) -> None:
    exported(tables, tmp_path / "mine", "llama_factory")
    text = (tmp_path / "mine/README.md").read_text()
    for part in (
        "experiment `perpo`", "in the format of `llama_factory`:\n6 rows from 8 questions", "the best and the worst answer to each",
        "Left out (1): all its answers have the same reward", "Left out (1): a text contains `<image>`",
        f"dataset_dir={(tmp_path / 'mine').as_posix()}", "| `rejected` | rejected response |",
        hashlib.sha256((tables / "lists.parquet").read_bytes()).hexdigest(),
    ):  # fmt: skip
        assert part in text, part
    described = json.loads((tmp_path / "mine/dataset_info.json").read_text())["mine"]
    assert set(described["columns"].values()) <= set(json.loads((tmp_path / "mine/data.json").read_text())[0])
    assert json.loads((tmp_path / "mine/lineage.json").read_text())["parameters"]["view"] == "original"


@pytest.mark.parametrize("kind", sorted(EXPORTERS))
def test_every_field_is_described(tables: Path, tmp_path: Path, kind: str) -> None:
    file = exported(tables, tmp_path / "mine", kind)
    if file.suffix == ".parquet":
        fields = set(pl.read_parquet(file).columns)
    else:
        text = file.read_text()
        fields = set(
            (json.loads(text) if file.suffix == ".json" else [json.loads(line) for line in text.splitlines()])[0]
        )
    assert fields == set(EXPORTERS[kind].fields)


def test_a_changed_image_and_an_empty_export_are_refused(tables: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "tied.parquet", PREFERENCES, [_group(ROWS[3])], {})
    (tmp_path / "examples.parquet").write_bytes((tables / "examples.parquet").read_bytes())
    with pytest.raises(UserError, match=r"can be exported as `trl`: all its answers have the same reward \(1\)"):
        exported(tmp_path, tmp_path / "mine", "trl", of="tied")
    table = pl.read_parquet(tables / "examples.parquet").with_columns(
        image_sha256=pl.col("image_sha256").list.eval(pl.element().str.reverse())
    )
    write_table(tmp_path / "examples.parquet", EXAMPLES, table, {})
    write_table(tmp_path / "lists.parquet", PREFERENCES, [_group(ROWS[0])], {})
    with pytest.raises(UserError, match=r"red\.png` of example `.*`: the image has changed since the import"):
        exported(tmp_path, tmp_path / "mine", "trl")
    assert not (tmp_path / "mine").exists()


def test_datasets_and_trl_read_the_export(tables: Path, tmp_path: Path) -> None:
    """TRL's own steps: data type, chat template, and the image collator of its DPOTrainer."""
    from datasets import load_dataset
    from transformers import AutoProcessor
    from trl.data_utils import is_conversational, maybe_extract_prompt
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    from tests.tiny_models import build_tiny_llava

    exported(tables, tmp_path / "mine", "trl")
    loaded = load_dataset(
        "imagefolder", data_dir=str(tmp_path / "mine"), split="train", cache_dir=str(tmp_path / "cache")
    )
    rows = {row["id"]: row for row in loaded}
    assert set(rows) == set(WRITTEN)
    assert [image.size for image in rows["two"]["images"]] == [(30, 20), (32, 24)]
    assert all(is_conversational(row) and maybe_extract_prompt(row) is row for row in rows.values())
    processor = AutoProcessor.from_pretrained(build_tiny_llava(tmp_path / "model", 0))
    batch = DataCollatorForVisionPreference(processor)([rows["one"], rows["two"]])
    texts = processor.tokenizer.batch_decode(batch["input_ids"])
    assert len(texts) == 4  # the chosen responses, then the rejected ones
    assert [text.count("<image>") // 64 for text in texts] == [1, 2, 1, 2]  # 64 tokens per image
    assert all("is it red?" in text for text in (texts[0], texts[2]))
    assert ["yes" in texts[0], "none" in texts[2], "the first" in texts[1], "the second" in texts[3]] == [True] * 4


def test_datasets_reads_the_images_of_verls_table(tables: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    file = exported(tables, tmp_path / "mine", "verl")
    loaded = load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    rows = {row["extra_info"]["id"]: row for row in loaded}
    assert [image.size for image in rows["two"]["images"]] == [(30, 20), (32, 24)]
    assert rows["two"]["prompt"] == [{"role": "user", "content": "<image><image>which is red?\nSay so."}]
    assert rows["one"]["reward_model"] == {"style": "rule", "ground_truth": "yes"}


def test_what_a_killed_export_has_left_is_removed(tables: Path, tmp_path: Path) -> None:
    """But not what an export with a similar name is writing."""
    for name in (".mine.4321", ".mine.v2.4321"):
        (tmp_path / name / "images").mkdir(parents=True)
    exported(tables, tmp_path / "mine", "trl")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == [".mine.v2.4321"]
