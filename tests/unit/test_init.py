"""What `perceptune init` makes of files, columns and questions, and how it writes YAML."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis.strategies import text
from perceptune.commands.init.detection import Found, dataset_name, detect, images_of, kind_of
from perceptune.commands.init.looking import look, mixed, shape_of, task_of
from perceptune.commands.init.prompts import EXPRESSIONS, FORMATTED, PLAIN, REQUESTS, SAYS_FORMAT, prompt_for
from perceptune.commands.init.splits import Roles, roles
from perceptune.commands.init.text import Block, Said, plain, written
from perceptune.contracts.config import Task
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import names
from perceptune.core.data.row_checks import TASKS
from PIL import Image

ROW = {"image": "1.png", "question": "What?", "answer": "a"}
PAIR = {"chosen": "a", "rejected": "b"}
COCO = {"info": {}, "images": [{"id": 1}], "annotations": [{}], "categories": []}
ROBOFLOW = {
    "train/_annotations.coco.json": COCO,
    "train/1.jpg": "",
    "valid/_annotations.coco.json": COCO,
    "README.dataset.txt": "",
}


def put(path: Path, content: Any) -> None:
    """A file with this text, bytes or JSON, or with Parquet or saved rows of a list, by its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(content), path)
    elif path.suffix == ".saved":
        datasets.Dataset.from_list(content).save_to_disk(str(path))
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("files", "given", "expected"),
    [
        ({"a.jsonl": ROW}, "a.jsonl", ("jsonl", "a.jsonl")),
        ({"a.json": [ROW]}, "a.json", ("jsonl", "a.json")),
        ({"a.json": {**ROW, "images": ["1.png"]}}, "a.json", ("jsonl", "a.json")),
        ({"a.json": COCO}, "a.json", ("coco", "a.json")),
        ({"a.tsv": "image\tquestion\n1.png\tWhat?\n"}, "", ("csv", "a.tsv")),
        ({"a.csv": "images;prompt;chosen;rejected\n1.png;What?;a;b\n"}, "", ("trl", "a.csv")),
        ({"a.parquet": [ROW]}, "a.parquet", ("parquet", "a.parquet")),
        ({"a.parquet": [ROW], "README.md": ""}, "", ("parquet", "")),
        ({"data/train-00000-of-00001.parquet": [ROW], "README.md": ""}, "", ("parquet", "data")),
        ({"data/1.parquet": [{**ROW, **PAIR}]}, "data", ("rlhf_v", "data")),
        ({"mine.saved": [ROW]}, "mine.saved", ("hf", "mine.saved")),
        ({"mine.saved": [{"prompt": "What?", "images": ["1.png"], **PAIR}]}, "mine.saved", ("trl", "mine.saved")),
        ({"annotations/instances_val2017.json": COCO}, "", ("coco", "annotations/instances_val2017.json")),
        ({"data.yaml": "names: [a]", "labels/1.txt": ""}, "", ("yolo", "")),
        ({"data.yaml": "names: [a]"}, "data.yaml", ("yolo", "")),
        ({"labels/classes.txt": "a", "images/1.jpg": ""}, "", ("yolo", "")),
        ({"Annotations/1.xml": "<annotation/>"}, "", ("voc", "")),
        ({"Annotations/1.xml": "<annotation/>"}, "Annotations/1.xml", ("voc", "")),
        ({"1.xml": "<annotation/>", "1.jpg": ""}, "", ("voc", "")),
        ({"train.jsonl": ROW, "val.jsonl": ROW}, "", ("jsonl", "train.jsonl", "val.jsonl")),
        ({"my_train2.json": COCO, "my_test2.json": COCO}, "my_train2.json", ("coco", "my_train2.json", "my_test2.json")),
        ({"Train.jsonl": ROW, "VAL.jsonl": ROW, "Test.jsonl": ROW}, "", ("jsonl", "Train.jsonl", "Test.jsonl")),
        ({"TRAIN.JSONL": ROW, "valid.jsonl": ROW}, "TRAIN.JSONL", ("jsonl", "TRAIN.JSONL", "valid.jsonl")),
        ({"Annotations/instances_Train2017.json": COCO, "Annotations/instances_Val2017.json": COCO, "Annotations/captions_Train2017.json": COCO}, "", ("coco", "Annotations/instances_Train2017.json", "Annotations/instances_Val2017.json")),
        ({**ROBOFLOW, "test/_annotations.coco.json": COCO}, "", ("coco", "train/_annotations.coco.json", "test/_annotations.coco.json")),
        (ROBOFLOW, "", ("coco", "train/_annotations.coco.json", "valid/_annotations.coco.json")),
        (ROBOFLOW, "train/_annotations.coco.json", ("coco", "train/_annotations.coco.json", "valid/_annotations.coco.json")),
        (ROBOFLOW, "valid", ("coco", "valid/_annotations.coco.json")),
        ({"train/1.xml": "<annotation/>", "train/1.jpg": "", "test/2.xml": "<annotation/>"}, "", ("voc", "train", "test")),
        ({"Train/metadata.csv": "image,question\n1.png,What?\n", "Dev/metadata.csv": "image,question\n1.png,What?\n"}, "", ("csv", "Train/metadata.csv", "Dev/metadata.csv")),
        ({"train/0.parquet": [ROW], "test/0.parquet": [ROW]}, "", ("parquet", "train", "test")),
        ({"train/0.parquet": [ROW], "test/1.xml": "<annotation/>"}, "", ("parquet", "train")),
        ({"data/0.parquet": [ROW], "train/1.jpg": "", "dataset_infos.json": {}}, "", ("parquet", "data")),
        ({"labels.csv": "image,question\n1.png,What?\n", "old.xlsx": "", "photos.zip": ""}, "", ("csv", "labels.csv")),
        ({"train/a.jsonl": ROW, "old.xlsx": ""}, "", ("jsonl", "train/a.jsonl")),
    ],
)  # fmt: skip
def test_a_format_is_told_by_names_and_columns(
    files: dict[str, Any], given: str, expected: tuple[str, ...], tmp_path: Path
) -> None:
    for name, content in files.items():
        put(tmp_path / name, content)
    found = detect(tmp_path / given)
    paths = [path.relative_to(tmp_path) for path in (found.path, found.test) if path]
    assert (found.kind, *paths) == (expected[0], *map(Path, expected[1:]))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["sheet.xlsx", "1.png"], r"sheet\.xlsx` is a workbook, expected CSV\nhint: save the sheet as `CSV UTF-8`"),
        (["a.ODS"], r"a\.ODS` is a workbook"),
        (["a.xls"], r"a\.xls` is a workbook"),
        (["photos.zip", "1.png"], r"photos\.zip` is an archive, expected what is in it\nhint: unpack it"),
        (["train/1.jpg", "sheet.xlsx"], r"sheet\.xlsx` is a workbook"),
        (["train/sheet.xlsx", "test/sheet.xlsx"], r"train/sheet\.xlsx` is a workbook"),
        (["train/1.jpg", "test/1.jpg"], r"train` has 1 image and no file with questions"),
        (["a/1.parquet", "b/1.parquet"], r"has several folders of Parquet files, expected one: .*a`, .*b`"),
    ],
)
def test_what_to_do_with_other_files_is_said(names: list[str], message: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(UserError) as caught:
        detect(tmp_path)
    assert re.search(message, str(caught.value))


def test_several_files_are_named(tmp_path: Path) -> None:
    for name in ("a.csv", "b.jsonl"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"has several files, expected one: .*a\.csv`, .*b\.jsonl`"):
        detect(tmp_path)


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (ROW, "own"),
        ({"prompt": "What?", **PAIR}, "trl"),
        (PAIR, "trl"),
        ({"conversations": [], **PAIR}, "llama_factory"),
        ({"instruction": "", **PAIR}, "llama_factory"),
        ({"messages": [], "rejected_response": ""}, "ms_swift"),
        ({"prompt": [], "reward_model": {}}, "verl"),
        ({"problem": "", "answer": ""}, "easyr1"),
        ({"image": "", "conversations": []}, "ocr_pages"),
    ],
)
def test_a_format_is_told_by_keys(record: dict[str, Any], kind: str) -> None:
    assert kind_of([record], "own") == kind
    assert kind in ("own", *names("importer"))


