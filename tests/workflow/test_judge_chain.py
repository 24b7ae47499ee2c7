"""Answers of a real chain, judged by a faulty endpoint: the results, what an edit reruns, and that
the key is never written to a file.
"""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from perceptune.contracts import paths
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.contracts.tables.verdicts import VERDICTS
from perceptune.core.benchmarks.mmhal.metrics import TYPES, rating
from PIL import Image

from tests.faults.judge_server import serving

from .conftest import ROOT, Workflow

pytestmark = pytest.mark.slow
KEY = "sk-proj-Chain0123456789/+AbCdEf"
COUNT = 8
MEASURED = str(paths.at(paths.METRICS, policy="tiny"))


def configured(folder: Path, url: str) -> None:
    """The demo's model with eight questions in MMHal-Bench's format."""
    (folder / "mmhal").mkdir()
    rows = []
    for number in range(COUNT):
        name = f"{number}_o.png"
        Image.new("RGB", (64, 64), (30 * number, 90, 200)).save(folder / "mmhal" / name)
        rows.append({
            "question_type": TYPES[number], "question_topic": "outdoor", "image_id": f"image{number}", "image_content": ["Square"],
            "image_src": f"https://images.example/{name}", "question": f"what colour is square {number}?", "gt_answer": "Blue.",
            "model_answer": "",
        })  # fmt: skip
    (folder / "mmhal/response_template.json").write_text(json.dumps(rows))
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config["datasets"]["mmhal"] = {"kind": "mmhal", "path": "mmhal/response_template.json"}
    config["judges"] = {"stub": {"model": "stub", "url": url, "key": "CHAIN_KEY", "retries": 2, "concurrency": 2}}
    benchmark = {"dataset": "mmhal", "protocol": "mmhal", "judge": "stub", "max_tokens": 64, "resamples": 99}
    config["benchmarks"] = {"mmhal": benchmark}
    for experiment in config["experiments"].values():
        experiment["benchmarks"] = ["mmhal"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def edited(folder: Path, **changes: Any) -> str:
    """The name of a config with a different judge."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["judges"]["stub"] |= changes
    (folder / "edited.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return "edited.yaml"


def found_in(folder: Path, secret: str) -> list[Path]:
    """Files below `folder`, except links, that contain the text."""
    files = [file for file in folder.rglob("*") if file.is_file() and "resources" not in file.parts]
    return [file for file in files if secret.encode() in file.read_bytes()]


def test_answers_are_judged(workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAIN_KEY", KEY)
    folder = workflow.folder
    with serving(lambda number: "fine" if number <= 3 else "401") as server:
        configured(folder, server.url)
        failed = workflow.run("--", MEASURED, check=False)
        assert failed.returncode != 0
        assert "answered 401: `Incorrect API key provided: Bearer <key>`" in failed.stdout
        assert "of 8 verdicts are stored; rerun to request only the others" in failed.stdout
        assert "Traceback" not in failed.stdout
        there = len(list((folder / paths.at(paths.JUDGED, judge="stub")).rglob("*.json")))
        assert there == 3  # the fourth was rejected
        server.asked.clear()
        server.behave = lambda number: "500" if number == 1 else "fine"
        done = workflow.run("--", MEASURED)
        assert len(server.asked) == COUNT - there + 1
        assert KEY not in failed.stdout + done.stdout

        metrics = pl.DataFrame(pl.from_arrow(read_table(folder / MEASURED, METRICS)))
        verdicts = read_table(folder / paths.at(paths.VERDICTS, policy="tiny", benchmark="mmhal"), VERDICTS).to_pylist()
        assert len(verdicts) == COUNT
        (score,) = metrics.filter(metric="mmhal_score", condition="greedy").iter_rows(named=True)
        assert score["value"] == pytest.approx(sum(rating(row["text"]) or 0 for row in verdicts) / COUNT)
        assert (score["n"], score["n_failed"], score["judge"]) == (COUNT, 0, "stub: stub-1")
        assert set(metrics["judge"]) == {"stub: stub-1"}

        # verdicts depend on what the judge is, not on how it is reached
        reached = {"concurrency": 5, "timeout": 50.0, "retries": 5, "key": "OTHER_KEY"}
        assert workflow.planned("--", MEASURED, config=edited(folder, **reached)) == set()
        another = edited(folder, model="another")
        assert workflow.planned("--", MEASURED, config=another) == {"judge_answers", "evaluate_policy"}

        # verdicts outlive their table
        server.asked.clear()
        shutil.rmtree(folder / "results/verdicts")
        workflow.run("--", MEASURED)
        assert not server.asked
    assert not found_in(folder, KEY)
    assert not found_in(folder, base64.b64encode(KEY.encode()).decode())
    assert found_in(folder, "Rating: ")  # the search works
