"""Describes plug-ins: documentation, parameters, what they need or measure, and their use in a config.

Everything comes from the declarations, so that plug-ins of users are described as well.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape

from perceptune.commands.config_files import use_plugins
from perceptune.commands.kinds import KINDS, check_kind
from perceptune.commands.schema import values_of
from perceptune.contracts.config import SOURCES, named_keys
from perceptune.contracts.errors import UserError, listed, near, printable
from perceptune.contracts.plugins import docstring, exists, file_of, load, module_of, names
from perceptune.core.benchmarks.benchmark import Benchmark
from perceptune.core.exporters.exporter import Exporter
from perceptune.core.importers.importer import Importer
from perceptune.core.methods.method import Method
from perceptune.core.rewards.metrics import DeclaredMetric
from perceptune.core.rewards.reward import Reward
from perceptune.core.views.view import View
from perceptune.models.families.family import Family

Facts = Iterator[tuple[str, list[str]]]
"""Headings, each with its lines."""
FUNCTIONS = {"method": "loss", "view": "apply", "reward": "score"}
"""Functions whose documentation says what is computed."""
FRAMES = {
    "padded_square": "fractions of the image padded to a square",
    "original": "fractions of width and height",
    "resized_pixels": "pixels after the processor's resize",
    "thousand": "thousandths of width and height",
}


def run(words: Sequence[str], configs: Sequence[Path]) -> None:
    """Describes the plug-ins of a name, or only that of a kind and a name.

    Raises `UserError` for an unknown kind or name, and for an invalid folder of plug-ins.
    """
    use_plugins(configs)
    console = Console(highlight=False)
    for number, kind in enumerate(_kinds(words)):
        if number:
            console.print()
        _print(kind, words[-1], console)


def _kinds(words: Sequence[str]) -> list[str]:
    """The kinds that have a plug-in of the name."""
    name = words[-1]
    if len(words) == 2:
        check_kind(words[0])
        module_of(words[0], name)  # raises for an unknown name
        return [words[0]]
    if name in KINDS:
        raise UserError(f"`{name}` is a kind, expected a name after it: one of {listed(names(name))}")
    if found := [kind for kind in KINDS if exists(kind, name)]:
        return found
    known = sorted({one for kind in KINDS for one in names(kind)})
    raise UserError(f"nothing is named `{name}`, see `perceptune list`", near(name, known))


def _print(kind: str, name: str, console: Console) -> None:
    plugin = load(kind, name)
    console.print(f"[bold]{kind} {escape(name)}[/]  [dim]{escape(KINDS[kind])}[/]")
    console.print(escape(printable(documentation(kind, name))), soft_wrap=True)
    for heading, lines in facts(kind, plugin):
        console.print(f"\n[bold]{escape(heading)}[/]")
        for line in lines:
            console.print(f"  {escape(printable(line))}".rstrip(), soft_wrap=True)


def documentation(kind: str, name: str) -> str:
    """The docstrings of a plug-in's module, of its class, and of what it computes."""
    plugin = load(kind, name)
    own = type(plugin).__doc__ if isinstance(plugin, Method | View | Family) else None
    computed = getattr(plugin, FUNCTIONS[kind]).__doc__ if kind in FUNCTIONS else None
    texts = [inspect.cleandoc(text) for text in (docstring(kind, name), own, computed) if text]
    return "\n\n".join(dict.fromkeys(texts))


def facts(kind: str, plugin: Any) -> Facts:
    """What a plug-in declares, under headings. The last one is its use in a config."""
    if isinstance(plugin, Method | View | Importer):
        yield "parameters", parameters(plugin.Parameters) or ["none"]
    declared: dict[str, Callable[[Any], Facts]] = {
        "method": _of_method,
        "view": _of_view,
        "reward": _of_reward,
        "benchmark": _of_benchmark,
        "importer": _of_importer,
        "exporter": _of_exporter,
        "family": _of_family,
    }
    yield from declared[kind](plugin)
    path = file_of(module_of(kind, plugin.name))
    yield "file", [str(path)]
    yield "in a config", yaml.safe_dump(example(kind, plugin), sort_keys=False, default_flow_style=None).splitlines()


