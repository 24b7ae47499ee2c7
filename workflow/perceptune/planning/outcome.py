"""The last words of a run, from Snakemake's `onsuccess` and `onerror`."""

from __future__ import annotations

import atexit
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from perceptune.contracts.errors import ERRORS_LAST, joined_mistakes, printable
from perceptune.contracts.paths import FINAL
from perceptune.planning.rules import RULES

STOPPED = ("Terminating processes on user request", "Will exit after finishing currently running jobs")
"""What Snakemake logs after Ctrl-C and after SIGTERM."""

ENDED = "run_stage.py' returned non-zero exit status"
"""What Snakemake logs about every job that ended with an error."""

GOES_ON = "Stopped. The same command goes on from there."

EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)(: |$)")
"""The line of a traceback that names the exception, whose message may go on."""


def result(workflow: Any, table: str, report: str) -> str:
    """The result table and the place of the report. If the run has not made them, its warnings about
    leakage. Empty with `--quiet all`."""
    jobs = list(workflow.dag.needrun_jobs(exclude_finished=False))
    if any(kind.name == "ALL" for kind in workflow.output_settings.quiet or ()):
        return ""
    if not any(_runs(job, "write_report") for job in jobs) or not Path(table).exists():
        logs = [Path(file) for job in jobs if _runs(job, "find_leakage") for file in job.log]
        return "\n".join(line for log in logs for line in _text(log).splitlines() if line.startswith("warning: "))
    place = Path(report).absolute() if workflow.overwrite_workdir else report
    return f"{Path(table).read_text(encoding='utf-8').rstrip()}\nReport: {place}"


def failure(workflow: Any, logs: Iterable[str]) -> str:
    """The messages of failed jobs, and whether the user stopped the run, by Snakemake's own `logs`."""
    failed = [single for job in workflow.scheduler.failed for single in getattr(job, "jobs", [job])]
    logs_of_ours = [Path(file) for job in failed if any(_runs(job, rule) for rule in RULES) for file in job.log]
    messages = list(dict.fromkeys(message for log in logs_of_ours for message in _messages(log)))
    said = "".join(_text(Path(log)) for log in logs)
    stopped = [GOES_ON] if any(line in said for line in STOPPED) else []
    return "\n".join(([joined_mistakes(messages, separator="\n")] if messages else []) + stopped)


def errors_last(workflow: Any, logger: logging.Logger) -> None:
    """For a run that ends with `failure`: lets jobs leave their errors to it, and keeps what says less
    than these errors out of Snakemake's log. Snakemake ignores the hooks of a module, unless the
    Snakefile around it calls them (docs/module.md), so jobs of a module show their errors."""
    if workflow.is_main_process and workflow.modifier.is_main_snakefile():
        os.environ[ERRORS_LAST] = "1"
        logger.addFilter(Telling())


class Telling(logging.Filter):
    """Drops messages that a job ended with an error, which `failure` explains, and all errors after the
    user has stopped the run, which only follow from that."""

    def __init__(self) -> None:
        super().__init__()
        self._stopped = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is worth showing."""
        message = record.getMessage()
        self._stopped |= message.startswith(STOPPED[0])
        return ENDED not in message and not (self._stopped and record.levelno >= logging.ERROR)


def _runs(job: Any, rule: str) -> bool:
    """Whether a job is of this rule, whose name begins with a prefix if another Snakefile adds one."""
    return str(job.rule.name).endswith(rule)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def _messages(log: Path) -> Iterator[str]:
    """The message of a failed job: the reason stored next to its log, or the last error in the log."""
    final, lines = Path(f"{log}{FINAL}"), list[str]()
    if final.exists():
        lines = [line for line in _text(final).splitlines() if line][:-1]
        if lines and not lines[0].startswith("error: "):  # a traceback
            raised = [line for line in lines if EXCEPTION.match(line)] or lines
            in_plugin = lines[-1].startswith("error: ")
            lines = [lines[-1] if in_plugin else f"error: {raised[-1]}", f"log: {log}"]
    if not lines and log.exists():
        written = _text(log).splitlines()
        lines = [line for line in written if line.startswith("error: ")][-1:]
        lines = lines or [f"error: a job ended without a message, perhaps killed for its memory; log: {log}"]
    if lines:
        yield printable("\n".join(lines))


def say_last(text: str, stream: TextIO) -> None:
    """Prints a text, unless it is empty, after everything that Snakemake prints when its hooks are
    done."""
    if text:
        atexit.register(print, text, file=stream, flush=True)
