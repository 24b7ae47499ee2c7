"""A protocol's number leads back to its questions, their source files, and the verdicts."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from perceptune.__main__ import main
from perceptune.commands import explain
from perceptune.contracts import paths
from perceptune.contracts.config import BenchmarkBlock, FileDataset, JudgeBlock, ModelBlock, RewardBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import read_lineage, read_table, write_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.engines import judging
from perceptune.stages.data import import_examples
from perceptune.stages.evaluation import asking, evaluate, judge_answers
from perceptune.stages.preferences import score
from perceptune.stages.sampling import requests
from PIL import Image
from rich.console import Console

BLOCK = {
    "dataset": "mmhal",
    "protocol": "mmhal",
    "reward": "r",
    "judge": "stub",
    "n": 0,
    "views": ["original"],
    "resamples": 20,
}


class Endpoint:
    """Rates every answer with 5 points."""

    def __init__(self, *_: object) -> None: ...

    def verdicts(self, cases: list[judging.Case], keep: object) -> None:
        for case in cases:
            keep(case, judging.Said("Rating: 5", "stub-2026"))  # type: ignore[operator]


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The metrics of one answer to a question of MMHal-Bench, starting from its file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(asking, "Endpoint", Endpoint)
    monkeypatch.setattr(explain, "MEMORY", explain.DigestMemory(tmp_path / "memory.sqlite"))
    Image.new("RGB", (8, 6)).save("a.jpg")
    record = {
        "image_id": "1", "image_src": "https://x/a.jpg", "question": "What?", "gt_answer": "A dog.", "question_type": "attribute",
        "question_topic": "animal", "image_content": ["dog"], "model_answer": "",
    }  # fmt: skip
    Path("mmhal.json").write_text(json.dumps([record]))
    Path("prompt.txt").write_text("{contents} {question} {reference} {answer}")
    block = BenchmarkBlock.model_validate({**BLOCK, "judge_prompt": "prompt.txt"})
    model = ModelBlock(path="nowhere", family="llava")
    table = {
        name: tmp_path / f"{name}.parquet" for name in ("examples", "requests", "responses", "rewards", "verdicts")
    }
    import_examples.run(config=FileDataset(kind="mmhal", path="mmhal.json"), examples=table["examples"])
    one = {"examples": {"mmhal": table["examples"]}, "benchmarks": {"mm": block}}
    requests.run_benchmarks(requests=table["requests"], views={}, **one)
    asked = read_table(table["requests"], REQUESTS).to_pylist()
    said = {
        "sample_index": 0,
        "text": "A dog.",
        "token_ids": [1],
        "logprobs": [-1.0],
        "finish_reason": "stop",
        "prompt_tokens": 1,
    }
    rows = [{**{key: row[key] for key in ("request_id", "example_id", "view")}, **said} for row in asked]
    write_table(table["responses"], RESPONSES, rows, lineage("sampling.responses", {}, {"requests": table["requests"]}))
    score.run(
        **{name: table[name] for name in ("requests", "responses", "rewards")},
        examples=one["examples"], config=RewardBlock(tasks={"open": "free_text"}), model=model,
    )  # fmt: skip
    judge_answers.run(
        name="stub", judge=JudgeBlock(model="stub", url="http://localhost:1/v1"), benchmark="mm", block=block,
        **{name: table[name] for name in ("rewards", "examples", "verdicts")}, kept=tmp_path / "kept",
    )  # fmt: skip
    metrics = paths.at(paths.METRICS, policy="p")
    evaluate.run(
        policy="p", base="p", rewards={"mm": table["rewards"]}, base_rewards=None, attention={}, base_attention=None, metrics=metrics,
        reward_tasks={"r": {"open": "free_text"}}, model=model, verdicts={"mm": table["verdicts"]}, **one,
    )  # fmt: skip
    collected = tmp_path / "all.parquet"
    rows = read_table(metrics, METRICS).to_pylist()
    write_table(collected, METRICS, rows, lineage("evaluation.collect", {}, {"p": metrics}))
    return collected


def explained(collected: Path) -> tuple[str, list[str]]:
    console = Console(record=True, width=400, file=(collected.parent / "page.txt").open("w"))
    changed = explain.explain([collected], "metrics", {"metric": "mmhal_score"}, console)
    return console.export_text(), changed


def test_a_judged_number_leads_back_to_examples_verdicts_judge_and_prompt(measured: Path) -> None:
    text, changed = explained(measured)
    assert changed == []
    for line in (
        "verdicts on mm: ", "by evaluation.judge_answers", "judge.model=stub", "prompt: prompt.txt", "examples mmhal: ", "data: mmhal.json", "images: 1",
        "benchmarks.mm.protocol=mmhal", "rewards mm: ",
    ):  # fmt: skip
        assert line in text, line


@pytest.mark.parametrize(("n", "shown"), [(8, ", n 8"), (40, " [0.0000, 0.1000], n 40")])
def test_few_questions_have_no_interval(n: int, shown: str) -> None:
    row = dict.fromkeys(METRICS.columns)
    row |= {"benchmark": "b", "split": "test", "task": "ocr", "view": "original", "condition": "greedy", "metric": "m"}
    row |= {"value": 0.05, "ci_low": 0.0, "ci_high": 0.1, "n": n, "n_failed": 0}
    (found,) = explain._with_intervals(pl.DataFrame([row]), "metrics").to_dicts()
    line = explain._number(found)
    assert shown in line
    assert ("too few questions" in line) is (n == 8)
    control = {key: row[key] for key in ("ci_low", "ci_high", "n")}
    (found,) = explain._with_intervals(pl.DataFrame([control]), "controls").to_dicts()
    assert found["few"] is (n == 8) and (found["ci_low"] is None) is (n == 8)


@pytest.mark.parametrize("name", ["prompt.txt", "mmhal.json", "verdicts.parquet", "examples.parquet"])
def test_later_changes_are_reported(measured: Path, name: str) -> None:
    Path(name).write_bytes(b"something else")
    assert Path(name).name in {Path(changed).name for changed in explained(measured)[1]}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--control", "blank"],
            "`results/controls`: no tables found\nhint: set `controls: {}` in the config and run the workflow to create them",
        ),
        (["--control", "blank", "--condition", "greedy"], "--condition and --control: found both, expected only one"),
        (["--policy", "perpo"], "`results/metrics.parquet` does not exist"),
    ],
)
def test_unexplainable_numbers_are_reported(
    measured: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert main(["explain", *arguments]) == 1
    assert expected in capsys.readouterr().err


def test_a_run_in_another_directory(
    measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path.cwd()
    for results in ("results", "rehearsal"):
        (run / results).mkdir(exist_ok=True)
        shutil.copy(measured, run / results / "metrics.parquet")
    for folder in (run, run / "results", run / "rehearsal"):
        monkeypatch.chdir("/")
        assert main(["explain", str(folder), "--metric", "mmhal_score"]) == 0
        assert "images: 1" in capsys.readouterr().out
    assert main(["explain", "nowhere"]) == 1
    assert "directory `nowhere` does not exist, expected the directory of a run" in capsys.readouterr().err


@pytest.mark.parametrize("folder", [True, False])
def test_an_import_records_every_file_that_it_read(tmp_path: Path, folder: bool) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
    files = {
        "query_all.json": [{"id": 1, "image": "a.jpg", "query": "Describe this image."}],
        "annotations.json": [{"id": 1, "type": "generative", "truth": ["sky"], "hallu": []}],
        "relation.json": {"sky": []},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "safe_words.txt").write_text("scene\n")
    path = tmp_path if folder else tmp_path / "query_all.json"
    import_examples.run(config=FileDataset(kind="amber", path=str(path)), examples=tmp_path / "examples.parquet")
    inputs = read_lineage(tmp_path / "examples.parquet")["inputs"]
    assert {Path(one["path"]).name for one in inputs.values()} == {*files, "safe_words.txt"}


def test_a_table_without_numbers_is_reported() -> None:
    table = pl.DataFrame(pl.from_arrow(METRICS.schema.empty_table()))
    with pytest.raises(UserError, match="no number with policy `perpo`, and there are none to choose from"):
        explain.chosen_rows(table, {"policy": "perpo"})
