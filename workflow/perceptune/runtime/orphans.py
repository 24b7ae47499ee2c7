"""Ends the processes that this one has started when it is killed.

vLLM's engine process waits for work forever if the process that started it is killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid

import psutil

MARK = "PERCEPTUNE_STARTED_BY"
"""Environment variable by which processes are recognised."""
INTERVAL = 0.5
"""Seconds."""


def ends_with_this_process() -> None:
    """Starts a process that waits until this one has ended, and then kills what it has left behind.

    It finds processes by their environment, so they must have been started with a new program
    (`spawn`), not forked. Calling this again does nothing.
    """
    if MARK in os.environ and os.environ[MARK].startswith(f"{os.getpid()}-"):
        return
    os.environ[MARK] = f"{os.getpid()}-{uuid.uuid4().hex}"
    os.environ["SPT_NOENV"] = "1"  # setproctitle, which vLLM calls, must not overwrite the environment
    command = [sys.executable, __file__, str(os.getpid()), os.environ[MARK]]
    unmarked = {name: value for name, value in os.environ.items() if name != MARK}
    # in a session of its own, so that Ctrl-C does not end it first
    subprocess.Popen(command, env=unmarked, start_new_session=True, stdin=subprocess.DEVNULL)


def left_behind(mark: str) -> list[psutil.Process]:
    """The running processes with this mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:  # ended, or another user's
            continue
    return found


def _main(parent: int, mark: str) -> None:
    while os.getppid() == parent:
        time.sleep(INTERVAL)
    for process in left_behind(mark):
        try:
            process.kill()
        except psutil.Error:
            continue


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
