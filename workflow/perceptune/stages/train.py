"""A LoRA adapter from preference lists, with its training curves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from perceptune.contracts.config import ModelBlock, TrainingBlock
from perceptune.contracts.digests import sha256_of_file, sha256_of_json
from perceptune.contracts.errors import UserError
from perceptune.contracts.lineage import code_digest, lineage, plugin, write_lineage
from perceptune.contracts.tables import write_table
from perceptune.core.methods import METHODS
from perceptune.engines.lists import Encoder
from perceptune.engines.training import train, with_adapter
from perceptune.models.families import family_of
from perceptune.models.loading import load_model, load_processor
from perceptune.stages.job import end_with_snakemake
from perceptune.stages.lists import chosen_responses, ground_truth_lists, kept_lists, with_reference
from perceptune.stages.locks import only_writer

BUDGET = 8192
"""Response tokens per packed row; a longer list is cut into several rows, which changes nothing but memory and time."""
SPEED_ONLY = {"micro_batch_size", "devices", "gradient_checkpointing", "save_steps"}


def run(
    *,
    experiment: str,
    preferences: Path,
    examples: Path,
    terms: Path | None,
    adapter: Path,
    training: Path,
    checkpoints: Path,
    model: ModelBlock,
    weights: str,
    config: TrainingBlock,
    halvings: int = 0,
) -> None:
    """Writes `adapter` (a PEFT folder, safetensors) and the `training` table; `checkpoints` is removed at the end.

    A killed run goes on from its newest complete checkpoint if settings, inputs and code are the same. With `devices` above 1
    that many processes are started, which train together. `weights` is the digest of the model's files. Each of the `halvings`
    halves what is computed at once, not the lists of an optimiser step.
    """
    paths = {"preferences": preferences, "examples": examples, "terms": terms, "adapter": adapter}
    paths |= {"training": training, "checkpoints": checkpoints}
    if "LOCAL_RANK" in os.environ:
        _train(experiment, paths, model, weights, config, halvings)
        return
    with only_writer(checkpoints.with_name(f".{checkpoints.name}.lock"), "this adapter"):
        if config.devices > 1:
            _launch(experiment, paths, model, weights, config, halvings)
        else:
            _train(experiment, paths, model, weights, config, halvings)


def _train(
    experiment: str,
    paths: Mapping[str, Path | None],
    model: ModelBlock,
    weights: str,
    config: TrainingBlock,
    halvings: int,
) -> None:
    terms = paths["terms"]
    preferences, examples, adapter, training, checkpoints = (
        Path(str(paths[name])) for name in ("preferences", "examples", "adapter", "training", "checkpoints")
    )
    inputs = {"preferences": preferences, "examples": examples} | ({"terms": terms} if terms else {})
    settings = {"model": model.model_dump(mode="json"), "weights": weights, "training": config.model_dump(mode="json")}
    plugins = [plugin("family", model.family), plugin("method", config.method), plugin("view", config.view)]
    method = METHODS[config.method]
    parameters = method.Parameters.model_validate(config.parameters)
    family, processor, base = family_of(model), load_processor(model), load_model(model)
    lists = kept_lists(preferences, examples)
    if method.wants_ground_truth(parameters):
        lists = ground_truth_lists(lists, preferences, examples, model, processor)
    elif terms is not None:
        lists = with_reference(lists, terms)
    lists = chosen_responses(lists, method, parameters)
    adapted = with_adapter(base, config, family.lora_targets, model.path)
    log = train(
        adapted,
        Encoder(family, processor, base, config.view, BUDGET >> halvings),
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


def _launch(
    experiment: str,
    paths: Mapping[str, Path | None],
    model: ModelBlock,
    weights: str,
    config: TrainingBlock,
    halvings: int,
) -> None:
    """Runs this stage in `devices` processes; a `UserError` or `MemoryError` of theirs is raised here."""
    with tempfile.TemporaryDirectory(prefix="perceptune-train-") as folder:
        file, failure = Path(folder) / "job.json", Path(folder) / "failure.json"
        job = {
            "experiment": experiment,
            "paths": {k: None if v is None else str(v) for k, v in paths.items()},
            "model": model.model_dump(mode="json"),
            "weights": weights,
            "training": config.model_dump(mode="json"),
            "halvings": halvings,
            "failure": str(failure),
        }
        file.write_text(json.dumps(job))
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={config.devices}"]
        done = subprocess.run([sys.executable, *command, "-m", "perceptune.stages.train", str(file)], check=False)
        if failure.exists():
            kind, message, hint = json.loads(failure.read_text())
            raise UserError(message, hint) if kind == "user" else MemoryError(message)
        if done.returncode:
            raise RuntimeError(f"training processes ended with status {done.returncode}, see the log")


def _one_of_several(file: Path) -> None:
    """One process of several, started by `_launch`."""
    end_with_snakemake()
    job = json.loads(file.read_text())
    paths = {name: None if path is None else Path(path) for name, path in job["paths"].items()}
    model, config = ModelBlock(**job["model"]), TrainingBlock(**job["training"])
    try:
        _train(job["experiment"], paths, model, job["weights"], config, job["halvings"])
    except UserError as error:
        Path(job["failure"]).write_text(json.dumps(["user", error.args[0], error.hint]))
        raise
    except torch.OutOfMemoryError as error:
        Path(job["failure"]).write_text(json.dumps(["memory", str(error), None]))
        raise


def _fingerprint(settings: dict[str, Any], inputs: dict[str, Path], plugins: list[str]) -> str:
    """Identifies a run: what changes only the speed does not count."""
    same = {
        "model": {k: v for k, v in settings["model"].items() if k not in ("engine", "path")},
        "weights": settings["weights"],
        "training": {k: v for k, v in settings["training"].items() if k not in SPEED_ONLY},
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
