"""Sampling with vLLM's engine in a process of its own, as on a GPU, and with processes that prepare
images.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from perceptune.contracts.config import EngineBlock, FileDataset, ModelBlock, SamplingBlock, ViewBlock
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.journal import JOURNAL
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.core.data.shapes import write_dataset
from perceptune.stages.data import import_examples
from perceptune.stages.sampling import requests
from perceptune.stages.sampling.requests import Views

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
QUESTIONS, N = 30, 4


def sample(folder: Path, workers: int) -> None:
    """Samples in this process, with the journal of that number of workers."""
    from perceptune.stages.sampling import responses

    engine = EngineBlock(enforce_eager=True, answers_per_part=16, max_num_seqs=32)
    model = ModelBlock(
        path=str(ROOT / "resources/tiny-llava/model"), family="llava", dtype="float32", max_model_len=512, workers=workers,
        engine=engine,
    )  # fmt: skip
    responses.run(
        requests=folder / "requests.parquet", examples={"d": folder / "examples.parquet"},
        responses=folder / f"responses-{workers}.parquet", journal=folder / f"journal-{workers}",
        model=model, weights="w", adapter=None, shard=0, shards=1,
    )  # fmt: skip


def start(folder: Path, workers: int) -> subprocess.Popen[bytes]:
    """Samples in a new process, whose engine has a process of its own."""
    code = f"from tests.parity.test_engine_process import *\nif __name__ == '__main__': sample(Path({str(folder)!r}), {workers})\n"
    script = folder / "sample.py"
    script.write_text(code)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "workflow")]),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
    }
    with (folder / "stderr.txt").open("wb") as errors:
        return subprocess.Popen([sys.executable, script], env=environment, cwd=ROOT, stderr=errors)


def running(job: subprocess.Popen[bytes], program: str) -> list[psutil.Process]:
    """The descendants of a running job that run this program."""
    assert job.poll() is None
    found = []
    for process in psutil.Process(job.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if program in " ".join(process.cmdline()):
                found.append(process)
    return found


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
    """First a worker is killed, which the job survives, and then the job, after its first answers."""
    with start(folder, 2) as job:
        while len(workers := running(job, "forkserver")) < 1 + 2:  # the workers are its forks
            time.sleep(0.1)
        ours = {process.pid for process in workers}
        next(process for process in workers if process.ppid() in ours).kill()
        while len(list((folder / "journal-2").rglob("*.parquet"))) < 2:
            assert job.poll() is None
            time.sleep(0.1)
        assert len(running(job, "VLLM::EngineCor")) == 1
        assert len(running(job, "forkserver")) == 1 + 2
        started = psutil.Process(job.pid).children(recursive=True)
        job.kill()
    assert "a process that prepares images has died" in (folder / "stderr.txt").read_text()
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive
    sample(folder, 0)
    plain = read_table(folder / "responses-0.parquet", RESPONSES).to_pylist()
    assert len(plain) == QUESTIONS * N
    assert all(row["text"] for row in plain)
    expected = {(row["request_id"], row["sample_index"]): row for row in plain}
    committed = [
        row for file in (folder / "journal-2").rglob("*.parquet") for row in read_table(file, JOURNAL).to_pylist()
    ]
    assert len(committed) >= 2 * 16
    for row in committed:
        del row["key"]
        assert row.items() <= expected[row["request_id"], row["sample_index"]].items()
