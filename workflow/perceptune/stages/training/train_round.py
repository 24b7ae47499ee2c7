"""Trains one round: previous adapter and a batch of its own answers to next adapter."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from perceptune.contracts.config import ModelBlock, TrainingBlock, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.paths import FEATURES
from perceptune.contracts.plugins import load, module_of
from perceptune.contracts.progress import tell
from perceptune.contracts.provenance.lineage import FILE, lineage
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.probe import needs_separate_sequences
from perceptune.contracts.tables.training import TRAINING
from perceptune.core.methods.rollout import RolloutMethod
from perceptune.engines.training.feeding import Feed, Source
from perceptune.engines.training.image_features import feature_cache, finish
from perceptune.engines.training.rollout_trainer import RoundLog, train_round, views_of
from perceptune.engines.training.sharding import whole_adapter
from perceptune.engines.training.trackers import Run
from perceptune.engines.training.trainer import with_adapter, with_less_memory
from perceptune.models.loading import load_model, load_trained
from perceptune.runtime.ahead import workers_of
from perceptune.runtime.distributed import appearing_adapter, fingerprint, first, launch, one_of_several
from perceptune.runtime.locks import only_writer
from perceptune.stages.training.encodable import Prompts
from perceptune.stages.training.groups import kept_rollouts
from perceptune.stages.training.round_status import Ending, Stop

BUDGET = 8192
"""Response tokens per packed row; splitting a larger group affects only memory and time."""
OPTIMIZER = "optimizer.safetensors"
ENDING = "round.json"


def run(
    *,
    experiment: str,
    number: int,
    preferences: Path,
    responses: Path,
    examples: Path,
    terms: Path,
    before: Path | None,
    adapter: Path,
    training: Path,
    checkpoints: Path,
    model: ModelBlock,
    weights: str,
    config: TrainingBlock,
    views: dict[str, ViewBlock],
    longest: int,
    saliencies: Mapping[str, Path] | None = None,
    probe: Path | None = None,
    trackers: Path = Path("logs/trackers"),
    features: Path = Path(FEATURES),
    halvings: int = 0,
) -> None:
    """Writes round `number`'s `adapter` and `training` table.

    The adapter is a PEFT folder with `round.json` and the optimiser's state. `before` is the
    previous round's adapter folder, None for the first. `views` are the config's blocks,
    `saliencies` the tables that these need, by block, `probe` that of a model of family `auto`;
    `longest` is the token limit of the answers.
    `trackers` is the folder for what the trackers in `report_to` write, `features` that of features of
    images. A killed run resumes from its newest checkpoint. If a limit of the config is exceeded, or no
    group is left, the adapter is the previous one and `round.json` has the reason; later rounds
    only pass it on. Raises `UserError` if the first round has no groups.
    """
    paths = {"preferences": preferences, "responses": responses, "examples": examples, "terms": terms}
    paths |= {"adapter": adapter, "training": training, "checkpoints": checkpoints}
    paths |= {"probe": probe} if probe else {}
    given = (before, model, weights, config, views, saliencies or {}, longest, trackers, features, halvings)
    job = _Job(experiment, number, paths, *given)
    with only_writer(checkpoints.with_name(f".{checkpoints.name}.lock"), "this adapter"):
        if config.devices * config.nodes > 1 and _earlier(job).stopped is None:
            launch(
                "perceptune.stages.training.train_round",
                _JSON.dump_python(job, mode="json"),
                config,
                checkpoints.parent,
            )
        else:
            _train(job)


@dataclass(frozen=True)
class _Job:
    """The arguments of `run`."""

    experiment: str
    number: int
    paths: Mapping[str, Path]
    before: Path | None
    model: ModelBlock
    weights: str
    config: TrainingBlock
    views: Mapping[str, ViewBlock]
    saliencies: Mapping[str, Path]
    longest: int
    trackers: Path
    features: Path
    halvings: int

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that affect the result."""
        read = {name: path for name, path in self.paths.items() if name not in ("adapter", "training", "checkpoints")}
        read |= {f"saliency {name}": path for name, path in self.saliencies.items()}
        if self.before is not None:
            read |= {"adapter before": self.before / "adapter_model.safetensors", "round before": self.before / ENDING}
        return read


_JSON = TypeAdapter(_Job)
"""Serialises the job for the training processes."""


def _earlier(job: _Job) -> Ending:
    return Ending(0) if job.before is None else Ending.read(job.before / ENDING)


