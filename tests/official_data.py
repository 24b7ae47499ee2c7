"""Official files of benchmarks, which are not ours to ship: tests read them from `../shared/data`, beside the checkout."""

import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "shared" / "data"
REQUIRED = "PERCEPTUNE_REQUIRE_DATA"
"""Environment variable under which a missing file fails the test, as in CI, where the folder is there."""


def official(name: str) -> Path:
    """The official file or folder `name`. The test is skipped where it is missing, or fails if it must be there."""
    path = FOLDER / name
    if not path.exists():
        reason = f"no official data at {path}"
        if os.environ.get(REQUIRED):
            pytest.fail(f"{reason}, and {REQUIRED} is set")
        pytest.skip(reason)
    return path
