"""From the config file to the jobs: validation, sweeps, and what every rule's wildcards stand for.

The Snakefile imports this module, and so does every job that Snakemake starts: nothing heavy may be imported from here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from perceptune.contracts import config as blocks
from perceptune.contracts.config import Config, ExperimentBlock, FileDataset, ModelBlock, ShapesDataset, TrainingBlock
from perceptune.contracts.digests import DigestMemory, digest_of_folder, sha256_of_file, sha256_of_json
from perceptune.contracts.errors import UserError, joined_mistakes, lookup, near
from perceptune.contracts.lineage import plugin
from perceptune.contracts.paths import DATA, EXAMPLES, PREFERENCE_STATISTICS, REWARDS, TERMS, TRAINING
from perceptune.contracts.tables import read_lineage
from perceptune.core.methods import METHODS
from perceptune.stages.sweeps import expand_sweeps

UNTRACKED = {"engine", "watch_images", "micro_batch_size", "devices", "gradient_checkpointing", "save_steps"}
"""Settings that say where and how fast something is computed, not what: changing them reruns nothing."""

MEMORY = DigestMemory(Path(".snakemake/perceptune-digests.sqlite"))


@dataclass(frozen=True)
class Plan:
    """A validated config with its sweeps expanded."""

    config: Config
    digests: dict[str, str] = field(default_factory=dict)
    """Digests of models and data, each computed once: a plan asks for them in every job."""

    @cached_property
    def policies(self) -> list[str]:
        """Every policy to test: the base models that experiments use, then the experiments."""
        used = {e.model for e in self.config.experiments.values()}
        return [m for m in self.config.models if m in used] + list(self.config.experiments)

    def experiment(self, policy: str) -> ExperimentBlock | None:
        """The experiment of that name; None for a base model."""
        return self.config.experiments.get(policy)

    def base(self, policy: str) -> str:
        """The base model of a policy."""
        experiment = self.experiment(policy)
        return experiment.model if experiment else policy

    def benchmarks(self, policy: str) -> list[str]:
        """What a policy answers: its experiment's benchmarks; a base model answers those of all its experiments."""
        experiments = self.config.experiments.items()
        asked = {b for n, e in experiments if policy in (n, e.model) for b in e.benchmarks}
        return [b for b in self.config.benchmarks if b in asked]

    def datasets(self, policy: str, plan: str) -> list[str]:
        """Datasets that the requests of `plan` (`<dataset>/<sampling>` or `benchmarks`) are about."""
        if plan != "benchmarks":
            return [plan.split("/")[0]]
        return list(dict.fromkeys(self.config.benchmarks[b].dataset for b in self.benchmarks(policy)))

    def data_file(self, dataset: str) -> str:
        """The file or folder that a dataset is imported from."""
        block = self.config.datasets[dataset]
        return DATA.format(dataset=dataset) if isinstance(block, ShapesDataset) else block.path

    def is_generated(self, dataset: str) -> bool:
        """Whether the workflow makes the data itself."""
        return isinstance(self.config.datasets[dataset], ShapesDataset)

    def import_block(self, dataset: str) -> FileDataset:
        """How a dataset is imported; generated data comes in by the same door as the user's."""
        block = self.config.datasets[dataset]
        if isinstance(block, ShapesDataset):
            return FileDataset(kind="jsonl", path=self.data_file(dataset), coordinates="pixels")
        return block

    def samples(self, experiment: str) -> dict[str, str]:
        """The wildcards of an experiment's tables, from its samples to its preferences."""
        block = self.config.experiments[experiment]
        chosen = block.model_dump(include={"dataset", "sampling", "reward", "selection"})
        return {"policy": block.model, **chosen}

    def model_settings(self, policy: str) -> dict[str, Any]:
        """A policy's base model as a tracked setting: its block, with the digest of its files in place of the path."""
        name = self.base(policy)
        block = self.config.models[name]
        if name not in self.digests:
            self.digests[name] = model_digest(block)
        return {**tracked(block), "path": None, "weights": self.digests[name]}

    def import_settings(self, dataset: str) -> dict[str, Any]:
        """How a dataset is imported, as a tracked setting: with the digest of what it brings, images included.

        Generated data is an output of the workflow, which Snakemake watches itself.
        """
        block = self.import_block(dataset)
        settings = tracked(block)
        if not self.is_generated(dataset):
            settings["content"] = self.digests.setdefault(f"data {dataset}", data_digest(block))
        return settings

    def training(self, experiment: str) -> TrainingBlock:
        """The training block of an experiment."""
        return self.config.trainings[self.config.experiments[experiment].training]

    def terms(self, experiment: str) -> list[str]:
        """The tables of stored log-probabilities that an experiment's method reads: none or one."""
        training = self.training(experiment)
        if not METHODS[training.method].terms:
            return []
        return [TERMS.format(view=training.view, **self.samples(experiment))]

    def sampling_plugins(self, policy: str, plan: str) -> list[str]:
        """Modules that have a say in a policy's answers because of its settings."""
        if plan == "benchmarks":
            views = {view for b in self.benchmarks(policy) for view in self.config.benchmarks[b].views}
        else:
            views = {self.config.samplings[plan.split("/")[1]].view}
        return [self._family(policy), *(plugin("view", view) for view in sorted(views))]

    def terms_plugins(self, policy: str, view: str) -> list[str]:
        """Modules that have a say in stored log-probabilities because of their settings."""
        return [self._family(policy), plugin("view", view)]

    def training_plugins(self, experiment: str) -> list[str]:
        """Modules that have a say in an adapter because of its settings."""
        block = self.training(experiment)
        return [self._family(experiment), plugin("method", block.method), plugin("view", block.view)]

    def reward_plugins(self, reward: str) -> list[str]:
        """Modules that a reward block names."""
        return [plugin("reward", name) for name in sorted(set(self.config.rewards[reward].tasks.values()))]

    def _family(self, policy: str) -> str:
        return plugin("family", self.config.models[self.base(policy)].family)

    def benchmark_rewards(self, policy: str, benchmarks_of: str | None = None) -> dict[str, str]:
        """Benchmark to the table of a policy's scored answers; only those that `benchmarks_of` is tested on, too."""
        names = self.benchmarks(benchmarks_of or policy)
        rewards = {b: self.config.benchmarks[b].reward for b in names}
        return {b: REWARDS.format(policy=policy, plan="benchmarks", reward=r) for b, r in rewards.items()}

    def benchmark_settings(self, policy: str) -> dict[str, Any]:
        """The benchmark blocks that a policy answers."""
        return {b: tracked(self.config.benchmarks[b]) for b in self.benchmarks(policy)}

    def asking_settings(self, policy: str) -> dict[str, Any]:
        """The benchmark blocks that a policy answers, without what only evaluation looks at."""
        looked_at = ("reward", "resamples")
        blocks_of = self.benchmark_settings(policy)
        return {b: {k: v for k, v in block.items() if k not in looked_at} for b, block in blocks_of.items()}

    def evaluation_settings(self, policy: str) -> dict[str, Any]:
        """The benchmark blocks of a policy, and which reward each task has: it says which metrics there are."""
        blocks_of = self.benchmark_settings(policy)
        rewards = {b["reward"]: dict(self.config.rewards[b["reward"]].tasks) for b in blocks_of.values()}
        return {"benchmarks": blocks_of, "rewards": rewards}

    def statistics(self) -> dict[str, str]:
        """Label to the selection statistics of every experiment's lists, each once."""
        tables = [self.samples(e) for e in self.config.experiments]
        return {"/".join(t.values()): PREFERENCE_STATISTICS.format(**t) for t in tables}

    def report_settings(self) -> dict[str, Any]:
        """What the page needs to know besides the tables: who is tested on what, and against whom."""
        return {
            "report": tracked(self.config.report),
            "template": sha256_of_file(Path(__file__).with_name("report_template.html.jinja")),
            "base": {p: self.base(p) for p in self.policies},
            "benchmarks": {b: tracked(k) for b, k in self.config.benchmarks.items()},
            "training": {e: TRAINING.format(experiment=e) for e in self.config.experiments},
            "statistics": self.statistics(),
            "predictions": {p: self.benchmark_rewards(p) for p in self.policies},
            "examples": {d: EXAMPLES.format(dataset=d) for d in self.benchmark_datasets},
        }

    @cached_property
    def benchmark_datasets(self) -> list[str]:
        """Datasets that any policy is tested on."""
        return list(dict.fromkeys(d for p in self.policies for d in self.datasets(p, "benchmarks")))


