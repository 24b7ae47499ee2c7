"""A config that can be run: what pydantic cannot see, and every mistake as one line with key, value and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

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
from perceptune.contracts.errors import UserError, joined_mistakes, lookup, near
from perceptune.contracts.paths import ROUND_MARK
from perceptune.contracts.plugins import brought, load, names
from perceptune.core.benchmarks.benchmark import protocol_of
from perceptune.core.methods.limits import limit_names
from perceptune.core.methods.rollout import RolloutMethod
from perceptune.planning.view_checks import changing_size, kinds_of, misfit_views, uncovered, views_seen


def checked(raw: Mapping[str, Any]) -> Config:
    """The config of a mapping without sweeps; a `UserError` names every mistaken key."""
    if secrets := [*_secrets(raw, "")]:  # first, since other mistakes are told with the value that was found
        raise UserError("config\n  " + joined_mistakes(secrets))
    try:
        config = Config.model_validate(raw)
    except ValidationError as invalid:
        raise UserError("config\n  " + joined_mistakes([_mistake(e) for e in invalid.errors()])) from None
    mistakes = _dangling_names(config)
    mistakes = mistakes or [*_broken_plugins(config)] or _wrong_parameters(config) or [*_misfits(config)]
    if mistakes:
        raise UserError("config\n  " + joined_mistakes(mistakes))
    return config


def plural(section: str) -> str:
    """The config section of blocks of a kind."""
    return f"{section}s"


def views_named(
    block: SamplingBlock | PairingBlock | RolloutBlock | BenchmarkBlock | TrainingBlock,
) -> Iterator[tuple[str, str]]:
    """(key, view) of every mention of a view in a block."""
    if isinstance(block, BenchmarkBlock):
        yield from (("views", view) for view in block.views)
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
"""What access tokens, and passwords in addresses, look like."""


def _secrets(value: Any, key: str) -> Iterator[str]:
    """Keys that hold a secret: the config is copied into lineage and logs."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _secrets(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _secrets(inner, key)
    elif isinstance(value, str) and SECRET.search(value):
        yield f"key `{key}`: looks like a password or access token, expected none here; put it into the environment"


def _dangling_names(config: Config) -> list[str]:
    """References to blocks, rewards and methods that do not exist."""
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
    return [text for key, name, allowed in references if (text := _unknown(key, name, allowed))]


def _broken_plugins(config: Config) -> Iterator[str]:
    """Methods, views, rewards, families and the user's own plug-ins that the config names and that cannot be loaded."""
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
    """Experiments and, of one that is named with a round, its first and its last, which stand for those between them."""
    name, mark, number = named.rpartition(ROUND_MARK)
    rounds = config.experiments[name].rounds if name in config.experiments else None
    if not mark or not rounds:
        return dict.fromkeys(config.experiments)
    there = number.isdecimal() and str(int(number)) == number and 1 <= int(number) <= rounds
    return dict.fromkeys(
        [*config.experiments, f"{name}{ROUND_MARK}1", f"{name}{ROUND_MARK}{rounds}", *([named] if there else [])]
    )


def _unknown(key: str, name: str, allowed: Mapping[str, Any]) -> str | None:
    try:
        lookup(dict(allowed), name, f"key `{key}`:")
    except UserError as error:
        return error.args[0] + (f"; {error.hint}" if error.hint else "")
    return None


def _wrong_parameters(config: Config) -> list[str]:
    """Parameters that a training's method does not take."""
    mistakes = []
    for name, training in config.trainings.items():
        try:
            load("method", training.method).Parameters.model_validate(training.parameters)
        except ValidationError as invalid:
            allowed = load("method", training.method).Parameters.model_fields
            for error in invalid.errors():
                key = f"trainings.{name}.parameters.{_dotted(error['loc'])}".rstrip(".")
                mistakes.append(_described(key, error, allowed))
    for name, view in config.views.items():
        if view.type is None:
            continue
        try:
            load("view", view.type).Parameters.model_validate(view.parameters)
        except ValidationError as invalid:
            allowed = load("view", view.type).Parameters.model_fields
            for error in invalid.errors():
                key = f"views.{name}.parameters.{_dotted(error['loc'])}".rstrip(".")
                mistakes.append(_described(key, error, allowed))
    return mistakes


