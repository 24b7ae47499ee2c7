"""Plans for many configs of one folder, by a process that forks for each: importing Snakemake takes half of a dry run.

    python -m tests.workflow.planner < COMMANDS

COMMANDS: one JSON list of command lines of `snakemake`, each a list of words. Prints one JSON list of their outputs, both streams
together; ends with 1 after the first that fails.
"""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack

from snakemake.cli import main as snakemake

AT_ONCE = 2


def started(words: Sequence[str], output: int) -> int:
    """The process that runs one command line into a file."""
    process = os.fork()
    if process:
        return process
    os.dup2(output, 1)
    os.dup2(output, 2)
    code: object = 1
    try:
        snakemake(list(words))
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(bool(code)))


def outputs(commands: Sequence[Sequence[str]]) -> list[str]:
    """What each command line printed; ends the process with 1 after the first that fails."""
    waiting, running = list(range(len(commands))), dict[int, int]()
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in commands]
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                number = waiting.pop(0)
                running[started(commands[number], files[number].fileno())] = number
            process, status = os.wait()
            number = running.pop(process)
            files[number].seek(0)
            if status:
                sys.exit(f"{' '.join(commands[number])}\n{files[number].read()}")
        return [file.read() for file in files]


if __name__ == "__main__":
    print(json.dumps(outputs(json.load(sys.stdin))))
