"""Sampling with vLLM's engine in a process of its own, as on a GPU, and with processes that prepare
images.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from perceptune.contracts.config import EngineBlock, FileDataset, ModelBlock, SamplingBlock, ViewBlock
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.core.data.shapes import write_dataset
from perceptune.stages.data import import_examples
from perceptune.stages.sampling import requests
from perceptune.stages.sampling.requests import Views

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
QUESTIONS, N = 30, 4


def sample(folder: Path, workers: int, processes: int | None = None) -> None:
    """Samples in this process; `workers` is the name of the run."""
    from perceptune.stages.sampling import responses

    engine = EngineBlock(
        enforce_eager=True, workers=workers if processes is None else processes, answers_per_part=16, max_num_seqs=32
    )
    model = ModelBlock(
        path=str(ROOT / "resources/tiny-llava/model"), family="llava", dtype="float32", max_model_len=512, engine=engine
    )
    target = folder / f"responses-{workers}.parquet"
    responses.run(
        requests=folder / "requests.parquet", examples={"d": folder / "examples.parquet"}, responses=target,
        journal=folder / f"journal-{workers}", model=model, weights="w", adapter=None, shard=0, shards=1,
    )  # fmt: skip


def start(folder: Path, workers: int, apart: bool) -> subprocess.Popen[bytes]:
    code = f"from tests.parity.test_engine_process import *\nif __name__ == '__main__': sample(Path({str(folder)!r}), {workers})\n"
    script = folder / f"sample-{workers}.py"
    script.write_text(code)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "workflow")]),
        "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(apart)),
    }
    return subprocess.Popen([sys.executable, script], env=environment, cwd=ROOT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sampling")
    write_dataset(folder / "data", 0, {"train": {"grounding": QUESTIONS}})
    dataset = FileDataset(kind="jsonl", path=str(folder / "data/data.jsonl"))
    import_examples.run(config=dataset, examples=folder / "examples.parquet")
    requests.run_samples(
        dataset="d", examples=folder / "examples.parquet", requests=folder / "requests.parquet",
        config=SamplingBlock(n=N, max_tokens=24, view="noise"),
        views=Views(blocks={"noise": ViewBlock(type="noise", parameters={"sigma": 0.2})}),
    )  # fmt: skip
    return folder


def test_answers_do_not_depend_on_processes_and_none_is_left_behind(folder: Path) -> None:
    """A job with an engine of its own is killed and goes on in one process; another has one process."""
    with start(folder, 2, apart=True) as job:
        while len(list((folder / "journal-2").rglob("*.parquet"))) < 2:  # the engine is running
            assert job.poll() is None
            time.sleep(0.1)
        started = psutil.Process(job.pid).children(recursive=True)
        programs = [" ".join(process.cmdline()) for process in started]
        job.kill()
        job.wait()
    assert sum("VLLM::EngineCor" in program for program in programs) == 1
    assert sum("forkserver" in program for program in programs) == 1 + 2  # the workers are its forks
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive
    sample(folder, 2, processes=0)
    with start(folder, 0, apart=False) as plain:
        assert plain.wait() == 0
    rows, others = (read_table(folder / f"responses-{n}.parquet", RESPONSES).to_pylist() for n in (0, 2))
    assert len(rows) == QUESTIONS * N
    assert all(row["text"] for row in rows)
    assert others == rows
