"""Kills Snakemake and its jobs at random moments, and compares the results with an uninterrupted
run.

    python -m tests.workflow.chaos [--kills 50] [--seed 0] [--folder /tmp/chaos]

SIGKILL only: nothing gets a chance to clean up. Ends with status 1 if any table, adapter or result
differs in any row.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).parents[2]
VOLATILE = ("tokens_per_second", "data_wait_seconds")
"""Time-dependent metrics of the training table."""


@dataclass
class Outcome:
    """The kills, their cost, and the differences from the undisturbed run."""

    kills: list[tuple[str, str, float]] = field(default_factory=list)
    """(killed process, running rules, seconds into the run) of each kill."""
    runs: int = 0
    chains: int = 1
    """Number of complete runs of the chain."""
    seconds: float = 0.0
    reference_seconds: float = 0.0
    starts: Counter[str] = field(default_factory=Counter)
    reference_starts: Counter[str] = field(default_factory=Counter)
    lost_answers: int = 0
    """Answers that were committed before a kill and missing after it."""
    compared: int = 0
    differences: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The report as text."""
        killed = Counter(what for what, _, _ in self.kills)
        during = Counter(rule for _, rules, _ in self.kills for rule in rules.split("+"))
        redone = {
            rule: count - self.chains * self.reference_starts[rule] for rule, count in sorted(self.starts.items())
        }
        lines = [
            f"{len(self.kills)} kills in {self.runs} runs of {self.chains} chains: {', '.join(f'{n} of {what}' for what, n in sorted(killed.items()))}",
            f"running at the time: {', '.join(f'{rule} {n}' for rule, n in sorted(during.items()))}",
            f"job starts beyond those of as many uninterrupted chains: {', '.join(f'{r} {n}' for r, n in redone.items() if n)}",
            f"seconds: {self.seconds:.0f}, as many uninterrupted {self.chains * self.reference_seconds:.0f}",
            f"committed answers lost: {self.lost_answers}",
            f"{self.compared} tables, adapters and results compared, {len(self.differences)} differ",
        ]
        return "\n".join([*lines, *(f"  {difference}" for difference in self.differences)])


def small_config(questions: int, tests: int, part: int) -> dict[str, Any]:
    """The demo's chain with fewer questions, small shards and a checkpoint every other step."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config["models"]["tiny"]["engine"]["answers_per_part"] = part
    config["models"]["tiny"]["threads"] = 1  # two jobs at once
    config["datasets"]["shapes"] |= {"train": {"grounding": questions}, "test": {"grounding": tests}}
    config["samplings"]["n20"]["n"] = 8
    config["selections"]["ranked"] |= {"list_size": 4, "min_margin": 0.1}
    for training in config["trainings"].values():
        training |= {
            "batch_size": 4,
            "micro_batch_size": 4,
            "save_steps": 2,
            "lora": {**training["lora"], "dropout": 0.1},
        }
    config["benchmarks"]["shapes-test"] |= {"n": 4, "resamples": 99}
    return config


def chaos(folder: Path, config: dict[str, Any], kills: int, seed: int, longest: float = 25.0) -> Outcome:
    """Runs the workflow in `folder`/calm undisturbed and in `folder`/chaos with this many kills,
    and compares the results.

    A kill comes after at most `longest` seconds, usually early: it should hit the start of an
    engine, but sometimes leave time for progress.
    """
    chance, outcome = random.Random(seed), Outcome()
    calm, wild = (_prepared(folder / name, config) for name in ("calm", "chaos"))
    begun = time.monotonic()
    _finish(calm, outcome.reference_starts)
    outcome.reference_seconds = time.monotonic() - begun
    begun, committed = time.monotonic(), Counter[Path]()
    while len(outcome.kills) < kills:
        outcome.runs += 1
        process, output = _started(wild)
        while process.poll() is None and len(outcome.kills) < kills:
            wait = longest * chance.random() ** 2
            kind = chance.choice(("snakemake", "job"))
            since = time.monotonic()
            if not _kill(process, wait, kind, outcome, since):
                continue
            found = _committed(wild)
            outcome.lost_answers += sum(max(committed[j] - found[j], 0) for j in found)  # a gathered journal is gone
            committed = found
            if kind == "snakemake":
                break
        if process.poll() is None and len(outcome.kills) >= kills:
            process.wait()
        process.wait()
        outcome.starts += _starts(output)
        if process.returncode == 0 and len(outcome.kills) < kills:
            # finished before enough kills: start over
            compare(calm, wild, outcome)
            outcome.chains += 1
            shutil.rmtree(wild / "results")
            committed = Counter()
    _finish(wild, outcome.starts)
    outcome.seconds = time.monotonic() - begun
    compare(calm, wild, outcome)
    return outcome


def _prepared(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "resources").symlink_to(ROOT / "resources")
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


def _command(folder: Path, *arguments: str) -> list[str]:
    places = [
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--directory",
        str(folder),
        "--configfile",
        str(folder / "config.yaml"),
    ]
    return ["snakemake", *places, "--cores", "2", *arguments]


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def _started(folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Starts a run after removing the lock of a killed one, as a user would."""
    subprocess.run(_command(folder, "--unlock"), cwd=ROOT, env=_environment(), capture_output=True, check=True)
    output = folder / f"run-{time.monotonic_ns()}.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            _command(folder), stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=_environment()
        )
    return process, output


