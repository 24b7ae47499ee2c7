"""GPUs for jobs: each has its own, by a file lock that dies with the job.

Snakemake counts GPUs (`--resources gpu=2`) but does not say which one a job may use.
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
"""Seconds between looks at whether a GPU has become free."""


@contextmanager
def leased_gpus(count: int) -> Iterator[list[str]]:
    """`count` of the visible GPUs for this process alone, named in CUDA_VISIBLE_DEVICES; waits until they are free.

    0 leases none: the process sees what it saw before and may share it. Where there are no GPUs at all it runs on the CPU.
    All jobs of a user on a machine heed each other, of other Snakemake runs too. Must be entered before CUDA is initialised.
    Raises `UserError` when fewer are visible than asked for.
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
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: those in it, or all of the machine."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    return [str(number) for number in range(len(list(Path("/proc/driver/nvidia/gpus").glob("*"))))]


def _acquired(count: int, visible: list[str], held: ExitStack) -> list[str]:
    """Locks `count` GPUs at once or none, so that two jobs which need several never wait for each other's."""
    folder = _folder()
    waited = False
    # one job at a time takes its pick, so that one which needs several is not overtaken for ever by those that need one
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
    """One for all runs of a user on this machine; one per SLURM job, inside of which SLURM numbers the GPUs anew."""
    job = os.environ.get("SLURM_JOB_ID")
    name = f"perceptune-gpus-{getpass.getuser()}" + (f"-{job}" if job else "")
    folder = Path(tempfile.gettempdir()) / name
    folder.mkdir(exist_ok=True, mode=0o700)
    return folder
