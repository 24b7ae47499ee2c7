"""Trains a LoRA adapter on preference lists, with training curves."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter

from perceptune.contracts.config import ModelBlock, TrainingBlock, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.paths import FEATURES
from perceptune.contracts.plugins import load, module_of
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.probe import needs_separate_sequences
from perceptune.contracts.tables.training import TRAINING
from perceptune.core.methods.method import GroupMethod
from perceptune.engines.training.feeding import Feed, Source
from perceptune.engines.training.image_features import feature_cache, finish
from perceptune.engines.training.kept_epochs import FOLDER as EPOCHS
from perceptune.engines.training.sharding import whole_adapter
from perceptune.engines.training.trackers import Run
from perceptune.engines.training.trainer import train, with_adapter, with_less_memory
from perceptune.models.loading import load_model
from perceptune.runtime.ahead import workers_of
from perceptune.runtime.distributed import appearing_adapter, fingerprint, first, launch, one_of_several
from perceptune.runtime.locks import only_writer
from perceptune.stages.training.encodable import Prompts
from perceptune.stages.training.groups import kept_lists
from perceptune.stages.training.looks import MethodLooks

BUDGET = 8192
"""Response tokens per packed row; splitting a longer list affects only memory and time."""


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
    saliencies: Mapping[str, Path] | None = None,
    probe: Path | None = None,
    trackers: Path = Path("logs/trackers"),
    features: Path = Path(FEATURES),
    halvings: int = 0,
) -> None:
    """Writes `adapter` (a PEFT folder, safetensors) and the `training` table. With `keep_epochs`, `adapter`
    has a PEFT folder `epochs/<k>` per kept epoch.

    `checkpoints` is removed at the end. `terms` maps views to tables of stored log-probs, `views`
    are the config's blocks, `saliencies` the tables that these need, by block, `probe` that of a
    model of family `auto`. A killed run resumes
    from its newest complete checkpoint if settings, inputs and code are the same. `devices` and
    `nodes` above 1 start as many processes, which train together. `weights` is the digest of the model's files.
    Each of the `halvings` halves what is computed at once, not the lists of an optimiser step.
    `trackers` is the folder for what the trackers in `report_to` write, `features` that of features of
    images.
    """
    paths = {"preferences": preferences, "examples": examples, "adapter": adapter}
    paths |= {
        "training": training,
        "checkpoints": checkpoints,
        **{f"terms {view}": path for view, path in terms.items()},
        **({"probe": probe} if probe else {}),
    }
    job = _Job(experiment, paths, model, weights, config, views, saliencies or {}, trackers, features, halvings)
    with only_writer(checkpoints.with_name(f".{checkpoints.name}.lock"), "this adapter"):
        if config.devices * config.nodes > 1:
            launch("perceptune.stages.training.train", _JSON.dump_python(job, mode="json"), config, checkpoints.parent)
        else:
            _train(job)


@dataclass(frozen=True)
class _Job:
    """The arguments of `run`."""

    experiment: str
    paths: Mapping[str, Path]
    model: ModelBlock
    weights: str
    config: TrainingBlock
    views: Mapping[str, ViewBlock]
    saliencies: Mapping[str, Path]
    trackers: Path
    features: Path
    halvings: int

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that affect the result."""
        read = {name: path for name, path in self.paths.items() if name not in ("adapter", "training", "checkpoints")}
        return read | {f"saliency {name}": path for name, path in self.saliencies.items()}

    @property
    def terms(self) -> dict[str, Path]:
        """View to the table of stored log-probs."""
        return {n.removeprefix("terms "): path for n, path in self.paths.items() if n.startswith("terms ")}


_JSON = TypeAdapter(_Job)
"""Serialises the job for the training processes."""


def _train(job: _Job) -> None:
    experiment, model, config, halvings = job.experiment, job.model, job.config, job.halvings
    names = ("preferences", "examples", "adapter", "training", "checkpoints")
    preferences, examples, adapter, training, checkpoints = (job.paths[name] for name in names)
    settings = {
        "model": model.model_dump(mode="json"),
        "weights": job.weights,
        "training": config.model_dump(mode="json"),
        "views": {name: block.model_dump(mode="json") for name, block in job.views.items()},
    }
    method = load("method", config.method)
    assert isinstance(method, GroupMethod)  # guaranteed by config validation
    parameters = method.Parameters.model_validate(config.parameters)
    prompts = Prompts(model, needs_separate_sequences(job.paths.get("probe")))
    views = method.views(parameters, config.view)
    lists = kept_lists(preferences, examples, views, job.views, prompts, saliencies=job.saliencies)
    plugins = [
        module_of("family", model.family),
        module_of("method", config.method),
        *(module_of("view", op) for op in lists.ops),
    ]
    if method.wants_ground_truth(parameters):
        lists = lists.with_ground_truth(config.view, prompts)
    elif job.terms:
        lists = lists.with_reference(job.terms)

    looks = MethodLooks(config.method, config.parameters, config.view)
    lists = lists.where(bool(looks.of(*ranked)) for ranked in lists.ranks())
    if not lists:
        raise UserError(f"method `{config.method}` has nothing to learn from in `{preferences}`")
    source = Source(lists, partial(prompts.encoder, looks, BUDGET >> halvings))
    with Feed([source], workers_of(model, config.devices)) as feed:  # its workers start while the model is loaded
        base = load_model(model, quantisation=config.quantisation, sharded=config.sharding == "fsdp")
        adapted = with_adapter(base, config, prompts.family, model.path)
        features = feature_cache(job.features, model, job.weights, adapted, model.dtype)
        log = train(
            adapted,
            feed,
            method=method,
            parameters=parameters,
            block=with_less_memory(config, halvings),
            dtype=model.dtype,
            checkpoints=checkpoints,
            fingerprint=fingerprint(settings, job.inputs, "perceptune.stages.training.train", plugins),
            run=Run(experiment, job.trackers),
            features=features,
        )
        finish(features)
        weights = whole_adapter(adapted)
    if not first():
        return
    record = lineage("training.train", settings, job.inputs, plugins)
    with appearing_adapter(adapter, record) as folder:
        adapted.save_pretrained(folder, safe_serialization=True, state_dict=weights)
        if config.keep_epochs:
            shutil.copytree(checkpoints / EPOCHS, folder / EPOCHS)
    rows = [
        {"experiment": experiment, "step": int(entry["step"]), "metric": name, "value": float(value)}
        for entry in log
        for name, value in sorted(entry.items())  # the keys of a resumed log are in another order
        if name not in ("step", "epoch")
    ]
    write_table(training, TRAINING, rows, record)
    shutil.rmtree(checkpoints, ignore_errors=True)


if __name__ == "__main__":
    with one_of_several(Path(sys.argv[1])) as job:
        _train(_JSON.validate_python(job))
