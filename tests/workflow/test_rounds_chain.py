"""Training in rounds with real vLLM, PEFT and Snakemake: the results, shared jobs, and kills within
a round.
"""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from perceptune.contracts import paths
from perceptune.contracts.tables.io import read_lineage, read_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.contracts.tables.terms import TERMS
from perceptune.contracts.tables.training import TRAINING
from perceptune.stages.training.round_status import Ending

from .chaos import _command, _environment, _jobs
from .conftest import Workflow
from .needs import GRPO, PAPO

pytestmark = pytest.mark.slow


def test_two_rounds_end_with_a_curve_in_the_report(finished: Workflow) -> None:
    metrics = pl.from_arrow(read_table(finished.folder / paths.at(paths.ALL_METRICS), METRICS))
    assert {"grpo@2", "papo@1"} <= set(metrics["policy"])
    assert "grpo@1" not in set(metrics["policy"])  # `evaluate_every: 2`
    assert Ending.read(finished.folder / paths.at(paths.ROUND, experiment="grpo@2")) == Ending(2)
    page = (finished.folder / paths.at(paths.REPORT)).read_text()
    assert "grpo@2" in page


def test_the_engine_and_the_trainer_agree_in_every_round(finished: Workflow) -> None:
    for policy in ("grpo@1", "grpo@2", "papo@1"):
        table = pl.DataFrame(
            pl.from_arrow(read_table(finished.folder / paths.at(paths.TRAINING, experiment=policy), TRAINING))
        )
        values = {name: part.sort("step")["value"] for (name,), part in table.group_by("metric")}
        assert values["engine_gap"].max() < 1e-4
        assert values["policy_gap"][0] < 1e-6
        assert values["ratio"][0] == pytest.approx(1, abs=1e-6)
        assert values["policy_gap"][-1] > 0  # type: ignore[operator]


def test_methods_share_the_first_rounds_answers_and_not_the_seconds(finished: Workflow) -> None:
    for policy in ("grpo@1", "papo@1"):
        read = read_lineage(finished.folder / paths.at(paths.TRAINING, experiment=policy))["inputs"]
        assert read["responses"]["path"].endswith("results/responses/tiny/shapes/g4.parquet")
    read = read_lineage(finished.folder / paths.at(paths.TRAINING, experiment="grpo@2"))["inputs"]
    assert read["responses"]["path"].endswith("results/responses/grpo@1/shapes/g4.parquet")
    assert read["round before"]["path"].endswith("results/adapters/grpo@1/round.json")


def test_the_terms_of_a_round_are_one_table(finished: Workflow) -> None:
    place = {"policy": "tiny", "dataset": "shapes", "groups": "g4/perception/all"}
    for stored, expected in ((GRPO, 2), (PAPO, 3)):
        rows = read_table(finished.folder / paths.at(paths.TERMS, **place, stored=stored), TERMS).to_pylist()
        assert len({(row["term"], row["view"]) for row in rows}) == expected
        assert len(rows) == 12 * expected


@pytest.mark.extended
def test_kills_inside_rounds_change_nothing(finished: Workflow, workflow: Workflow) -> None:
    """SIGKILL Snakemake during training, and the sampling job during the next round."""
    (workflow.folder / "config.yaml").write_text((finished.folder / "config.yaml").read_text())
    for given in ("own", "dino"):
        shutil.copytree(finished.folder / given, workflow.folder / given)
    target = str(paths.at(paths.ADAPTER, experiment="grpo@2"))
    checkpoints = workflow.folder / paths.at(paths.CHECKPOINTS, experiment="grpo@1")
    _killed(workflow.folder, target, "train_round", lambda: any(checkpoints.glob("checkpoint-*/complete.json")))
    assert not (workflow.folder / paths.at(paths.ADAPTER, experiment="grpo@1")).exists()
    _killed(
        workflow.folder,
        target,
        "sample_responses",
        (workflow.folder / paths.at(paths.ADAPTER, experiment="grpo@1")).exists,
    )
    workflow.run("--unlock")
    workflow.run("--", target)
    for file in (
        target,
        str(paths.at(paths.ADAPTER, experiment="grpo@1")),
        "results/adapters/grpo@2/optimizer.safetensors",
    ):
        assert (workflow.folder / file).read_bytes() == (finished.folder / file).read_bytes(), file


def _killed(folder: Path, target: str, rule: str, ready: Callable[[], bool]) -> None:
    """A run that is killed, including Snakemake, once the rule's job runs and `ready` holds."""
    subprocess.run(_command(folder, "--unlock"), env=_environment(), capture_output=True, check=True)
    with (folder / "killed.txt").open("wb") as output:
        process = subprocess.Popen(
            _command(folder, "--rerun-incomplete", "--", target),
            env=_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + 400
    while not (rule in _jobs(process) and ready()):
        assert process.poll() is None, (folder / "killed.txt").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    jobs = _jobs(process)
    process.send_signal(signal.SIGKILL)
    for job in jobs.values():
        job.send_signal(signal.SIGKILL)
    process.wait()


def test_explain_goes_back_through_the_rounds(finished: Workflow) -> None:
    command = [sys.executable, "-m", "perceptune", "explain", "--policy", "grpo@2"]
    done = subprocess.run(command, cwd=finished.folder, capture_output=True, text=True, check=True)
    for part in (
        "results/adapters/grpo@1/round.json",
        "results/responses/tiny/shapes/g4.parquet",
        "round=1",
        "round=2",
    ):
        assert part in done.stdout, part
