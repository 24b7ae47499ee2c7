"""How tests are distributed over processes, and when to stop within CI's time limit."""

import time
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.browser import opened, tab  # noqa: F401 - fixtures of all tests in the browser

TESTS = Path(__file__).parent
LONG = ("slurm", "workflow", "parity")
"""Folders of long tests, which start first so that no process idles at the end."""
FINISHED = {file.name for file in (TESTS / "workflow").glob("test_*.py") if "finished: Workflow" in file.read_text()}
"""Files that share the fixture `finished`, which takes minutes."""

STOP_AT = pytest.StashKey[float]()
"""Unix time after which no test starts."""

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--deadline",
        type=float,
        metavar="SECONDS",
        help="start no test after this many seconds: running tests finish, the others are skipped",
    )


def pytest_configure(config: pytest.Config) -> None:
    seconds = config.getoption("deadline")
    here = float("inf") if seconds is None else time.time() + seconds
    config.stash[STOP_AT] = getattr(config, "workerinput", {}).get("stop_at", here)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give all xdist workers the same deadline."""
    node.workerinput["stop_at"] = node.config.stash[STOP_AT]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.time() > item.config.stash[STOP_AT]:
        pytest.skip("no time left before --deadline")


class ByFile(LoadScopeScheduling):
    """Run a file's tests in one process, because they share fixtures; so do files that share a long
    fixture.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "finished" if Path(file).name in FINISHED else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(TESTS).parts[0]
        return LONG.index(folder) if folder in LONG else len(LONG)

    items.sort(key=rank)