def _train(job: _Job) -> None:
    config, model = job.config, job.model
    settings = {
        "model": model.model_dump(mode="json"),
        "weights": job.weights,
        "training": config.model_dump(mode="json"),
        "views": {name: block.model_dump(mode="json") for name, block in job.views.items()},
        "round": job.number,
    }
    method = load("method", config.method)
    assert isinstance(method, RolloutMethod)  # guaranteed by config validation
    earlier = _earlier(job)
    if earlier.stopped is not None:
        _pass_on(
            job,
            earlier.stopped,
            [],
            lineage("training.train_round", settings, job.inputs, [module_of("method", config.method)]),
        )
        return
    parameters = method.Parameters.model_validate(config.parameters)
    shown = method.views(parameters, config.view)
    tables = {name: job.paths[name] for name in ("preferences", "responses", "examples", "terms")}
    stored = method.stored(parameters, config.view)
    prompts = Prompts(model, needs_separate_sequences(job.paths.get("probe")))
    rollouts = kept_rollouts(
        **tables, views=shown, blocks=job.views, stored=stored, saliencies=job.saliencies, prompts=prompts
    )
    plugins = [
        module_of("family", model.family),
        module_of("method", config.method),
        *(module_of("view", op) for op in rollouts.lists.ops),
    ]
    record = lineage("training.train_round", settings, job.inputs, plugins)
    if not rollouts:
        if job.before is None:
            raise UserError(f"no group of `{job.paths['preferences']}` is kept, so there is nothing to learn from")
        if first():
            _pass_on(job, Stop(job.number, "no group was kept, so there was nothing to learn from"), [], record)
        return
    mark = fingerprint(settings, job.inputs, "perceptune.stages.training.train_round", plugins)
    state = job.paths["checkpoints"] / OPTIMIZER
    encoder = partial(prompts.part_encoder, views_of(method, parameters, config.view), BUDGET >> job.halvings)
    loading: dict[str, Any] = {"quantisation": config.quantisation, "sharded": config.sharding == "fsdp"}
    with Feed([Source(rollouts, encoder)], workers_of(model, config.devices)) as feed:
        base = load_model(model, **loading)
        adapted = (
            with_adapter(base, config, prompts.family, model.path)
            if job.before is None
            else load_trained(base, job.before)
        )
        features = feature_cache(job.features, model, job.weights, adapted, model.dtype)
        done = train_round(
            adapted,
            feed,
            method=method,
            parameters=parameters,
            block=with_less_memory(config, job.halvings),
            round=job.number,
            longest=job.longest,
            dtype=model.dtype,
            checkpoints=job.paths["checkpoints"],
            fingerprint=mark,
            optimizer=_state_before(job),
            save_optimizer=state if config.optimizer == "carry" else None,
            run=Run(job.experiment, job.trackers),
            features=features,
        )
        finish(features)
        weights = whole_adapter(adapted)
    if not first():
        return
    if done.stopped is not None and job.before is not None:
        _pass_on(job, Stop(job.number, done.stopped), _rows(job, done), record)
        return
    stop = None
    if done.stopped is not None:  # a new adapter leaves the base model unchanged
        stop, weights = Stop(job.number, done.stopped), None
        adapted = with_adapter(load_model(model, **loading), config, prompts.family, model.path)
    with appearing_adapter(job.paths["adapter"], record) as folder:
        adapted.save_pretrained(folder, safe_serialization=True, state_dict=weights)
        if stop is None and config.optimizer == "carry":
            shutil.move(state, folder / OPTIMIZER)
        (folder / ENDING).write_text(Ending(job.number, stop).text())
    _finish(job, _rows(job, done), record)


def _state_before(job: _Job) -> Path | None:
    """The optimiser state to resume from, or None."""
    if job.before is None or job.config.optimizer == "reset":
        return None
    state = job.before / OPTIMIZER
    if not state.exists():
        raise UserError(
            f"`{state}` does not exist, so the optimiser cannot resume from the round before",
            "delete the adapter's folder and rerun, or set `optimizer: reset`",
        )
    return state


def _pass_on(job: _Job, stop: Stop, rows: list[dict[str, Any]], record: dict[str, Any]) -> None:
    """Copies the previous adapter as this round's, with the reason."""
    assert job.before is not None
    with appearing_adapter(job.paths["adapter"], record) as folder:
        for file in job.before.iterdir():
            if file.suffix in (".safetensors", ".json") and file.name not in (OPTIMIZER, ENDING, FILE):
                shutil.copy(file, folder / file.name)
        (folder / ENDING).write_text(Ending(job.number, stop).text())
    _finish(job, rows, record)
    tell(f"stopped in round {stop.round}: {stop.reason}; the adapter is round {stop.round - 1}'s")


def _rows(job: _Job, done: RoundLog) -> list[dict[str, Any]]:
    return [
        {"experiment": job.experiment, "step": int(entry["step"]), "metric": name, "value": float(value)}
        for entry in done.log
        for name, value in sorted(entry.items())  # the keys of a resumed log are in another order
        if name not in ("step", "epoch")
    ]


def _finish(job: _Job, rows: list[dict[str, Any]], record: dict[str, Any]) -> None:
    write_table(job.paths["training"], TRAINING, rows, record)
    shutil.rmtree(job.paths["checkpoints"], ignore_errors=True)


if __name__ == "__main__":
    with one_of_several(Path(sys.argv[1])) as job:
        _train(_JSON.validate_python(job))
