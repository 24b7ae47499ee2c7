"""The plan: a validated config with its sweeps expanded, and what the wildcards of rules stand for.

The Snakefile imports this module, and so does every job that Snakemake starts, so it must not
import anything slow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from perceptune.contracts import plugins
from perceptune.contracts.config import (
    UNTRACKED,
    ClipBlock,
    Config,
    ExperimentBlock,
    FileDataset,
    ModelBlock,
    SaliencyBlock,
    ShapesDataset,
    TrainingBlock,
)
from perceptune.contracts.errors import UserError, joined_mistakes
from perceptune.contracts.paths import (
    ADAPTER,
    ADAPTER_FOLDER,
    BATCH,
    DATA,
    EXAMPLES,
    FILTERED_PAIRS,
    GIVEN,
    LEAKAGE,
    PAIRS,
    PREFERENCES,
    PROBE,
    ROUND,
    ROUND_MARK,
    ROUND_RESPONSES,
    TERMS,
    stored_name,
)
from perceptune.contracts.plugins import module_of
from perceptune.contracts.tables.io import read_lineage
from perceptune.core.methods.method import Stored
from perceptune.planning.comparisons import selects_by
from perceptune.planning.config_text import unquoted_names
from perceptune.planning.controls import counterparts, why_no_counterpart, with_controls
from perceptune.planning.model_folders import model_digest
from perceptune.planning.protocols import with_protocols
from perceptune.planning.rehearsal import rehearsed
from perceptune.planning.renamed import renamed
from perceptune.planning.sweeps import expand_sweeps
from perceptune.planning.validation import checked

T = TypeVar("T")

REQUEST_SECTIONS = ("sampling", "pair_generation", "rollout")
"""Experiment keys whose blocks define requests."""


@dataclass(frozen=True)
class Plan:
    """A validated config with its sweeps expanded."""

    config: Config
    memory: dict[str, Any] = field(default_factory=dict)
    """Digests and sizes of models and data, each computed only once: every job needs them."""

    @cached_property
    def policies(self) -> list[str]:
        """Every policy to evaluate: base models in use, then experiments or their evaluated
        rounds."""
        used = {e.model for e in self.config.experiments.values()}
        tested = [policy for e in self.config.experiments for policy in self.tested(e)]
        return [m for m in self.config.models if m in used] + tested

    @cached_property
    def trained(self) -> list[str]:
        """Every policy with a training of its own."""
        return [policy for e in self.config.experiments for policy in self.rounds(e) or [e]]

    def rounds(self, experiment: str) -> list[str]:
        """The policies of an experiment's rounds; empty for an experiment without rounds."""
        count = self.config.experiments[experiment].rounds or 0
        return [f"{experiment}{ROUND_MARK}{number}" for number in range(1, count + 1)]

    def epochs(self, experiment: str) -> list[str]:
        """The policies of an experiment's kept epochs, without the last; empty if it keeps none."""
        training = self.training(experiment)
        kept = range(1, math.ceil(training.epochs)) if training.keep_epochs else ()
        return [f"{experiment}{ROUND_MARK}{number}" for number in kept]

    def selects_by(self, experiment: str) -> str | None:
        """The view by which an experiment's method selects tokens, see `RolloutMethod`; None if it selects
        none."""
        return selects_by(self.config, parted(experiment)[0])

    @cached_property
    def kept(self) -> list[str]:
        """The policies of the kept epochs of all experiments."""
        return [policy for experiment in self.config.experiments for policy in self.epochs(experiment)]

    def tested(self, experiment: str) -> list[str]:
        """The policies of an experiment to evaluate: its kept epochs and itself, or every n-th round and
        the last one."""
        rounds, every = self.rounds(experiment), self.config.experiments[experiment].evaluate_every
        chosen = [p for n, p in enumerate(rounds, 1) if n % every == 0 or n == len(rounds)]
        return chosen or [*self.epochs(experiment), experiment]

    def answered_round(self, policy: str) -> int:
        """The round, from 1, whose questions a policy answers."""
        return parted(policy)[1] + 1

    def experiment(self, policy: str) -> ExperimentBlock | None:
        """The experiment that made a policy; None for a base model."""
        return self.config.experiments.get(parted(policy)[0])

    def base(self, policy: str) -> str:
        """The base model of a policy."""
        experiment = self.experiment(policy)
        return experiment.model if experiment else policy

    def behaviour_policy(self, policy: str) -> str:
        """The policy that sampled a policy's training responses: base model or previous round."""
        experiment, number = parted(policy)
        in_rounds = number > 1 and self.config.experiments[experiment].rounds
        return f"{experiment}{ROUND_MARK}{number - 1}" if in_rounds else self.base(policy)

    def benchmarks(self, policy: str) -> list[str]:
        """Benchmarks of a policy's experiment; for a base model, of all its experiments."""
        experiments = self.config.experiments.items()
        used = {b for n, e in experiments if parted(policy)[0] in (n, e.model) for b in e.benchmarks}
        return [b for b in self.config.benchmarks if b in used]

    def datasets(self, policy: str, plan: str) -> list[str]:
        """Datasets behind the requests of `plan` (`<dataset>/<sampling>` or `benchmarks`)."""
        if plan != "benchmarks":
            return [plan.split("/")[0]]
        return list(dict.fromkeys(self.config.benchmarks[b].dataset for b in self.benchmarks(policy)))

    def request_plans(self, policy: str) -> list[str]:
        """All request plans of a policy: `<dataset>/<block>` per training dataset, and `benchmarks`.

        `<block>` is a block of samplings, pair generations or rollouts.
        """
        samples = [self.samples(trained) for trained in self.trained if self.behaviour_policy(trained) == policy]
        plans = [f"{made['dataset']}/{made[key]}" for made in samples for key in REQUEST_SECTIONS if key in made]
        return list(dict.fromkeys([*plans, *(["benchmarks"] if policy in self.policies else [])]))

    def data_file(self, dataset: str) -> str:
        """The file or folder that a dataset is imported from."""
        block = self.config.datasets[dataset]
        return DATA.format(dataset=dataset) if isinstance(block, ShapesDataset) else block.path

    def is_generated(self, dataset: str) -> bool:
        """Whether the workflow generates the data itself."""
        return isinstance(self.config.datasets[dataset], ShapesDataset)

    def import_block(self, dataset: str) -> FileDataset:
        """How a dataset is imported; generated data goes through the same importer as user data."""
        block = self.config.datasets[dataset]
        if isinstance(block, ShapesDataset):
            return FileDataset(kind="jsonl", path=self.data_file(dataset), coordinates="pixels")
        return block

    def samples(self, experiment: str) -> dict[str, str]:
        """The wildcards of an experiment's tables, from requests to preferences."""
        block = self.block(experiment)
        made = {key: getattr(block, key) for key in block.made_of}
        return {"policy": self.behaviour_policy(experiment), "dataset": block.dataset, **made}

    def block(self, experiment: str) -> ExperimentBlock:
        """The block of an experiment, or of one of its rounds."""
        return self.config.experiments[parted(experiment)[0]]

    def leakage(self, experiments: Iterable[str]) -> dict[str, str]:
        """Name of training data to the table of what they share with benchmarks, without duplicates."""
        found = {}
        for experiment in experiments:
            block = self.block(experiment)
            source = getattr(block, block.made_of[0])
            found[f"{block.dataset}/{source}"] = LEAKAGE.format(dataset=block.dataset, source=source)
        return found

    def preferences(self, experiment: str) -> str:
        """The preferences that an experiment, or one of its rounds, trains on."""
        block = self.block(experiment)
        pattern = {
            "pair_generation": FILTERED_PAIRS,
            "rollout": BATCH,
            "dataset_preference": GIVEN,
            "sampling": PREFERENCES,
        }[block.made_of[0]]
        return pattern.format(**self.samples(experiment))

    def round_responses(self, experiment: str) -> str:
        """The responses of the round that trains this policy."""
        return ROUND_RESPONSES.format(**self.samples(experiment))

    def groups(self, policy: str, dataset: str, groups: str) -> str:
        """The table of the responses that log-probs are stored for.

        Unfiltered pairs, ranked lists, or the batch of a round.
        """
        if groups in self.config.dataset_preferences:
            return GIVEN.format(policy=policy, dataset=dataset, dataset_preference=groups)
        if "/" not in groups:
            return PAIRS.format(policy=policy, dataset=dataset, pair_generation=groups)
        source, reward, selection = groups.split("/")
        if source in self.config.rollouts:
            return BATCH.format(
                policy=policy, dataset=dataset, rollout=source, reward=reward, batch_selection=selection
            )
        return PREFERENCES.format(policy=policy, dataset=dataset, sampling=source, reward=reward, selection=selection)

    def model_settings(self, policy: str) -> dict[str, Any]:
        """A policy's base model as a tracked setting: its block, with a digest instead of the
        path, and without `reasoning`, which affects only scores."""
        name = self.base(policy)
        settings = self.content_settings("model", name, self.config.models[name])
        return {key: value for key, value in settings.items() if key != "reasoning"}

    def content_settings(self, kind: str, name: str, block: ModelBlock | ClipBlock | SaliencyBlock) -> dict[str, Any]:
        """A block with a model folder as tracked settings, with a digest instead of the path."""
        return {
            **tracked(block),
            "path": None,
            "weights": self.remembered(f"{kind} {name}", lambda: model_digest(block)),
        }

    def remembered(self, key: str, compute: Callable[[], T]) -> T:
        """A digest or a size, computed once per plan."""
        if key not in self.memory:
            self.memory[key] = compute()
        found: T = self.memory[key]
        return found

    def model_details(self, policy: str) -> dict[str, Any]:
        """The complete model block of a policy and the digest of its weights."""
        block = self.config.models[self.base(policy)]
        return {"model": block.model_dump(mode="json"), "weights": self.model_settings(policy)["weights"]}

    def threads(self, policy: str) -> int:
        """CPU cores of a job with a policy's model."""
        return self.config.models[self.base(policy)].threads

    def workers(self, policy: str, processes: int = 1) -> int:
        """Worker processes of each of the `processes` processes of a job with a policy's model, if the
        machine has its cores and a GPU.
        """
        return self.config.models[self.base(policy)].workers_beside(self.threads(policy) // processes)

    def family(self, policy: str) -> str:
        """The module of a policy's model family."""
        return module_of("family", self.config.models[self.base(policy)].family)

    def probe(self, policy: str) -> str | None:
        """The probe of a policy's base model; None if its family is declared."""
        base = self.base(policy)
        return PROBE.format(policy=base) if plugins.load("family", self.config.models[base].family).probed else None

    def adapter(self, policy: str) -> str | None:
        """The weights of a policy's adapter; None for a base model."""
        return ADAPTER.format(experiment=policy) if self.experiment(policy) else None

    def adapter_folder(self, policy: str) -> str | None:
        """The folder of a policy's adapter; None for a base model."""
        return ADAPTER_FOLDER.format(experiment=policy) if self.experiment(policy) else None

    def round_file(self, policy: str) -> str | None:
        """The status file of the round that made a policy; None for a base model."""
        return ROUND.format(experiment=policy) if self.experiment(policy) else None

    def round_number(self, policy: str) -> int:
        """The number of the round that made a policy; 0 without rounds."""
        return parted(policy)[1]

    def examples(self, datasets: Iterable[str]) -> dict[str, str]:
        """Dataset to its table of examples."""
        return {dataset: EXAMPLES.format(dataset=dataset) for dataset in datasets}

    def training(self, experiment: str) -> TrainingBlock:
        """The training block of an experiment."""
        return self.config.trainings[self.block(experiment).training]

    def stored_logprobs(self, experiment: str) -> dict[Stored, str]:
        """The stored log-probs that an experiment's method reads, each with its table.

        Pairs have one table per view, shared by ablations. A round has a single table, so that the
        model is loaded once. The model is quantised as in training.
        """
        training, block = self.training(experiment), self.block(experiment)
        method = plugins.load("method", training.method)
        stored = method.stored(method.Parameters.model_validate(training.parameters), training.view)
        made = self.samples(experiment)
        groups = made["pair_generation"] if block.pair_generation else "/".join(made[key] for key in block.made_of)
        place = {"policy": made["policy"], "dataset": block.dataset, "groups": groups}
        names = {s: stored_name(stored if block.rollout else [s], training.quantisation) for s in stored}
        return {s: TERMS.format(**place, stored=name) for s, name in names.items()}

    def without_counterpart(self) -> dict[str, str]:
        """Policy to the reason why it has no SFT counterpart although `controls` calls for one."""
        wanted = self.config.controls is not None and self.config.controls.sft_on_best
        reasons = {p: why_no_counterpart(self.config, parted(p)[0]) for p in self.controlled if wanted}
        return {p: why for p, why in reasons.items() if why}

    @cached_property
    def controlled(self) -> list[str]:
        """Policies whose gain is compared with controls: the last evaluated one of every
        experiment."""
        return [self.tested(e)[-1] for e in self.config.experiments] if self.config.controls else []

    @cached_property
    def _counterparts(self) -> dict[str, str]:
        """Experiment to its SFT counterpart, see `controls.counterparts`."""
        return counterparts(self.config) if self.config.controls and self.config.controls.sft_on_best else {}

    def counterpart(self, policy: str) -> str | None:
        """The SFT counterpart of a policy: same lists, same budget, best responses only; or
        None."""
        return self._counterparts.get(parted(policy)[0])

    @cached_property
    def final(self) -> list[str]:
        """The final policies of experiments: the last round, or the experiment itself."""
        return [(self.rounds(experiment) or [experiment])[-1] for experiment in self.config.experiments]

    def exported(self, export: str) -> str:
        """The policy whose preferences are exported; for an experiment with rounds, the last
        round."""
        named = self.config.exports[export].experiment
        return (self.rounds(named) or [named])[-1] if named in self.config.experiments else named

    @cached_property
    def benchmark_datasets(self) -> list[str]:
        """Datasets that any policy is evaluated on."""
        return list(dict.fromkeys(d for p in self.policies for d in self.datasets(p, "benchmarks")))


def parted(policy: str) -> tuple[str, int]:
    """Experiment and number of the round (or kept epoch) of a policy; 0 for the experiment itself."""
    name, mark, number = policy.rpartition(ROUND_MARK)
    return (name, int(number)) if mark and number.isdigit() else (policy, 0)


def tracked(block: BaseModel) -> dict[str, Any]:
    """A block as builtins in a fixed order, without the keys in `UNTRACKED`."""
    return block.model_dump(mode="json", exclude=UNTRACKED)


def shards_of(responses: str) -> list[str]:
    """The shard names that a finished responses table was made of; empty if it does not exist."""
    if not Path(responses).exists():
        return []
    count = read_lineage(Path(responses)).get("parameters", {}).get("shards", 0)
    return [f"{i + 1}-of-{count}" for i in range(count)]


def load(raw: Mapping[str, Any]) -> Plan:
    """The plan of a raw config.

    Registers the config's plug-in folders for this process and its child processes. Raises
    `UserError` that lists every invalid key with the value found and what is allowed.
    """
    if wrong := [*unquoted_names(raw)] or [*renamed(raw)]:
        raise UserError("config\n  " + joined_mistakes(wrong))
    folders = raw.get("plugins", ())
    if not isinstance(folders, list | tuple) or not all(isinstance(folder, str) for folder in folders):
        raise UserError(f"config\n  key `plugins`: expected a list of folders, got `{folders}`")
    plugins.use_folders(folders)
    with plugins.plugin_errors():
        return Plan(with_controls(checked(expand_sweeps(with_protocols(rehearsed(raw))))))
