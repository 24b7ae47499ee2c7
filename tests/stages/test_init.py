"""`perceptune init`: configs for data of every kind pass `check` and can be planned."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from perceptune.__main__ import main
from perceptune.commands.init import looking, proposal
from perceptune.commands.init import run as command
from perceptune.contracts import paths
from perceptune.contracts.config import FileDataset
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table
from perceptune.planning import policies
from perceptune.planning.graph import graph
from perceptune.stages.data import import_examples
from tokenizers import Tokenizer

from tests import own_data
from tests.own_data import KINDS

ROOT = Path(__file__).parents[2]
REAL = {"llava": "llava", "qwen2_5_vl": "qwen2_5_vl", "qwen3_vl": "qwen3_vl", "internvl": "internvl", "smolvlm": "auto"}
"""`model_type` to the family that reads it."""


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(*words: str, out: str = "my.yaml") -> dict[str, Any]:
    """The config that the command writes."""
    assert main(["init", *words, "--out", out]) == 0
    return dict(yaml.safe_load(Path(out).read_text()))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The message of a command that fails: one error, and a hint at most."""
    assert main(["init", *words]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 2
    assert not Path("my.yaml").exists()
    return "\n".join(lines)


def model_folder(kind: str, **settings: Any) -> Path:
    """A folder with the `config.json` of a real model and weights that no one reads."""
    folder = Path("models/Mine-7B")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **settings}))
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return folder