def tracked(block: BaseModel) -> dict[str, Any]:
    """A block as builtins in fixed order, without what does not change the result."""
    return block.model_dump(mode="json", exclude=UNTRACKED)


def model_digest(block: ModelBlock) -> str:
    """Digest of a model folder's contents; a `UserError` when there is no model."""
    folder = Path(block.path)
    if not (folder / "config.json").exists():
        raise UserError(
            f"model folder `{block.path}`: no `config.json` in it, expected a folder in Hugging Face format",
            "paths are relative to the working directory",
        )
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"model folder `{block.path}`: no `*.safetensors` weights in it; other formats can run code when they are loaded",
            "convert them with transformers: `save_pretrained(folder)`",
        )
    return digest_of_folder(folder, MEMORY)


def data_digest(block: FileDataset) -> str:
    """Digest of a dataset's file or folder and, with `watch_images`, of the images that a JSONL file names.

    What is absent counts as absent: the import says what is wrong with it.
    """
    source = Path(block.path)
    if source.is_dir():
        return digest_of_folder(source, MEMORY)
    (digest,) = MEMORY.sha256_of_files([source])
    if block.kind != "jsonl" or not block.watch_images or digest == "unreadable":
        return digest
    names = MEMORY.recall(f"images of {digest}", lambda: sorted(_image_names(source)))
    folder = Path(block.images) if block.images else source.parent
    return sha256_of_json([digest, names, MEMORY.sha256_of_files([folder / name for name in names])])


