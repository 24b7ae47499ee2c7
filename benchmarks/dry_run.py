"""Planning time and memory of Snakemake: dry runs with many jobs, rows, images.

python benchmarks/dry_run.py
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from before_now import Row, main
from importing import parquet, prepare_lines

PLANS = 4
"""Number of sharded request tables in the demo: training samples, and the benchmarks of three
policies.
"""
CONFIG = """
models:
  tiny: {path: resources/tiny-llava/model, family: llava, dtype: float32, max_model_len: 512}
datasets:
  own: {kind: KIND, path: data.KIND}
samplings:
  n20: {n: 20, max_tokens: 24}
rewards:
  perception: {tasks: {grounding: iou, open: exact_match}}
selections:
  ranked: {list_size: 12, min_margin: 0.3}
trainings:
  dpo: {method: dpo, parameters: {beta: 0.1}, learning_rate: 1.0e-4, lora: {r: 32, alpha: 64}}
benchmarks:
  test: {dataset: own, reward: perception, split: test, n: 8, max_tokens: 24}
experiments:
  dpo: {model: tiny, dataset: own, sampling: n20, reward: perception, selection: ranked, training: dpo, benchmarks: [test]}
"""


def dry_run(folder: Path, shards: int, config: str = "config.yaml") -> Mapping[str, Any]:
    """A dry run in the folder, with this many shards per table of requests."""
    import perceptune

    code = Path(perceptune.__file__).parents[2]
    if not (folder / "resources").exists():
        (folder / "resources").symlink_to(code / "resources")
    command = [Path(sys.executable).with_name("snakemake"), "--snakefile", code / "Snakefile", "--directory", folder]
    command += ["--cores", "2", "--dry-run", "--configfile", code / config, "--set-scatter", f"shard={shards}"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    found = re.search(r"^total +(\d+)$", done.stdout + done.stderr, re.MULTILINE)
    return {"jobs": found[1] if found else 0}


def own(folder: Path, kind: str) -> str:
    """A config for the data in the folder."""
    (folder / "own.yaml").write_text(CONFIG.replace("KIND", kind))
    return str(folder / "own.yaml")


def work_demo(folder: Path, sampling_jobs: int) -> Mapping[str, Any]:
    return dry_run(folder, sampling_jobs // PLANS, "config/config.yaml")


def work_lines(folder: Path, **_: Any) -> Mapping[str, Any]:
    return dry_run(folder, 100, own(folder, "jsonl"))


def work_parquet(folder: Path, images: int) -> Mapping[str, Any]:
    return dry_run(folder, 100, own(folder, "parquet"))


def prepare_again(folder: Path, rows: int, images: int) -> None:
    prepare_lines(folder, rows, images)
    work_lines(folder)


def prepare_imported(folder: Path, rows: int, images: int) -> None:
    """As `prepare_again`, with a table of examples."""
    from perceptune.contracts.tables.examples import EXAMPLES
    from perceptune.contracts.tables.io import write_table

    example = {"task": "grounding", "question": "?", "images": [{"bytes": None, "path": "a.png"}], "target": None}
    example |= {"image_sha256": ["0" * 64], "image_sizes": [[64, 48]], "image_hashes": [bytes(80)], "source": None}
    example |= {"box": [1.0, 2.0, 30.0, 40.0], "reason": None}
    table = [
        {"example_id": f"line-{row}", **example, "split": "test" if row % 20 == 0 else "train"} for row in range(rows)
    ]
    write_table(folder / "results/examples/own.parquet", EXAMPLES, table, {})
    prepare_again(folder, rows, images)


LINES = {"rows": 1_000_000, "images": 50_000}
FEW = {"rows": 100_000, "images": 5_000}
ROWS = [
    *(
        Row(
            "dry run of the demo",
            lambda folder, **_: None,
            work_demo,
            {"sampling_jobs": jobs},
            {"sampling_jobs": max(12, jobs // 10)},
        )
        for jobs in (12, 1000, 10000)
    ),
    Row("first dry run, image files", prepare_lines, work_lines, LINES, FEW, "20 s, 350 MB"),
    Row("second dry run, image files", prepare_again, work_lines, LINES, FEW, "6 s, 350 MB"),
    Row("dry run with a table of examples", prepare_imported, work_lines, LINES, FEW, "6 s, 350 MB"),
    Row(
        "first dry run, images inside a Parquet file",
        parquet,
        work_parquet,
        {"images": 8000},
        {"images": 1500},
        "350 MB",
    ),
]

if __name__ == "__main__":
    main(ROWS)
