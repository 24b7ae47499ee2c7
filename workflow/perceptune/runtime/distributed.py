"""Training in several processes, run fingerprints, and atomic saving of adapters."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perceptune.contracts.config import UNCOMPUTED, TrainingBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.progress import for_children, show_bars_of_parent
from perceptune.contracts.provenance.code import code_digest
from perceptune.contracts.provenance.digests import sha256_of_file, sha256_of_json
from perceptune.contracts.provenance.lineage import write_lineage
from perceptune.runtime.folders import appearing_folder
from perceptune.runtime.gpu_leases import visible_gpus
from perceptune.runtime.job import end_with_snakemake, of_memory

SPEED_ONLY = {"micro_batch_size", "devices", "nodes", "gradient_checkpointing", "save_steps", "report_to"}
"""Not `sharding`, because checkpoints depend on it."""


def launch(module: str, job: Mapping[str, Any], block: TrainingBlock, shared: Path) -> None:
    """Runs `module` in `block.devices` processes on each of `block.nodes` nodes, with the same job.

    `shared` is a folder that all nodes see. Raises the processes' `UserError` or `MemoryError` in this
    process, and `UserError` for several nodes without a SLURM job.
    """
    started, rendezvous = [], ["--standalone"]
    if block.nodes > 1:
        started, rendezvous = _on_every_node(block), _rendezvous(block.nodes)
        shared.mkdir(parents=True, exist_ok=True)
    place = shared if block.nodes > 1 else None
    with tempfile.TemporaryDirectory(prefix=".perceptune-train-", dir=place) as folder:
        file, failure = Path(folder).absolute() / "job.json", Path(folder).absolute() / "failure.json"
        file.write_text(json.dumps({**job, "failure": str(failure)}))
        command = ["-m", "torch.distributed.run", *rendezvous, f"--nproc-per-node={block.devices}"]
        command = [*started, sys.executable, *command, "-m", module, str(file)]
        done = subprocess.run(command, env={**os.environ, **for_children()}, check=False)
        if failure.exists():
            kind, message, hint = json.loads(failure.read_text())
            raise UserError(message, hint) if kind == "user" else MemoryError(message)
        if done.returncode:
            raise RuntimeError(f"training processes ended with status {done.returncode}, see the log")


def _on_every_node(block: TrainingBlock) -> list[str]:
    """The command that starts another one on every node of this SLURM job.

    Raises `UserError` outside of a SLURM job.
    """
    if "SLURM_JOB_ID" not in os.environ:
        raise UserError(
            f"key `nodes`: {block.nodes}, but this job does not run in SLURM", "docs/cluster.md has the SLURM profile"
        )
    gpus = [f"--gpus-per-node={block.devices}"] if visible_gpus() else []
    one_per_node = [f"--nodes={block.nodes}", f"--ntasks={block.nodes}", "--ntasks-per-node=1"]
    # the step may use what this process holds, which itself only waits, and ends as a whole
    return ["srun", *one_per_node, *gpus, "--overlap", "--cpu-bind=quiet,none", "--kill-on-bad-exit=1"]


def _rendezvous(nodes: int) -> list[str]:
    """Options of torchrun with which the nodes find each other, at a free port of this one."""
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    here = f"{socket.gethostname()}:{port}"
    return [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={here}", f"--rdzv-id={port}"]


@contextmanager
def one_of_several(file: Path) -> Iterator[dict[str, Any]]:
    """The job that `launch` passed to this process; reports its failure to the parent."""
    end_with_snakemake()
    if first():
        show_bars_of_parent()
    job = json.loads(file.read_text())
    failure = Path(job.pop("failure"))
    try:
        yield job
    except UserError as error:
        failure.write_text(json.dumps(["user", error.args[0], error.hint]))
        raise
    except Exception as error:
        if of_memory(error):
            failure.write_text(json.dumps(["memory", str(error), None]))
        raise


def first() -> bool:
    """Whether this process writes the results."""
    return os.environ.get("RANK", "0") == "0"


def fingerprint(settings: Mapping[str, Any], inputs: Mapping[str, Path], module: str, plugins: list[str]) -> str:
    """Identifies a run; settings that affect only speed do not count."""
    same = {
        **settings,
        "model": {k: v for k, v in settings["model"].items() if k not in UNCOMPUTED},
        "training": {k: v for k, v in settings["training"].items() if k not in SPEED_ONLY},
        "inputs": {name: sha256_of_file(path) for name, path in inputs.items()},
        "code": code_digest(module, *plugins),
    }
    return sha256_of_json(same)


@contextmanager
def appearing_adapter(adapter: Path, record: Mapping[str, Any]) -> Iterator[Path]:
    """A temporary folder to save into, moved to `adapter` with its lineage once it is complete."""
    with appearing_folder(adapter) as folder:
        yield folder
        write_lineage(folder, dict(record))
