"""How long the pages of `perceptune inspect` take on one million answers.

    python benchmarks/inspecting.py [--questions 50000] [--samples 20]

Every page is asked for twice: the first time its tables are read, the second time the selection is in
memory, as for the next page of a list. The time of a page includes its HTML; images are not fetched.
Processor time depends less than the time on what else the machine does. Memory is the process's peak so far.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

from evaluation import CODE, write_answers, write_examples

PAGES = {
    "start": "",
    "answers, first page": "answers",
    "answers sorted by reward": "answers?sort=-reward",
    "answers with a text": "answers?text=99.9",
    "answers with a margin of at least 0.9": "answers?margin_min=0.9",
    "one question": "question?table=policy/benchmarks/r&request=b/e7/original/sampled",
    "comparison of two policies": "compare?a=base&b=policy&condition=sampled",
    "answers sorted by text": "answers?sort=text",
    "examples": "examples?dataset=d",
    "examples by the mean reward of a policy": "examples?dataset=d&answers=policy/benchmarks/r&sort=reward",
}


def write(questions: int, samples: int) -> None:
    """Writes the results of two policies into the current directory."""
    Path("results/examples").mkdir(parents=True)
    write_examples(Path("results/examples/d.parquet"), questions)
    CODE["inputs"] = {"examples d": {"path": "results/examples/d.parquet", "sha256": "0" * 64}}
    for number, policy in enumerate(("base", "policy")):
        path = Path(f"results/rewards/{policy}/benchmarks/r.parquet")
        path.parent.mkdir(parents=True)
        write_answers(path, number, questions, samples // 2 - 1)


def main() -> None:
    """Prints one line per page."""
    from perceptune.commands.inspect.library import Library
    from perceptune.commands.inspect.server import application
    from starlette.testclient import TestClient

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=50_000)
    parser.add_argument("--samples", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        # in a process of its own, so that its memory is not counted
        writer = get_context("spawn").Process(target=write, args=(options.questions, options.samples))
        writer.start()
        writer.join()
        start = time.perf_counter()
        library = Library(Path("results"))
        rows = sum(one.rows for one in library.contents.answers.values())
        print(f"{rows:,} answers of two policies, found in {time.perf_counter() - start:.2f} s")
        client = TestClient(application(library, "token"), "http://127.0.0.1/token/")
        client.get("style.css")
        for name, address in PAGES.items():
            times, used = [], []
            for _ in range(2):
                start, before = time.perf_counter(), time.process_time()
                response = client.get(address)
                times.append(time.perf_counter() - start)
                used.append(time.process_time() - before)
                assert response.status_code == 200, response.text
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{name:<40} {times[0]:6.2f} s ({used[0]:5.2f} s CPU), again {times[1]:6.2f} s ({used[1]:5.2f} s CPU), "
                f"{peak:,.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