def _finish(folder: Path, starts: Counter[str]) -> None:
    process, output = _started(folder)
    if process.wait():
        raise AssertionError(output.read_text()[-5000:])
    starts += _starts(output)


def _starts(output: Path) -> Counter[str]:
    return Counter(re.findall(r"^(?:local)?rule (\w+):", output.read_text(), re.MULTILINE)) - Counter(["all"])


def _jobs(snakemake: subprocess.Popen[bytes]) -> dict[str, psutil.Process]:
    """Maps a rule name to the process of its running job."""
    found = {}
    try:
        children = psutil.Process(snakemake.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return {}
    for child in children:
        try:
            command = " ".join(child.cmdline()[:2])
        except psutil.Error:
            continue
        if job := re.match(r"perceptune (\w+)", command):
            found[job[1]] = child
    return found


def _kill(snakemake: subprocess.Popen[bytes], wait: float, kind: str, outcome: Outcome, since: float) -> bool:
    """Waits, then kills Snakemake or one of its jobs; False if nothing was left to kill."""
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline and snakemake.poll() is None:
        time.sleep(0.02)
    deadline = time.monotonic() + 20
    while snakemake.poll() is None and time.monotonic() < deadline:
        jobs = _jobs(snakemake)
        if jobs:
            rule = min(jobs)
            try:
                (snakemake if kind == "snakemake" else jobs[rule]).send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
            outcome.kills.append((kind, "+".join(sorted(jobs)), time.monotonic() - since))
            return True
        time.sleep(0.02)
    return False


def _committed(folder: Path) -> Counter[Path]:
    """Maps a journal to its current number of answers."""
    found = Counter[Path]()
    for path in (folder / "results/.partial").glob("journal/**/*.parquet"):
        if not path.name.startswith("."):
            found[path.parent] += pq.read_metadata(path).num_rows
    return found


def compare(calm: Path, wild: Path, outcome: Outcome) -> None:
    """Adds the differences between the results of two folders to `outcome`."""
    for ours, theirs in _pairs(calm, wild):
        outcome.compared += 1
        name = ours.relative_to(calm)
        if not theirs.exists():
            outcome.differences.append(f"{name} is missing")
        elif ours.suffix != ".parquet":
            if ours.read_bytes() != theirs.read_bytes():
                outcome.differences.append(f"{name} differs")
        else:
            a, b = (_rows(path) for path in (ours, theirs))
            if not a.equals(b):
                unequal = sum(x != y for x, y in zip(a.iter_rows(), b.iter_rows(), strict=False))
                outcome.differences.append(f"{name}: {unequal} of {a.height} rows differ ({b.height} found)")


def _pairs(calm: Path, wild: Path) -> Iterator[tuple[Path, Path]]:
    for ours in sorted((calm / "results").rglob("*")):
        wanted = ours.suffix in (".parquet", ".safetensors", ".txt", ".jsonl", ".png")
        if wanted and ".partial" not in ours.parts:
            yield ours, wild / ours.relative_to(calm)


def _rows(path: Path) -> pl.DataFrame:
    """The rows without image paths and times; everything else must be equal."""
    table = pl.read_parquet(path)
    return table.filter(~pl.col("metric").is_in(VOLATILE)) if "metric" in table.columns else table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perceptune-chaos-") as temporary:
        folder = settings.folder or Path(temporary)
        outcome = chaos(folder, small_config(questions=96, tests=32, part=96), settings.kills, settings.seed)
    print(outcome.text())
    return int(bool(outcome.differences or outcome.lost_answers))


if __name__ == "__main__":
    sys.exit(main())
