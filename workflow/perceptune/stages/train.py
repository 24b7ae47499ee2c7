"""A LoRA adapter from preference lists, with its training curves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from perceptune.contracts.config import ModelBlock, TrainingBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.lineage import code_digest, lineage, sha256_of_file, sha256_of_json
from perceptune.contracts.tables import write_table
from perceptune.core.methods import METHODS
from perceptune.engines.lists import Encoder
from perceptune.engines.training import train, with_adapter
from perceptune.models.families import family_of
from perceptune.models.loading import load_model, load_processor
from perceptune.stages.lists import chosen_responses, ground_truth_lists, kept_lists, with_reference

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
    config: TrainingBlock,
) -> None:
    """Writes `adapter` (a PEFT folder, safetensors) and the `training` table; `checkpoints` is removed at the end.

    A killed run goes on from its newest complete checkpoint if settings, inputs and code are the same. With `devices` above 1
    that many processes are started, which train together.
    """
    if config.devices > 1 and "LOCAL_RANK" not in os.environ:
        paths = {"preferences": preferences, "examples": examples, "terms": terms, "adapter": adapter}
        paths |= {"training": training, "checkpoints": checkpoints}
        _launch(experiment, paths, model, config)
        return
    inputs = {"preferences": preferences, "examples": examples} | ({"terms": terms} if terms else {})
    settings = {"model": model.model_dump(mode="json"), "training": config.model_dump(mode="json")}
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
        Encoder(family, processor, base, config.view, BUDGET),
        lists,
        method=method,
        parameters=parameters,
        block=config,
        dtype=model.dtype,
        checkpoints=checkpoints,
        fingerprint=_fingerprint(settings, inputs),
    )
    if int(os.environ.get("RANK", "0")):
        return
    _save(adapted, adapter)
    rows = [
        {"experiment": experiment, "step": int(entry["step"]), "metric": name, "value": float(value)}
        for entry in log
        for name, value in entry.items()
        if name not in ("step", "epoch")
    ]
    write_table(training, "training", rows, lineage("train", settings, inputs))
    shutil.rmtree(checkpoints, ignore_errors=True)


def _launch(experiment: str, paths: dict[str, Path | None], model: ModelBlock, config: TrainingBlock) -> None:
    """Runs this stage in `devices` processes; a `UserError` of theirs is raised here."""
    job: dict[str, Any] = {"experiment": experiment, "model": model.model_dump(mode="json")}
    job |= {
        "training": config.model_dump(mode="json"),
        "paths": {k: None if v is None else str(v) for k, v in paths.items()},
    }
    with tempfile.TemporaryDirectory(prefix="perceptune-train-") as folder:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps({**job, "error": str(file.with_name("error.json"))}))
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={config.devices}"]
        done = subprocess.run([sys.executable, *command, "-m", "perceptune.stages.train", str(file)], check=False)
        error = file.with_name("error.json")
        if error.exists():
            message, hint = json.loads(error.read_text())
            raise UserError(message, hint)
        if done.returncode:
            raise RuntimeError(f"training processes ended with status {done.returncode}, see the log")


def _one_of_several(file: Path) -> None:
    """One process of several, started by `_launch`."""
    job = json.loads(file.read_text())
    paths: dict[str, Any] = {k: None if v is None else Path(v) for k, v in job["paths"].items()}
    try:
        run(
            experiment=job["experiment"],
            model=ModelBlock(**job["model"]),
            config=TrainingBlock(**job["training"]),
            **paths,
        )
    except UserError as error:
        Path(job["error"]).write_text(json.dumps([error.args[0], error.hint]))
        raise


def _fingerprint(settings: dict[str, Any], inputs: dict[str, Path]) -> str:
    """Identifies a run: what changes only the speed does not count."""
    same = {
        "model": {k: v for k, v in settings["model"].items() if k != "engine"},
        "training": {k: v for k, v in settings["training"].items() if k not in SPEED_ONLY},
        "inputs": {name: sha256_of_file(path) for name, path in inputs.items()},
        "code": code_digest("perceptune.stages.train"),
    }
    return sha256_of_json(same)


def _save(adapted: Any, adapter: Path) -> None:
    """The adapter folder appears under its name only when it is complete."""
    temporary = adapter.with_name(f".{adapter.name}.{os.getpid()}")
    adapted.save_pretrained(temporary, safe_serialization=True)
    shutil.rmtree(adapter, ignore_errors=True)
    temporary.rename(adapter)


if __name__ == "__main__":
    _one_of_several(Path(sys.argv[1]))
