"""Checks across the blocks of an experiment: what would otherwise fail only after sampling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from perceptune.contracts.config import (
    BenchmarkBlock,
    Config,
    Decoding,
    ExperimentBlock,
    GivenBlock,
    PairingBlock,
    RolloutBlock,
    SamplingBlock,
    ShapesDataset,
)
from perceptune.planning.diagnostics import diagnostics_mistakes

Questions = SamplingBlock | RolloutBlock | PairingBlock | GivenBlock | BenchmarkBlock
"""Blocks that choose questions of a dataset by split and task."""

GREEDY = (("temperature", 0), ("top_k", 1))
"""Settings with which every response to a question is the same."""


def cross_mistakes(config: Config) -> list[str]:
    """A line per combination of blocks that cannot work, without duplicates. Looks only at blocks
    that an experiment uses."""
    found: dict[str, None] = {}
    for experiment in config.experiments.values():
        found |= dict.fromkeys(_without_lists(experiment, config))
        found |= dict.fromkeys(_too_long(experiment, config))
        found |= dict.fromkeys(_unrewarded(experiment, config))
        found |= dict.fromkeys(_rounds_without_epochs(experiment, config))
    found |= dict.fromkeys([*_judges_too_long(config), *diagnostics_mistakes(config)])
    if config.leakage == "refuse":
        found |= dict.fromkeys(f"{line}, but `leakage` is `refuse`" for line in trained_on_test(config))
    return list(found)


def trained_on_test(config: Config) -> list[str]:
    """A line per block that trains on the questions of a benchmark: same dataset, split and task."""
    found: dict[str, None] = {}
    for name, experiment in config.experiments.items():
        key, block = _learnt_from(experiment, config)
        for benchmark_name in config.used_benchmarks():
            benchmark = config.benchmarks[benchmark_name]
            same = _source(experiment.dataset, config) == _source(benchmark.dataset, config)
            tasks = not (block.tasks and benchmark.tasks) or set(block.tasks) & set(benchmark.tasks)
            if same and block.split == benchmark.split and tasks:
                line = f"key `{key}.split`: `{block.split}` is also the split of benchmark `{benchmark_name}`"
                found[f"{line}; experiment `{name}` trains on its questions"] = None
    return list(found)


def equal_samples(config: Config) -> Iterator[str]:
    """A line per benchmark whose sampled responses to a question are all the same one."""
    for name in config.used_benchmarks():
        benchmark = config.benchmarks[name]
        for key, value in GREEDY:
            if benchmark.n > 1 and getattr(benchmark, key) == value:
                found = f"got `{value}`, with which all {benchmark.n} sampled responses are equal"
                yield f"key `benchmarks.{name}.{key}`: {found}; `n: 0` samples none"


def without_benchmarks(config: Config) -> Iterator[str]:
    """A line per experiment that is trained but not evaluated."""
    for name, experiment in config.experiments.items():
        if not experiment.benchmarks:
            yield f"key `experiments.{name}.benchmarks`: empty, so that the policy is trained but not evaluated"


def _learnt_from(
    experiment: ExperimentBlock, config: Config
) -> tuple[str, SamplingBlock | RolloutBlock | PairingBlock | GivenBlock]:
    """Key and block of the questions that an experiment trains on."""
    section = experiment.made_of[0]
    name = str(getattr(experiment, section))
    return f"{section}s.{name}", getattr(config, f"{section}s")[name]


def _source(dataset: str, config: Config) -> str:
    """What identifies a dataset's questions: its file, or its name if they are generated."""
    block = config.datasets[dataset]
    return dataset if isinstance(block, ShapesDataset) else str(Path(block.path).resolve())


