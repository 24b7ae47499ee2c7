"""Which files a dataset's digest covers, for every format, and what it costs to recompute."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.provenance.digests import DigestMemory
from perceptune.planning import data_digest as data
from perceptune.planning.data_digest import data_digest

ROW = {"image": "1.png", "question": "what?", "task": "open"}
TALK = [{"from": "human", "value": "Read."}, {"from": "gpt", "value": "text"}]
CONTENTS: dict[str, tuple[str, Any]] = {
    "jsonl": ("data.jsonl", ROW),
    "ocr_pages": ("data.json", [{"image": "1.png", "conversations": TALK}]),
    "perpo": ("data.json", [{"image_id": 1, "image_path": "1.png", "question": "?", "answer": "a", "answers_gen": [], "iou_scores": []}]),
    "rlhf_v": ("data.jsonl", {"image_path": "1.png", "question": "?", "chosen": "a", "rejected": "b"}),
    "textvqa": ("TextVQA_0.5.1_val.json", {"data": [{"question": "?", "image_id": "1", "question_id": 1, "answers": ["a"]}]}),
}  # fmt: skip


@pytest.fixture
def memory(tmp_path: Path) -> DigestMemory:
    return DigestMemory(tmp_path / "memory.sqlite")


def block(kind: str, path: Path, **settings: Any) -> FileDataset:
    return FileDataset(kind=kind, path=str(path), **settings)


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_changed_image_is_noticed_in_every_format(kind: str, tmp_path: Path, memory: DigestMemory) -> None:
    name, content = CONTENTS[kind]
    (tmp_path / name).write_text(json.dumps(content))
    image = tmp_path / ("1.jpg" if kind == "textvqa" else "1.png")
    image.write_bytes(b"one")
    watched, plain = block(kind, tmp_path / name), block(kind, tmp_path / name, watch_images=False)
    first, unwatched = data_digest(watched, memory), data_digest(plain, memory)
    assert data_digest(watched, memory) == first
    image.write_bytes(b"two!")
    assert data_digest(watched, memory) != first
    assert data_digest(plain, memory) == unwatched
    image.unlink()
    assert data_digest(watched, memory) not in (first, unwatched)  # missing files count as well


def test_images_are_watched_after_a_mistake_in_the_settings(tmp_path: Path, memory: DigestMemory) -> None:
    (tmp_path / "data.csv").write_text("image,question,task,x1,y1,x2,y2\n1.png,what?,grounding,1,1,9,9\n")
    (tmp_path / "1.png").write_bytes(b"one")
    data_digest(block("csv", tmp_path / "data.csv", boxes="xywh"), memory)  # the columns say the order
    first = data_digest(block("csv", tmp_path / "data.csv"), memory)
    (tmp_path / "1.png").write_bytes(b"two!")
    assert data_digest(block("csv", tmp_path / "data.csv"), memory) != first


def test_images_next_to_and_inside_a_parquet_file(tmp_path: Path, memory: DigestMemory) -> None:
    (tmp_path / "1.png").write_bytes(b"one")
    for name, image in {
        "beside": {"bytes": None, "path": "1.png"},
        "inside": {"bytes": b"one", "path": "1.png"},
    }.items():
        pq.write_table(pa.Table.from_pylist([{"question": "?", "image": image}]), tmp_path / f"{name}.parquet")
    before = {
        name: data_digest(block("parquet", tmp_path / f"{name}.parquet"), memory) for name in ("beside", "inside")
    }
    (tmp_path / "1.png").write_bytes(b"two!")
    after = {name: data_digest(block("parquet", tmp_path / f"{name}.parquet"), memory) for name in ("beside", "inside")}
    assert before["beside"] != after["beside"]
    assert before["inside"] == after["inside"]


def test_a_file_next_to_the_named_one_counts(tmp_path: Path, memory: DigestMemory) -> None:
    file = tmp_path / "refs(unc).p"
    file.write_bytes(b"not even a pickle")
    (tmp_path / "instances.json").write_text("{}")
    first = data_digest(block("refer", file), memory)
    (tmp_path / "instances.json").write_text("[1]")
    assert data_digest(block("refer", file), memory) != first


def test_a_folder_and_images_elsewhere(tmp_path: Path, memory: DigestMemory) -> None:
    folder, images = tmp_path / "textvqa", tmp_path / "train_images"
    folder.mkdir()
    images.mkdir()
    name, content = CONTENTS["textvqa"]
    (folder / name).write_text(json.dumps(content))
    (images / "1.jpg").write_bytes(b"one")
    first = data_digest(block("textvqa", folder, images=str(images)), memory)
    (images / "1.jpg").write_bytes(b"two!")
    assert data_digest(block("textvqa", folder, images=str(images)), memory) != first


def test_names_are_read_once(tmp_path: Path, memory: DigestMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps(ROW))
    first = data_digest(block("jsonl", file), memory)

    def read(block: FileDataset) -> None:
        raise AssertionError("the names are known")

    monkeypatch.setattr(data, "_image_names", read)
    assert data_digest(block("jsonl", file), memory) == first


@pytest.mark.parametrize("kind", ["jsonl", "refer", "textvqa", "perpo", "parquet", "virl39k"])
@pytest.mark.parametrize(
    "content", ["{", "[1, {}]", '{"image": 3, "images": {"a": 1}}', '{"image": "\\ud800"}', "\x80"]
)
def test_invalid_data_has_a_digest(kind: str, content: str, tmp_path: Path, memory: DigestMemory) -> None:
    file = tmp_path / ("TextVQA_1.json" if kind == "textvqa" else "data.json")
    file.write_bytes(content.encode("latin-1"))
    assert data_digest(block(kind, file), memory) == data_digest(block(kind, file), memory)
    assert data_digest(block(kind, tmp_path / "gone.json"), memory) == "unreadable"


def test_nothing_heavy_is_imported_for_it(tmp_path: Path) -> None:
    """It runs in the process that reads the Snakefile."""
    for name, content in CONTENTS.values():
        (tmp_path / name).write_text(json.dumps(content))
    heavy = "torch transformers vllm peft polars scipy matplotlib datasets PIL"
    code = f"""
import sys
from pathlib import Path
from perceptune.contracts.config import FileDataset
from perceptune.contracts.provenance.digests import DigestMemory
from perceptune.planning.data_digest import data_digest
for kind, name in {[(kind, name) for kind, (name, _) in CONTENTS.items()]}:
    data_digest(FileDataset(kind=kind, path=str(Path({str(tmp_path)!r}) / name)), DigestMemory(Path({str(tmp_path)!r}) / "m"))
print([m for m in "{heavy}".split() if m in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