@pytest.mark.parametrize(
    ("images", "data", "expected"),
    [
        ("data/1.png", "data/a.csv", None),
        ("data/photos/1.png", "data/a.csv", "data/photos"),
        ("data/deep/photos/1.png", "data/a.csv", "data/deep/photos"),
        ("train2017/1.png", "annotations/a.json", "train2017"),
        ("images/train/1.png", "annotations/a.json", "images/train"),
        ("elsewhere/1.png", "one/two/a.csv", None),
    ],
)
def test_images_are_found_beside_the_data(
    images: str, data: str, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(Path(images), "")
    put(Path(data), "")
    put(Path("other/2.png"), "")
    assert images_of(Path(data), ["1.png"]) == (Path(expected) if expected else None)


def test_images_of_the_same_name_are_those_of_the_split(tmp_path: Path) -> None:
    for split in ("train", "val"):
        put(tmp_path / f"images/{split}/1.png", "")
        put(tmp_path / f"{split}2017/2.png", "")
    for split in ("train", "val"):
        data = tmp_path / f"annotations/instances_{split}2017.json"
        assert images_of(data, ["1.png"]) == tmp_path / f"images/{split}"
        assert images_of(data, ["2.png"]) == tmp_path / f"{split}2017"
    assert images_of(tmp_path / "annotations/all.json", ["1.png"]) == tmp_path / "images/train"


@pytest.mark.parametrize(
    ("rows", "task"),
    [
        ([{"box": [1, 2, 3, 4]}, {"box": [1, 2, 3, 4], "answer": "a"}, {}], "grounding"),
        ([{"answer": "Yes"}, {"answer": " no "}], "existence"),
        ([{"answer": 3}, {"answer": "12"}, {"answer": 2.0}], "counting"),
        ([{"answer": "3"}, {"answer": "yes"}], "open"),
        ([{"answer": "red"}, {"answer": "a blue one"}], "open"),
        ([{"answer": "a long text that somebody wrote on a page"}, {"answer": "two\nlines"}], "ocr"),
    ],
)
def test_the_task_follows_from_the_ground_truth(rows: list[dict[str, Any]], task: Task) -> None:
    shapes = Counter(map(shape_of, rows))
    assert task_of(shapes, ["What is this?"] * len(rows), Path("a")) == task
    if task == "open" and rows[0]["answer"] == "red":
        assert task_of(shapes, ["Read the sign."] * len(rows), Path("a")) == "ocr"


def test_answers_of_several_tasks_are_counted() -> None:
    assert mixed(Counter({"yes or no": 44, "a whole number": 12})) == [
        "44 answers are yes or no, 12 are whole numbers: add a column `task`, with `existence` and `counting` for these;"
        " without it, all are `open`"
    ]
    assert mixed(Counter({"words": 3, "text": 1, "no ground truth": 1})) == []


def test_pairs_of_ones_own_keep_their_split(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        Image.new("RGB", (9, 9), "red").save(tmp_path / name)
    text = "image,question,chosen,rejected,split\n1.png,What?,a,b,train\n2.png,What?,a,b,test\n"
    (tmp_path / "pairs.csv").write_text(text)
    seen = look(Found("rlhf_v", tmp_path / "pairs.csv"), None, None)
    assert dict(seen.tasks) == {("train", "open"): 1, ("test", "open"): 1}
    assert seen.with_answers == 2


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (["train", "test"], ("train", "test")),
        (["Test", "Train"], ("Train", "Test")),
        (["testing", "training"], ("training", "testing")),
        (["TEST", "tr"], ("tr", "TEST")),
        (["validation", "Dev", "test", "train"], ("train", "test")),
        (["trainval", "val", "train"], ("train", "val")),
        (["eval", "train"], ("train", "eval")),
        (["testA", "testB", "val"], ("val", "testA")),
        (["mine", "test"], ("mine", "test")),
        (["new", "train"], ("train", "new")),
        (["train"], ("train", None)),
        (["old"], ("old", None)),
    ],
)
def test_splits_are_told_by_their_names(splits: list[str], expected: tuple[str, str | None]) -> None:
    assert roles(splits, "a.csv") == roles(splits[::-1], "a.csv") == Roles(*expected)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["a", "b"], "splits `a`, `b`, none of which is named like one for training"),
        (["train", "a", "b"], "splits `a`, `b`, none of which is named like one for tests"),
        (["train", "Train", "test"], "splits `train` and `Train`, expected one spelling"),
    ],
)
def test_splits_of_unclear_roles_are_named(splits: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        roles(splits, "a.csv")


def test_prompts_are_those_of_the_family_unless_the_questions_say_more() -> None:
    assert {*EXPRESSIONS, *REQUESTS} <= {*names("family")}
    assert {*SAYS_FORMAT} == {*TASKS}
    assert prompt_for("qwen2_5_vl", ["grounding"], ["Locate the cup."])[0] == REQUESTS["qwen2_5_vl"]
    assert prompt_for("qwen2_5_vl", ["grounding"], ["the cup"])[0] == EXPRESSIONS["qwen2_5_vl"]
    assert prompt_for("llava", ["grounding"], ["the cup"])[0] == EXPRESSIONS["llava"]
    assert prompt_for("llava", ["grounding"], ["Locate the cup."])[0] == FORMATTED
    assert prompt_for("auto", ["grounding"], ["the cup"])[0] == FORMATTED
    assert prompt_for("auto", ["existence"], ["Is it? Answer yes or no."])[0] == PLAIN
    assert prompt_for("qwen3_vl", ["grounding", "ocr"], ["Locate the cup."])[0] == FORMATTED
    assert all("{question}" in prompt for prompt in (PLAIN, FORMATTED, *EXPRESSIONS.values(), *REQUESTS.values()))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("data/photos.jsonl", "photos"),
        ("street/data/train-00000-of-00001.parquet", "street"),
        ("street/annotations/train.json", "street"),
        ("street/train/_annotations.coco.json", "street"),
        ("street/Train.jsonl", "street"),
        ("Fotos für Anna.csv", "fotos-fur-anna"),
    ],
)
def test_a_dataset_is_named_after_what_says_most(path: str, name: str) -> None:
    assert dataset_name(Path(path)) == name


