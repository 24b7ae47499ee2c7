"""Validation of the config beyond its types.

Every mistake is one line with the key, the value found and what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from perceptune.contracts import config as blocks
from perceptune.contracts.config import (
    PLAIN_VIEWS,
    AnswerBlock,
    BenchmarkBlock,
    Config,
    FileDataset,
    PairingBlock,
    RolloutBlock,
    SamplingBlock,
    TrainingBlock,
)
from perceptune.contracts.errors import UserError, joined_mistakes, listed, lookup
from perceptune.contracts.paths import ROUND_MARK
from perceptune.contracts.plugins import brought, load, names
from perceptune.core.benchmarks.benchmark import Benchmark, protocol_of
from perceptune.core.methods.limits import limit_names
from perceptune.core.methods.rollout import RolloutMethod
from perceptune.planning.comparisons import impossible_comparisons, unknown_comparisons
from perceptune.planning.cross_checks import cross_mistakes
from perceptune.planning.family_checks import family_mistakes
from perceptune.planning.messages import described, dotted, mistakes_of
from perceptune.planning.trained_parts import incompatible_parts
from perceptune.planning.view_checks import changing_size, incompatible_views, kinds_of, uncovered, views_seen


def checked(raw: Mapping[str, Any]) -> Config:
    """The config of a mapping without sweeps. Raises `UserError` that lists every invalid key."""
    if secrets := [*_secrets(raw, "")]:  # first, because other messages print the value found
        raise UserError("config\n  " + joined_mistakes(secrets))
    try:
        config = Config.model_validate(raw)
    except ValidationError as invalid:
        raise UserError("config\n  " + joined_mistakes(mistakes_of(invalid))) from None
    mistakes = [*_unknown_references(config), *unknown_comparisons(config)]
    mistakes = mistakes or [*_broken_plugins(config)] or _wrong_parameters(config)
    mistakes = mistakes or [*_incompatible_blocks(config), *cross_mistakes(config), *family_mistakes(config)]
    mistakes = mistakes or [*impossible_comparisons(config)]
    if mistakes:
        raise UserError("config\n  " + joined_mistakes(mistakes))
    return config


def plural(section: str) -> str:
    """The config section that a key of an experiment refers to."""
    return f"{section}s"


def views_named(
    block: SamplingBlock | PairingBlock | RolloutBlock | BenchmarkBlock | TrainingBlock,
) -> Iterator[tuple[str, str]]:
    """(key, view) for every view that a block names."""
    if isinstance(block, BenchmarkBlock):
        yield from (("views", view) for view in block.views)
        if block.contrast:
            yield "contrast.view", block.contrast.view
    elif isinstance(block, PairingBlock):
        for kind in ("focus", "robust"):
            pair = getattr(block, kind)
            answers: dict[str, AnswerBlock] = {} if pair is None else {"chosen": pair.chosen, "rejected": pair.rejected}
            for role, answer in answers.items():
                yield f"{kind}.{role}.view", answer.view
                if answer.contrast:
                    yield f"{kind}.{role}.contrast.view", answer.contrast.view
    else:
        yield "view", block.view


SECRET = re.compile(
    r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|AKIA[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,})|://[^/\s:@]+:[^/\s@]+@"
)
"""Access tokens, and passwords in URLs."""


def _secrets(value: Any, key: str) -> Iterator[str]:
    """Keys that hold a secret. It would leak, because the config is copied into lineage and
    logs."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _secrets(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _secrets(inner, key)
    elif isinstance(value, str) and SECRET.search(value):
        yield f"key `{key}`: looks like a password or access token; put it into an environment variable instead"


