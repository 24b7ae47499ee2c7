"""Progress of long stages: a bar with rate and ETA on a terminal, lines in the log; notices."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from perceptune.contracts.errors import printable

LOG_INTERVAL = 30.0
"""Seconds between lines in a log."""

SILENCE = 5.0
"""Seconds after which something without steps appears on a terminal."""

TERMINAL = "PERCEPTUNE_TERMINAL"
"""Environment variable of child processes: the name of the terminal for their bars."""

TICK = 1.0
"""Seconds between its updates there."""


class Progress:
    """Progress towards `total` items, `done` of which are finished at the start; None: how many there
    are is not known. A context manager.

    The bar appears on the terminal set by `show_bars_on` and is cleared at the end, so that Snakemake's
    own output stays readable. Lines go to stderr, which is the log inside a Snakemake job.
    """

    terminal: TextIO | None = None

    def __init__(self, what: str, total: int | None, unit: str, done: int = 0) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self._first, self._began = done, time.monotonic()
        self._logged, self._reported = self._began, done
        self._bar: tqdm | None = None
        if self.terminal is not None and total != 0:
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=what,
                unit=f" {unit}",
                file=self.terminal,
                leave=False,
                dynamic_ncols=True,
                mininterval=0.5,
            )
        if done:
            self._log(f"{self._counted} already done")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is None and self.done > self._reported:
            self._log(self.line())

    def advance(self, count: int = 1) -> None:
        """Counts `count` more items as done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        if time.monotonic() - self._logged >= LOG_INTERVAL:
            self._log(self.line())

    def line(self) -> str:
        """Items done, rate and time left, as text."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = (self.done - self._first) / seconds
        text = f"{self._counted}, {rate:{',.0f' if rate >= 10 else '.2g'}} a second"
        left = self.total - self.done if self.total is not None else 0
        if left <= 0:
            return f"{text}, {_duration(seconds)}"
        return f"{text}, {_duration(left / rate)} left" if rate else text

    @property
    def _counted(self) -> str:
        total = "" if self.total is None else f" of {self.total:,}"
        return f"{self.what}: {self.done:,}{total} {self.unit}"

    def _log(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        self._logged, self._reported = time.monotonic(), self.done


class Waiting:
    """Something long without steps, such as loading a model: a context manager.

    After `SILENCE` seconds, the terminal set by `show_bars_on` shows a line with the time since the
    start, which is cleared at the end. The log gets such a line every `LOG_INTERVAL` seconds, in one of
    the processes of a distributed training, and the whole time at the end.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._over = threading.Event()
        self._logging = os.environ.get("RANK", "0") == "0"

    def __enter__(self) -> Waiting:
        self._began = time.monotonic()
        self._watch = threading.Thread(target=self._show, daemon=True, name="waiting")
        self._watch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._watch.join()
        if kind is None and self._seconds >= SILENCE:
            self._log(f"{self.what}: took {_duration(self._seconds)}")

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _show(self) -> None:
        bar: tqdm | None = None
        logged = 0.0
        while not self._over.wait(TICK):
            seconds = self._seconds
            line = f"{self.what}: {_duration(seconds)}"
            if Progress.terminal is not None and seconds >= SILENCE:
                if bar is None:
                    bar = tqdm(bar_format="{desc}", file=Progress.terminal, leave=False, dynamic_ncols=True)
                bar.set_description_str(line)
            if seconds - logged >= LOG_INTERVAL:
                self._log(line)
                logged = seconds
        if bar is not None:
            bar.close()

    def _log(self, line: str) -> None:
        if self._logging:
            print(line, file=sys.stderr, flush=True)


class _Notices:
    """Where notices go besides the log, and the job that they are about."""

    stream: TextIO | None = None
    about = ""


def tell(line: str) -> None:
    """Prints what a user should know: to the log, and in a Snakemake job also to its terminal."""
    print(line, flush=True)
    if _Notices.stream is not None:
        print(printable(f"{_Notices.about}: {line}" if _Notices.about else line), file=_Notices.stream, flush=True)


def show_on(stream: TextIO, about: str = "") -> None:
    """Shows this process's notices, which are `about` a job, and its bars on `stream`."""
    _Notices.stream, _Notices.about = stream, about
    show_bars_on(stream)


def show_bars_on(stream: TextIO) -> None:
    """Shows this process's bars on `stream` if it is a terminal."""
    Progress.terminal = stream if stream.isatty() else None


def for_children() -> dict[str, str]:
    """Environment variables with which a process started by this one can `show_bars_of_parent`."""
    if Progress.terminal is None:
        return {}
    try:
        return {TERMINAL: os.ttyname(Progress.terminal.fileno())}
    except OSError:  # a terminal without a name, as in some containers
        return {}


def show_bars_of_parent() -> None:
    """Shows this process's bars on the terminal of its parent, if that has one on this machine."""
    if name := os.environ.get(TERMINAL):
        with suppress(OSError):
            show_bars_on(os.fdopen(os.open(name, os.O_WRONLY | os.O_NOCTTY), "w", buffering=1))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
