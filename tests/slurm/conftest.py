"""A private SLURM cluster with two fake GPUs per node: real slurmctld, slurmd and munge on the
loopback interface. The second node is in the partition `pair` only, which has both.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGES = (Path(__file__).parent / "packages.txt").read_text().split()
"""Debian packages that `.ci/run` installs; elsewhere, installing them is up to the machine's owner.
"""
REQUIRED = "PERCEPTUNE_REQUIRE_SLURM"
"""Environment variable that makes missing programs fail the tests, as in CI."""

CONF = """
ClusterName=perceptune
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
SlurmctldTimeout=10
SlurmdTimeout=300
KillWait=2
OverTimeLimit=0
MinJobAge=300
GresTypes=gpu
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,bf_interval=1,sched_interval=1
NodeName=DEFAULT CPUs=32 Boards=1 SocketsPerBoard=1 CoresPerSocket=32 ThreadsPerCore=1 RealMemory=96000 Gres=gpu:2 \
State=UNKNOWN
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={other_port}
PartitionName=cpu Nodes=n1 Default=YES MaxTime=1-0 DefaultTime=10 DefMemPerCPU=200 State=UP
PartitionName=gpu Nodes=n1 MaxTime=2-0 State=UP
PartitionName=pair Nodes=n1,n2 MaxTime=2-0 State=UP
"""
GRES = "NodeName=n[1-2] Name=gpu File=/dev/null\nNodeName=n[1-2] Name=gpu File=/dev/zero\n"
SRUN = '#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {srun} "$@"\n'  # the jobstep plugin drops SLURM_CONF


@dataclass(frozen=True)
class Cluster:
    """A running cluster and the environment to reach it."""

    folder: Path
    environment: dict[str, str]

    def ask(self, *command: str) -> str:
        """The output of a SLURM command."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout

    def start_node(self, name: str = "n1") -> None:
        """Starts slurmd and waits until its node is ready."""
        subprocess.run(["slurmd", "-f", str(self.folder / "slurm.conf"), "-N", name], env=self.environment, check=True)
        ready, state = ("idle", "mixed", "allocated"), ("sinfo", "-h", "-n", name, "-o", "%T")
        until(lambda: self.ask(*state).split()[0] in ready, 180, "a ready node")

    def kill_node(self) -> None:
        """SIGKILLs slurmd; running steps have their own daemon and continue."""
        process = int((self.folder / "slurmd-n1.pid").read_text())
        os.kill(process, signal.SIGKILL)
        until(lambda: not running(process), 60, "slurmd's end")

    def jobs(self, state: str = "R") -> list[tuple[int, str]]:
        """(id, comment) of the jobs in a state; the executor plugin puts the rule's name into the
        comment.
        """
        lines = self.ask("squeue", "-h", "-t", state, "-o", "%A %k").splitlines()
        return [(int(line.split()[0]), line) for line in lines]


def until(condition: object, seconds: float, what: str) -> None:
    """Waits until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.2)


def running(process: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _check_installed() -> None:
    """Skips the tests if SLURM is missing, or fails them if `REQUIRED` is set."""
    lacking = [program for program in ("slurmctld", "slurmd", "munged", "srun") if not shutil.which(program)]
    if not lacking:
        return
    reason = f"{', '.join(lacking)} not found; Debian packages: {' '.join(PACKAGES)}"
    if os.environ.get(REQUIRED):
        pytest.fail(f"{reason}; {REQUIRED} is set")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executor plugin in a separate folder: installed in the environment, it would slow the
    start of every other test.
    """
    target = tmp_path_factory.mktemp("plugin")
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--python", sys.executable, "--quiet"]
    options = ["--no-deps", "--require-hashes", "--compile-bytecode", "--target", str(target)]
    subprocess.run([*uv, *options, "-r", str(ROOT / "envs/slurm.txt")], check=True)
    return target


