"""The job wrapper in real Snakemake runs of a workflow with one rule."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

SNAKEFILE = """
rule one:
    output:
        "out.txt",
    log:
        "logs/one.log",
    retries: 2
    resources:
        gpu=0,
        attempt=lambda wildcards, attempt: attempt,
    script:
        "one.py"
"""

SCRIPT = """
import sys, time
from pathlib import Path
from perceptune.contracts.errors import UserError
from perceptune.runtime.job import job

with job(snakemake) as halvings:
    attempt = snakemake.resources.attempt
    with open("attempts", "a") as file:
        file.write(f"{attempt}\\n")
    print("hello from attempt", attempt)
    BODY
    Path(snakemake.output[0]).write_text("done")
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    return tmp_path


def started(body: str, cores: int = 1) -> subprocess.Popen[str]:
    Path("one.py").write_text(SCRIPT.replace("BODY", body))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["snakemake", "--cores", str(cores), "--rerun-incomplete"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def run(body: str) -> tuple[int, str, list[str]]:
    """(exit status, terminal output, attempts that reached the stage)."""
    process = started(body)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output, Path("attempts").read_text().split()


def test_a_users_mistake_is_shown_once_and_not_retried() -> None:
    status, output, attempts = run('raise UserError("key `x` is wrong", "do y")')
    assert status == 1
    assert attempts == ["1"]
    assert output.count("error: key `x` is wrong") == 1
    assert "hint: do y" in output
    assert "Traceback" not in output
    assert "not retried" in Path("logs/one.log").read_text()


def test_a_bug_shows_its_traceback_and_is_not_retried() -> None:
    status, output, attempts = run('{}["a bug"]')
    assert status == 1
    assert attempts == ["1"]
    assert "KeyError: 'a bug'" in output


def test_a_bug_in_a_plugin_ends_with_its_line() -> None:
    body = """
    from perceptune.contracts.plugins import use_folders
    Path("own/rewards").mkdir(parents=True)
    file = Path("own/rewards/mine.py").absolute()
    file.write_text("def score(answers):\\n    return answers['texts']\\n\\n\\nREWARD = score\\n")
    use_folders(["own"])
    exec(compile(file.read_text(), str(file), "exec"))
    REWARD({})"""
    status, output, attempts = run(body)
    assert (status, attempts) == (1, ["1"])
    assert "Traceback" in output
    assert f"error: `{Path.cwd()}/own/rewards/mine.py`, line 2, in `score`: KeyError: 'texts'" in output


def test_a_mistake_of_an_earlier_run_does_not_stop_this_one() -> None:
    run('raise UserError("wrong")')
    status, _, attempts = run("pass")
    assert status == 0
    assert attempts == ["1", "1"]


def test_out_of_memory_is_retried_with_the_next_attempt() -> None:
    body = """
    with open("halvings", "a") as file:
        file.write(f"{halvings}\\n")
    if attempt < 3: raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")"""
    status, output, attempts = run(body)
    assert status == 0, output
    assert attempts == ["1", "2", "3"]
    assert Path("halvings").read_text().split() == ["0", "1", "2"]
    assert "error: out of memory in attempt 2: CUDA out of memory. Tried to allocate 20 GiB" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(("cause", "attempts"), [("CUDA out of memory. Tried", 2), ("illegal memory access", 1)])
def test_the_error_of_an_engine_process_is_in_the_log(cause: str, attempts: int) -> None:
    body = f"""
    import subprocess
    if attempt == 1:
        subprocess.run(["echo", "(EngineCore pid=7) torch.Error: {cause}"])
        raise RuntimeError("Engine core initialization failed. See root cause above.")"""
    status, output, made = run(body)
    assert (status == 0) == (attempts == 2)
    assert len(made) == attempts
    assert ("error: out of memory in attempt 1: (EngineCore pid=7) torch.Error: CUDA out of memory" in output) == (
        attempts == 2
    )


def test_a_killed_attempt_is_retried_as_it_was() -> None:
    body = "import os; os.kill(os.getpid(), 9) if attempt == 1 else Path('halvings').write_text(str(halvings))"
    status, output, attempts = run(body)
    assert status == 0, output
    assert attempts == ["1", "2"]
    assert Path("halvings").read_text() == "0"


def test_a_full_disk_is_one_line() -> None:
    status, output, _ = run('open("/dev/full", "w").write("x" * 100000)')
    assert status == 1
    assert "error: cannot write: [Errno 28] No space left on device" in output
    assert "Traceback" not in output


def test_what_a_job_prints_goes_to_its_log() -> None:
    _, output, _ = run("import subprocess; subprocess.run(['echo', 'from a child'])")
    assert "hello from attempt" not in output
    assert Path("logs/one.log").read_text().splitlines() == ["hello from attempt 1", "from a child"]


def test_a_job_and_its_children_end_when_snakemake_is_killed(project: Path) -> None:
    body = """import subprocess, os
    child = subprocess.Popen(["sleep", "600"])
    Path("pids").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)"""
    snakemake = started(body)
    deadline = time.monotonic() + 300
    while not Path("pids").exists() or not Path("pids").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    jobs = [psutil.Process(int(pid)) for pid in Path("pids").read_text().split()]
    snakemake.send_signal(signal.SIGKILL)
    snakemake.wait()
    _, alive = psutil.wait_procs(jobs, timeout=15)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    assert "Snakemake has ended; stopping this job" in (project / "logs/one.log").read_text()


def test_a_second_run_in_the_same_folder_is_refused_and_harms_nothing(project: Path) -> None:
    body = "Path('begun').touch(); [time.sleep(0.1) for _ in range(1200) if not Path('refused').exists()]"
    first = started(body)
    deadline = time.monotonic() + 300
    while not Path("begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    second = started(body)
    output, _ = second.communicate(timeout=300)
    Path("refused").touch()
    assert second.returncode == 1
    assert "cannot be locked" in output
    assert "Traceback" not in output
    first.communicate(timeout=300)
    assert first.returncode == 0
    assert (project / "out.txt").read_text() == "done"
    assert Path("attempts").read_text().split() == ["1"]


def test_a_folder_that_cannot_be_written_is_one_line(project: Path) -> None:
    body = "import errno; raise OSError(errno.EROFS, 'Read-only file system', 'results/x.parquet')"
    status, output, attempts = run(body)
    assert status == 1
    assert attempts == ["1", "2", "3"]  # the folder may be mounted again
    assert "error: cannot write: [Errno 30] Read-only file system: 'results/x.parquet'" in output
    assert "Traceback" not in output


FOUR = """
rule all:
    input:
        expand("{n}.txt", n=range(4)),


rule one:
    output:
        "{n}.txt",
    log:
        "logs/{n}.log",
    resources:
        gpu=1,
        attempt=lambda wildcards, attempt: attempt,
    script:
        "one.py"
"""


def test_four_jobs_of_one_run_share_two_gpus_without_sharing_one(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Snakemake starts all four jobs at once without a limit; the leases assign the GPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("leases")))
    (project / "Snakefile").write_text(FOUR)
    body = """import os, json
    begun = time.monotonic()
    time.sleep(1.5)
    Path(f"held-{snakemake.wildcards.n}").write_text(json.dumps([os.environ["CUDA_VISIBLE_DEVICES"], begun, time.monotonic()]))"""
    process = started(body, cores=4)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    held = [json.loads(path.read_text()) for path in sorted(project.glob("held-*"))]
    assert len(held) == 4
    assert {gpu for gpu, *_ in held} == {"0", "1"}
    for i, (gpu, begun, ended) in enumerate(held):
        for other, others_begin, others_end in held[:i]:
            assert gpu != other or ended <= others_begin or others_end <= begun
