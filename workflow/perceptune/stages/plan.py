"""From the config file to the jobs: validation, sweeps, and what every rule's wildcards stand for.

The Snakefile imports this module, and so does every job that Snakemake starts: nothing heavy may be imported from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from perceptune.contracts import plugins
from perceptune.contracts.code import MEMORY, plugin
from perceptune.contracts.config import (
    PLAIN_VIEWS,
    UNTRACKED,
    BenchmarkBlock,
    ClipBlock,
    Config,
    ExperimentBlock,
    FileDataset,
    ModelBlock,
    PairingBlock,
    RolloutBlock,
    SaliencyBlock,
    SamplingBlock,
    ShapesDataset,
    TrainingBlock,
)
from perceptune.contracts.digests import digest_of_folder, sha256_of_file
from perceptune.contracts.errors import UserError
from perceptune.contracts.paths import (
    ATTENTION,
    BATCH,
    CLIPS,
    CONTROLS,
    CROPS,
    DATA,
    EXAMPLES,
    FILTERED_PAIRS,
    GIVEN,
    GIVEN_STATISTICS,
    PAIR_STATISTICS,
    PAIRS,
    PREFERENCE_STATISTICS,
    PREFERENCES,
    REWARDS,
    ROUND,
    ROUND_MARK,
    ROUND_RESPONSES,
    SALIENCY,
    TERMS,
    TRAINING,
    VERDICTS,
    stored_name,
)
from perceptune.contracts.tables.io import read_lineage
from perceptune.core.methods.method import Stored
from perceptune.stages.checks import checked, plural, views_named
from perceptune.stages.controls import gaussian_sigma, twins, why_no_twin, with_controls
from perceptune.stages.data import data_digest
from perceptune.stages.protocols import with_protocols
from perceptune.stages.slicing import with_slice
from perceptune.stages.sweeps import expand_sweeps

ASKERS = ("sampling", "pairing", "rollout")
"""Sections whose blocks say what is asked."""


@dataclass(frozen=True)
class Plan:
    """A validated config with its sweeps expanded."""

    config: Config
    digests: dict[str, str] = field(default_factory=dict)
    """Digests of models and data, each computed once: a plan asks for them in every job."""

    @cached_property
    def policies(self) -> list[str]:
        """Every policy to test: the base models that experiments use, then the experiments, of those with rounds several."""
        used = {e.model for e in self.config.experiments.values()}
        tested = [policy for e in self.config.experiments for policy in self.tested(e)]
        return [m for m in self.config.models if m in used] + tested

    @cached_property
    def trained(self) -> list[str]:
        """Every policy that is trained: an adapter each."""
        return [policy for e in self.config.experiments for policy in self.rounds(e) or [e]]

    def rounds(self, experiment: str) -> list[str]:
        """The policies of an experiment's rounds; none of one that has no rounds."""
        count = self.config.experiments[experiment].rounds or 0
        return [f"{experiment}{ROUND_MARK}{number}" for number in range(1, count + 1)]

    def tested(self, experiment: str) -> list[str]:
        """The policies of an experiment that are tested: itself, or of its rounds every so many and the last."""
        rounds, every = self.rounds(experiment), self.config.experiments[experiment].evaluate_every
        return [p for n, p in enumerate(rounds, 1) if n % every == 0 or n == len(rounds)] or [experiment]

    def round_asked(self, policy: str) -> int:
        """The number, from 1, of the round whose questions a policy answers."""
        return _parted(policy)[1] + 1

    def experiment(self, policy: str) -> ExperimentBlock | None:
        """The experiment that made a policy; None for a base model."""
        return self.config.experiments.get(_parted(policy)[0])

    def base(self, policy: str) -> str:
        """The base model of a policy."""
        experiment = self.experiment(policy)
        return experiment.model if experiment else policy

    def sampled(self, policy: str) -> str:
        """The policy whose answers a trained policy has learnt from: the base model, or the round before."""
        experiment, number = _parted(policy)
        return f"{experiment}{ROUND_MARK}{number - 1}" if number > 1 else self.base(policy)

    def benchmarks(self, policy: str) -> list[str]:
        """What a policy answers: its experiment's benchmarks; a base model answers those of all its experiments."""
        experiments = self.config.experiments.items()
        asked = {b for n, e in experiments if _parted(policy)[0] in (n, e.model) for b in e.benchmarks}
        return [b for b in self.config.benchmarks if b in asked]

    def datasets(self, policy: str, plan: str) -> list[str]:
        """Datasets that the requests of `plan` (`<dataset>/<sampling>` or `benchmarks`) are about."""
        if plan != "benchmarks":
            return [plan.split("/")[0]]
        return list(dict.fromkeys(self.config.benchmarks[b].dataset for b in self.benchmarks(policy)))

    def asked(self, policy: str) -> list[str]:
        """The plans of everything that a policy is asked: `<dataset>/<sampling, pairing or rollout>`, and `benchmarks`."""
        samples = [self.samples(trained) for trained in self.trained if self.sampled(trained) == policy]
        plans = [f"{made['dataset']}/{made[key]}" for made in samples for key in ASKERS if key in made]
        return list(dict.fromkeys([*plans, *(["benchmarks"] if policy in self.policies else [])]))

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
        """The wildcards of an experiment's tables, from what it asks to its preferences."""
        block = self.block(experiment)
        made = {key: getattr(block, key) for key in block.made_of}
        return {"policy": self.sampled(experiment), "dataset": block.dataset, **made}

    def block(self, experiment: str) -> ExperimentBlock:
        """The block of an experiment, or of one of its rounds."""
        return self.config.experiments[_parted(experiment)[0]]

    def preferences(self, experiment: str) -> str:
        """The table that an experiment, or one of its rounds, trains on."""
        block = self.block(experiment)
        pattern = {"pairing": FILTERED_PAIRS, "rollout": BATCH, "given": GIVEN, "sampling": PREFERENCES}[
            block.made_of[0]
        ]
        return pattern.format(**self.samples(experiment))

    def round_responses(self, experiment: str) -> str:
        """The answers of a round that has this policy as its result."""
        return ROUND_RESPONSES.format(**self.samples(experiment))

    def groups(self, policy: str, dataset: str, groups: str) -> str:
        """The table whose responses stored terms are about: a pairing's pairs before the filter, ranked lists, or a batch."""
        if groups in self.config.givens:
            return GIVEN.format(policy=policy, dataset=dataset, given=groups)
        if "/" not in groups:
            return PAIRS.format(policy=policy, dataset=dataset, pairing=groups)
        asked, reward, chosen = groups.split("/")
        if asked in self.config.rollouts:
            return BATCH.format(policy=policy, dataset=dataset, rollout=asked, reward=reward, batch=chosen)
        return PREFERENCES.format(policy=policy, dataset=dataset, sampling=asked, reward=reward, selection=chosen)

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
            settings["content"] = self.digests.setdefault(f"data {dataset}", data_digest(block, MEMORY))
        return settings

    def training(self, experiment: str) -> TrainingBlock:
        """The training block of an experiment."""
        return self.config.trainings[self.block(experiment).training]

    def terms(self, experiment: str) -> dict[Stored, str]:
        """What is stored, to the table of log-probabilities, for all that an experiment's method reads.

        Pairs share the tables of single views among their ablations; what a round needs is in one table.
        """
        training, block = self.training(experiment), self.block(experiment)
        method = plugins.load("method", training.method)
        stored = method.stored(method.Parameters.model_validate(training.parameters), training.view)
        made = self.samples(experiment)
        groups = made["pairing"] if block.pairing else "/".join(made[key] for key in block.made_of)
        place = {"policy": made["policy"], "dataset": block.dataset, "groups": groups}
        return {s: TERMS.format(**place, stored=stored_name(stored if block.rollout else [s])) for s in stored}

    def views_trained(self, experiment: str) -> list[str]:
        """The views that an experiment's policy and its stored terms are asked under."""
        training = self.training(experiment)
        method = plugins.load("method", training.method)
        return method.asked_views(method.Parameters.model_validate(training.parameters), training.view)

    def view_blocks(self, *views: str) -> dict[str, Any]:
        """The config's blocks of these views and of what they are made of, tracked; plain ones have none."""
        named = {v for view in views if view in self.config.views for v in (view, *self.config.views[view].one_of)}
        return {view: tracked(self.config.views[view]) for view in sorted(named) if view in self.config.views}

    def ops(self, view: str) -> list[str]:
        """The modules that make a view."""
        if view in PLAIN_VIEWS:
            return [view]
        block = self.config.views[view]
        return [op for one in block.one_of for op in self.ops(one)] if block.op is None else [block.op]

    def views_asked(self, policy: str, plan: str) -> list[str]:
        """Views in the requests of `plan` (`<dataset>/<sampling or pairing>`, or `benchmarks`), amateurs' included."""
        if plan == "benchmarks":
            return sorted({view for b in self.benchmarks(policy) for view in self.config.benchmarks[b].views})
        return views_of(self.asking(plan.split("/")[1]))

    def asking(self, name: str) -> SamplingBlock | PairingBlock | RolloutBlock:
        """The block of questions of that name."""
        sections = (self.config.samplings, self.config.pairings, self.config.rollouts)
        return next(section[name] for section in sections if name in section)

    def crops(self, policy: str, dataset: str, views: list[str]) -> dict[str, str]:
        """Crop block to the table of a dataset's crops, for the views that need one; cut by the base model's attention."""
        named = {self.config.views[view].crop for view in views if view in self.config.views}
        base = self.base(policy)
        return {c: CROPS.format(policy=base, dataset=dataset, crop=c) for c in sorted(n for n in named if n)}

    def saliencies(self, dataset: str, views: Iterable[str]) -> list[str]:
        """The tables of what stands out in a dataset's images, for the views that need one; they are of no policy."""
        named = {block["saliency"] for block in self.view_blocks(*views).values()}
        return [SALIENCY.format(dataset=dataset, saliency=name) for name in sorted(n for n in named if n)]

    def benchmark_saliencies(self, policy: str) -> list[str]:
        """Those that a policy's benchmarks need, each of its own dataset."""
        asked = [self.config.benchmarks[b] for b in self.benchmarks(policy)]
        return list(dict.fromkeys(table for block in asked for table in self.saliencies(block.dataset, block.views)))

    def saliency_settings(self, saliency: str) -> dict[str, Any]:
        """A saliency block as a tracked setting, with the digest of its model's files in place of the path."""
        block = self.config.saliencies[saliency]
        key = f"saliency {saliency}"
        if key not in self.digests:
            self.digests[key] = model_digest(block)
        return {**tracked(block), "path": None, "weights": self.digests[key]}

    def pair_crop(self, pairing: str) -> str | None:
        """The crop that a pairing's enhanced answers are made with."""
        focus = self.config.pairings[pairing].focus
        view = focus and self.config.views.get(focus.chosen.view)
        return view.crop if view else None

    def clips(self, policy: str, dataset: str, pairing: str, filter: str) -> list[str]:
        """The table of CLIP scores that a filter adds: none or one."""
        clip, crop = self.config.filters[filter].clip, self.pair_crop(pairing)
        return [CLIPS.format(policy=policy, dataset=dataset, crop=crop, clip=clip)] if clip and crop else []

    def clip_settings(self, clip: str) -> dict[str, Any]:
        """A CLIP block as a tracked setting, with the digest of its files in place of the path."""
        block = self.config.clips[clip]
        key = f"clip {clip}"
        if key not in self.digests:
            self.digests[key] = model_digest(block)
        return {**tracked(block), "path": None, "weights": self.digests[key]}

    def judge(self, filter: str) -> list[str]:
        """The judge's table that a filter is compared with: none or one."""
        judge = self.config.filters[filter].judge
        return [judge] if judge else []

    def attentions(self, policy: str) -> dict[str, str]:
        """Benchmark to the table of where a policy looks on its questions; only of benchmarks that measure it."""
        blocks_of = {b: self.config.benchmarks[b] for b in self.benchmarks(policy)}
        return {
            name: ATTENTION.format(policy=policy, dataset=block.dataset, attention=block.attention)
            for name, block in blocks_of.items()
            if block.attention
        }

    def verdicts(self, policy: str, benchmarks_of: str | None = None) -> dict[str, str]:
        """Benchmark to the table of what its judge says of a policy's answers; only of benchmarks that have a judge.

        Only those that `benchmarks_of` is tested on, too.
        """
        names = self.benchmarks(benchmarks_of or policy)
        return {b: VERDICTS.format(policy=policy, benchmark=b) for b in names if self.config.benchmarks[b].judge}

    def judged_model(self, benchmark: str) -> str | None:
        """The model of the config that judges a benchmark; None for an endpoint."""
        judge = self.config.judges[str(self.config.benchmarks[benchmark].judge)]
        return judge.model if judge.url is None else None

    def judging_settings(self, benchmark: str) -> dict[str, Any]:
        """How a benchmark is judged, as a tracked setting: with digests in place of the paths of model and prompt."""
        block, model = self.config.benchmarks[benchmark], self.judged_model(benchmark)
        return {
            "name": block.judge,
            "judge": tracked(self.config.judges[str(block.judge)]),
            "model": model and self.model_settings(model),
            "prompt": block.judge_prompt and prompt_digest(block.judge_prompt),
        }

    def judging_plugins(self, benchmark: str) -> list[str]:
        """Modules that have a say in what a benchmark's judge says because of its settings."""
        model = self.judged_model(benchmark)
        asked = plugin("benchmark", str(self.config.benchmarks[benchmark].protocol))
        return [asked, *([self._family(model)] if model else [])]

    def sampling_plugins(self, policy: str, plan: str) -> list[str]:
        """Modules that have a say in a policy's answers because of its settings."""
        return [self._family(policy), *self._views(self.views_asked(policy, plan))]

    def terms_plugins(self, policy: str, groups: str, views: Iterable[str]) -> list[str]:
        """Modules that have a say in stored log-probabilities because of their settings."""
        own = {view: self.pair_view(groups, view) if groups in self.config.pairings else None for view in views}
        return [self._family(policy), *self._views(name or view for view, name in own.items())]

    def pair_view(self, pairing: str, view: str) -> str | None:
        """The config's name of a view that pairs bring themselves; None for another view."""
        block = self.config.pairings[pairing]
        answers = {
            "enhanced": block.focus and block.focus.chosen,
            "degraded": block.focus and block.focus.rejected,
            "noise": block.robust and block.robust.rejected,
        }
        answer = answers.get(view)
        return answer.view if answer else None

    def training_plugins(self, experiment: str) -> list[str]:
        """Modules that have a say in an adapter because of its settings."""
        training, pairing = self.training(experiment), self.block(experiment).pairing
        views = self.views_trained(experiment)
        views = [(self.pair_view(pairing, view) if pairing else None) or view for view in views]
        return [self._family(experiment), plugin("method", training.method), *self._views(views)]

    def _views(self, views: Iterable[str]) -> list[str]:
        return [plugin("view", op) for op in sorted({op for view in views for op in self.ops(view)})]

    def pair_plugins(self, pairing: str) -> list[str]:
        """Modules that have a say in what pairs record of their views."""
        return self._views(views_of(self.config.pairings[pairing]))

    def import_plugins(self, dataset: str) -> list[str]:
        """The module that reads a dataset's format."""
        return [plugin("importer", self.import_block(dataset).kind)]

    def evaluation_plugins(self, policy: str) -> list[str]:
        """The modules that declare a policy's metrics: published benchmarks, and rewards."""
        blocks_of = [self.config.benchmarks[b] for b in self.benchmarks(policy)]
        protocols = sorted({block.protocol for block in blocks_of if block.protocol})
        rewards = sorted({module for block in blocks_of for module in self.reward_plugins(block.reward)})
        return [*(plugin("benchmark", name) for name in protocols), *rewards]

    def datasets_measured(self, policy: str) -> list[str]:
        """The datasets whose examples a policy's published benchmarks look up when they measure."""
        blocks_of = [self.config.benchmarks[b] for b in self.benchmarks(policy)]
        return list(dict.fromkeys(block.dataset for block in blocks_of if block.protocol))

    def scored_settings(self, policy: str, plan: str, reward: str) -> dict[str, Any]:
        """A reward block as a tracked setting, with the digest of its resources in place of their path.

        `benchmarks`: whose answers it scores; None of a plan that has none.
        """
        block = self.config.rewards[reward]
        asked = self.benchmarks(policy) if plan == "benchmarks" else []
        mine = [b for b in asked if self.config.benchmarks[b].reward == reward]
        settings = {**tracked(block), "benchmarks": mine if plan == "benchmarks" else None}
        if block.resources:
            settings["resources"] = self.digests.setdefault(f"resources {reward}", resources_digest(block.resources))
        return settings

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

    def benchmark_blocks(self, policy: str) -> dict[str, BenchmarkBlock]:
        """The benchmark blocks that a policy answers; only base models are asked with other prompts, too."""
        blocks_of = {b: self.config.benchmarks[b] for b in self.benchmarks(policy)}
        if self.experiment(policy) is None:
            return blocks_of
        return {b: block.model_copy(update={"prompts": ()}) for b, block in blocks_of.items()}

    def benchmark_settings(self, policy: str) -> dict[str, Any]:
        """Them as a tracked setting."""
        return {b: tracked(block) for b, block in self.benchmark_blocks(policy).items()}

    def asking_settings(self, policy: str) -> dict[str, Any]:
        """The benchmark blocks that a policy answers, without what only evaluation looks at; and their views."""
        looked_at = ("reward", "resamples", "attention", "protocol", "variant", "judge", "judge_prompt")
        blocks_of = self.benchmark_settings(policy)
        asked = {b: {k: v for k, v in block.items() if k not in looked_at} for b, block in blocks_of.items()}
        return {"benchmarks": asked, "views": self.view_blocks(*self.views_asked(policy, "benchmarks"))}

    def evaluation_settings(self, policy: str) -> dict[str, Any]:
        """The benchmark blocks of a policy, and which reward each task has: it says which metrics there are."""
        blocks_of = self.benchmark_settings(policy)
        rewards = {b["reward"]: dict(self.config.rewards[b["reward"]].tasks) for b in blocks_of.values()}
        return {"benchmarks": blocks_of, "rewards": rewards}

    def statistics(self) -> dict[str, str]:
        """Label to the selection statistics of every experiment's lists, each once."""
        tables = [self.samples(e) for e, block in self.config.experiments.items() if block.selection or block.given]
        patterns = {"selection": PREFERENCE_STATISTICS, "given": GIVEN_STATISTICS}
        return {
            "/".join(t.values()): pattern.format(**t) for t in tables for key, pattern in patterns.items() if key in t
        }

    def pair_tables(self) -> dict[str, dict[str, str]]:
        """Label to the tables behind every experiment's pairs, each once: statistics, preferences, attention, crops, examples."""
        found = {}
        for experiment, block in self.config.experiments.items():
            if not block.pairing:
                continue
            made = self.samples(experiment)
            tables = {
                "statistics": PAIR_STATISTICS.format(**made),
                "preferences": FILTERED_PAIRS.format(**made),
                "examples": EXAMPLES.format(dataset=block.dataset),
            }
            crop = self.pair_crop(block.pairing)
            if crop:
                attention = self.config.crops[crop].attention
                place = {"policy": block.model, "dataset": block.dataset}
                tables["attention"] = ATTENTION.format(attention=attention, **place)
                tables["crops"] = CROPS.format(crop=crop, **place)
            found["/".join(made.values())] = tables
        return found

    def report_settings(self) -> dict[str, Any]:
        """What the page needs to know besides the tables: who is tested on what, and against whom."""
        return {
            "report": tracked(self.config.report),
            "template": sha256_of_file(Path(__file__).with_name("report_template.html.jinja")),
            "base": {p: self.base(p) for p in self.policies},
            "benchmarks": {b: tracked(k) for b, k in self.config.benchmarks.items()},
            "training": {e: TRAINING.format(experiment=e) for e in self.trained},
            "rounds": {e: self.report_rounds(e) for e in self.config.experiments if self.rounds(e)},
            "statistics": self.statistics(),
            "pairs": self.pair_tables(),
            "noise": self.noise_levels(),
            "controls": self.report_controls(),
            "predictions": {p: self.benchmark_rewards(p) for p in self.policies},
            "examples": {d: EXAMPLES.format(dataset=d) for d in self.benchmark_datasets},
        }

    @cached_property
    def controlled(self) -> list[str]:
        """Policies whose gain is held against the controls: of every experiment the last one that is tested."""
        return [self.tested(e)[-1] for e in self.config.experiments] if self.config.controls else []

    @cached_property
    def _twins(self) -> dict[str, str]:
        """Experiment to its twin, see `controls.twins`."""
        return twins(self.config) if self.config.controls and self.config.controls.sft_on_best else {}

    def twin(self, policy: str) -> str | None:
        """The policy that learnt the best answers of the same lists with the same budget; None if there is none."""
        return self._twins.get(_parted(policy)[0])

    def report_controls(self) -> dict[str, dict[str, str]]:
        """Policy to its comparison with the controls, and the words for why it has no twin where one was wanted."""
        wanted = self.config.controls is not None and self.config.controls.sft_on_best
        reasons = {p: why_no_twin(self.config, _parted(p)[0]) for p in self.controlled if wanted}
        return {
            "tables": {p: CONTROLS.format(policy=p) for p in self.controlled},
            "twinless": {p: why for p, why in reasons.items() if why},
        }

    def report_rounds(self, experiment: str) -> dict[str, Any]:
        """The tested rounds of an experiment, as pairs of number and policy, and where its last one says how it went."""
        tested = [[_parted(policy)[1], policy] for policy in self.tested(experiment)]
        return {"policies": tested, "marks": ROUND.format(experiment=self.rounds(experiment)[-1])}

    @cached_property
    def final(self) -> list[str]:
        """The policies that experiments end with: their last round, or themselves."""
        return [(self.rounds(experiment) or [experiment])[-1] for experiment in self.config.experiments]

    def card_settings(self, policy: str) -> dict[str, Any]:
        """What a model card tells of how a policy was trained: its experiment, and every block that this names."""
        block, experiment = self.block(policy), _parted(policy)[0]
        named = {key: [getattr(block, key)] for key in ("model", "dataset", *block.made_of, "training")}
        named |= {"benchmark": list(block.benchmarks)}
        used = {
            plural(key): {name: tracked(getattr(self.config, plural(key))[name]) for name in names}
            for key, names in named.items()
        }
        views = self.view_blocks(*self.views_trained(policy))
        return {**used, **({"views": views} if views else {}), "experiments": {experiment: tracked(block)}}

    def exported(self, export: str) -> str:
        """The policy whose preferences an export block is about: of an experiment with rounds the last."""
        named = self.config.exports[export].experiment
        return (self.rounds(named) or [named])[-1] if named in self.config.experiments else named

    def export_settings(self, export: str) -> dict[str, Any]:
        """An export block as a tracked setting, with the view that its images are shown under."""
        policy = self.exported(export)
        view = self.training(policy).view
        block = tracked(self.config.exports[export])
        return {"export": block, "policy": policy, "view": view, "views": self.view_blocks(view)}

    def export_plugins(self, export: str) -> list[str]:
        """The module of an export's format, and those that make its images."""
        view = self.training(self.exported(export)).view
        return [plugin("exporter", self.config.exports[export].format), *self._views([view])]

    def noise_levels(self) -> dict[str, float]:
        """Benchmarks' views that lay Gaussian noise of some sigma on the pixels, and the clean one, by sigma."""
        asked = [view for b in self.config.benchmarks.values() for view in b.views]
        found = {}
        for view in dict.fromkeys(asked):
            block = self.config.views.get(view)
            if block and (sigma := gaussian_sigma(block)) is not None:
                found[view] = sigma
        return dict(sorted({"original": 0.0, **found}.items(), key=lambda item: item[1])) if found else {}

    @cached_property
    def benchmark_datasets(self) -> list[str]:
        """Datasets that any policy is tested on."""
        return list(dict.fromkeys(d for p in self.policies for d in self.datasets(p, "benchmarks")))