def _misfits(config: Config) -> Iterator[str]:
    """Blocks that exist but do not go together."""
    for name, view in config.views.items():
        if view.type and load("view", view.type).needs_box != (view.crop is not None):
            needs = "needs a crop block" if load("view", view.type).needs_box else "needs none"
            yield f"key `views.{name}.crop`: `{view.type}` {needs}, got `{view.crop}`"
        if view.type and load("view", view.type).needs_saliency != (view.saliency_map is not None):
            needs = "needs a saliency block" if load("view", view.type).needs_saliency else "needs none"
            yield f"key `views.{name}.saliency_map`: `{view.type}` {needs}, got `{view.saliency_map}`"
        for one in view.choice:
            if config.views[one].choice:
                yield f"key `views.{name}.choice`: `{one}` is itself one of several, expected views with a `type`"
    for name, model in config.models.items():
        if model.pixels and not load("family", model.family).resizes_by_pixels:
            yield f"key `models.{name}.pixels`: images of `{model.family}` are not resized to a number of pixels, expected null"
        if model.pixels and model.pixels[0] > model.pixels[1]:
            yield f"key `models.{name}.pixels`: at least {model.pixels[0]} and at most {model.pixels[1]}, expected no less"
    boxed = {name for name, view in config.views.items() if any(kind.needs_box for kind in kinds_of(view, config))}
    salient = {
        name for name, view in config.views.items() if any(kind.needs_saliency for kind in kinds_of(view, config))
    }
    for name, training in config.trainings.items():
        yield from misfit_views(name, training, config, boxed, salient)
    for name, export in config.exports.items():
        experiment = config.experiments[export.experiment.rpartition(ROUND_MARK)[0] or export.experiment]
        if (shown := config.trainings[experiment.training].view) in salient:
            yield f"key `exports.{name}`: view `{shown}` needs a saliency, which exports do not have"
    for name, pairing in config.pair_generations.items():
        if pairing.focus is None and pairing.robust is None:
            yield f"key `pair_generations.{name}`: neither `focus` nor `robust`, expected at least one"
        for key, named in views_named(pairing):
            expected = {"focus.chosen.view": True, "focus.rejected.view": True}.get(key, False)
            if (named in boxed) != expected:
                what = "a view with a crop" if expected else "a view without a crop"
                yield f"key `pair_generations.{name}.{key}`: `{named}`, expected {what}"
            if named in salient:
                yield f"key `pair_generations.{name}.{key}`: `{named}` needs a saliency, which pairs do not have"
    for name, experiment in config.experiments.items():
        training = config.trainings[experiment.training]
        learns_from = load("method", training.method).groups
        if experiment.made_of not in blocks.SOURCES[learns_from]:
            needs = blocks.named_keys(*blocks.SOURCES[learns_from])
            yield f"key `experiments.{name}`: method `{training.method}` learns from {learns_from}, expected {needs}"
    for name, benchmark in config.benchmarks.items():
        protocol = protocol_of(benchmark)
        if benchmark.variant and not protocol:
            yield f"key `benchmarks.{name}.variant`: it has no protocol, expected null"
        in_image = protocol and "{question}" not in protocol.settings.get("prompt", "{question}")
        if "{question}" not in benchmark.prompt and not in_image:
            yield f"key `benchmarks.{name}.prompt`: got `{benchmark.prompt}`, expected a text with `{{question}}` in it"
        if protocol and protocol.judge_required and not benchmark.judge:
            yield f"key `benchmarks.{name}.judge`: `{protocol.name}` has no score without a judge, expected one"
        if benchmark.judge and not (protocol and protocol.judged):
            yield f"key `benchmarks.{name}.judge`: its protocol asks no judge, expected null"
        if benchmark.judge_prompt and not (benchmark.judge and protocol and protocol.judged and protocol.judged.fields):
            yield f"key `benchmarks.{name}.judge_prompt`: nothing there takes a prompt, expected null"
    for name, training in config.trainings.items():
        yield from _misfit_rounds(name, training, config)
    yield from uncovered(config)


def _misfit_rounds(name: str, training: TrainingBlock, config: Config) -> Iterator[str]:
    """What rounds ask of a training block, and what only they can use."""
    method, key = load("method", training.method), f"trainings.{name}"
    if not isinstance(method, RolloutMethod):
        for only in ("optimizer", "limits"):
            if only in training.model_fields_set:
                yield f"key `{key}.{only}`: method `{training.method}` has no rounds, expected none"
        return
    for wanted, given, why in (
        ("scheduler: constant", training.scheduler == "constant", "a round knows nothing of those to come"),
        ("warmup_ratio: 0", training.warmup_ratio == 0, "a round knows nothing of those to come"),
        ("lora.dropout: 0", training.lora.dropout == 0, "the first ratio of a round must be 1"),
    ):
        if not given:
            yield f"key `{key}.{wanted.partition(':')[0]}`: expected `{wanted}` in rounds, since {why}"
    known = limit_names(method.watched)
    for metric in training.limits:
        if text := _unknown(f"{key}.limits.{metric}", metric, dict.fromkeys(sorted(known))):
            yield text
    for view in views_seen(training):
        if view in config.views and (changing := changing_size(config.views[view], config)):
            yield f"key `{key}`: view `{view}` (`{changing[0]}`) may change the image's size, expected one that keeps it"
    for n, experiment in config.experiments.items():
        if config.trainings[experiment.training] is not training or experiment.rollout is None:
            continue
        shown = config.rollouts[experiment.rollout].view
        if shown != training.view:
            yield f"key `experiments.{n}`: answers are drawn under view `{shown}` and learnt under `{training.view}`, expected one"


def _mistake(error: Any) -> str:
    """One pydantic error as one line: key, what is wrong, what was given, the nearest name."""
    location = list(error["loc"])
    if location[:1] == ["datasets"] and len(location) > 2 and location[2] in ("shapes", "file"):
        del location[2]  # the discriminator's tag is not a key
    allowed = {f for b in _subclasses(blocks.Block) for f in b.model_fields}
    return _described(_dotted(location), error, allowed)


def _described(key: str, error: Any, allowed: Any) -> str:
    given = error.get("input")
    given = repr(given) if error["type"] == "int_type" and isinstance(given, str) else given  # '20' is no number
    shown = f", got `{given}`" if not isinstance(given, Mapping | BaseModel) else ""
    message = error["msg"].removeprefix("Value error, ")
    about = f"key `{key}`: {message[0].lower()}{message[1:]}" if key else message
    text = f"{about}{shown}"
    hint = near(key.rpartition(".")[2], allowed) if error["type"] == "extra_forbidden" else None
    return f"{text}; {hint}" if hint else text


def _dotted(location: Any) -> str:
    return ".".join(str(part) for part in location if part != "[key]")


def _subclasses(parent: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for child in parent.__subclasses__():
        yield child
        yield from _subclasses(child)
