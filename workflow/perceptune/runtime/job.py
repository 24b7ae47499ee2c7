"""The environment of a stage run by Snakemake: log, GPUs, retries, end with Snakemake."""

from __future__ import annotations

import errno
import faulthandler
import gc
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import psutil
from setproctitle import setproctitle

from perceptune.contracts.errors import ERRORS_LAST, UserError, printable
from perceptune.contracts.paths import FINAL
from perceptune.contracts.plugins import place_in_plugin
from perceptune.contracts.progress import show_on
from perceptune.runtime.gpu_leases import leased_gpus

SHORT_OF_MEMORY = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "No available memory for the cache blocks",
    "larger than the available KV cache memory",
    "less than desired GPU memory",
)
"""Messages of torch and vLLM; the exception type differs between versions."""

ROOT_CAUSE = ("root cause above", "(above) for the root cause")
"""Messages of vLLM about its engine process, whose own error is in the log."""

SHORT = ".memory"
"""Suffix of a file next to the log: the number of attempts of this run that ran out of memory."""

NOT_WRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
WATCH_INTERVAL = 1.0
"""Seconds."""


@contextmanager
def job(snakemake: Any) -> Iterator[int]:
    """Runs a stage for Snakemake; yields the number of attempts so far that ran out of memory, by
    which a stage halves what it computes at once.

    Everything that the job prints, including output of compiled libraries, goes to its log file. Notices
    (`progress.tell`) also appear on the terminal. A user error, in one line, and any other exception,
    which is a bug, with its traceback, end the job with status 1. Snakemake shows them when it ends, or
    else the job shows them itself (`ERRORS_LAST`). The job has exclusive use of as many
    GPUs as the rule's `gpu` resource says, divided by `nodes` on each of several nodes, and ends when
    Snakemake is killed. A retry runs only if its outcome can differ.
    """
    name = " ".join([snakemake.rule, *map(str, snakemake.wildcards)])
    setproctitle(f"perceptune {name}")  # for `ps` and `top`
    attempt = int(snakemake.resources.get("attempt", 1))
    gpus = int(snakemake.resources.get("gpu", 0)) // int(snakemake.resources.get("nodes", 1))
    with job_log(snakemake.log[0], attempt, name), leased_gpus(gpus):
        end_with_snakemake()
        note = Path(f"{snakemake.log[0]}{SHORT}")
        # not the number of attempts: a job that was killed must reproduce its numbers exactly
        try:
            yield int(note.read_text()) if note.exists() else 0
        finally:
            gc.freeze()  # otherwise Python searches all modules for garbage at exit, which takes seconds


@contextmanager
def job_log(path: str, attempt: int = 1, name: str = "") -> Iterator[None]:
    """Redirects the job's output to the file `path`; messages for the user also go to the terminal,
    notices with the job's `name`.
    """
    log = Path(path)
    log.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.fdopen(os.dup(2), "w", buffering=1)
    final = Path(f"{path}{FINAL}")
    if attempt > 1 and final.exists():
        log.write_text(final.read_text())
        raise SystemExit(1)
    final.unlink(missing_ok=True)
    short = Path(f"{path}{SHORT}")
    if attempt == 1:
        short.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()
    show_on(terminal, name)
    try:
        yield
    except UserError as error:
        _say(str(error), terminal, f"{name} failed")
        _end(final, str(error))
    except Exception as error:
        trace = traceback.format_exc()
        reason = None
        if (shortage := _shortage_of_memory(error, log)) is not None:
            reason = f"out of memory in attempt {attempt}: {shortage}"
            short.write_text(str(int(short.read_text()) + 1 if short.exists() else 1))
        elif isinstance(error, OSError) and error.errno in NOT_WRITABLE:
            reason = f"cannot write: {error}; finished results are kept"
        if reason is not None:  # a retry may help
            print(printable(trace), file=sys.stderr)
            _say(f"error: {reason}", terminal, f"{name}: {reason}")
            raise SystemExit(1) from None
        if (place := place_in_plugin(error)) is not None:
            trace += f"error: {place}"
        _say(trace, terminal, f"{name} failed")
        _end(final, trace)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def end_with_snakemake() -> None:
    """Ends this process as soon as one of its ancestors up to Snakemake has died.

    A killed Snakemake leaves its jobs running; they would keep the GPUs and write the files of the
    next run.
    """
    ancestors = _up_to_snakemake()
    if ancestors:
        threading.Thread(target=_watch, args=(ancestors,), daemon=True, name="end-with-snakemake").start()


def _up_to_snakemake() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().parents():
        found.append(process)
        try:
            if any(Path(part).name == "snakemake" for part in process.cmdline()[:3]):
                return found
        except psutil.Error:
            return []
    return []


def _watch(ancestors: list[psutil.Process]) -> None:
    while all(_alive(process) for process in ancestors):
        time.sleep(WATCH_INTERVAL)
    print("Snakemake has ended; stopping this job", file=sys.stderr, flush=True)
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def of_memory(error: BaseException) -> bool:
    """Whether an error may come from a lack of memory: it says so, or its cause is in the log only."""
    return _says_memory(error) or any(text in str(error) for text in ROOT_CAUSE)


def _says_memory(error: BaseException) -> bool:
    named = any(kind.__name__ in ("MemoryError", "OutOfMemoryError") for kind in type(error).__mro__)
    return named or any(text in str(error) for text in SHORT_OF_MEMORY)


def _shortage_of_memory(error: BaseException, log: Path) -> str | None:
    """The line that says so, if the error comes from a lack of memory, here or in vLLM's engine process."""
    if _says_memory(error):
        return _first_line(error)
    if not of_memory(error):
        return None
    sys.stderr.flush()
    lines = log.read_text(errors="replace").splitlines()
    return next((line.strip() for line in lines if any(text in line for text in SHORT_OF_MEMORY)), None)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _end(final: Path, reason: str) -> None:
    final.write_text(f"{reason}\n(not retried: the outcome would be the same)\n")
    raise SystemExit(1) from None


def _say(error: str, terminal: TextIO, briefly: str) -> None:
    """Writes an error to the log and the terminal, which shows it `briefly` if the whole comes last."""
    for stream, text in ((sys.stderr, error), (terminal, briefly if ERRORS_LAST in os.environ else error)):
        print(printable(text.rstrip()), file=stream, flush=True)
