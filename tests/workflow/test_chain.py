"""The complete chain with real vLLM, PEFT and Snakemake, and where a number comes from."""

import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from perceptune.contracts import paths
from perceptune.contracts.tables.io import read_lineage, read_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.contracts.tables.rewards import REWARDS

from .chaos import Outcome, compare
from .conftest import Workflow, prepare_chain

pytestmark = pytest.mark.slow


def test_the_chain_ends_with_metrics_of_every_policy_and_a_page(finished: Workflow) -> None:
    metrics = pl.from_arrow(read_table(finished.folder / paths.at(paths.ALL_METRICS), METRICS))
    greedy = metrics.filter(condition="greedy", view="original", metric="accuracy_iou_0.5", benchmark="shapes-test")
    assert set(greedy["policy"]) == {"tiny", "dpo", "perpo", "p2dpo"}
    assert greedy["n"].to_list() == [24] * 4
    assert greedy.filter(policy="tiny")["gain"].to_list() == [None]
    assert greedy.filter(pl.col("policy") != "tiny")["gain_ci_low"].null_count() == 0
    assert set(metrics["condition"]) == {"greedy", "mean_of_n", "best_of_n", "attention"}
    assert set(metrics["view"]) == {"original", "blank"}
    page = (finished.folder / paths.at(paths.REPORT)).read_text()
    assert "perpo" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "perpo" in (finished.folder / paths.at(paths.RESULT_TABLE)).read_text()


def test_rows_in_are_rows_out(finished: Workflow) -> None:
    names = {"policy": "tiny", "plan": "shapes/n20", "reward": "perception"}
    requests = read_table(finished.folder / paths.at(paths.REQUESTS, **names), REQUESTS)
    responses = read_table(finished.folder / paths.at(paths.RESPONSES, **names), RESPONSES)
    rewards = read_table(finished.folder / paths.at(paths.REWARDS, **names), REWARDS)
    assert requests.num_rows == 48
    assert responses.num_rows == rewards.num_rows == sum(requests["n"].to_pylist()) == 48 * 6


def test_answers_do_not_depend_on_the_number_of_shards(finished: Workflow, workflow: Workflow) -> None:
    shutil.copy(finished.folder / "config.yaml", workflow.folder)
    for folder in ("data", "examples", "leakage", "requests"):
        shutil.copytree(finished.folder / "results" / folder, workflow.folder / "results" / folder)
    target = str(paths.at(paths.RESPONSES, policy="tiny", plan="shapes/n20"))
    workflow.run("--rerun-triggers", "mtime", "--set-scatter", "shard=2", "--", target)
    ours, theirs = (read_table(w.folder / target, RESPONSES).to_pylist() for w in (workflow, finished))
    assert read_lineage(workflow.folder / target)["parameters"]["shards"] == 2
    columns = ("request_id", "sample_index", "text", "token_ids", "finish_reason")
    assert [[row[c] for c in columns] for row in ours] == [[row[c] for c in columns] for row in theirs]


@pytest.mark.extended
def test_snakemake_makes_the_same_tables(finished: Workflow, tmp_path: Path) -> None:
    chain = prepare_chain(tmp_path)
    assert (chain.folder / "config.yaml").read_text() == (finished.folder / "config.yaml").read_text()
    chain.run()
    outcome = Outcome()
    compare(finished.folder, chain.folder, outcome)
    assert outcome.differences == []
    assert outcome.compared > 80


def test_every_table_carries_its_lineage(finished: Workflow) -> None:
    tables = [p for p in (finished.folder / "results").rglob("*.parquet") if ".partial" not in p.parts]
    assert len(tables) > 10
    for table in tables:
        lineage = read_lineage(table)
        assert {"stage", "parameters", "inputs", "code", "versions"} <= lineage.keys(), table


def test_a_second_run_does_nothing(finished: Workflow) -> None:
    assert "Nothing to be done" in finished.run().stdout
    assert finished.planned("--set-scatter", "shard=3") == set()


def test_a_mistake_in_the_config_is_one_line_without_traceback(finished: Workflow) -> None:
    done = finished.run(config=finished.edited("trainings.perpo.parameters", {"betta": 0.2}), check=False)
    assert done.returncode == 1
    assert "key `trainings.perpo.parameters.betta`: unknown key" in done.stdout
    assert "Traceback" not in done.stdout


def test_snakemakes_own_report_holds_the_results(finished: Workflow) -> None:
    finished.run("--report", str(finished.folder / "snakemake-report.html"))
    assert "result.txt" in (finished.folder / "snakemake-report.html").read_text()


def test_explain_leads_from_a_number_to_images_and_weights(finished: Workflow) -> None:
    command = [sys.executable, "-m", "perceptune", "explain", "--policy", "perpo", "--metric", "accuracy_iou_0.5"]
    done = subprocess.run(command, cwd=finished.folder, capture_output=True, text=True, check=True)
    for part in (
        "images: 72", "resources/tiny-llava/model", "training.parameters.gamma=0.5", "results/adapters/perpo/adapter_model.safetensors",
        "results/rewards/tiny/benchmarks/perception.parquet", "own/data.jsonl", "vllm", "torch 2.",
    ):  # fmt: skip
        assert part in done.stdout, part
    assert "changed" not in done.stdout


def test_explain_says_what_has_changed_since(finished: Workflow) -> None:
    table = finished.folder / "results/preferences/tiny/shapes/n20/perception/ranked.parquet"
    before = table.read_bytes()
    table.write_bytes(before + b" ")
    command = [sys.executable, "-m", "perceptune", "explain", "--policy", "perpo"]
    done = subprocess.run(command, cwd=finished.folder, capture_output=True, text=True, check=False)
    table.write_bytes(before)
    assert done.returncode == 1
    assert f"{table.relative_to(finished.folder)} has changed since the number was computed" in done.stdout
