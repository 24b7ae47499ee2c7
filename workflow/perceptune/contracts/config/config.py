"""The whole config file."""

from __future__ import annotations

import itertools
from typing import Annotated, Any

from pydantic import Field, model_validator

from perceptune.contracts.config.blocks import PLAIN_VIEWS, Block, Name
from perceptune.contracts.config.comparisons import AgreementBlock, ComparisonBlock
from perceptune.contracts.config.datasets import DatasetBlock
from perceptune.contracts.config.diagnostics import DiagnosticsBlock
from perceptune.contracts.config.evaluation import BenchmarkBlock, ControlsBlock, JudgeBlock, Leakage, ReportBlock
from perceptune.contracts.config.experiments import ExperimentBlock, ExportBlock
from perceptune.contracts.config.models import ModelBlock
from perceptune.contracts.config.pairs import ClipBlock, FilterBlock, PairingBlock
from perceptune.contracts.config.preferences import BatchBlock, GivenBlock, RewardBlock, SelectionBlock
from perceptune.contracts.config.sampling import RolloutBlock, SamplingBlock
from perceptune.contracts.config.training import TrainingBlock
from perceptune.contracts.config.views import AttentionBlock, CropBlock, SaliencyBlock, ViewBlock


class Config(Block):
    """The whole config file."""

    plugins: tuple[str, ...] = ()
    """Folders with your own plug-ins, relative to the working directory: one sub-folder per kind,
    one file per plug-in."""
    models: dict[Name, ModelBlock]
    """Base models by name."""
    datasets: dict[Name, DatasetBlock]
    """Datasets by name."""
    views: dict[Name, ViewBlock] = {}
    """Views by name; `original` and `blank` are always defined."""
    attention_maps: dict[Name, AttentionBlock] = {}
    """Attention maps by name."""
    crops: dict[Name, CropBlock] = {}
    """Crops by name."""
    saliency_maps: dict[Name, SaliencyBlock] = {}
    """Saliency maps by name."""
    samplings: dict[Name, SamplingBlock] = {}
    """Samplings by name."""
    pair_generations: dict[Name, PairingBlock] = {}
    """Pair generations by name."""
    filters: dict[Name, FilterBlock] = {}
    """Pair filters by name."""
    clip_scores: dict[Name, ClipBlock] = {}
    """CLIP scores by name."""
    rollouts: dict[Name, RolloutBlock] = {}
    """Rollouts of rounds by name."""
    batch_selections: dict[Name, BatchBlock] = {}
    """Batch selections of rounds by name."""
    rewards: dict[Name, RewardBlock] = {}
    """Rewards by name."""
    judges: dict[Name, JudgeBlock] = {}
    """Judges by name."""
    selections: dict[Name, SelectionBlock] = {}
    """Selections by name."""
    dataset_preferences: dict[Name, GivenBlock] = {}
    """Dataset preferences by name."""
    trainings: dict[Name, TrainingBlock] = {}
    """Trainings by name."""
    benchmarks: dict[Name, BenchmarkBlock] = {}
    """Benchmarks by name."""
    experiments: dict[Name, ExperimentBlock]
    """Experiments by name: what to run."""
    comparisons: dict[Name, ComparisonBlock] = {}
    """Comparisons of two policies, or of the answers of pairs, by name."""
    agreements: dict[Name, AgreementBlock] = {}
    """Agreements of a judge with a second one or with people by name."""
    exports: dict[Name, ExportBlock] = {}
    """Exports of preferences by name."""
    rehearse: Annotated[int, Field(ge=1, strict=True)] | None = None
    """Rehearsal: run everything on this many examples per task, with two rounds and without
    filters, in the folder `rehearsal`; null: a full run."""
    leakage: Leakage = "warn"
    """If training data share images or questions with a benchmark of their experiment, or near
    duplicates of images: `refuse` stops before anything is sampled for training, `warn` trains and
    warns, `allow` only counts them in the report."""
    controls: ControlsBlock | None = None
    """Controls for other explanations of a gain: `{}` runs all of them; null: none."""
    diagnostics: DiagnosticsBlock | None = None
    """Gradients of the adapter's weights by kind of pair: `{}` measures all experiments; null: none."""
    report: ReportBlock = ReportBlock()
    """The HTML report."""

    @model_validator(mode="after")
    def _names_are_unambiguous(self) -> Config:
        shared = sorted(self.models.keys() & self.experiments.keys())
        if shared:
            raise ValueError(f"`{shared[0]}` is both a model and an experiment, expected different names")
        # Their names are folders of the same table, so they must differ.
        sections: dict[str, dict[Name, Any]] = {
            "sampling": self.samplings,
            "pair_generation": self.pair_generations,
            "rollout": self.rollouts,
            "dataset_preference": self.dataset_preferences,
        }
        for (kind, names), (other_kind, other_names) in itertools.combinations(sections.items(), 2):
            if both := sorted(names.keys() & other_names.keys()):
                raise ValueError(f"`{both[0]}` is both a {kind} and a {other_kind}, expected different names")
        plain = sorted(set(PLAIN_VIEWS) & self.views.keys())
        if plain:
            raise ValueError(f"view `{plain[0]}` is built in, expected another name")
        return self

    def sources(self) -> dict[str, SamplingBlock | PairingBlock | RolloutBlock | GivenBlock]:
        """The blocks that select the questions of experiments, by name."""
        return {**self.samplings, **self.pair_generations, **self.rollouts, **self.dataset_preferences}

    def used_benchmarks(self) -> list[str]:
        """Benchmarks that any experiment uses, in config order."""
        named = {benchmark for experiment in self.experiments.values() for benchmark in experiment.benchmarks}
        return [name for name in self.benchmarks if name in named]

    def used_judges(self) -> list[str]:
        """Judges of benchmarks in use, comparisons and agreements, in config order."""
        named = {self.benchmarks[name].judge for name in self.used_benchmarks()}
        named |= {comparison.judge for comparison in self.comparisons.values()}
        named |= {agreement.judge for agreement in self.agreements.values()}
        return [name for name in self.judges if name in named]

    def used_datasets(self) -> list[str]:
        """Datasets that any experiment uses, in config order; all if there are no experiments."""
        trained_on = {experiment.dataset for experiment in self.experiments.values()}
        used = trained_on | {self.benchmarks[name].dataset for name in self.used_benchmarks()}
        return [name for name in self.datasets if name in used or not self.experiments]
