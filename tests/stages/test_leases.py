"""GPU leases between real processes, with device names that no driver reads."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from perceptune.contracts.errors import UserError
from perceptune.runtime.gpu_leases import leased_gpus, visible_gpus

HOLD = """
import json, os, sys, time
from perceptune.runtime.gpu_leases import leased_gpus
count, seconds = int(sys.argv[1]), float(sys.argv[2])
with leased_gpus(count):
    print(json.dumps({"gpus": os.environ["CUDA_VISIBLE_DEVICES"], "from": time.monotonic()}), flush=True)
    time.sleep(seconds)
    print(json.dumps({"to": time.monotonic()}), flush=True)
"""


@pytest.fixture(autouse=True)
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr("tempfile.tempdir", None)


def holder(count: int, seconds: float, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(count), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def finished(process: subprocess.Popen[str]) -> dict[str, object]:
    output, _ = process.communicate(timeout=300)
    return {key: value for line in output.splitlines() for key, value in json.loads(line).items()}


def overlap(a: dict, b: dict) -> bool:
    return a["from"] < b["to"] and b["from"] < a["to"]


def test_four_jobs_on_two_gpus_never_share_one() -> None:
    held = [finished(process) for process in [holder(1, 1.0) for _ in range(4)]]
    assert {one["gpus"] for one in held} == {"0", "1"}
    for i, one in enumerate(held):
        for other in held[:i]:
            assert one["gpus"] != other["gpus"] or not overlap(one, other)
    # and both are used
    assert any(overlap(one, other) for i, one in enumerate(held) for other in held[:i])


def test_jobs_of_one_and_of_two_gpus_neither_share_nor_starve() -> None:
    held = [finished(process) for process in [holder(1, 0.5), holder(2, 0.5), holder(1, 0.5), holder(2, 0.5)]]
    assert sorted(str(one["gpus"]) for one in held) in (
        ["0", "0", "0,1", "0,1"],
        ["0", "0,1", "0,1", "1"],
        ["0,1", "0,1", "1", "1"],
    )
    for i, one in enumerate(held):
        for other in held[:i]:
            assert not overlap(one, other) or not set(one["gpus"].split(",")) & set(other["gpus"].split(","))


def test_a_killed_job_gives_its_gpu_back() -> None:
    process = holder(2, 600)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    with leased_gpus(2) as names:
        assert names == ["0", "1"]


def test_the_environment_names_exactly_the_leased_gpus_and_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaaa, MIG-bbbb/1/0")
    with leased_gpus(1) as first:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-aaaa"
        assert first == ["GPU-aaaa"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-aaaa, MIG-bbbb/1/0"


def test_without_a_lease_visible_gpus_are_shared() -> None:
    with leased_gpus(2), leased_gpus(0) as none:
        assert none == []


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles"])
def test_no_gpus_means_the_cpu(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == []
    with leased_gpus(4) as none:
        assert none == []


def test_more_gpus_than_there_are_is_a_mistake_not_a_wait() -> None:
    with pytest.raises(UserError, match=r"needs 3 GPUs, 2 are visible \(0, 1\)"), leased_gpus(3):
        pass


def test_jobs_of_two_slurm_allocations_do_not_wait_for_each_other() -> None:
    """SLURM numbers the GPUs of every job from 0."""
    held = [finished(p) for p in [holder(2, 1.0, SLURM_JOB_ID=job) for job in ("11", "12")]]
    assert overlap(*held)