def _unknown_references(config: Config) -> list[str]:
    """References to blocks and plug-ins that do not exist."""
    exporters, families, importers, methods, rewards, views = (
        dict.fromkeys(names(kind)) for kind in ("exporter", "family", "importer", "method", "reward", "view")
    )
    references = [
        (f"experiments.{n}.{key}", getattr(e, key), getattr(config, plural(key)))
        for n, e in config.experiments.items()
        for key in ("model", "dataset", *e.made_of, "training")
    ]
    references += [
        (f"experiments.{n}.benchmarks", b, config.benchmarks)
        for n, e in config.experiments.items()
        for b in e.benchmarks
    ]
    references += [
        (f"exports.{n}.experiment", e.experiment, _exportable(config, e.experiment)) for n, e in config.exports.items()
    ]
    named = config.diagnostics.experiments if config.diagnostics else ()
    references += [("diagnostics.experiments", name, config.experiments) for name in named]
    references += [(f"exports.{n}.format", e.format, exporters) for n, e in config.exports.items()]
    references += [(f"benchmarks.{n}.dataset", b.dataset, config.datasets) for n, b in config.benchmarks.items()]
    references += [(f"benchmarks.{n}.reward", b.reward, config.rewards) for n, b in config.benchmarks.items()]
    references += [
        (f"datasets.{n}.kind", d.kind, importers) for n, d in config.datasets.items() if isinstance(d, FileDataset)
    ]
    references += [(f"benchmarks.{n}.judge", b.judge, config.judges) for n, b in config.benchmarks.items() if b.judge]
    references += [(f"judges.{n}.model", j.model, config.models) for n, j in config.judges.items() if j.url is None]
    references += [
        (f"rewards.{n}.tasks.{t}", r, rewards) for n, b in config.rewards.items() for t, r in b.tasks.items()
    ]
    references += [(f"models.{n}.family", m.family, families) for n, m in config.models.items()]
    references += [(f"trainings.{n}.method", t.method, methods) for n, t in config.trainings.items()]
    references += [(f"views.{n}.type", v.type, views) for n, v in config.views.items() if v.type]
    references += [(f"views.{n}.choice", one, config.views) for n, v in config.views.items() for one in v.choice]
    references += [(f"views.{n}.crop", v.crop, config.crops) for n, v in config.views.items() if v.crop]
    references += [
        (f"views.{n}.saliency_map", v.saliency_map, config.saliency_maps)
        for n, v in config.views.items()
        if v.saliency_map
    ]
    references += [
        (f"crops.{n}.attention_map", c.attention_map, config.attention_maps) for n, c in config.crops.items()
    ]
    references += [
        (f"filters.{n}.clip_score", f.clip_score, config.clip_scores) for n, f in config.filters.items() if f.clip_score
    ]
    references += [
        (f"benchmarks.{n}.attention_map", b.attention_map, config.attention_maps)
        for n, b in config.benchmarks.items()
        if b.attention_map
    ]
    known = {**dict.fromkeys(PLAIN_VIEWS), **config.views}
    for section in ("samplings", "pair_generations", "rollouts", "benchmarks", "trainings"):
        for n, block in getattr(config, section).items():
            references += [(f"{section}.{n}.{key}", view, known) for key, view in views_named(block)]
    plugins = [id(allowed) for allowed in (exporters, families, importers, methods, rewards, views)]
    own = "`plugins` names folders with your own (docs/plugins.md)"
    return [
        f"{text}{'' if text.endswith('?') else ';'} {own}" if id(allowed) in plugins else text
        for key, name, allowed in references
        if (text := _unknown(key, name, allowed))
    ]


def _broken_plugins(config: Config) -> Iterator[str]:
    """Named methods, views, rewards, families and user plug-ins that cannot be loaded."""
    named = [(f"trainings.{n}.method", "method", t.method) for n, t in config.trainings.items()]
    named += [(f"views.{n}.type", "view", v.type) for n, v in config.views.items() if v.type]
    named += [(f"models.{n}.family", "family", m.family) for n, m in config.models.items()]
    own = [(f"exports.{n}.format", "exporter", e.format) for n, e in config.exports.items()]
    own += [
        (f"datasets.{n}.kind", "importer", d.kind) for n, d in config.datasets.items() if isinstance(d, FileDataset)
    ]
    named += [(f"rewards.{n}.tasks.{t}", "reward", r) for n, b in config.rewards.items() for t, r in b.tasks.items()]
    named += [(key, kind, name) for key, kind, name in own if brought(kind, name)]
    first = {(kind, name): key for key, kind, name in reversed(named)}
    for (kind, name), key in reversed(first.items()):
        try:
            load(kind, name)
        except UserError as error:
            yield f"key `{key}`: {error.args[0]}"


def _exportable(config: Config, named: str) -> dict[str, None]:
    """Allowed names: all experiments and, if a round is named, that experiment's first and last round.

    All rounds are allowed; the message lists only two of them.
    """
    name, mark, number = named.rpartition(ROUND_MARK)
    rounds = config.experiments[name].rounds if name in config.experiments else None
    if not mark or not rounds:
        return dict.fromkeys(config.experiments)
    exists = number.isdecimal() and str(int(number)) == number and 1 <= int(number) <= rounds
    return dict.fromkeys(
        [*config.experiments, f"{name}{ROUND_MARK}1", f"{name}{ROUND_MARK}{rounds}", *([named] if exists else [])]
    )