def parameters(model: type[BaseModel]) -> list[str]:
    """Two lines per parameter that a config can set: values and default, and the meaning."""
    definitions = model.model_json_schema().get("$defs", {})
    lines = []
    for name, schema in _settable(model).items():
        field = model.model_fields[name]
        default = "required" if field.is_required() else f"default {json.dumps(field.default)}"
        lines += [f"{name}: {values_of(schema, definitions).replace('`', '')}; {default}"]
        lines += [f"    {' '.join(str(field.description or '').split())}"]
    return lines


def _settable(model: type[BaseModel]) -> dict[str, Any]:
    """The schemas of the parameters that are single values, as they must be in a config: others are set
    by perceptune itself."""
    schemas = model.model_json_schema().get("properties", {})
    return {name: one for name, one in schemas.items() if any(_is_single(part) for part in one.get("anyOf", [one]))}


def _is_single(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") not in ("array", "object", "null")


def _metrics(declared: Mapping[str, DeclaredMetric]) -> list[str]:
    """A line per metric: name, label, unit, direction."""
    width = max(map(len, declared), default=0)
    return [
        f"{name:<{width}}  {one.label}, {'percent' if one.percent else 'number'}, "
        f"{'lower' if one.lower_is_better else 'higher'} is better"
        for name, one in declared.items()
    ]


def _of_method(method: Method) -> Facts:
    defaults = _defaults(method.Parameters)
    if defaults is None:
        return
    stored = [f"{one.term} log-probs under view `{one.view}`" for one in method.stored(defaults, "original")]
    views = method.views(defaults, "original")
    truth = ["the ground truth of every question"] if method.wants_ground_truth(defaults) else []
    source = {"lists": "ranked lists", "pairs": "pairs", "rollouts": "rollouts of rounds"}[method.groups]
    yield "learns from", [f"{source}: {named_keys(*SOURCES[method.groups])}", *truth]
    yield "views with default parameters and `view: original`", [", ".join(f"`{view}`" for view in views)]
    yield "log-probs stored before training", stored or ["none"]


def _of_view(view: View) -> Facts:
    needs = [text for needed, text in ((view.needs_box, "`crop`"), (view.needs_saliency, "`saliency_map`")) if needed]
    yield "needs", [f"a block named by {need}" for need in needs] or ["only the image"]
    yield "random", ["yes, seeded by `seed` and the image" if view.seeded else "no"]


def _of_reward(reward: Reward) -> Facts:
    yield "rewards", [reward.summary]
    optional = [f"{name} (under some settings)" for name in reward.optional]
    yield "components", [*reward.components, *optional]
    yield "metrics, the primary one first", _metrics(reward.metrics)
    yield "reads", ["the whole response" if reward.reads_reasoning else "the response without its reasoning"]
    yield "ground truth that every question must have", [f"`{reward.needs}`" if reward.needs else "none"]


def _of_benchmark(benchmark: Benchmark) -> Facts:
    if benchmark.variants:
        which = "one must be named" if benchmark.variant_required else "optional"
        yield f"variants ({which})", [*benchmark.variants]
    for one in benchmark.every_variant():
        called = f" of {one.name}" if benchmark.variants else ""
        yield f"rewards by task{called}", [f"{task}: {reward}" for task, reward in one.rewards.items()]
        yield f"metrics{called}, the primary one first", _metrics(one.metrics)
        settings = {key: list(value) if isinstance(value, tuple) else value for key, value in one.settings.items()}
        yield f"official settings{called}", [f"{key}: {json.dumps(value)}" for key, value in settings.items()]
    needs = {
        one.name: "required" if one.judge_required else "none" if one.judged is None else "optional"
        for one in benchmark.every_variant()
    }
    same = len(set(needs.values())) == 1
    yield "judge", [*needs.values()][:1] if same else [f"{name}: {need}" for name, need in needs.items()]


def _of_importer(importer: Importer) -> Facts:
    yield "coordinates of boxes", [importer.coordinates or "`coordinates` of the dataset block, or pixels"]
    if importer.orders:
        yield (
            "order of the numbers in a box",
            [f"{importer.boxes or 'xyxy'}, unless `boxes` of the dataset block is set"],
        )
    yield "task", [importer.task or "`task` of the row or the dataset block"]
    if importer.beside:
        yield "further files in the same folder", [*importer.beside]
    if counts := {} if callable(importer.counts) else importer.counts:
        yield "published number of rows", [f"{split}: {number:,}" for split, number in counts.items()]


def _of_exporter(exporter: Exporter) -> Facts:
    yield "rows", [{"pairs": "a pair each", "lists": "a question with all its responses each"}[exporter.rows]]
    yield "writes", [f"`{exporter.file}`, images {'inside' if exporter.inside else 'as files beside it'}"]
    width = max(map(len, exporter.fields))
    yield "columns", [f"{column:<{width}}  {meaning}" for column, meaning in exporter.fields.items()]
    yield "usage", exporter.usage.strip().splitlines()


def _of_family(family: Family) -> Facts:
    yield "`model_type` in config.json", [*family.model_types] or ["any"]
    yield "boxes", [f"{family.frame}: {FRAMES[family.frame]}" if family.frame else "as the key `coordinates` says"]
    keys = [key for key, used in (("image_fit", family.squares_images), ("pixels", family.resizes_by_pixels)) if used]
    yield "keys of its own", keys or ["none"]
    if family.markup:
        yield "markup in questions and answers", [*family.markup]
    yield (
        "layers of `lora.parts` (regular expressions)",
        [f"{part}: {layers}" for part, layers in family.lora_targets.items()],
    )


def _defaults(model: type[BaseModel]) -> Any:
    """The parameters with all defaults; None if some are required."""
    return None if any(field.is_required() for field in model.model_fields.values()) else model()


def example(kind: str, plugin: Any) -> dict[str, Any]:
    """The smallest blocks that use a plug-in. Names in capital letters are those of other blocks."""
    name = plugin.name
    if kind == "method":
        block = {"method": name, **_given(plugin.Parameters)}
        return {"trainings": {name: block}}
    if kind == "view":
        needs = {"crop": "CROP"} if plugin.needs_box else {}
        needs |= {"saliency_map": "SALIENCY_MAP"} if plugin.needs_saliency else {}
        return {"views": {f"my_{name}": {"type": name, **_given(plugin.Parameters), **needs}}}
    if kind == "reward":
        return {"rewards": {"mine": {"tasks": {_task_of(name): name}}}}
    if kind == "benchmark":
        variant = {"variant": next(iter(plugin.variants))} if plugin.variant_required else {}
        judge = {"judge": "JUDGE"} if plugin.judge_required else {}
        return {"benchmarks": {name: {"dataset": "DATASET", "protocol": name, **variant, **judge}}}
    if kind == "importer":
        return {"datasets": {"mine": {"kind": name, "path": "FILE_OR_FOLDER"}}}
    if kind == "exporter":
        return {"exports": {"mine": {"experiment": "EXPERIMENT", "format": name}}}
    return {"models": {"mine": {"path": "MODEL_FOLDER", "family": name}}}


def _given(model: type[BaseModel]) -> dict[str, Any]:
    """`parameters` with every parameter: its default, or its type in capital letters if it is required."""
    found = {
        name: schema.get("type", "value").upper() if model.model_fields[name].is_required() else schema["default"]
        for name, schema in _settable(model).items()
    }
    return {"parameters": found} if found else {}


def _task_of(reward: str) -> str:
    """The task for which a benchmark uses the reward; `open` if none does."""
    for name in names("benchmark"):
        for benchmark in load("benchmark", name).every_variant():
            for task, used in benchmark.rewards.items():
                if used == reward:
                    return str(task)
    return "open"