def _without_lists(experiment: ExperimentBlock, config: Config) -> Iterator[str]:
    """Sampling that cannot produce a list or group with different rewards."""
    key, block = _learnt_from(experiment, config)
    if experiment.selection is not None and isinstance(block, SamplingBlock):
        selection, about = config.selections[experiment.selection], f"selections.{experiment.selection}"
        least = f"expected at least the {selection.min_list_size} of `{about}.min_list_size`"
        if selection.list_size < selection.min_list_size:
            yield f"key `{about}.list_size`: got `{selection.list_size}`, {least}"
        if block.n < selection.min_list_size:
            yield f"key `{key}.n`: got `{block.n}`, {least}: a list needs several responses"
    if isinstance(block, SamplingBlock | RolloutBlock):
        for greedy, value in GREEDY:
            if getattr(block, greedy) == value:
                yield f"key `{key}.{greedy}`: got `{value}`, with which all responses to a question are equal, so none is better"


def _rounds_without_epochs(experiment: ExperimentBlock, config: Config) -> Iterator[str]:
    """Epochs to keep of a training in rounds, whose policies have the names of rounds."""
    if experiment.rounds and config.trainings[experiment.training].keep_epochs:
        key = f"trainings.{experiment.training}.keep_epochs"
        yield f"key `{key}`: experiments with `rounds` keep the adapter of each round, not of epochs; remove this key"


def _too_long(experiment: ExperimentBlock, config: Config) -> Iterator[str]:
    """Limits of responses that leave no room for a prompt."""
    key, block = _learnt_from(experiment, config)
    decoded: dict[str, Decoding | BenchmarkBlock] = {
        f"benchmarks.{b}": config.benchmarks[b] for b in experiment.benchmarks
    }
    if isinstance(block, Decoding):
        decoded[key] = block
    elif isinstance(block, PairingBlock):
        for kind in ("focus", "robust"):
            pair = getattr(block, kind)
            decoded |= {f"{key}.{kind}.{role}": getattr(pair, role) for role in ("chosen", "rejected") if pair}
    limit = config.models[experiment.model].max_model_len
    for place, one in decoded.items():
        if one.max_tokens >= limit:
            yield f"key `{place}.max_tokens`: got `{one.max_tokens}`, {_no_room(experiment.model, limit)}"


def _judges_too_long(config: Config) -> Iterator[str]:
    for name in config.used_judges():
        judge = config.judges[name]
        if judge.url is None and judge.max_tokens:
            limit = config.models[judge.model].max_model_len
            if judge.max_tokens >= limit:
                yield f"key `judges.{name}.max_tokens`: got `{judge.max_tokens}`, {_no_room(judge.model, limit)}"


def _no_room(model: str, limit: int) -> str:
    return f"expected less than the {limit} tokens of `models.{model}.max_model_len`, which include the prompt"


def _unrewarded(experiment: ExperimentBlock, config: Config) -> Iterator[str]:
    """Tasks without a reward, as far as the config knows the tasks, and splits without questions.

    The tasks of imported data are checked when requests are planned.
    """
    key, block = _learnt_from(experiment, config)
    asked: list[tuple[str, str, Questions, str | None]] = [(key, experiment.dataset, block, experiment.reward)]
    for name in experiment.benchmarks:
        benchmark = config.benchmarks[name]
        asked.append((f"benchmarks.{name}", benchmark.dataset, benchmark, benchmark.reward))
    for place, dataset, questions, reward in asked:
        tasks = list(questions.tasks)
        generated = config.datasets[dataset]
        if isinstance(generated, ShapesDataset):
            made = getattr(generated, questions.split, {}) if questions.split in ("train", "validation", "test") else {}
            tasks = [task for task in made if task in tasks or not tasks]
            if not tasks:
                selected = f" and tasks {', '.join(questions.tasks)}" if questions.tasks else ""
                yield f"key `{place}.split`: dataset `{dataset}` has no questions of split `{questions.split}`{selected}"
        for task in tasks:
            if reward is not None and task not in config.rewards[reward].tasks:
                yield f"key `rewards.{reward}.tasks`: no reward for task `{task}`, which `{place}` asks questions of"
