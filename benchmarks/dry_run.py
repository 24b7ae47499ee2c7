"""Planning time of Snakemake: dry runs of the demo with 10 to 10,000 sampling jobs.

python benchmarks/dry_run.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLANS = 4
"""Number of sharded request tables in the demo: training samples, and the benchmarks of three
policies.
"""


def dry_run(folder: Path, shards: int) -> tuple[float, int]:
    """(seconds, sampling jobs) of a dry run with this many shards per table."""
    command = [
        "snakemake",
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--directory",
        str(folder),
        "--cores",
        "2",
        "--dry-run",
    ]
    command += ["--configfile", str(ROOT / "config/config.yaml"), "--set-scatter", f"shard={shards}"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    since = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    seconds = time.perf_counter() - since
    found = re.search(r"^sample_responses +(\d+)$", done.stdout + done.stderr, re.MULTILINE)
    return seconds, int(found[1]) if found else 0


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "resources").symlink_to(ROOT / "resources")
        first = None
        for jobs in (12, 100, 1000, 10000):
            seconds, found = dry_run(folder, jobs // PLANS)
            first = first or seconds
            print(f"{found:>6} sampling jobs: {seconds:5.1f} s, {seconds / first:.1f} times the first", flush=True)


if __name__ == "__main__":
    main()
