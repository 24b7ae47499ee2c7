"""What surrounds a stage when Snakemake runs it: its log file, and a user's mistake shown without a traceback."""

from __future__ import annotations

import faulthandler
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from perceptune.contracts.errors import UserError


@contextmanager
def job_log(path: str) -> Iterator[None]:
    """Sends everything the job prints, compiled libraries included, to the file `path`.

    A `UserError` appears as its one line on the terminal too and ends the job with status 1; any other exception
    is a bug and shows its traceback in both places.
    """
    log = Path(path)
    log.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.fdopen(os.dup(2), "w", buffering=1)
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()
    try:
        yield
    except UserError as error:
        _say(f"{error}\n", terminal)
        raise SystemExit(1) from None
    except Exception:
        _say(traceback.format_exc(), terminal)
        raise SystemExit(1) from None
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _say(text: str, terminal: TextIO) -> None:
    for stream in (sys.stderr, terminal):
        stream.write(text)
        stream.flush()
