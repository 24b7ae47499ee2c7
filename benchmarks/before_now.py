"""Measures the same work with the code of an earlier commit and with this checkout.

A benchmark script declares its rows and ends in `main(ROWS)`:

    python benchmarks/scoring.py                  # both, as a table of Markdown
    python benchmarks/scoring.py --quick          # a tenth of the size or less
    python benchmarks/scoring.py --before none    # this checkout only
    python benchmarks/scoring.py --only iou       # rows whose name contains `iou`

Each version prepares its own inputs and works in a process of its own, so that tables may change
their columns between commits, and peak memory is that of the work alone. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BASELINE = "64c452b"
"""The last commit before the work on scale."""


@dataclass(frozen=True)
class Row:
    """One row of the table.

    `prepare(folder, **size)` writes what `work(folder, **size)` reads; only the latter is measured.
    It may return facts to print, such as how many answers were kept.
    """

    name: str
    prepare: Callable[..., object]
    work: Callable[..., Mapping[str, Any] | None]
    size: Mapping[str, Any]
    quick: Mapping[str, Any]
    target: str = ""
    before: bool = True
    """Whether the earlier commit can do this work at all."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """Seconds of wall time, and peak memory of the largest process in MB."""

    seconds: float
    peak: float
    facts: Mapping[str, Any]


def main(rows: Sequence[Row]) -> None:
    """The command line of a script with these rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--before", default=BASELINE, help="commit to compare with, or `none`")
    parser.add_argument("--only", default="", help="part of the rows' names")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        _step(rows, *options.step)
        return
    print("| work | before | now | ratio | target |\n|---|---|---|---|---|", flush=True)
    with _checkout(options.before) as before:
        for row in rows:
            if options.only not in row.name:
                continue
            size = row.quick if options.quick else row.size
            old = _measured(before, row, size) if before is not None and row.before else None
            new = _measured(ROOT, row, size)
            ratio = f"{old.seconds / new.seconds:.1f} times as long" if old else ""
            sized = ", ".join(f"{name} {value:,}" if isinstance(value, int) else value for name, value in size.items())
            print(f"| {row.name} ({sized}) | {_cell(old)} | {_cell(new)} | {ratio} | {row.target} |", flush=True)


def _cell(measured: Measured | None) -> str:
    if measured is None:
        return ""
    facts = "".join(f", {name} {value}" for name, value in measured.facts.items())
    return f"{measured.seconds:.1f} s, {measured.peak:,.0f} MB{facts}"


@contextmanager
def _checkout(commit: str) -> Iterator[Path | None]:
    """A worktree of the commit, without its history."""
    if commit == "none":
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "before"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", tree, commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True)


def _measured(code: Path, row: Row, size: Mapping[str, Any]) -> Measured:
    """The row's work with the code of a checkout."""
    environment = {**os.environ, **row.environment, "PYTHONPATH": os.pathsep.join([str(code / "workflow"), str(code)])}
    script = str(Path(sys.argv[0]).resolve())
    with tempfile.TemporaryDirectory() as folder:
        for step in ("prepare", "work"):
            command = [sys.executable, script, "--step", step, row.name, json.dumps([folder, size])]
            done = subprocess.run(command, check=False, env=environment, stdout=subprocess.PIPE, text=True, cwd=folder)
            if done.returncode:
                raise SystemExit(f"{row.name}: {step} failed with the code in {code}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _step(rows: Sequence[Row], step: str, name: str, arguments: str) -> None:
    """In a process of its own: prepares or measures."""
    folder, size = json.loads(arguments)
    row = next(row for row in rows if row.name == name)
    if step == "prepare":
        row.prepare(Path(folder), **size)
        return
    since = time.perf_counter()
    facts = row.work(Path(folder), **size) or {}
    seconds = time.perf_counter() - since
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"seconds": seconds, "peak": max(peaks) / 1024, "facts": facts}))
