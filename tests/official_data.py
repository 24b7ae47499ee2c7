"""Official benchmark files, which perceptune may not redistribute: tests read them from
`shared/data` next to the checkout.
"""

import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "shared" / "data"
REQUIRED = "PERCEPTUNE_REQUIRE_DATA"
"""Environment variable that makes a missing file fail the test, as in CI, where the folder exists.
"""


def official(name: str) -> Path:
    """The official file or folder `name`. If it is missing, the test is skipped, or fails if
    `REQUIRED` is set.
    """
    path = FOLDER / name
    if not path.exists():
        reason = f"no official data at {path}"
        if os.environ.get(REQUIRED):
            pytest.fail(f"{reason}, and {REQUIRED} is set")
        pytest.skip(reason)
    return path