def views_of(block: SamplingBlock | PairingBlock | RolloutBlock) -> list[str]:
    """Views in a block's requests, amateurs' included."""
    return sorted({view for _, view in views_named(block)})


def _parted(policy: str) -> tuple[str, int]:
    """Experiment and number of a round; the number is 0 for a policy without rounds."""
    name, mark, number = policy.rpartition(ROUND_MARK)
    return (name, int(number)) if mark and number.isdigit() else (policy, 0)


def tracked(block: BaseModel) -> dict[str, Any]:
    """A block as builtins in fixed order, without what does not change the result."""
    return block.model_dump(mode="json", exclude=UNTRACKED)


def model_digest(block: ModelBlock | ClipBlock | SaliencyBlock) -> str:
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


def prompt_digest(file: str) -> str:
    """Digest of a file with a prompt; a `UserError` when there is none."""
    if not Path(file).is_file():
        raise UserError(f"judge's prompt `{file}` does not exist", "paths are relative to the working directory")
    return MEMORY.sha256_of_files([Path(file)])[0]


def resources_digest(folder: str) -> str:
    """Digest of a folder of language resources; a `UserError` when there is none."""
    if not Path(folder).is_dir():
        raise UserError(f"resources folder `{folder}` does not exist", "paths are relative to the working directory")
    return digest_of_folder(Path(folder), MEMORY)


def shards_of(responses: str) -> list[str]:
    """The shard names that a finished responses table was made of; empty where there is none."""
    if not Path(responses).exists():
        return []
    count = read_lineage(Path(responses)).get("parameters", {}).get("shards", 0)
    return [f"{i + 1}-of-{count}" for i in range(count)]


def load(raw: Mapping[str, Any]) -> Plan:
    """The plan of a raw config; a `UserError` names every mistaken key, what was given and what is allowed."""
    return Plan(with_controls(checked(expand_sweeps(with_protocols(with_slice(raw))))))
