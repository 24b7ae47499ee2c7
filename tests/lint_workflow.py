"""Runs `snakemake --lint` and fails on every finding but one.

The linter wants a conda environment or a container for each rule. perceptune's jobs run in the
locked environment that runs Snakemake itself (envs/), so that finding is ignored.
"""

import re
import subprocess
import sys

ACCEPTED = "Specify a conda environment or container for each rule"


def findings() -> list[str]:
    """The remaining findings, each with its rule."""
    run = subprocess.run(["snakemake", "--lint"], capture_output=True, text=True, check=False)
    output = run.stdout + run.stderr
    if "Lints for" not in output and run.returncode == 0:
        return []
    found, place = [], ""
    for line in output.splitlines():
        if line.startswith("Lints for"):
            place = line
        elif re.match(r"\s+\* ", line) and ACCEPTED not in line:
            found.append(f"{place} {line.strip()}")
    if not found and "Lints for" not in output:
        found.append(output)
    return found


if __name__ == "__main__":
    problems = findings()
    print("\n".join(problems) or "snakemake --lint: no findings")
    sys.exit(bool(problems))
