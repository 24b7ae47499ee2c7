"""Worker processes compute results ahead of their use, in order, and survive being killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import ENVIRONMENT, place_in_plugin
from perceptune.runtime.ahead import AHEAD, QUEUED, Workers

COUNT = 40


def doubling() -> Callable[[int], tuple[int, int]]:
    return doubled


def doubled(item: int) -> tuple[int, int]:
    """The double, and the process that computed it; odd numbers take longer."""
    time.sleep(0.01 * (item % 2))
    return 2 * item, os.getpid()


def dying() -> Callable[[tuple[Path, int]], int]:
    return dies_once


def dies_once(item: tuple[Path, int]) -> int:
    """Kills its process at item 7, as often as the file has letters."""
    lives, number = item
    if number == 7 and (left := lives.read_text()):
        lives.write_text(left[1:])
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def failing() -> Callable[[int], int]:
    return fails


def fails(item: int) -> int:
    raise ValueError(f"item {item}")


@pytest.mark.parametrize("workers", [0, 2])
def test_results_are_in_the_order_of_the_items(workers: int) -> None:
    results: list[tuple[int, int]] = []
    with Workers(doubling, workers) as pool:
        for found in pool.results(range(100 * COUNT)):
            results.append(found)
            # a busy machine may start the second process late
            if len(results) >= COUNT and len({process for _, process in results}) == max(workers, 1):
                break
        again = [value for value, _ in pool.results(range(5))]
    assert [value for value, _ in results] == [2 * item for item in range(len(results))]
    assert again == [0, 2, 4, 6, 8]
    processes = {process for _, process in results}
    assert processes == {os.getpid()} if workers == 0 else os.getpid() not in processes and len(processes) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_the_queue_is_bounded(workers: int) -> None:
    read = []

    def items() -> Iterator[int]:
        for item in range(100):
            read.append(item)
            yield item

    with Workers(doubling, workers) as pool:
        results = pool.results(items())
        next(results)
        results.ready()  # also reads ahead
        assert len(read) <= 1 + max(workers * AHEAD, 1)


def test_ready_does_not_wait() -> None:
    with Workers(doubling, 1) as pool:
        results = pool.results([1])
        assert not results.ready()  # the process is only being started
        assert next(results)[0] == 2
        assert results.ready()  # the end would not be waited for either
        assert next(results, None) is None


def test_errors_are_raised_where_the_result_is_used() -> None:
    with Workers(failing, 1) as pool, pytest.raises(ValueError, match="item 3"):
        next(pool.results([3]))


def in_plugin(file: Path) -> Callable[[int], object]:
    """A function of a plug-in of the user."""
    os.environ[ENVIRONMENT] = str(file.parent)  # the server that forks workers may be older than the test
    found: dict[str, Any] = {}
    exec(compile(file.read_text(), str(file), "exec"), found)
    function: Callable[[int], object] = found["apply"]
    return function


@pytest.mark.parametrize("workers", [0, 1])
def test_the_line_of_a_plugin_is_known_of_an_error_in_a_worker(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with a GPU, views run in workers."""
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    file = tmp_path / "mine.py"
    file.write_text("def apply(item):\n    return item.sise\n")
    with Workers(partial(in_plugin, file), workers) as pool, pytest.raises(AttributeError) as caught:
        next(pool.results([3]))
    what = "AttributeError: 'int' object has no attribute 'sise'"
    assert place_in_plugin(caught.value) == f"`{file}`, line 2, in `apply`: {what}"


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_killed_worker_is_replaced_and_nothing_is_lost(
    tmp_path: Path, deaths: int, capsys: pytest.CaptureFixture[str]
) -> None:
    lives = tmp_path / "lives"
    lives.write_text("x" * deaths)
    with Workers(dying, 2) as pool:
        assert list(pool.results((lives, number) for number in range(COUNT))) == list(range(COUNT))
    assert capsys.readouterr().err.count("a process that prepares images has died") == deaths


def test_workers_that_always_die_are_an_error(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    lives.write_text("x" * 10)
    with Workers(dying, 2) as pool, pytest.raises(UserError, match="were killed 3 times in a row"):
        list(pool.results((lives, number) for number in range(COUNT)))


PARENT = """
import sys, time
from tests.unit.test_ahead import doubling
from perceptune.runtime.ahead import Workers
if __name__ == "__main__":
    pool = Workers(doubling, 2)
    print(*{process for _, process in pool.results(range(40))}, flush=True)
    time.sleep(100)
"""


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "workflow")])}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        processes = [psutil.Process(int(number)) for number in parent.stdout.readline().split()]
        assert len(processes) == 2
        started = [*psutil.Process(parent.pid).children(recursive=True)]  # also the server that forks them
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs([*processes, *started], timeout=20)
        assert not alive


def test_the_queue_is_longer_for_a_step_unless_results_are_large() -> None:
    with Workers(doubling, 2) as pool:
        assert pool.room(0, 0) == pool.room(100, 0) == 2 * AHEAD  # no size is known
        assert pool.room(100, 1000) == 100
        assert pool.room(3, 1000) == 2 * AHEAD
        assert pool.room(100, QUEUED // 5) == 5
        assert pool.room(100, 2 * QUEUED) == 2  # each process has something to do
    assert Workers(doubling, 0).room(100, 0) == 1
