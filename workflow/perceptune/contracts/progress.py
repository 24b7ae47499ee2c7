"""Progress of long stages: a bar with rate and ETA on a terminal, one line per interval in the log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

LOG_INTERVAL = 30.0
"""Seconds between lines in a log."""


class Progress:
    """Counts `total` things of a kind, `done` of them at the start. Use it as a context manager.

    The bar goes to the terminal that `show_bars_on` named, and is wiped at the end, so that Snakemake's own lines stay
    readable; without a terminal there is none. The lines go to stderr, which is the job's log while Snakemake runs it.
    """

    terminal: TextIO | None = None

    def __init__(self, what: str, total: int, unit: str, done: int = 0) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self._first, self._began = done, time.monotonic()
        self._logged, self._said = self._began, done
        self._bar: tqdm | None = None
        if self.terminal is not None and total:
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
            self._log(f"{what}: {done:,} of {total:,} {unit} were done before")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is None and self.done > self._said:
            self._log(self.line())

    def advance(self, count: int = 1) -> None:
        """`count` more are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        if time.monotonic() - self._logged >= LOG_INTERVAL:
            self._log(self.line())

    def line(self) -> str:
        """What is done, how fast, and how long the rest will take."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = (self.done - self._first) / seconds
        text = f"{self.what}: {self.done:,} of {self.total:,} {self.unit}, {rate:{',.0f' if rate >= 10 else '.2g'}} a second"
        left = self.total - self.done
        if left <= 0:
            return f"{text}, {_duration(seconds)}"
        return f"{text}, {_duration(left / rate)} left" if rate else text

    def _log(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        self._logged, self._said = time.monotonic(), self.done


def show_bars_on(stream: TextIO) -> None:
    """Bars of this process go to `stream` if that is a terminal."""
    Progress.terminal = stream if stream.isatty() else None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
