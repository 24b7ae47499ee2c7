"""A config that can be run: what pydantic cannot see, and every mistake as one line with key, value and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
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
    SaliencyBlock,
    SamplingBlock,
    TrainingBlock,
    ViewBlock,
)
from perceptune.contracts.errors import UserError, joined_mistakes, lookup, near
from perceptune.contracts.paths import ROUND_MARK
from perceptune.contracts.plugins import exists, load, names
from perceptune.core.benchmarks.benchmark import protocol_of
from perceptune.core.methods.rollout import RolloutMethod
from perceptune.core.monitors import limit_names
from perceptune.core.views.view import View


def checked(raw: Mapping[str, Any]) -> Config:
    """The config of a mapping without sweeps; a `UserError` names every mistaken key."""
    if secrets := [*_secrets(raw, "")]:  # first, since other mistakes are told with the value that was found
        raise UserError("config\n  " + joined_mistakes(secrets))
    try:
        config = Config.model_validate(raw)
    except ValidationError as invalid:
        raise UserError("config\n  " + joined_mistakes([_mistake(e) for e in invalid.errors()])) from None
    mistakes = _dangling_names(config)
    mistakes = mistakes or [*_broken_rewards(config)] or _wrong_parameters(config) or [*_misfits(config)]
    if mistakes:
        raise UserError("config\n  " + joined_mistakes(mistakes))
    return config


def plural(section: str) -> str:
    """The config section of blocks of a kind."""
    if section.endswith("y"):
        return f"{section[:-1]}ies"
    return f"{section}es" if section.endswith("ch") else f"{section}s"


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
    exporters, importers, methods, rewards, views = (
        dict.fromkeys(names(kind)) for kind in ("exporter", "importer", "method", "reward", "view")
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
    references += [(f"trainings.{n}.method", t.method, methods) for n, t in config.trainings.items()]
    references += [(f"views.{n}.op", v.op, views) for n, v in config.views.items() if v.op]
    references += [(f"views.{n}.one_of", one, config.views) for n, v in config.views.items() for one in v.one_of]
    references += [(f"views.{n}.crop", v.crop, config.crops) for n, v in config.views.items() if v.crop]
    references += [
        (f"views.{n}.saliency", v.saliency, config.saliencies) for n, v in config.views.items() if v.saliency
    ]
    references += [(f"crops.{n}.attention", c.attention, config.attentions) for n, c in config.crops.items()]
    references += [(f"filters.{n}.clip", f.clip, config.clips) for n, f in config.filters.items() if f.clip]
    references += [
        (f"benchmarks.{n}.attention", b.attention, config.attentions)
        for n, b in config.benchmarks.items()
        if b.attention
    ]
    known = {**dict.fromkeys(PLAIN_VIEWS), **config.views}
    for section in ("samplings", "pairings", "rollouts", "benchmarks", "trainings"):
        for n, block in getattr(config, section).items():
            references += [(f"{section}.{n}.{key}", view, known) for key, view in views_named(block)]
    return [text for key, name, allowed in references if (text := _unknown(key, name, allowed))]


def _broken_rewards(config: Config) -> Iterator[str]:
    """Rewards that cannot be loaded; better said now than after hours of sampling."""
    for name in sorted({reward for block in config.rewards.values() for reward in block.tasks.values()}):
        try:
            load("reward", name)
        except UserError as error:
            yield error.args[0]


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
        if not exists("method", training.method):
            continue
        try:
            load("method", training.method).Parameters.model_validate(training.parameters)
        except ValidationError as invalid:
            allowed = load("method", training.method).Parameters.model_fields
            for error in invalid.errors():
                mistakes.append(_described(f"trainings.{name}.parameters.{_dotted(error['loc'])}", error, allowed))
    for name, view in config.views.items():
        if view.op is None:
            continue
        try:
            load("view", view.op).Parameters.model_validate(view.parameters)
        except ValidationError as invalid:
            allowed = load("view", view.op).Parameters.model_fields
            for error in invalid.errors():
                mistakes.append(_described(f"views.{name}.parameters.{_dotted(error['loc'])}", error, allowed))
    return mistakes


def _misfits(config: Config) -> Iterator[str]:
    """Blocks that exist but do not go together."""
    for name, view in config.views.items():
        if view.op and load("view", view.op).needs_box != (view.crop is not None):
            needs = "needs a crop block" if load("view", view.op).needs_box else "needs none"
            yield f"key `views.{name}.crop`: `{view.op}` {needs}, got `{view.crop}`"
        if view.op and load("view", view.op).needs_saliency != (view.saliency is not None):
            needs = "needs a saliency block" if load("view", view.op).needs_saliency else "needs none"
            yield f"key `views.{name}.saliency`: `{view.op}` {needs}, got `{view.saliency}`"
        for one in view.one_of:
            if config.views[one].one_of:
                yield f"key `views.{name}.one_of`: `{one}` is itself one of several, expected views with an `op`"
    for name, model in config.models.items():
        if model.pixels and not model.family.startswith("qwen"):
            yield f"key `models.{name}.pixels`: images of `{model.family}` are not resized to a number of pixels, expected null"
        if model.pixels and model.pixels[0] > model.pixels[1]:
            yield f"key `models.{name}.pixels`: at least {model.pixels[0]} and at most {model.pixels[1]}, expected no less"
    boxed = {name for name, view in config.views.items() if any(kind.needs_box for kind in _kinds(view, config))}
    salient = {name for name, view in config.views.items() if any(kind.needs_saliency for kind in _kinds(view, config))}
    for name, training in config.trainings.items():
        if training.view in boxed:
            yield f"key `trainings.{name}.view`: `{training.view}` needs a crop, which ranked lists do not have"
        if training.view in salient:
            yield f"key `trainings.{name}.view`: `{training.view}` needs a saliency, which training views do not have"
    for name, pairing in config.pairings.items():
        if pairing.focus is None and pairing.robust is None:
            yield f"key `pairings.{name}`: neither `focus` nor `robust`, expected at least one"
        for key, named in views_named(pairing):
            expected = {"focus.chosen.view": True, "focus.rejected.view": True}.get(key, False)
            if (named in boxed) != expected:
                what = "a view with a crop" if expected else "a view without a crop"
                yield f"key `pairings.{name}.{key}`: `{named}`, expected {what}"
            if named in salient:
                yield f"key `pairings.{name}.{key}`: `{named}` needs a saliency, which pairs do not have"
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
    yield from _uncovered(config)


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
    for view in method.asked_views(method.Parameters.model_validate(training.parameters), training.view):
        if view in PLAIN_VIEWS:
            continue
        if view not in config.views:
            near_one = f"; {hint}" if (hint := near(view, config.views)) else ""
            yield f"key `{key}`: method `{training.method}` looks at view `{view}`, which is not defined{near_one}"
        elif any(kind.needs_box for kind in _kinds(config.views[view], config)):
            yield f"key `{key}`: view `{view}` needs a crop, which rounds do not have"
        elif changing := _changing_size(config.views[view], config):
            yield f"key `{key}`: view `{view}` (`{changing[0]}`) may change the image's size, expected one that keeps it"
    for n, experiment in config.experiments.items():
        if config.trainings[experiment.training] is not training or experiment.rollout is None:
            continue
        shown = config.rollouts[experiment.rollout].view
        if shown != training.view:
            yield f"key `experiments.{n}`: answers are drawn under view `{shown}` and learnt under `{training.view}`, expected one"


def _changing_size(view: ViewBlock, config: Config) -> list[str]:
    """The modules of a view that may change the size of images."""
    blocks_of = [view, *(config.views[name] for name in view.one_of)]
    kinds = [(load("view", block.op), block.parameters) for block in blocks_of if block.op]
    return [kind.name for kind, given in kinds if not kind.keeps_size(kind.Parameters.model_validate(given))]


def _uncovered(config: Config) -> Iterator[str]:
    """Saliencies that leave out questions which are shown under a view that needs them; better said now than after a round."""
    asked: list[tuple[str, SamplingBlock | BenchmarkBlock | RolloutBlock, Sequence[str]]] = []
    asked += [(f"samplings.{name}", sampling, [sampling.view]) for name, sampling in config.samplings.items()]
    asked += [(f"benchmarks.{name}", benchmark, benchmark.views) for name, benchmark in config.benchmarks.items()]
    for experiment in config.experiments.values():
        if experiment.rollout is not None:
            training = config.trainings[experiment.training]
            method = load("method", training.method)
            trained = method.asked_views(method.Parameters.model_validate(training.parameters), training.view)
            asked.append((f"rollouts.{experiment.rollout}", config.rollouts[experiment.rollout], trained))
    said: dict[str, None] = {}
    for asker, block, views in asked:
        shown = [config.views[view] for view in views if view in config.views]
        used = {one.saliency for view in shown for one in (view, *(config.views[name] for name in view.one_of))}
        for name in sorted(saliency for saliency in used if saliency):
            left_out = _left_out(config.saliencies[name], block)
            said |= dict.fromkeys(
                f"key `saliencies.{name}.{key}`: may leave out questions of `{asker}`" for key in left_out
            )
    yield from said


def _left_out(saliency: SaliencyBlock, asked: SamplingBlock | BenchmarkBlock | RolloutBlock) -> Iterator[str]:
    """The keys of a saliency because of which it does not cover what is asked."""
    if saliency.split != asked.split:
        yield "split"
    if saliency.tasks and not (asked.tasks and set(asked.tasks) <= set(saliency.tasks)):
        yield "tasks"
    limit = None if isinstance(asked, RolloutBlock) else asked.limit
    if saliency.limit is not None and (limit is None or limit > saliency.limit):
        yield "limit"


def _kinds(view: ViewBlock, config: Config) -> list[View]:
    """What makes a view: one module, or those of the views that it is one of."""
    return [load("view", op) for one in (view, *(config.views[name] for name in view.one_of)) if (op := one.op)]


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