@pytest.fixture(scope="session")
def cluster(plugin: Path) -> Iterator[Cluster]:
    _check_installed()
    with tempfile.TemporaryDirectory(prefix="perceptune-slurm-") as temporary:  # a short path: munge's socket
        folder = Path(temporary)
        for name in ("state", "spool-n1", "spool-n2", "bin"):
            (folder / name).mkdir()
        ports = _free_ports(3)
        facts = {"host": socket.gethostname(), "folder": folder, "user": getpass.getuser()}
        (folder / "slurm.conf").write_text(CONF.format(port=ports[0], node_port=ports[1], other_port=ports[2], **facts))
        (folder / "gres.conf").write_text(GRES)
        srun = folder / "bin/srun"
        srun.write_text(SRUN.format(folder=folder, srun=shutil.which("srun")))
        srun.chmod(0o755)
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
        environment |= {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": os.pathsep.join(
                (str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin")
            ),
            "PYTHONPATH": os.pathsep.join((str(plugin), str(ROOT / "workflow"))),
        }
        started = Cluster(folder, environment)
        munge = [
            f"--{name}={folder}/munge.{name.split('-')[0]}"
            for name in ("key-file", "pid-file", "log-file", "seed-file")
        ]
        subprocess.run(
            ["munged", *munge, f"--socket={folder}/munge.sock", "--num-threads=1", "--force"],
            env=environment,
            check=True,
        )
        subprocess.run(["slurmctld", "-f", str(folder / "slurm.conf"), "-c"], env=environment, check=True)
        try:
            started.start_node()
            started.start_node("n2")
            yield started
        finally:
            subprocess.run(["scancel", "--me", "--full"], env=environment, check=False)
            time.sleep(3)
            for name in ("slurmd-n1.pid", "slurmd-n2.pid", "slurmctld.pid", "munge.pid"):
                if (folder / name).exists():
                    process = int((folder / name).read_text())
                    if running(process):
                        os.kill(process, signal.SIGTERM)
                        until(lambda process=process: not running(process), 60, f"the end of {name}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@dataclass(frozen=True)
class Site:
    """A project folder whose jobs run on the cluster."""

    folder: Path
    cluster: Cluster

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`snakemake --profile workflow/profiles/slurm …`, polling more often than the profile."""
        command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.folder)]
        command += [
            "--configfile",
            str(self.folder / "config.yaml"),
            "--profile",
            str(ROOT / "workflow/profiles/slurm"),
        ]
        command += ["--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5", *arguments]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.cluster.environment, cwd=ROOT
        )

    def job_of(self, rule: str, other_than: tuple[int, ...] = ()) -> int:
        """The id of a job of this rule; waits until it runs."""
        found: list[int] = []

        def runs() -> bool:
            found[:] = [job for job, line in self.cluster.jobs() if rule in line and job not in other_than]
            return bool(found)

        until(runs, 240, f"a running job of {rule}")
        return found[0]

    def process_of(self, rule: str) -> psutil.Process:
        """The process of a stage in this folder; waits until it runs."""
        found: list[psutil.Process] = []

        def runs() -> bool:
            for process in psutil.process_iter(["cmdline", "cwd"]):
                title = " ".join(process.info["cmdline"] or [])
                if title.startswith(f"perceptune {rule}") and process.info["cwd"] == str(self.folder):
                    found.append(process)
            return bool(found)

        until(runs, 240, f"a process of {rule}")
        return found[0]


@pytest.fixture(scope="session")
def site(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A small version of the demo with one experiment."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "resources").symlink_to(ROOT / "resources")
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config["models"]["tiny"]["engine"]["answers_per_part"] = 64
    config["datasets"]["shapes"] |= {"train": {"grounding": 32}, "test": {"grounding": 12}}
    config["samplings"]["n20"]["n"] = 6
    config["selections"]["ranked"] |= {"list_size": 4, "min_margin": 0.1}
    config["benchmarks"]["shapes-test"] |= {"n": 2, "resamples": 99}
    del config["experiments"]["dpo"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return Site(folder, cluster)
