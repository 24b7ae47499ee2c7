"""Overhead of a round beyond generation and forward and backward passes: the second round of a real
workflow run.

    python benchmarks/rounds.py [--questions 256] [--n 8] [--method grpo] [--tokens 128]

Runs the workflow up to the end of round 1, and then measures the run of round 2: Snakemake's start,
planning, starting the engine with the merged adapter, sampling, scoring, batch selection, stored
log-probs and training. The bundled model's answers have 6 tokens; with `--tokens`, a random-weight
model answers, mostly up to that limit. The time of generation and passes comes from the jobs' logs,
to the second; everything else is overhead. The time of each job comes from Snakemake.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import yaml
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.responses import RESPONSES

from tests.tiny_models import build_tiny_llava

ROOT = Path(__file__).parents[1]
WORK = {"sampling": "generation", "log-probabilities": "forward passes of terms", "training": "steps of training"}
"""Maps a progress label in the jobs' logs to the kind of work."""


def config(questions: int, n: int, method: str, tokens: int | None) -> dict[str, Any]:
    """The demo's config with one experiment of two rounds."""
    task = "grounding"
    made: dict[str, Any] = yaml.safe_load((ROOT / "config/demo-rounds.yaml").read_text())
    made["datasets"] = {"shapes-rounds": {"kind": "shapes", "train": {task: 2 * questions}, "test": {task: 8}}}
    made["rollouts"]["g8"] |= {"questions": questions, "n": n}
    if tokens is not None:
        made["models"]["tiny"] |= {"path": "random", "max_model_len": 512 + tokens}
        made["rollouts"]["g8"]["max_tokens"] = tokens
    made["models"]["tiny"]["threads"] = 16  # one job at a time here
    made["benchmarks"]["shapes-rounds-test"] |= {"n": 0, "views": ["original"]}
    for training in made["trainings"].values():
        training |= {"batch_size": questions // 4, "limits": {}}
    experiment = {**made["experiments"]["grpo"], "training": method, "rounds": 2, "evaluate_every": 2}
    made["experiments"] = {method: experiment}
    return made


def snakemake(folder: Path, target: str) -> float:
    """Run Snakemake for a target; returns the seconds that it took."""
    places = [
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--directory",
        str(folder),
        "--configfile",
        str(folder / "config.yaml"),
    ]
    command = [
        str(Path(sys.executable).with_name("snakemake")),
        *places,
        "--cores",
        "all",
        "--quiet",
        "all",
        "--",
        target,
    ]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    since = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit((done.stdout + done.stderr)[-3000:])
    return time.perf_counter() - since


def worked(folder: Path, policy: str, before: str) -> dict[str, float]:
    """Seconds per kind of work in the round that trained `policy`."""
    seconds = dict.fromkeys(WORK.values(), 0.0)
    for log in (folder / "logs").rglob("*.log"):
        of_round = before in log.parts or (log.parent.name == "training" and log.name.startswith(policy))
        if not of_round or "benchmarks" in str(log.relative_to(folder / "logs")):
            continue
        for name, kind in WORK.items():
            for line in re.findall(rf"^{name}: (.*)$", log.read_text(errors="replace"), re.MULTILINE):
                ended = re.search(r"a second, (?:(\d+) h )?(?:(\d+) min )?(?:(\d+) s)?$", line)
                if ended:
                    hours, minutes, rest = (int(part or 0) for part in ended.groups())
                    seconds[kind] += 3600 * hours + 60 * minutes + rest
    return seconds


def jobs(folder: Path, policy: str, before: str) -> dict[str, float]:
    """Seconds per job, as measured by Snakemake."""
    found = {}
    for table in (folder / "logs/benchmarks").rglob("*.tsv"):
        parts = table.relative_to(folder / "logs/benchmarks").parts
        if (before in parts and "benchmarks" not in "/".join(parts)) or table.name.startswith(f"{policy}.parquet"):
            kind = parts[1] if parts[0] == ".partial" else parts[0]
            found[kind] = float(table.read_text().splitlines()[-1].split("\t")[0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=256)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--method", choices=("grpo", "papo_g", "cppo"), default="grpo")
    parser.add_argument("--tokens", type=int)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perceptune-rounds-") as temporary:
        folder = Path(temporary)
        (folder / "resources").symlink_to(ROOT / "resources")
        made = config(settings.questions, settings.n, settings.method, settings.tokens)
        if settings.tokens is not None:
            build_tiny_llava(folder / "random", 0)
        (folder / "config.yaml").write_text(yaml.safe_dump(made, sort_keys=False))
        before, policy = f"{settings.method}@1", f"{settings.method}@2"
        snakemake(folder, f"results/adapters/{before}/adapter_model.safetensors")
        total = snakemake(folder, f"results/adapters/{policy}/adapter_model.safetensors")
        work, took = worked(folder, policy, before), jobs(folder, policy, before)
        answers = read_table(folder / f"results/responses/{before}/shapes-rounds/g8.parquet", RESPONSES)
        length = sum(map(len, answers["token_ids"].to_pylist())) / answers.num_rows
    responses = settings.questions * settings.n
    print(
        f"{settings.method}, {responses:,} responses of {length:.0f} tokens on average: the round takes {total:.0f} s"
    )
    for kind, seconds in work.items():
        print(f"  {kind}: {seconds:.0f} s, {seconds / total:.1%}")
    print(f"  everything else: {total - sum(work.values()):.0f} s, {1 - sum(work.values()) / total:.1%}")
    start = took.get("responses", 0) - work["generation"]
    print(f"  of which the sampling job excluding generation (engine start, merge): {start:.0f} s, {start / total:.1%}")
    print("  jobs: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in took.items()))


if __name__ == "__main__":
    main()
