"""How tests share two processes, and a busy machine."""

from pathlib import Path

import hypothesis
import pytest

TOGETHER = ("slurm", "workflow")
"""Folders whose tests share long fixtures, so that one process runs them all."""

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a file, or of such a folder, stay in one process: `pytest -n 2 --dist loadgroup`."""
    tests = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(tests)
        item.add_marker(pytest.mark.xdist_group(place.parts[0] if place.parts[0] in TOGETHER else str(place)))