def _image_names(source: Path) -> set[str]:
    """The image paths in a JSONL file; lines that are no such rows are the import's business."""
    found: set[str] = set()
    with source.open("rb") as file:
        for line in file:
            try:
                row = json.loads(line)
                images = row.get("images") or [row.get("image")]
                paths = [image.get("path") if isinstance(image, dict) else image for image in images]
            except (ValueError, AttributeError, TypeError, RecursionError):
                continue
            found.update(path for path in paths if isinstance(path, str) and "\0" not in path)
    return found


def shards_of(responses: str) -> list[str]:
    """The shard names that a finished responses table was made of; empty where there is none."""
    if not Path(responses).exists():
        return []
    count = read_lineage(Path(responses)).get("parameters", {}).get("shards", 0)
    return [f"{i + 1}-of-{count}" for i in range(count)]


def load(raw: Mapping[str, Any]) -> Plan:
    """The plan of a raw config; a `UserError` names every mistaken key, what was given and what is allowed."""
    expanded = expand_sweeps(raw)
    try:
        config = Config.model_validate(expanded)
    except ValidationError as invalid:
        raise UserError("config\n  " + joined_mistakes([_mistake(e) for e in invalid.errors()])) from None
    mistakes = [*_secrets(config.model_dump(), ""), *_dangling_names(config), *_wrong_parameters(config)]
    if mistakes:
        raise UserError("config\n  " + joined_mistakes(mistakes))
    return Plan(config)


