"""The `controls` switch on the command line: the jobs that it adds to a small demo, and the
report's texts.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from perceptune.contracts.tables.controls import CONTROLS
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.contracts.tables.table import Table
from perceptune.planning.graph import reruns

from .conftest import ROOT, Workflow, named
from .inline import run_jobs

pytestmark = pytest.mark.slow

TWIN = "sft-on-best-n20-ranked"
POLICIES = ("tiny", "perpo", TWIN)


def small(**controls: Any) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config["models"]["tiny"]["threads"] = 1
    config["datasets"]["shapes"] |= {"train": {"grounding": 40}, "test": {"grounding": 30}}
    config["samplings"]["n20"]["n"] = 6
    config["selections"]["ranked"] |= {"list_size": 4, "min_margin": 0.1}
    config["benchmarks"]["shapes-test"] |= {"n": 0, "resamples": 499}
    del config["experiments"]["dpo"]
    return {**config, "controls": controls}


def rows(path: Path, kind: Table) -> list[dict[str, Any]]:
    return [dict(row) for row in read_table(path, kind).to_pylist()]


def test_the_switch_adds_the_controls_and_the_report_says_what_they_explain(workflow: Workflow) -> None:
    (workflow.folder / "config.yaml").write_text(yaml.safe_dump(small(n=2, sigmas=[0.2]), sort_keys=False))
    run_jobs(workflow.folder)
    results = workflow.folder / "results"
    asked = {
        policy: set(pq.read_table(results / f"requests/{policy}/benchmarks.parquet")["condition"].to_pylist())
        for policy in POLICIES
    }
    assert asked["tiny"] == {"greedy", "sampled", "prompt-1", "prompt-2", "prompt-3"}
    assert asked["perpo"] == asked[TWIN] == {"greedy", "sampled"}
    metrics = {
        (r["policy"], r["view"], r["condition"], r["k"]): r
        for r in rows(results / "metrics.parquet", METRICS)
        if r["metric"] == "accuracy_iou_0.5"
    }
    assert {view for _, view, *_ in metrics} == {"original", "blank", "noise-0.2"}
    held = {(r["control"], r["k"]): r for r in rows(results / "controls/perpo.parquet", CONTROLS)}
    assert set(held) == {*(("prompt", k) for k in range(4)), ("blank", 1), ("mean_of_n", 2), ("sft_on_best", 1)}
    ours = metrics["perpo", "original", "greedy", 1]
    same = held["prompt", 0]
    assert same["difference"] == pytest.approx(ours["gain"])
    assert (same["ci_low"], same["ci_high"]) == pytest.approx((ours["gain_ci_low"], ours["gain_ci_high"]))
    assert held["prompt", 2]["control_value"] == pytest.approx(metrics["tiny", "original", "prompt", 2]["value"])
    assert held["mean_of_n", 2]["control_value"] == pytest.approx(metrics["tiny", "original", "mean_of_n", 2]["value"])
    assert held["sft_on_best", 1]["control_value"] == pytest.approx(metrics[TWIN, "original", "greedy", 1]["value"])
    assert held["blank", 1]["control_value"] == pytest.approx(metrics["perpo", "blank", "greedy", 1]["gain"])
    text = (results / "result.txt").read_text()
    assert "controls: gain in " in text
    page = (results / "report.html").read_text()
    assert '<section id="controls">' in page
    asking = [sys.executable, "-m", "perceptune", "explain", "--policy", "perpo", "--control", "sft_on_best"]
    told = subprocess.run(asking, cwd=workflow.folder, capture_output=True, text=True, check=True).stdout
    assert (
        f"sft_on_best 1 of {TWIN} accuracy_iou_0.5" in told
        and f"difference {held['sft_on_best', 1]['difference']:.4f} [" in told
    )
    assert f"results/adapters/{TWIN}/adapter_model.safetensors" in told and "images: " in told


def test_an_edit_of_the_switch_reruns_what_it_concerns(workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workflow.folder)
    (workflow.folder / "config.yaml").write_text(yaml.safe_dump(small(n=2, sigmas=[0.2]), sort_keys=False))
    before = workflow.graph()
    fewer = named(reruns(before, workflow.graph(workflow.edited("controls.prompts", ["Well? {question}"]))))
    assert {job for job in fewer if "benchmarks" in job[1] or job[0].startswith("plan")} == {
        ("plan_benchmarks", "tiny"),
        *((rule, "tiny benchmarks") for rule in ("sample_responses", "gather_responses", "score_responses")),
    }
    without = named(workflow.graph(workflow.edited("controls", None)))
    assert not {job for job in without if TWIN in job[1] or job[0] == "compare_controls"}
    assert any(TWIN in job[1] for job in named(before))
