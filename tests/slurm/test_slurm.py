"""The demo's chain on a real SLURM cluster, with and without faults. Tests run in the order of the
file.
"""

import re
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from perceptune.contracts import paths
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.metrics import METRICS
from safetensors.numpy import load_file

from .conftest import Site, until

pytestmark = pytest.mark.slow

RESPONSES = str(paths.at(paths.RESPONSES, policy="tiny", plan="shapes/n20"))


def finished(process: subprocess.Popen[str], status: int = 0) -> str:
    output, _ = process.communicate(timeout=1500)  # the plugin polls ever more rarely while nothing ends
    assert process.returncode == status, output
    return output


@pytest.fixture(scope="module")
def chain(site: Site) -> Site:
    """The site after one undisturbed run with two sampling shards."""
    finished(site.start("--set-scatter", "shard=2"))
    return site


@pytest.fixture
def without_responses(chain: Site) -> pl.DataFrame:
    """The answers of the undisturbed run, whose file is deleted."""
    kept = chain.folder / "kept.parquet"
    if not kept.exists():
        shutil.copy(chain.folder / RESPONSES, kept)
    (chain.folder / RESPONSES).unlink(missing_ok=True)
    return pl.read_parquet(kept)


def test_the_whole_chain_runs_on_the_cluster(chain: Site) -> None:
    metrics = pl.DataFrame(pl.from_arrow(read_table(chain.folder / paths.at(paths.ALL_METRICS), METRICS)))
    assert set(metrics["policy"]) == {"tiny", "perpo"}
    assert (chain.folder / paths.at(paths.REPORT)).exists()
    assert not (chain.folder / "results/.partial/journal/tiny/benchmarks").exists()


def test_gpu_jobs_hold_what_slurm_gave_them(chain: Site) -> None:
    logs = [*(chain.folder / "logs/.partial/responses").rglob("*.log"), *(chain.folder / "logs/training").glob("*.log")]
    gpus_of = {str(log.name): re.findall(r"^GPUs: (.*)$", log.read_text(), re.MULTILINE) for log in logs}
    assert len(gpus_of) >= 4
    assert all(gpus in (["0"], ["1"]) for gpus in gpus_of.values()), gpus_of


def test_small_jobs_travel_together(chain: Site) -> None:
    """20 jobs are grouped into fewer submissions, because each submission costs seconds."""
    log = max((chain.folder / ".snakemake/log").glob("*.log"), key=lambda path: path.stat().st_size).read_text()
    submitted = set(re.findall(r"SLURM jobid (\d+)", log))
    jobs = re.search(r"^total +(\d+)$", log, re.MULTILINE)
    assert jobs
    assert 5 < len(submitted) < int(jobs[1]) - 5


@pytest.mark.extended
def test_a_training_on_two_nodes_makes_the_same_adapter(chain: Site) -> None:
    """The job requests both nodes and their GPUs; torchrun's processes find each other and share the weights."""
    target = paths.at(paths.ADAPTER, experiment="perpo")
    adapter = chain.folder / target
    expected = load_file(adapter)
    adapter.unlink()
    two = "trainings={perpo: {nodes: 2, sharding: fsdp}}"
    run = chain.start("--config", two, "--set-resources", "train_adapter:slurm_partition=pair", "--", str(target))
    job = chain.job_of("train_adapter")
    shown = chain.cluster.ask("scontrol", "show", "job", str(job))
    assert "NumNodes=2" in shown
    assert "TresPerJob=gres:gpu:2" in shown
    finished(run)
    found = load_file(adapter)
    assert found.keys() == expected.keys()
    # AdamW amplifies rounding in small gradients
    assert max(np.abs(found[name] - expected[name]).max() for name in found) < 1e-3


@pytest.mark.extended
def test_a_cancelled_job_and_one_out_of_time_are_tried_again(chain: Site, without_responses: pl.DataFrame) -> None:
    run = chain.start("--", RESPONSES)
    first = chain.job_of("sample_responses")
    limit = minutes(chain.cluster.ask("scontrol", "show", "job", str(first)))
    chain.cluster.ask("scancel", str(first))
    second = chain.job_of("sample_responses", other_than=(first,))
    assert minutes(chain.cluster.ask("scontrol", "show", "job", str(second))) == 2 * limit > 0
    stuck = chain.process_of("sample_responses")
    stuck.suspend()
    chain.cluster.ask("scontrol", "update", f"JobId={second}", "TimeLimit=0:01")
    chain.job_of("sample_responses", other_than=(first, second))
    assert "TIMEOUT" in chain.cluster.ask("squeue", "-h", "-t", "all", "-j", str(second), "-o", "%T")
    finished(run)
    assert same(chain.folder, without_responses)


def minutes(shown: str) -> int:
    """The time limit of a job as `scontrol show job` prints it."""
    found = re.search(r"TimeLimit=(?:(\d+)-)?(\d+):(\d+):00", shown)
    assert found, shown
    days, hours, rest = (int(part or 0) for part in found.groups())
    return (24 * days + hours) * 60 + rest


@pytest.mark.extended
def test_a_node_daemon_that_dies_and_comes_back_loses_nothing(chain: Site, without_responses: pl.DataFrame) -> None:
    run = chain.start("--", RESPONSES)
    chain.job_of("sample_responses")
    chain.cluster.kill_node()
    chain.cluster.start_node()
    finished(run)
    assert same(chain.folder, without_responses)


@pytest.mark.extended
def test_a_killed_snakemake_leaves_a_job_that_the_next_run_does_not_disturb(
    chain: Site, without_responses: pl.DataFrame
) -> None:
    """The orphan keeps running; the second job of the same shard waits for it and reuses its
    answers.
    """
    first = chain.start("--", RESPONSES)
    orphan = chain.job_of("sample_responses")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert orphan in [job for job, _ in chain.cluster.jobs()]
    finished(chain.start("--unlock"))
    finished(chain.start("--", RESPONSES))
    assert same(chain.folder, without_responses)
    until(lambda: orphan not in [job for job, _ in chain.cluster.jobs()], 300, "the orphan's end")


def test_the_documented_command_cancels_orphans(chain: Site, without_responses: pl.DataFrame) -> None:
    first = chain.start("--", RESPONSES)
    orphan = chain.job_of("sample_responses")
    first.send_signal(signal.SIGKILL)
    output, _ = first.communicate()
    run = re.search(r"SLURM run ID: (\S+)", output)
    assert run, output
    chain.cluster.ask("scancel", "--name", run[1])
    until(lambda: orphan not in [job for job, _ in chain.cluster.jobs()], 300, "the orphan's end")
    finished(chain.start("--unlock"))
    assert not (chain.folder / RESPONSES).exists()
    assert without_responses.height


def same(folder: Path, before: pl.DataFrame) -> bool:
    return pl.read_parquet(folder / RESPONSES).equals(before)
