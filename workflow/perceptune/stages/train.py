"""A LoRA adapter from preference lists, with its training curves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from perceptune.contracts.config import ModelBlock, TrainingBlock, ViewBlock
from perceptune.contracts.digests import sha256_of_file, sha256_of_json
from perceptune.contracts.errors import UserError
from perceptune.contracts.lineage import code_digest, lineage, plugin, write_lineage
from perceptune.contracts.tables import write_table
from perceptune.core.looks import Look
from perceptune.core.methods import METHODS
from perceptune.core.methods.method import GroupMethod
from perceptune.engines.lists import Encoder, RankedList
from perceptune.engines.training import train, with_adapter
from perceptune.models.families import family_of
from perceptune.models.loading import load_model, load_processor
from perceptune.stages.job import end_with_snakemake
from perceptune.stages.lists import ground_truth_lists, kept_lists, view_ops, with_reference
from perceptune.stages.locks import only_writer

BUDGET = 8192
"""Response tokens per packed row; a longer list is cut into several rows, which changes nothing but memory and time."""
SPEED_ONLY = {"micro_batch_size", "devices", "gradient_checkpointing", "save_steps"}


def run(
    *,
    experiment: str,
    preferences: Path,
    examples: Path,
    terms: dict[str, Path],
    adapter: Path,
    training: Path,
    checkpoints: Path,
    model: ModelBlock,
    weights: str,
    config: TrainingBlock,
    views: dict[str, ViewBlock],
    halvings: int = 0,
) -> None:
    """Writes `adapter` (a PEFT folder, safetensors) and the `training` table; `checkpoints` is removed at the end.

    `terms` maps views to tables of stored log-probabilities, `views` are the config's blocks.

    A killed run goes on from its newest complete checkpoint if settings, inputs and code are the same. With `devices` above 1
    that many processes are started, which train together. `weights` is the digest of the model's files. Each of the `halvings`
    halves what is computed at once, not the lists of an optimiser step.
    """
    paths = {"preferences": preferences, "examples": examples, "adapter": adapter}
    paths |= {
        "training": training,
        "checkpoints": checkpoints,
        **{f"terms {view}": path for view, path in terms.items()},
    }
    job = _Job(experiment, paths, model, weights, config, views, halvings)
    if "LOCAL_RANK" in os.environ:
        _train(job)
        return
    with only_writer(checkpoints.with_name(f".{checkpoints.name}.lock"), "this adapter"):
        if config.devices > 1:
            _launch(job)
        else:
            _train(job)


@dataclass(frozen=True)
class _Job:
    """What `run` was asked for."""

    experiment: str
    paths: Mapping[str, Path]
    model: ModelBlock
    weights: str
    config: TrainingBlock
    views: Mapping[str, ViewBlock]
    halvings: int


def _train(job: _Job) -> None:
    experiment, model, config, halvings = job.experiment, job.model, job.config, job.halvings
    names = ("preferences", "examples", "adapter", "training", "checkpoints")
    preferences, examples, adapter, training, checkpoints = (job.paths[name] for name in names)
    terms = {name.removeprefix("terms "): path for name, path in job.paths.items() if name.startswith("terms ")}
    inputs = {name: path for name, path in job.paths.items() if name not in ("adapter", "training", "checkpoints")}
    settings = {
        "model": model.model_dump(mode="json"),
        "weights": job.weights,
        "training": config.model_dump(mode="json"),
        "views": {name: block.model_dump(mode="json") for name, block in job.views.items() if name == config.view},
    }
    method = METHODS[config.method]
    assert isinstance(method, GroupMethod)  # the config's checks let no other through
    parameters = method.Parameters.model_validate(config.parameters)
    family, processor, base = family_of(model), load_processor(model), load_model(model)
    wanted = dict.fromkeys([config.view, *terms])
    lists = kept_lists(preferences, examples, list(wanted), job.views)
    ops = view_ops(shown for one in lists for shown in one.views.values())
    plugins = [plugin("family", model.family), plugin("method", config.method), *(plugin("view", op) for op in ops)]
    if method.wants_ground_truth(parameters):
        lists = ground_truth_lists(lists, preferences, examples, model, processor)
    elif terms:
        lists = with_reference(lists, terms)

    def looks(one: RankedList) -> list[Look]:
        return method.looks(one.rewards, one.pairs, parameters, config.view)

    lists = [one for one in lists if looks(one)]
    if not lists:
        raise UserError(f"method `{config.method}` has nothing to learn from in `{preferences}`")
    adapted = with_adapter(base, config, family.lora_targets, model.path)
    log = train(
        adapted,
        Encoder(family, processor, base, looks, BUDGET >> halvings),
        lists,
        method=method,
        parameters=parameters,
        block=config.model_copy(update={"micro_batch_size": max(config.micro_batch_size >> halvings, 1)}),
        dtype=model.dtype,
        checkpoints=checkpoints,
        fingerprint=_fingerprint(settings, inputs, plugins),
    )
    if int(os.environ.get("RANK", "0")):
        return
    record = lineage("train", settings, inputs, plugins)
    _save(adapted, adapter, record)
    rows = [
        {"experiment": experiment, "step": int(entry["step"]), "metric": name, "value": float(value)}
        for entry in log
        for name, value in sorted(entry.items())  # a resumed log comes in another order
        if name not in ("step", "epoch")
    ]
    write_table(training, "training", rows, record)
    shutil.rmtree(checkpoints, ignore_errors=True)


def _launch(job: _Job) -> None:
    """Runs this stage in `devices` processes; a `UserError` or `MemoryError` of theirs is raised here."""
    with tempfile.TemporaryDirectory(prefix="perceptune-train-") as folder:
        file, failure = Path(folder) / "job.json", Path(folder) / "failure.json"
        told = {
            "experiment": job.experiment,
            "paths": {k: str(v) for k, v in job.paths.items()},
            "model": job.model.model_dump(mode="json"),
            "weights": job.weights,
            "training": job.config.model_dump(mode="json"),
            "views": {name: block.model_dump(mode="json") for name, block in job.views.items()},
            "halvings": job.halvings,
            "failure": str(failure),
        }
        file.write_text(json.dumps(told))
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.config.devices}"]
        done = subprocess.run([sys.executable, *command, "-m", "perceptune.stages.train", str(file)], check=False)
        if failure.exists():
            kind, message, hint = json.loads(failure.read_text())
            raise UserError(message, hint) if kind == "user" else MemoryError(message)
        if done.returncode:
            raise RuntimeError(f"training processes ended with status {done.returncode}, see the log")


def _one_of_several(file: Path) -> None:
    """One process of several, started by `_launch`."""
    end_with_snakemake()
    told = json.loads(file.read_text())
    job = _Job(
        told["experiment"],
        {name: Path(path) for name, path in told["paths"].items()},
        ModelBlock(**told["model"]),
        told["weights"],
        TrainingBlock(**told["training"]),
        {name: ViewBlock(**block) for name, block in told["views"].items()},
        told["halvings"],
    )
    try:
        _train(job)
    except UserError as error:
        Path(told["failure"]).write_text(json.dumps(["user", error.args[0], error.hint]))
        raise
    except torch.OutOfMemoryError as error:
        Path(told["failure"]).write_text(json.dumps(["memory", str(error), None]))
        raise


def _fingerprint(settings: dict[str, Any], inputs: dict[str, Path], plugins: list[str]) -> str:
    """Identifies a run: what changes only the speed does not count."""
    same = {
        "model": {k: v for k, v in settings["model"].items() if k not in ("engine", "path")},
        "weights": settings["weights"],
        "training": {k: v for k, v in settings["training"].items() if k not in SPEED_ONLY},
        "views": settings["views"],
        "inputs": {name: sha256_of_file(path) for name, path in inputs.items()},
        "code": code_digest("perceptune.stages.train", *plugins),
    }
    return sha256_of_json(same)


def _save(adapted: Any, adapter: Path, record: dict[str, Any]) -> None:
    """The adapter folder, with its lineage, appears under its name only when it is complete."""
    temporary = adapter.with_name(f".{adapter.name}.{os.getpid()}")
    try:
        adapted.save_pretrained(temporary, safe_serialization=True)
        write_lineage(temporary, record)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(adapter, ignore_errors=True)
    temporary.rename(adapter)


if __name__ == "__main__":
    _one_of_several(Path(sys.argv[1]))
