"""How tests share two processes, and a busy machine."""

from pathlib import Path

import hypothesis
import pytest

SHARED = ("cluster", "finished")
"""Fixtures that take minutes: one process runs all tests that need one of them."""

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests of a file, or with a shared fixture, stay in one process: `pytest -n 2 --dist loadgroup`."""
    needed = getattr(item, "fixturenames", ())
    place = str(item.path.relative_to(Path(__file__).parent))
    item.add_marker(pytest.mark.xdist_group(next((name for name in SHARED if name in needed), place)))
