"""The papers' configs plan on data laid out as in docs/reproduce.md, and a rehearsal with 20
examples completes.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from perceptune.contracts import paths

from tests.faults.judge_server import serving
from tests.shipped import FOLDER, paper_with_ablations, raw_of

from .conftest import ROOT, Workflow
from .inline import run_jobs
from .stubs import lay_out

pytestmark = pytest.mark.slow

PAPERS = {
    "perpo": ["perpo", "dpo-ocr"],
    "p2dpo": ["p2dpo"],
    "papo": ["papo_g@2"],
    "cppo": ["cppo@2"],
}
"""Maps a paper to the policies that its rehearsal trains."""
BY_SNAKEMAKE = "p2dpo"
"""The paper whose rehearsal Snakemake runs. The jobs of the others run in this process."""
TESTED = {
    "perpo": ["refcoco-val", "llava-bench", "pope"],
    "dpo-ocr": ["fox"],
    "p2dpo": ["amber", "hallusionbench", "mmhal", "textvqa"],
    "papo_g": ["geometry3k", "mathverse-vision", "errors"],
    "cppo": ["we-math", "dynamath"],
}
"""Maps an experiment to its rehearsed benchmarks; not all, because each takes CPU minutes and those
of a paper are alike.
"""


def _config(raw: dict[str, Any]) -> dict[str, Any]:
    """The config without YAML aliases, which share one object."""
    return dict(json.loads(json.dumps(raw)))


@pytest.fixture(params=PAPERS)
def paper(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_everything_is_planned(paper: str, tmp_path: Path) -> None:
    """With the ablations, if the paper has a file of them."""
    config = _config(paper_with_ablations(paper))
    for experiment in config["experiments"].values():
        if "rounds" in experiment:  # hundreds of equal rounds, which take Snakemake minutes
            experiment |= {"rounds": 3, "evaluate_every": 2}
    lay_out(tmp_path, config)
    _lengthen(tmp_path, config)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    planned = Workflow(tmp_path).planned()
    learning = "train_round" if paper in ("papo", "cppo") else "train_adapter"
    assert {"import_examples", "sample_responses", learning, "evaluate_policy", "write_report"} <= planned


def _lengthen(folder: Path, config: dict[str, Any]) -> None:
    """Gives the tiny models as many positions as the config needs of the real ones."""
    for block in config["models"].values():
        file = folder / block["path"] / "config.json"
        settings = json.loads(file.read_text())
        settings.get("text_config", settings)["max_position_embeddings"] = block["max_model_len"]
        file.write_text(json.dumps(settings))


def _small(paper: str, judge: str) -> dict[str, Any]:
    """A paper's config for tiny models on a CPU: short answers, one thread, a judge on this
    machine.
    """
    config = _config(raw_of(FOLDER / f"papers/{paper}.yaml"))
    for block in config["models"].values():
        block.update({"dtype": "float32", "threads": 1, "max_model_len": 1024})
        block.update({"pixels": [784, 12544]} if "pixels" in block else {})
        block["engine"] = {"enforce_eager": True, "max_num_seqs": 64}
    kept = {name: config["experiments"][name.partition("@")[0]] for name in PAPERS[paper]}
    config["experiments"] = {name.partition("@")[0]: block for name, block in kept.items()}
    for name, block in config["experiments"].items():
        block["benchmarks"] = TESTED[name]
    if "diagnostics" in config:
        config["diagnostics"]["experiments"] = list(config["experiments"])
    known = {*config["experiments"], *config["models"]}
    config["comparisons"] = {
        name: block
        for name, block in config.get("comparisons", {}).items()
        if {block.get("experiment"), *block.get("policies", [])} - {None} <= known
        and block.get("benchmark") in (None, *TESTED[next(iter(block.get("policies", [block.get("experiment")])))])
    }
    for section in ("samplings", "rollouts", "benchmarks"):
        for block in config.get(section, {}).values():
            block.update(
                {"max_tokens": 20 if paper == "perpo" else 6, **({"n": min(block["n"], 4)} if "n" in block else {})}
            )
    for pairing in config.get("pair_generations", {}).values():
        for pair in (pairing["focus"], pairing["robust"]):
            for answer in pair.values():
                answer["max_tokens"] = 6
    for section in ("samplings", "benchmarks"):
        for block in config.get(section, {}).values():
            if "bounding box" in block.get("prompt", ""):
                block["prompt"] = "locate the {question}."  # a prompt that the bundled model knows
    for block in config.get("attention_maps", {}).values():
        block["layers"] = [1, 1]  # of two
    for block in config["trainings"].values():
        block.update({"batch_size": 4, "epochs": 1, "gradient_checkpointing": False})
        block.update({"limits": {}} if "limits" in block else {})
    for block in config.get("judges", {}).values():
        block["url"] = judge
    for block in config["benchmarks"].values():
        block["resamples"] = 99
    return config


@pytest.mark.extended
def test_twenty_examples_go_the_whole_way(paper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("OPENAI_API_KEY", "DASHSCOPE_API_KEY"):
        monkeypatch.setenv(key, "key-of-a-test")
    with serving() as server:
        server.say = lambda body, number: "8 7\nRating: 4, correct"  # every benchmark's parser finds a verdict
        config = _small(paper, server.url)
        if paper == "perpo":  # random-weight models write no boxes, and lists of equal rewards are dropped
            shutil.copytree(ROOT / "resources/tiny-llava/model", tmp_path / config["models"]["llava-1.5-7b"]["path"])
        lay_out(tmp_path, config, count=20)
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        if paper == BY_SNAKEMAKE:
            targets = [f"rehearsal/metrics/{policy}.parquet" for policy in PAPERS[paper]]
            Workflow(tmp_path).run("--config", "rehearse=20", "--", *targets, "rehearsal/report.html")
        else:
            targets = [paths.METRICS.format(policy=policy) for policy in PAPERS[paper]]
            run_jobs(tmp_path, [*targets, paths.REPORT], rehearse=20)
    for policy in PAPERS[paper]:
        metrics = pl.read_parquet(tmp_path / f"rehearsal/metrics/{policy}.parquet")
        asked = set(config["experiments"][policy.partition("@")[0]]["benchmarks"])
        assert set(metrics["benchmark"]) == asked
        assert metrics.filter(condition="greedy")["base_value"].is_not_null().any()
        tested = metrics.filter(pl.col("value").is_not_null())
        assert set(tested["benchmark"]) == asked
    assert not any(b"key-of-a-test" in file.read_bytes() for file in _files(tmp_path))
    assert {path.name for path in (tmp_path / "results").iterdir()} <= {
        "examples",
        ".judged",
    }  # those of a full run are untouched
    assert server.told > 0 or "judges" not in config
    assert os.environ["OPENAI_API_KEY"] == "key-of-a-test"


def _files(folder: Path) -> list[Path]:
    return [
        file
        for part in ("results", "rehearsal", "logs", ".snakemake")
        for file in (folder / part).rglob("*")
        if file.is_file()
    ]
