"""Experiments without benchmarks: a run ends with a report that says that nothing was evaluated."""

from pathlib import Path

import pytest
from perceptune.contracts.config import ModelBlock, ReportBlock
from perceptune.contracts.paths import FIGURES
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.report import write
from perceptune.stages.evaluation import collect, evaluate

from tests.report_pages import write_training

MODEL = ModelBlock(path="model", family="llava")


@pytest.mark.parametrize("policies", [{"tiny": None, "dpo": {}}, {}], ids=["no benchmarks", "no experiments"])
def test_a_run_that_evaluates_nothing_ends_with_a_report(
    policies: dict[str, dict[str, Path] | None], tmp_path: Path
) -> None:
    for policy, base in policies.items():
        evaluate.run(
            policy=policy, base="tiny", rewards={}, base_rewards=base, attention={}, base_attention=base,
            metrics=tmp_path / f"{policy}.parquet", benchmarks={}, reward_tasks={}, model=MODEL,
        )  # fmt: skip
    collect.run(metrics=[tmp_path / f"{policy}.parquet" for policy in policies], collected=tmp_path / "all.parquet")
    assert read_table(tmp_path / "all.parquet", METRICS).num_rows == 0
    training = {}
    if policies:
        training = {"dpo": tmp_path / "training.parquet"}
        write_training(training["dpo"], "dpo")
    write.run(
        metrics=tmp_path / "all.parquet", training=training, statistics={}, pairs={}, rounds={}, noise={},
        predictions={policy: {} for policy in policies}, examples={}, benchmarks={}, base=dict.fromkeys(policies, "tiny"),
        report=tmp_path / "report.html", result_table=tmp_path / "result.txt",
        figures={name: tmp_path / f"{name}.svg" for name in FIGURES}, config=ReportBlock(),
    )  # fmt: skip
    assert (tmp_path / "result.txt").read_text() == "no results: no benchmark was evaluated\n"
    assert ("dpo" in (tmp_path / "report.html").read_text()) == bool(policies)