@settings(max_examples=50)
@given(text())
@example("\n\ud7fc")
@example("a\x85b\u2028c\ufeff: #")
@example("x" * 1100)
def test_any_text_survives(value: str) -> None:
    key = value[:100]  # YAML allows 1,024 characters
    tree = {"a": {"b": Said(value, "a reason"), "c": Said({"d": [value], key: 2}), key or "e": 1}}
    assert yaml.safe_load(written(tree, value)) == plain(tree)


def test_values_survive_and_comments_are_wrapped() -> None:
    values = {
        "no": {"2024": 'a: "b" # c', "text": "{question}\n{format}", "number": 5e-6, "list": [1, None, "x"]},
        "empty": {"nothing": {}, "null": None, "mapping": {"a": [None, 0.2], "b": True}},
    }
    tree = {
        "no": Block({"2024": Said(values["no"]["2024"], "why " * 40), **{k: v for k, v in values["no"].items() if k != "2024"}}, "because " * 30),
        "empty": {"nothing": Said({}, "short"), "null": None, "mapping": Said(values["empty"]["mapping"])},
    }  # fmt: skip
    assert plain(tree) == values
    text = written(tree, "a heading\nof two lines")
    assert yaml.safe_load(text) == values
    assert max(map(len, text.splitlines())) <= 100
    assert text.startswith("# a heading\n# of two lines\n\n# because")
    assert "  nothing: {}  # short\n" in text