def verdict(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line of `perceptune check`."""
    assert main(["check", "my.yaml"]) == 0
    return capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_for_every_kind_of_data_passes_check_before_and_after_its_import(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = KINDS[kind]
    config = written(str(make(Path("own"))), *words)
    assert "perceptune check my.yaml" in capsys.readouterr().out
    valid = "the config is valid: 1 experiment; nothing found that would stop the run"
    assert verdict(capsys) == valid
    plan = policies.load(config)
    rules = {rule for rule, _ in graph(plan)}
    assert {"import_examples", "evaluate_policy", "write_report"} <= rules
    assert ("train_round" if kind == "rounds" else "train_adapter") in rules
    assert ("use_dataset_preferences" in rules) == (kind in ("pairs", "ranked"))
    ((name, block),) = plan.config.datasets.items()
    assert isinstance(block, FileDataset)
    table = Path(paths.EXAMPLES.format(dataset=name))
    import_examples.run(config=block, examples=table)
    rows = read_table(table, EXAMPLES).to_pylist()
    assert [row["reason"] for row in rows] == [None] * own_data.IMAGES
    assert {"train", plan.config.benchmarks[f"{name}-test"].split} == {row["split"] for row in rows}
    assert {row["task"] for row in rows} == set(plan.config.rewards["perception"].tasks)
    assert verdict(capsys) == valid


@pytest.mark.slow
def test_snakemake_plans_such_a_config() -> None:
    written(str(own_data.coco(Path("own"))))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "workflow"),
    }
    words = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(Path.cwd()), "--configfile", "my.yaml"]
    done = subprocess.run(
        ["snakemake", "-n", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "train_adapter" in done.stdout


@pytest.mark.parametrize("kind", REAL)
def test_a_model_decides_on_family_prompt_and_sizes(kind: str) -> None:
    folder = model_folder(kind, text_config={"max_position_embeddings": 6000})
    config = written(str(own_data.boxes_jsonl(Path("own"))), "--model", f"{folder}/")
    plan = policies.load(config)
    block = plan.config.models["mine-7b"]
    assert (block.path, block.family) == ("models/Mine-7B", REAL[kind])
    assert block.max_model_len <= 6000
    assert block.coordinates == ("thousand" if kind == "smolvlm" else None)
    assert (block.pixels is not None) == kind.startswith("qwen")
    (sampling,), (benchmark,) = plan.config.samplings.values(), plan.config.benchmarks.values()
    assert sampling.n == 20
    assert sampling.prompt == benchmark.prompt
    assert ("JSON" in sampling.prompt) == kind.startswith("qwen")
    assert ("{format}" in sampling.prompt) == (not kind.startswith("qwen"))


@pytest.mark.parametrize("kind", ["coco", "counted"])
def test_the_bundled_model_is_asked_in_words_that_it_knows(kind: str) -> None:
    make, words = KINDS[kind]
    (block,) = written(str(make(Path("own"))), *words)["datasets"].values()
    question = block["parameters"]["question"]
    assert question == question.lower()
    tokenizer = Tokenizer.from_file(str(ROOT / "resources/tiny-llava/model/tokenizer.json"))
    tokens = tokenizer.encode(question.replace("{category}", "circle")).tokens
    assert all(len(token) > 1 or token in ".?" for token in tokens)  # unknown words are read letter by letter
    config = written("own", *words, "--model", f"{model_folder('qwen3_vl')}/", out="real.yaml")
    (block,) = config["datasets"].values()
    assert "question" not in block.get("parameters", {})


def test_comments_fit_and_no_value_is_lost() -> None:
    config = written(str(own_data.boxes_jsonl(Path("own"))))
    lines = Path("my.yaml").read_text().splitlines()
    assert max(map(len, lines)) <= 100
    assert config["datasets"]["boxes"] == {
        "kind": "jsonl", "path": "own/boxes.jsonl", "images": "own/photos", "task": "grounding", "test_share": 0.2,
    }  # fmt: skip
    assert "    test_share: 0.2  # share of the images held out" in "\n".join(lines)


@pytest.mark.parametrize(
    ("order", "unit", "expected"),
    [
        ("xyxy", "pixels", {}),
        ("xywh", "pixels", {"boxes": "xywh"}),
        ("yxyx", "pixels", {"boxes": "yxyx"}),
        ("xyxy", "normalised", {"coordinates": "normalised"}),
        ("xyxy", "thousand", {"coordinates": "thousand"}),
        ("xywh", "thousand", {"boxes": "xywh", "coordinates": "thousand"}),
    ],
)
def test_order_and_unit_of_boxes_are_found_and_said(
    order: str, unit: str, expected: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = own_data.boxes_jsonl(Path("own"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    width, height = own_data.SIZE
    factor = {"pixels": 1, "normalised": 1, "thousand": 1000}[unit]
    for row in rows:
        x1, y1, x2, y2 = row["box"]
        if unit != "pixels":
            x1, y1, x2, y2 = (v / side * factor for v, side in zip(row["box"], (width, height) * 2, strict=True))
        row["box"] = {"xyxy": [x1, y1, x2, y2], "xywh": [x1, y1, x2 - x1, y2 - y1], "yxyx": [y1, x1, y2, x2]}[order]
    block = written(str(own_data.write_lines(path, rows)))["datasets"]["boxes"]
    assert {key: block[key] for key in ("boxes", "coordinates") if key in block} == expected
    printed = capsys.readouterr().out
    found = f"(`boxes: {order}`, `coordinates: {unit}`), which fit 12 of 12; the usual `xyxy` in `pixels` fit "
    assert (found in printed) == bool(expected)


@pytest.mark.parametrize("kind", ["boxes", "coco"])
def test_a_few_wrong_rows_change_no_unit_and_no_order(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = KINDS[kind][0](Path("own"))
    if kind == "boxes":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows[:3]:
            row["box"] = [*row["box"][2:], *row["box"][:2]]
        own_data.write_lines(path, rows)
    else:
        content = json.loads(path.read_text())
        for one in content["annotations"][:3]:
            one["bbox"][2] = own_data.SIZE[0] - one["bbox"][0] + 2
        path.write_text(json.dumps(content))
    (block,) = written(str(path))["datasets"].values()
    assert not {"boxes", "coordinates"} & {*block}
    printed = capsys.readouterr().out
    assert "warning: 3 of the first 12 rows cannot be used" in printed
    assert "assumed: boxes" not in printed


def test_the_unit_that_a_format_fixes_stays(capsys: pytest.CaptureFixture[str]) -> None:
    path = own_data.coco(Path("own"))
    content = json.loads(path.read_text())
    for one in content["annotations"]:
        one["bbox"] = [v / side for v, side in zip(one["bbox"], own_data.SIZE * 2, strict=True)]
    path.write_text(json.dumps(content))
    assert "hint: `coordinates: normalised` fits 12 of 12 boxes, `pixels` 0" in said(capsys, str(path))


def test_an_existing_file_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    data = str(own_data.counting(Path("own")))
    Path("my.yaml").write_text("mine")
    assert main(["init", data]) == 1
    assert "`my.yaml` exists" in capsys.readouterr().err
    assert Path("my.yaml").read_text() == "mine"
    assert main(["init", data, "--force"]) == 0
    assert Path("my.yaml").read_text().startswith("# Written by `perceptune init`")


def test_files_named_after_splits_belong_together() -> None:
    own_data.drawn(Path("own"))
    for name, numbers in (("train", range(8)), ("test", range(8, 12))):
        rows = [{"image": f"{n}.png", "question": "Which?", "answer": "red"} for n in numbers]
        own_data.write_lines(Path(f"own/{name}.jsonl"), rows)
    config = written("own")
    assert {name: block["path"] for name, block in config["datasets"].items()} == {
        "own": "own/train.jsonl",
        "own-test": "own/test.jsonl",
    }
    assert config["benchmarks"]["own-test"]["dataset"] == "own-test"
    assert config["datasets"]["own-test"]["split"] == "test"
    assert "test_share" not in config["datasets"]["own"]


def test_cocos_folder_of_annotations_has_boxes_beside_captions() -> None:
    path = own_data.coco(Path("own"))
    content = json.loads(path.read_text())
    path.with_name("instances_val2017.json").write_text(
        json.dumps({**content, "annotations": content["annotations"][:4]})
    )
    for part in ("train", "val"):
        captions = {**content, "categories": [], "annotations": [{"id": 1, "image_id": 1, "caption": "red"}]}
        path.with_name(f"captions_{part}2017.json").write_text(json.dumps(captions))
    paths = {block["path"] for block in written("own")["datasets"].values()}
    assert paths == {f"own/annotations/instances_{part}2017.json" for part in ("train", "val")}


def test_splits_that_are_not_used_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    own_data.drawn(Path("own"))
    row = {"question": "What?", "answer": "red"}
    rows = [{"image": f"{n}.png", "split": "train_extra" if n % 4 == 0 else "train", **row} for n in range(12)]
    own_data.write_lines(Path("own/data.jsonl"), rows)
    written("own/data.jsonl")
    assert "assumed: not used: split `train_extra` (3 rows)" in capsys.readouterr().out


def test_numbers_below_zero_are_no_counts(capsys: pytest.CaptureFixture[str]) -> None:
    own_data.drawn(Path("own"))
    rows = [{"image": f"{n}.png", "question": "How cold?", "answer": str(-n)} for n in range(12)]
    own_data.write_lines(Path("own/data.jsonl"), rows)
    (block,) = written("own/data.jsonl")["datasets"].values()
    assert block["task"] != "counting"


def test_splits_are_named_as_the_table_stores_them(capsys: pytest.CaptureFixture[str]) -> None:
    own_data.drawn(Path("own"))
    lines = [f"{n}.png,How many?,{n % 3},{'Train' if n % 4 else 'Test '}" for n in range(12)]
    Path("own/counts.csv").write_text("\n".join(["image,question,answer,split", *lines]))
    config = written("own/counts.csv")
    assert config["samplings"]["n8"]["split"] == "Train"
    assert config["benchmarks"]["counts-test"]["split"] == "Test"
    assert "assumed: trains on split `Train` (9 rows), tests on split `Test` (3 rows)" in capsys.readouterr().out
    ((name, block),) = policies.load(config).config.datasets.items()
    assert isinstance(block, FileDataset)
    import_examples.run(config=block, examples=Path(paths.EXAMPLES.format(dataset=name)))
    rows = read_table(Path(paths.EXAMPLES.format(dataset=name)), EXAMPLES).to_pylist()
    assert {row["split"] for row in rows} == {"Train", "Test"}


def test_what_is_left_out_and_held_out_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    path = own_data.coco(Path("own"))
    content = json.loads(path.read_text())
    content["annotations"].append({**content["annotations"].pop(), "id": 99, "image_id": 0})
    path.write_text(json.dumps(content))
    config = written(str(path))
    printed = capsys.readouterr().out
    assert "note: 2 objects are left out because they have others of their category in the image" in printed
    assert "note: 1 of 12 images have no annotations" in printed
    ((name, block),) = policies.load(config).config.datasets.items()
    assert isinstance(block, FileDataset)
    import_examples.run(config=block, examples=Path(paths.EXAMPLES.format(dataset=name)))
    rows = read_table(Path(paths.EXAMPLES.format(dataset=name)), EXAMPLES).to_pylist()
    held_out = sum(row["split"] == "test" for row in rows)
    assert f"(`test_share`), {held_out} of 10 questions" in printed
    assert held_out == 1
    assert "warning: 1 question for tests: below 30, the report shows no confidence intervals" in printed


def test_of_large_data_only_a_part_is_counted_and_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(looking, "MOST", 10)
    monkeypatch.setattr(proposal, "QUICK", {"train": 4, "test": 3})
    config = written(str(own_data.counting(Path("own"))))
    assert "found: at least 10 rows (train: 10 counting)" in capsys.readouterr().out
    assert config["samplings"]["n8"]["limit"] == 4
    assert config["benchmarks"]["counts-test"]["limit"] == 3


def test_pairs_are_tested_on_other_questions() -> None:
    pairs, questions = own_data.preferences(Path("pairs")), own_data.yes_no(Path("asked"))
    config = written(str(pairs), "--test", str(questions))
    assert config["rewards"]["perception"]["tasks"]["existence"] == "yes_no"
    assert config["benchmarks"]["pairs-test"]["dataset"] == "pairs-test"
    assert main(["check", "my.yaml"]) == 0


def test_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    data = own_data.ranked(Path("own"))
    answers = iter([str(data), "the bundled tiny model", "neither", "rounds"])
    monkeypatch.setattr(command.typer, "prompt", lambda *_: next(answers))
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    config = written()
    assert next(answers, None) is None
    assert config["experiments"]["grpo"]["rounds"] == 2
    printed = capsys.readouterr().out
    assert "expected one of pairs, lists, rounds" in printed
    assert "assumed: the bundled" not in printed


MISTAKES: dict[str, tuple[list[dict[str, Any]] | str, list[str], str]] = {
    "nothing": ([], [], "`own/data.jsonl` has no rows"),
    "no JSON": ("image;question\n1.png;What?\n", [], "is CSV, not JSON"),
    "kinds": (
        [{"image": "0.png", "question": "?", "box": [1, 1, 9, 9]}, {"image": "1.png", "question": "?", "answer": "yes"}],
        [],
        "rows without `task` are of several kinds (1 with a box, 1 with yes or no), expected the key `task` in each",
    ),
    "no truth": ([{"image": "0.png", "question": "What?"}], [], "has no ground truth to score answers with, expected a column `answer` or `box`, found `image`, `question`"),
    "no pairs": ([{"image": "0.png", "question": "What?", "answer": "a"}], ["--pairs"], "has no preference pairs"),
    "images": (
        [{"image": "x.png", "question": "What?", "answer": "a"}],
        [],
        "line 1: image `x.png`: the file does not exist, looked in `own`\nhint: `--images FOLDER` says",
    ),
    "one image": ([{"image": "0.png", "question": "What?", "answer": "a"}], [], "too few to hold some out for tests"),
    "task": ([{"image": "0.png", "question": "What?", "answer": "a"}], ["--task", "ocrr"], "did you mean `ocr`?"),
    "kind": ([{"image": "0.png", "question": "What?", "answer": "a"}], ["--kind", "jsonll"], "did you mean `jsonl`?"),
    "model": (
        [{"image": "0.png", "question": "What?", "answer": "a"}],
        ["--model", "models/none"],
        "model folder `models/none`: `config.json` not found",
    ),
    "out": ([{"image": "0.png", "question": "What?", "answer": "a"}], ["--out", "no/my.yaml"], "folder `no` does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    content, words, expected = MISTAKES[name]
    own_data.drawn(Path("own"))
    if isinstance(content, str):
        Path("own/data.jsonl").write_text(content)
    else:
        own_data.write_lines(Path("own/data.jsonl"), content)
    assert expected in said(capsys, "own/data.jsonl", *words)


def test_data_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    own_data.drawn(Path("own"))
    Path("sheet.xlsx").write_bytes(b"PK\x03\x04")
    assert "did you mean `own`?" in said(capsys, "onw")
    assert "has 12 images and no file with questions about them" in said(capsys, "own")
    assert "is an image, expected a file" in said(capsys, "own/0.png")
    assert "File name too long" in said(capsys, f"{'x' * 300}.jsonl")
    Path("folder.yaml").mkdir()
    rows = [{"image": f"{n}.png", "question": "What?", "answer": "a"} for n in range(12)]
    own_data.write_lines(Path("own/d.jsonl"), rows)
    assert "folder.yaml`: Is a directory" in said(capsys, "own/d.jsonl", "--force", "--out", "folder.yaml")
    Path("own/d.jsonl").unlink()
    assert "save the sheet as `CSV UTF-8`" in said(capsys, "sheet.xlsx")
    assert main(["init"]) == 2
    assert "missing, expected a file or folder" in capsys.readouterr().err


def test_rows_that_cannot_be_used_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    path = own_data.boxes_jsonl(Path("own"))
    with path.open("a") as file:
        file.write('{"image": "0.png", "question": "?", "box": [1, 1, 500, 500]}\n')
    written(str(path))
    assert "warning: 1 of the first 13 rows cannot be used, at which the import stops" in capsys.readouterr().out
