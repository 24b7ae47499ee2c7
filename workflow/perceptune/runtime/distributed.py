"""Training in several processes, run fingerprints, and atomic saving of adapters."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from perceptune.contracts.config import UNCOMPUTED
from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.code import code_digest
from perceptune.contracts.provenance.digests import sha256_of_file, sha256_of_json
from perceptune.contracts.provenance.lineage import write_lineage
from perceptune.runtime.job import end_with_snakemake

SPEED_ONLY = {"micro_batch_size", "devices", "gradient_checkpointing", "save_steps", "report_to"}


def launch(module: str, job: Mapping[str, Any], devices: int) -> None:
    """Runs `module` in `devices` processes with the same job.

    Raises their `UserError` or `MemoryError` in this process.
    """
    with tempfile.TemporaryDirectory(prefix="perceptune-train-") as folder:
        file, failure = Path(folder) / "job.json", Path(folder) / "failure.json"
        file.write_text(json.dumps({**job, "failure": str(failure)}))
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
        done = subprocess.run([sys.executable, *command, "-m", module, str(file)], check=False)
        if failure.exists():
            kind, message, hint = json.loads(failure.read_text())
            raise UserError(message, hint) if kind == "user" else MemoryError(message)
        if done.returncode:
            raise RuntimeError(f"training processes ended with status {done.returncode}, see the log")


@contextmanager
def one_of_several(file: Path) -> Iterator[dict[str, Any]]:
    """The job that `launch` passed to this process; reports its failure to the parent."""
    end_with_snakemake()
    job = json.loads(file.read_text())
    failure = Path(job.pop("failure"))
    try:
        yield job
    except UserError as error:
        failure.write_text(json.dumps(["user", error.args[0], error.hint]))
        raise
    except torch.OutOfMemoryError as error:
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
    temporary = adapter.with_name(f".{adapter.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        write_lineage(temporary, dict(record))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(adapter, ignore_errors=True)
    temporary.rename(adapter)