def _unknown(key: str, name: str, allowed: Mapping[str, Any]) -> str | None:
    try:
        lookup(dict(allowed), name, f"key `{key}`:")
    except UserError as error:
        return error.args[0] + (f"; {error.hint}" if error.hint else "")
    return None


def _wrong_parameters(config: Config) -> list[str]:
    """Invalid parameters of methods, views and importers."""
    given = [(f"trainings.{n}", "method", t.method, t.parameters) for n, t in config.trainings.items()]
    given += [(f"views.{n}", "view", v.type, v.parameters) for n, v in config.views.items() if v.type]
    given += [
        (f"datasets.{n}", "importer", d.kind, d.parameters)
        for n, d in config.datasets.items()
        if isinstance(d, FileDataset)
    ]
    mistakes = []
    for block, kind, plugin, parameters in given:
        model = load(kind, plugin).Parameters
        try:
            model.model_validate(parameters)
        except ValidationError as invalid:
            for error in invalid.errors():
                key = f"{block}.parameters.{dotted(error['loc'])}".rstrip(".")
                mistakes.append(described(key, error, model.model_fields))
    return mistakes


def _incompatible_blocks(config: Config) -> Iterator[str]:
    """Blocks that are valid on their own but incompatible with each other, or with their plug-in."""
    for name, dataset in config.datasets.items():
        fixed = isinstance(dataset, FileDataset) and dataset.boxes and not load("importer", dataset.kind).orders
        if fixed:
            yield f"key `datasets.{name}.boxes`: `{dataset.kind}` fixes the order of a box's numbers; remove this key"
    for name, view in config.views.items():
        if view.type and load("view", view.type).needs_box != (view.crop is not None):
            needs = "needs a crop" if load("view", view.type).needs_box else "does not use a crop"
            yield f"key `views.{name}.crop`: `{view.type}` {needs}, got `{view.crop}`"
        if view.type and load("view", view.type).needs_saliency != (view.saliency_map is not None):
            needs = "needs a saliency map" if load("view", view.type).needs_saliency else "does not use a saliency map"
            yield f"key `views.{name}.saliency_map`: `{view.type}` {needs}, got `{view.saliency_map}`"
        for one in view.choice:
            if config.views[one].choice:
                yield f"key `views.{name}.choice`: `{one}` has a `choice` of its own, expected views with a `type`"
            elif config.views[one].crop:
                yield f"key `views.{name}.choice`: `{one}` needs a crop; choices do not support these"
    for name, model in config.models.items():
        if model.pixels and not load("family", model.family).resizes_by_pixels:
            yield f"key `models.{name}.pixels`: `{model.family}` does not resize images to a pixel budget; remove this key"
        if model.pixels and model.pixels[0] > model.pixels[1]:
            yield f"key `models.{name}.pixels`: minimum {model.pixels[0]} exceeds maximum {model.pixels[1]}"
    boxed = {name for name, view in config.views.items() if any(kind.needs_box for kind in kinds_of(view, config))}
    salient = {
        name for name, view in config.views.items() if any(kind.needs_saliency for kind in kinds_of(view, config))
    }
    for name, training in config.trainings.items():
        yield from incompatible_views(name, training, config, boxed, salient)
    for name, export in config.exports.items():
        experiment = config.experiments[export.experiment.rpartition(ROUND_MARK)[0] or export.experiment]
        if (view_name := config.trainings[experiment.training].view) in salient:
            yield f"key `exports.{name}`: view `{view_name}` needs a saliency map; exports do not support these"
    for name, pairing in config.pair_generations.items():
        if pairing.focus is None and pairing.robust is None:
            yield f"key `pair_generations.{name}`: found neither `focus` nor `robust`, expected at least one"
        for key, named in views_named(pairing):
            expected = {"focus.chosen.view": True, "focus.rejected.view": True}.get(key, False)
            if (named in boxed) != expected:
                what = "a view with a crop" if expected else "a view without a crop"
                yield f"key `pair_generations.{name}.{key}`: `{named}`, expected {what}"
            if named in salient:
                yield f"key `pair_generations.{name}.{key}`: `{named}` needs a saliency map; pairs do not support these"
    for name, experiment in config.experiments.items():
        training = config.trainings[experiment.training]
        learns_from = load("method", training.method).groups
        if experiment.made_of not in blocks.SOURCES[learns_from]:
            needs = blocks.named_keys(*blocks.SOURCES[learns_from])
            yield f"key `experiments.{name}`: method `{training.method}` learns from {learns_from}, expected {needs}"
    for name, benchmark in config.benchmarks.items():
        protocol = protocol_of(benchmark)
        if benchmark.variant and not protocol:
            yield f"key `benchmarks.{name}.variant`: variants need a `protocol`; remove this key"
        in_image = protocol and "{question}" not in protocol.settings.get("prompt", "{question}")
        if "{question}" not in benchmark.prompt and not in_image:
            yield f"key `benchmarks.{name}.prompt`: got `{benchmark.prompt}`, expected text that contains `{{question}}`"
        if protocol and protocol.judge_required and not benchmark.judge:
            yield f"key `benchmarks.{name}.judge`: missing, protocol `{protocol.name}` needs a judge"
        if benchmark.judge and not (protocol and protocol.judged):
            described = f"protocol `{protocol.name}` does not use a judge" if protocol else "judges need a `protocol`"
            yield f"key `benchmarks.{name}.judge`: {described}; remove this key"
        if protocol and not benchmark.judge:
            yield from _lacking_components(name, benchmark, protocol, config)
        if benchmark.judge_prompt and not (benchmark.judge and protocol and protocol.judged and protocol.judged.fields):
            yield f"key `benchmarks.{name}.judge_prompt`: no judge here takes a prompt; remove this key"
    for name, training in config.trainings.items():
        yield from _incompatible_rounds(name, training, config)
        yield from incompatible_parts(name, training, config)
        yield from _incompatible_processes(name, training)
    yield from uncovered(config)


