"""Progress: lines in logs, bars only on terminals."""

import io
import os
import termios
import threading

import pytest
from perceptune.contracts import progress
from perceptune.contracts.progress import Progress, Waiting, for_children, show_bars_of_parent, show_on, tell


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that advances only when told to."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Progress, "terminal", None)
    monkeypatch.setattr(progress._Notices, "stream", None)
    monkeypatch.setattr(progress._Notices, "about", "")
    return now


def test_one_line_per_interval_with_rate_and_time_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("sampling", 1000, "answers") as bar:
        for _ in range(90):
            clock[0] += 1
            bar.advance(10)
    assert capsys.readouterr().err.splitlines() == [
        "sampling: 300 of 1,000 answers, 10 a second, 1 min 10 s left",
        "sampling: 600 of 1,000 answers, 10 a second, 40 s left",
        "sampling: 900 of 1,000 answers, 10 a second, 10 s left",
    ]


def test_what_was_done_before_is_said_and_does_not_count_for_the_rate(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("training", 100, "steps", done=60) as bar:
        clock[0] += 40
        bar.advance(40)
    assert capsys.readouterr().err.splitlines() == [
        "training: 60 of 100 steps already done",
        "training: 100 of 100 steps, 1 a second, 40 s",
    ]


def test_hours_are_hours(clock: list[float]) -> None:
    bar = Progress("sampling", 100_001, "answers")
    clock[0] += 10
    bar.advance(1)
    assert bar.line() == "sampling: 1 of 100,001 answers, 0.1 a second, 277 h 46 min left"


@pytest.mark.usefixtures("clock")
def test_a_bar_is_shown_on_a_terminal_and_wiped_at_the_end() -> None:
    terminal, file = Terminal(), io.StringIO()
    show_on(file)
    with Progress("sampling", 10, "answers") as bar:
        bar.advance(10)
    assert file.getvalue() == ""
    show_on(terminal)
    with Progress("sampling", 10, "answers") as bar:
        bar.advance(4)
    assert "sampling" in terminal.getvalue()
    assert "0/10" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")


@pytest.mark.usefixtures("clock")
def test_a_notice_goes_to_the_log_and_to_the_terminal_with_its_job(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell("said before the job")
    terminal = io.StringIO()
    show_on(terminal, "import_examples photos")
    tell("warning: 2 boxes of \x1b[31mphotos")
    assert capsys.readouterr().out == "said before the job\nwarning: 2 boxes of \x1b[31mphotos\n"
    assert terminal.getvalue() == "import_examples photos: warning: 2 boxes of \\x1b[31mphotos\n"


@pytest.mark.usefixtures("clock")
def test_a_process_of_a_distributed_training_shows_its_bar_on_the_terminal_of_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    show_on(io.StringIO())
    assert for_children() == {}
    show_on(Terminal())
    assert for_children() == {}  # has no name
    reading, writing = os.openpty()
    with os.fdopen(writing, "w") as terminal:
        termios.tcsetwinsize(terminal, (24, 80))
        show_on(terminal)
        environment = for_children()
        monkeypatch.setattr(Progress, "terminal", None)
        monkeypatch.setenv(*environment.popitem())
        show_bars_of_parent()
        with Progress("training", 10, "steps"):
            assert "training:   0%" in os.read(reading, 1000).decode()
        monkeypatch.setenv("PERCEPTUNE_TERMINAL", "/nowhere/tty")
        show_bars_of_parent()
    os.close(reading)


class Ticks:
    """In place of the event that ends a `Waiting`: its thread takes a turn whenever a test says so."""

    def __init__(self, clock: list[float]) -> None:
        self._clock, self._ended = clock, False
        self._turn, self._idle = threading.Semaphore(0), threading.Semaphore(0)

    def wait(self, seconds: float) -> bool:
        self._idle.release()
        self._turn.acquire()
        return self._ended

    def set(self) -> None:
        self._ended = True
        self._turn.release()

    def after(self, *seconds: float) -> None:
        """A turn after each of these times."""
        for passed in seconds:
            self._idle.acquire()
            self._clock[0] += passed
            self._turn.release()
        self._idle.acquire()
        self._idle.release()


def loading(clock: list[float], *seconds: float) -> None:
    """Waits for a model, whose progress is looked at after each of these times."""
    waiting = Waiting("loading a model")
    waiting._over = ticks = Ticks(clock)  # type: ignore[assignment]
    with waiting:
        ticks.after(*seconds)


def test_what_takes_long_without_steps_says_so_in_the_log(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    loading(clock, 4, 27, 29, 2)
    assert capsys.readouterr().err.splitlines() == [
        "loading a model: 31 s",
        "loading a model: 1 min 02 s",
        "loading a model: took 1 min 02 s",
    ]


def test_a_short_wait_is_silent(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    show_on(terminal)
    loading(clock, 4)
    assert (capsys.readouterr().err, terminal.getvalue()) == ("", "")


def test_a_wait_is_shown_on_a_terminal_only(clock: list[float]) -> None:
    terminal, file = Terminal(), io.StringIO()
    show_on(file)
    loading(clock, 10, 40)
    assert file.getvalue() == ""
    show_on(terminal)
    loading(clock, 10, 40)
    assert "loading a model: 10 s" in terminal.getvalue()
    assert "loading a model: 50 s" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")


def test_one_process_of_several_logs_a_wait(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    loading(clock, 40)
    assert capsys.readouterr().err == ""


def test_an_error_ends_a_wait(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), Waiting("loading a model"):
        clock[0] += 6
        raise KeyError
    assert capsys.readouterr().err == ""
    assert not any(thread.name == "waiting" for thread in threading.enumerate())
