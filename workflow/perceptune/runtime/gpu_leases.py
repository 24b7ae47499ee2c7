"""GPU leases: each job gets its own GPUs, by a file lock that is released when the job dies.

Snakemake counts GPUs (`--resources gpu=2`) but does not say which ones a job may use.
"""

from __future__ import annotations

import getpass
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from perceptune.contracts.errors import UserError

POLL = 0.5
"""Polling interval for free GPUs, in seconds."""


@contextmanager
def leased_gpus(count: int) -> Iterator[list[str]]:
    """Leases `count` visible GPUs to this process, via CUDA_VISIBLE_DEVICES; waits for free ones.

    0 leases none: the process may share whatever it saw before. On machines without GPUs, jobs run
    on the CPU. All jobs of a user on a machine respect each other's leases, across Snakemake runs.
    Must be entered before CUDA is initialised. Raises `UserError` if fewer than `count` are
    visible.
    """
    visible = visible_gpus()
    if not count or not visible:
        yield []
        return
    if count > len(visible):
        raise UserError(
            f"this job needs {count} GPUs, {len(visible)} are visible ({', '.join(visible)})",
            "`tensor_parallel_size` and `devices` say how many a job needs",
        )
    with ExitStack() as held:
        names = _acquired(count, visible, held)
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)
        print(f"GPUs: {', '.join(names)}", file=sys.stderr, flush=True)
        try:
            yield names
        finally:
            if before is None:
                del os.environ["CUDA_VISIBLE_DEVICES"]
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = before


def visible_gpus() -> list[str]:
    """The GPUs that this process may use: those in CUDA_VISIBLE_DEVICES, or all of the machine."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    return [str(number) for number in range(len(list(Path("/proc/driver/nvidia/gpus").glob("*"))))]


def _acquired(count: int, visible: list[str], held: ExitStack) -> list[str]:
    """Locks `count` GPUs at once or none, so that two jobs that need several never deadlock."""
    folder = _folder()
    waited = False
    # one job at a time picks GPUs, so that jobs that need several are not starved by those that
    # need one
    with FileLock(folder / "turn.lock"):
        while True:
            with ExitStack() as taken:
                names = []
                for name in visible:
                    lock = FileLock(folder / f"{name.replace('/', '_')}.lock")
                    try:
                        taken.enter_context(lock.acquire(blocking=False))
                    except Timeout:
                        continue
                    names.append(name)
                    if len(names) == count:
                        held.push(taken.pop_all())
                        return names
            if not waited:
                print(f"waiting for {count} of the GPUs {', '.join(visible)}", file=sys.stderr, flush=True)
                waited = True
            time.sleep(POLL)


def _folder() -> Path:
    """One folder per user and machine, and one per SLURM job, which numbers its GPUs from 0."""
    job = os.environ.get("SLURM_JOB_ID")
    name = f"perceptune-gpus-{getpass.getuser()}" + (f"-{job}" if job else "")
    folder = Path(tempfile.gettempdir()) / name
    folder.mkdir(exist_ok=True, mode=0o700)
    return folder
