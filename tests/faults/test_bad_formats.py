"""Broken files in published formats: every importer reports briefly what it found and expected."""

import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import SHOWN, UserError
from perceptune.contracts.provenance.digests import DigestMemory
from perceptune.planning.data_digest import data_digest
from perceptune.stages.data import import_examples
from PIL import Image

from tests.plugins import IMPORTERS

NAMES = {
    "amber": "query_all.json", "hallusionbench": "HallusionBench.json", "llava_bench": "questions.jsonl", "logicvista": "dataset.json",
    "pope": "coco_pope_random.json", "refer": "refs(unc).p", "textvqa": "TextVQA_0.5.1_val.json",
}  # fmt: skip
ODD = [3, None, "x", [], {}, True, [1], {"id": None}, {"a": "b"}]
CONTENTS = {
    "empty": b"",
    "blank": b"\n\n",
    "cut": b'[{"a": 1}, {"b"',
    "a number": b"3",
    "null": b"null",
    "a text": b'"x"',
    "an object": b'{"a": {"b": 1}, "c": 3}',
    "an empty list": b"[]",
    "odd records": json.dumps(ODD).encode(),
    "odd data": json.dumps({"data": ODD}).encode(),
    "no text": bytes(range(256)),
    "nested": b"[" * 100_000,
    "a table": b"a\tb\n1\t2\n",
}


def refused(kind: str, path: Path, **settings: Any) -> str:
    """The message of a failed import; digests come first, as in the Snakefile."""
    block = FileDataset(kind=kind, path=str(path), **settings)
    data_digest(block, DigestMemory(path.parent / "memory.sqlite"))
    with pytest.raises(UserError) as caught:
        import_examples.run(config=block, examples=path.parent / "examples.parquet")
    message = str(caught.value)
    assert message.count("\n") <= SHOWN + 2
    return message


@pytest.mark.parametrize("kind", sorted(IMPORTERS))
def test_no_content_of_a_file_is_a_traceback(kind: str, tmp_path: Path) -> None:
    name = NAMES.get(kind, "data.parquet")
    assert "does not exist" in refused(kind, tmp_path / "nowhere" / name) or kind == "pope"
    for suffix in {Path(name).suffix, ".json", ".jsonl", ".parquet", ".tsv"}:
        file = (tmp_path / name).with_suffix(suffix)
        for content in CONTENTS.values():
            file.write_bytes(content)
            refused(kind, file)
            refused(kind, tmp_path)  # its folder
        file.unlink()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "data.parquet")
    refused(kind, tmp_path / "data.parquet")
    refused(kind, tmp_path)
    (tmp_path / "data.parquet").unlink()
    (tmp_path / name).mkdir()
    refused(kind, tmp_path / name)
    refused(kind, tmp_path)


def test_a_folder_too_high_says_what_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "virl39k"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("")
    message = refused("virl39k", folder)
    assert "is a folder with `README.md`, `data`, expected a folder written by `datasets.save_to_disk`" in message
    assert "hint: give the path of the file, or of the folder that directly contains the `*.parquet` files" in message


def test_missing_images_are_one_line_and_not_one_a_row(tmp_path: Path) -> None:
    rows = [{"question_id": n, "image": f"{n}.jpg", "text": "Is it?", "label": "yes"} for n in range(10_000)]
    (tmp_path / "coco_pope_random.json").write_text(json.dumps(rows))
    message = refused("pope", tmp_path, images=str(tmp_path / "val2014"))
    assert message == (
        f"error: key `images` of the dataset: `{tmp_path / 'val2014'}` does not exist, expected the directory that image paths are relative to"
    )
    assert "is a file" in refused("pope", tmp_path, images=str(tmp_path / "coco_pope_random.json"))


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("code has run",))


def test_a_pickle_with_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([Evil()]))
    message = refused("refer", tmp_path)
    assert "is not a pickle of plain values: it imports `builtins.print`, which could run code" in message
    assert "code has run" not in capsys.readouterr().out


IMAGE = {"image": "0.png"}
MATH = {**IMAGE, "question": "q", "answer": "a"}
REF = {"ref_id": 1, "ann_id": 1, "image_id": 1, "split": "val", "sentences": [{"sent_id": 1, "sent": "left"}]}
COCO = {"images": [{"id": 1, "file_name": "0.png"}], "annotations": [{"id": 1, "bbox": [1, 2, 3, 4]}], "categories": []}
JXU = {**{k: REF[k] for k in ("ref_id", "ann_id", "split")}, "bbox": [1, 2, 3, 4], "image_path": "0.png"}