def _lacking_components(name: str, benchmark: BenchmarkBlock, protocol: Benchmark, config: Config) -> Iterator[str]:
    """Components that a protocol needs and the rewards of its block never return."""
    for task, reward in config.rewards[benchmark.reward].tasks.items():
        declared = load("reward", reward)
        returned = (*declared.components, *declared.optional)
        for component in protocol.components.get(task, ()):
            if component not in returned:
                yield (
                    f"key `benchmarks.{name}`: protocol `{protocol.name}` needs component `{component}` for task"
                    f" `{task}`, but reward `{reward}` returns {listed(returned)}"
                )


def _incompatible_processes(name: str, training: TrainingBlock) -> Iterator[str]:
    """Requirements of a training in several processes."""
    processes, key = training.devices * training.nodes, f"trainings.{name}"
    if training.batch_size % processes:
        yield (
            f"key `{key}.batch_size`: {training.batch_size}, expected a multiple of {processes}, so that"
            f" {processes} processes (`devices` x `nodes`) can share it evenly"
        )
    if training.sharding == "fsdp" and processes == 1:
        yield f"key `{key}.sharding`: `fsdp` needs several processes, got `devices: 1` and `nodes: 1`"
    if training.sharding == "fsdp" and training.quantisation != "none":
        yield (
            f"key `{key}.quantisation`: `{training.quantisation}` weights are not sharded;"
            " remove this key or `sharding`"
        )


def _incompatible_rounds(name: str, training: TrainingBlock, config: Config) -> Iterator[str]:
    """Requirements of rounds on a training block, and keys that only rounds can use."""
    method, key = load("method", training.method), f"trainings.{name}"
    if not isinstance(method, RolloutMethod):
        for only in ("optimizer", "limits"):
            if only in training.model_fields_set:
                yield f"key `{key}.{only}`: method `{training.method}` has no rounds; remove this key"
        return
    for required, holds, why in (
        ("scheduler: constant", training.scheduler == "constant", "a round does not know how many follow"),
        ("warmup_ratio: 0", training.warmup_ratio == 0, "a round does not know how many follow"),
        ("lora.dropout: 0", training.lora.dropout == 0, "the first probability ratio of a round must be 1"),
    ):
        if not holds:
            yield f"key `{key}.{required.partition(':')[0]}`: expected `{required}` in rounds, because {why}"
    known = limit_names(method.watched)
    for metric in training.limits:
        if text := _unknown(f"{key}.limits.{metric}", metric, dict.fromkeys(sorted(known))):
            yield text
    for view in views_seen(training):
        if view in config.views and (changing := changing_size(config.views[view], config)):
            yield f"key `{key}`: view `{view}` (`{changing[0]}`) may change the image size, expected a view that keeps it"
    for n, experiment in config.experiments.items():
        if config.trainings[experiment.training] is not training or experiment.rollout is None:
            continue
        sampled = config.rollouts[experiment.rollout].view
        if sampled != training.view:
            yield f"key `experiments.{n}`: samples under view `{sampled}` but trains under `{training.view}`, expected the same"