SECRET = re.compile(
    r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|AKIA[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,})|://[^/\s:@]+:[^/\s@]+@"
)
"""What access tokens, and passwords in addresses, look like."""


def _secrets(value: Any, key: str) -> Iterator[str]:
    """Keys that hold a secret: the config is copied into lineage and logs."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _secrets(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, str) and SECRET.search(value):
        yield f"key `{key}`: looks like a password or access token, expected none here; put it into the environment"


def _dangling_names(config: Config) -> list[str]:
    """References to blocks, rewards and methods that do not exist."""
    rewards = _reward_names()
    references = [
        (f"experiments.{n}.{key}", getattr(e, key), getattr(config, f"{key}s"))
        for n, e in config.experiments.items()
        for key in ("model", "dataset", "sampling", "reward", "selection", "training")
    ]
    references += [
        (f"experiments.{n}.benchmarks", b, config.benchmarks)
        for n, e in config.experiments.items()
        for b in e.benchmarks
    ]
    references += [(f"benchmarks.{n}.dataset", b.dataset, config.datasets) for n, b in config.benchmarks.items()]
    references += [(f"benchmarks.{n}.reward", b.reward, config.rewards) for n, b in config.benchmarks.items()]
    references += [
        (f"rewards.{n}.tasks.{t}", r, rewards) for n, b in config.rewards.items() for t, r in b.tasks.items()
    ]
    references += [(f"trainings.{n}.method", t.method, METHODS) for n, t in config.trainings.items()]
    return [text for key, name, allowed in references if (text := _unknown(key, name, allowed))]


def _unknown(key: str, name: str, allowed: Mapping[str, Any]) -> str | None:
    try:
        lookup(dict(allowed), name, f"key `{key}`:")
    except UserError as error:
        return error.args[0] + (f"; {error.hint}" if error.hint else "")
    return None


def _reward_names() -> dict[str, None]:
    """Names of the reward modules, without importing them: the Snakefile must stay light."""
    spec = find_spec("perceptune.core.rewards")
    folders = spec.submodule_search_locations if spec else None
    files = [f for folder in folders or [] for f in Path(folder).glob("*.py")]
    return {f.stem: None for f in sorted(files) if f.stem not in ("__init__", "reward")}


def _wrong_parameters(config: Config) -> list[str]:
    """Parameters that a training's method does not take."""
    mistakes = []
    for name, training in config.trainings.items():
        if training.method not in METHODS:
            continue
        try:
            METHODS[training.method].Parameters.model_validate(training.parameters)
        except ValidationError as invalid:
            allowed = METHODS[training.method].Parameters.model_fields
            for error in invalid.errors():
                mistakes.append(_described(f"trainings.{name}.parameters.{_dotted(error['loc'])}", error, allowed))
    return mistakes


def _mistake(error: Any) -> str:
    """One pydantic error as one line: key, what is wrong, what was given, the nearest name."""
    location = list(error["loc"])
    if (
        location[:1] == ["datasets"]
        and len(location) > 2
        and location[2] in ("shapes", "jsonl", "parquet", "hf", "file")
    ):
        del location[2]  # the discriminator's tag is not a key
    allowed = {f for b in _subclasses(blocks.Block) for f in b.model_fields}
    return _described(_dotted(location), error, allowed)


def _described(key: str, error: Any, allowed: Any) -> str:
    given = error.get("input")
    shown = f", got `{given}`" if not isinstance(given, Mapping | BaseModel) else ""
    message = error["msg"].removeprefix("Value error, ")
    text = f"key `{key}`: {message[0].lower()}{message[1:]}{shown}"
    hint = near(key.rpartition(".")[2], allowed) if error["type"] == "extra_forbidden" else None
    return f"{text}; {hint}" if hint else text


def _dotted(location: Any) -> str:
    return ".".join(str(part) for part in location if part != "[key]")


def _subclasses(parent: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for child in parent.__subclasses__():
        yield child
        yield from _subclasses(child)