@pytest.mark.parametrize(
    ("kind", "record", "expected"),
    [
        ("dynamath", {**MATH, "qid": 1, "answer_type": "float", "varid": "first"}, "`varid` is 'first', expected a whole number"),
        ("mathvista", {**MATH, "pid": 1, "answer_type": "text", "precision": 10**400}, "`precision` is 1000"),
        ("refcoco_parquet", {**JXU, "sentences": 3}, "`sentences` is 3, expected a list of objects with `sent`"),
        ("perpo", {**MATH, "image_id": 1, "image_path": "0.png", "answers_gen": ["a"], "iou_scores": ["b"]}, "a reward is 'b', expected a number"),
        ("jsonl", {**MATH, "task": "open", "image_size": 640}, r"`image_size` is 640, expected [width, height] in pixels"),
        ("jsonl", {**MATH, "task": "open", "image_size": "64x48"}, "`image_size` is '64x48', expected"),
        ("jsonl", {"images": 3, "question": "q", "task": "open"}, "`images` is 3, expected a list of paths"),
        ("perpo", {**MATH, "image_id": 1, "image_path": "0.png", "answers_gen": ["a"], "iou_scores": [10**400]}, "a reward is 1000"),
        ("rlhf_v", {**IMAGE, "question": "q", "chosen": "a", "rejected": "b", "score_chosen": 10**400, "score_rejected": 0}, "`score_chosen` is 1000"),
    ],
)  # fmt: skip
def test_odd_values_are_reasons_of_their_row(kind: str, record: Any, expected: str, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "0.png")
    (tmp_path / "data.jsonl").write_text(json.dumps(record) + "\n")
    assert expected in refused(kind, tmp_path / "data.jsonl", max_images=2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ann_id": [1]}, "object 1, sentence 1: `ann_id` is [1], expected a number"),
        ({"ann_id": 2}, "annotation 2 is not in `instances.json`: is it from another data set?"),
        ({"sentences": []}, "object 1: found {"),
    ],
)
def test_odd_objects_of_refcoco(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([{**REF, **changes}]))
    (tmp_path / "instances.json").write_text(json.dumps(COCO))
    assert expected in refused("refer", tmp_path)


AMBER = {
    "annotations.json": [{"id": 1, "type": "generative", "truth": ["sky"], "hallu": []}],
    "relation.json": {"sky": ["cloud"]},
    "query_all.json": [{"id": 1, "image": "0.png", "query": "Describe this image."}],
}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("annotations.json", {"a": 1}, "`annotations.json` of `{folder}` is {{'a': 1}}, expected AMBER's list of annotations"),
        ("annotations.json", [3], "expected AMBER's list of annotations"),
        ("annotations.json", [{**AMBER["annotations.json"][0], "truth": "sky"}], "`truth` of annotation 1 is 'sky', expected a list of words"),
        ("relation.json", ["sky"], "expected an object that maps words to lists of words"),
        ("relation.json", {"sky": 3}, "expected an object that maps words to lists of words"),
        ("relation.json", {"sea": ["sky"]}, "`sky` of annotation 1 is not in `relation.json`"),
        ("query_all.json", [{"id": 2, "image": "0.png", "query": "q"}], "`id` is 2, expected a number from 1 to 1"),
    ],
)  # fmt: skip
def test_files_beside_ambers_questions(name: str, content: Any, expected: str, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "0.png")
    (tmp_path / "safe_words.txt").write_text("scene\n")
    for file, right in {**AMBER, name: content}.items():
        (tmp_path / file).write_text(json.dumps(right))
    assert expected.format(folder=tmp_path) in refused("amber", tmp_path)


def test_a_reference_of_llava_bench_without_a_number(tmp_path: Path) -> None:
    (tmp_path / "context.jsonl").write_text('{"image": ["0.png"], "caption": "c"}\n')
    message = refused("llava_bench", tmp_path)
    assert (
        "context.jsonl`, line 1: found {'image': ['0.png'], 'caption': 'c'}, expected a record with `image`" in message
    )


def test_logicvistas_file_is_an_object(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("[]")
    assert "has [], expected an object that maps names to records" in refused("logicvista", tmp_path / "dataset.json")
