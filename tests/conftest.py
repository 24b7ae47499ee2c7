"""How tests share two processes, and a busy machine."""

from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

TESTS = Path(__file__).parent
LONG = ("workflow", "slurm", "parity")
"""Folders of long tests, which start first, so that no process waits for the other at the end."""
FINISHED = {file.name for file in (TESTS / "workflow").glob("test_*.py") if "finished: Workflow" in file.read_text()}
"""Files that share the fixture `finished`, which takes minutes."""

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


class ByFile(LoadScopeScheduling):
    """A file's tests run in one process, since they share fixtures, and so do those of several files with a long one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "finished" if Path(file).name in FINISHED else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(TESTS).parts[0]
        return LONG.index(folder) if folder in LONG else len(LONG)

    items.sort(key=rank)
