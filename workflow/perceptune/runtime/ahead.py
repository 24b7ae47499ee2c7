"""Worker processes that compute results ahead of their use, in a bounded queue."""

from __future__ import annotations

import ctypes
import fcntl
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import keep_place
from perceptune.runtime.imports import large_imports

if TYPE_CHECKING:
    from perceptune.contracts.config import ModelBlock

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4
"""Items in the queue per worker."""
QUEUED = 2**30
"""Bytes of results in the queue, as far as the largest one so far tells. Each worker has an item anyway."""
ATTEMPTS = 3
"""Times that workers may die while they compute the same item."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`."""


def workers_of(model: ModelBlock, processes: int = 1) -> int:
    """How many workers each of the `processes` processes of a job with this model has."""
    if model.workers is None:
        with large_imports():  # takes seconds, and not every job asks
            import torch

        if not torch.cuda.is_available():
            return 0
    cores = min(model.threads, len(os.sched_getaffinity(0)))
    return model.workers_beside(cores // processes)


class Workers(Generic[Item, Result]):
    """Processes that apply one function. Use it as a context manager.

    `make` is pickled and called once in every process; it returns the function. The processes import
    the modules of `preload` once, together. They end with this process, however it ends. With 0
    workers, the function runs in this process, when its result is needed. Each worker has one thread.
    """

    def __init__(self, make: Callable[[], Callable[[Item], Result]], workers: int, preload: Sequence[str] = ()) -> None:
        self._make, self._workers = make, workers
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, *preload, *_main_module()])
        self._function: Callable[[Item], Result] | None = None
        self._pool = self._started() if workers else None

    def __enter__(self) -> Workers[Item, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def results(self, items: Iterable[Item], least: int = 0) -> Results[Item, Result]:
        """The results in the order of the items, which are read as far ahead as the queue allows: a few
        per worker, and at least `least` if they are small enough."""
        return Results(self, iter(items), least)

    def room(self, least: int, largest: int) -> int:
        """The most items in the queue. `largest` is the size of the largest result so far in bytes, 0
        if unknown."""
        if not self._workers:
            return 1
        if not largest:
            return self._workers * AHEAD
        return max(self._workers, min(max(self._workers * AHEAD, least), QUEUED // largest))

    def submitted(self, item: Item) -> Future[bytes]:
        """The pickled result of an item, computed by a worker, or here without workers."""
        if self._pool is not None:
            return self._pool.submit(_computed, item)
        if self._function is None:
            self._function = self._make()
        done: Future[Any] = Future()
        done.set_result(self._function(item))
        return done

    def restarted(self) -> None:
        """Replaces the processes after one of them has died."""
        self.__exit__()
        self._pool = self._started()

    def _started(self) -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(self._workers, self._context, _prepare, (self._make,))
        with suppress(AttributeError, OSError):  # Linux only, for a limited number of pipes
            fcntl.fcntl(pool._result_queue._reader.fileno(), fcntl.F_SETPIPE_SZ, 2**20)  # type: ignore[attr-defined]
        for _ in range(self._workers):
            pool.submit(_idle)  # starts the processes now, while the caller is busy with something else
        return pool

    def unpickled(self, found: Any) -> Result:
        """The result that a worker sent."""
        return pickle.loads(found) if self._pool is not None else found


def _main_module() -> list[str]:
    """The module that this process runs, if by name: each worker imports it again."""
    found = getattr(sys.modules["__main__"], "__spec__", None)
    return [found.name] if found is not None and not found.name.endswith("__main__") else []


class Results(Generic[Item, Result], Iterator[Result]):
    """Results in order. Iteration waits for each of them; `ready` says whether it would wait."""

    def __init__(self, workers: Workers[Item, Result], items: Iterator[Item], least: int = 0) -> None:
        self._workers, self._items, self._least, self._largest = workers, items, least, 0
        self._queue: deque[tuple[Item, Future[bytes]]] = deque()
        self._deaths = 0
        self._ended = False

    def ready(self) -> bool:
        """Whether the next result has been computed, or there is none."""
        self._fill()
        return not self._queue or self._queue[0][1].done()

    def __next__(self) -> Result:
        while True:
            self._fill()
            if not self._queue:
                raise StopIteration
            try:
                found = self._queue[0][1].result()
            except BrokenProcessPool:
                self._again()
                continue
            self._queue.popleft()
            self._deaths = 0
            if isinstance(found, bytes):
                self._largest = max(self._largest, len(found))
            return self._workers.unpickled(found)

    def _fill(self) -> None:
        """Without workers, the queue holds the next item only."""
        while not self._ended and len(self._queue) < self._workers.room(self._least, self._largest):
            try:
                item = next(self._items)
            except StopIteration:
                self._ended = True
                return
            self._queue.append((item, self._submitted(item)))

    def _submitted(self, item: Item) -> Future[bytes]:
        try:
            return self._workers.submitted(item)
        except BrokenProcessPool:
            failed: Future[bytes] = Future()
            failed.set_exception(BrokenProcessPool())
            return failed

    def _again(self) -> None:
        """Computes the results that were lost with a worker once more.

        Raises `UserError` if workers die again and again.
        """
        self._deaths += 1
        if self._deaths >= ATTEMPTS:
            raise UserError(
                f"the processes that prepare images were killed {ATTEMPTS} times in a row, probably for lack of memory",
                "give the job more memory, or lower `workers` of the model",
            )
        print("a process that prepares images has died; starting it again", file=sys.stderr, flush=True)
        self._workers.restarted()
        kept = [(item, done) for item, done in self._queue]
        self._queue.clear()
        for item, done in kept:
            lost = not done.done() or done.cancelled() or done.exception() is not None
            self._queue.append((item, self._submitted(item) if lost else done))


class _Worker:
    """The function of this process, in a worker."""

    function: Callable[[Any], Any]


def _prepare(make: Callable[[], Callable[[Any], Any]]) -> None:
    """In a worker, once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the workers
    threading.Thread(target=_end_with_parent, daemon=True, name="end-with-parent").start()
    _keep_freed_memory()
    _Worker.function = make()
    if "torch" in sys.modules:
        from perceptune.runtime.tensors import for_workers

        for_workers()


def _keep_freed_memory() -> None:
    """Lets the arrays of one image reuse the memory of the last one's.

    By default, glibc returns them to the kernel, which then clears thousands of pages per image: a
    quarter of the time.
    """
    with suppress(AttributeError, OSError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # its maximum
        library.mallopt(M_TRIM_THRESHOLD, 2**29)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _idle() -> None: ...


def _computed(item: Any) -> bytes:
    # as bytes, because torch would send tensors through shared memory, which containers limit
    try:
        return pickle.dumps(_Worker.function(item), protocol=5)
    except Exception as error:
        keep_place(error)
        raise
