"""Sweeps: a list in place of a single value makes one block, and one experiment, per value."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from perceptune.contracts import config as blocks
from perceptune.contracts.errors import UserError, joined_mistakes

SWEPT = {
    "selections": (blocks.SelectionBlock, ()),
    "trainings": (blocks.TrainingBlock, ("parameters", "lora")),
}
"""Sections in which lists are sweeps, with the nested mappings in which they are sweeps as well."""
NESTED = {"lora": blocks.LoraBlock}
"""Blocks behind the nested mappings that have one."""


def expand_sweeps(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces a block with swept values, and its experiments, by one per combination of values.

    Raises `UserError` for a sweep without values, with which its experiments would vanish, or with
    values that are lists.
    """
    if wrong := [*_no_sweeps(raw)]:
        raise UserError("config\n  " + joined_mistakes(wrong))
    config = dict(raw)
    variants: dict[str, dict[str, list[str]]] = {}
    for section, (model, nested) in SWEPT.items():
        written = config.get(section)
        if not isinstance(written, Mapping):
            continue
        single: dict[str, Any] = {}
        for name, block in written.items():
            expansions = dict(_variants(block, model, nested)) if isinstance(block, Mapping) else {"": block}
            variants.setdefault(section, {})[name] = list(expansions)
            single |= {name + suffix: expanded for suffix, expanded in expansions.items()}
        config[section] = single
    written = config.get("experiments")
    if isinstance(written, Mapping):
        config["experiments"] = dict(
            itertools.chain.from_iterable(_experiments(name, block, variants) for name, block in written.items())
        )
    return config


def _no_sweeps(raw: Mapping[str, Any]) -> Iterator[str]:
    """Lists that cannot be swept: without values, or with lists and mappings as values."""
    for section, (model, nested) in SWEPT.items():
        written = raw.get(section)
        for name, block in written.items() if isinstance(written, Mapping) else ():
            for path in _swept(block, model, nested) if isinstance(block, Mapping) else ():
                values = _at(block, path)
                if not values or any(isinstance(value, list | Mapping) for value in values):
                    yield f"key `{section}.{name}.{'.'.join(path)}`: got `{values}`, expected a value or a list of single values"


def _swept(block: Mapping[str, Any], model: Any, nested: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The keys of a block whose values are swept, each as its path in the block."""
    found: list[tuple[str, ...]] = [
        (k,) for k, v in block.items()
        if isinstance(v, list) and k in model.model_fields and not blocks.takes_list(model, k)
    ]  # fmt: skip
    for outer in nested:
        inner = block.get(outer)
        if isinstance(inner, Mapping):
            lists = [k for k, v in inner.items() if isinstance(v, list)]
            found += [(outer, k) for k in lists if outer not in NESTED or not blocks.takes_list(NESTED[outer], k)]
    return found


def _at(block: Mapping[str, Any], path: tuple[str, ...]) -> list[Any]:
    found: list[Any] = block[path[0]] if len(path) == 1 else block[path[0]][path[1]]
    return found


def _variants(block: Mapping[str, Any], model: Any, nested: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """(name suffix, block) for every combination of a block's swept values."""
    swept = _swept(block, model, nested)
    choices = [_at(block, path) for path in swept]
    for values in itertools.product(*choices):
        one: dict[str, Any] = dict(block)
        for path, value in zip(swept, values, strict=True):
            if len(path) == 1:
                one[path[0]] = value
            else:
                one[path[0]] = {**one[path[0]], path[1]: value}
        yield "".join(f"-{p[-1]}_{v}" for p, v in zip(swept, values, strict=True)), one


def _suffixes(of_section: Mapping[str, list[str]], named: Any) -> list[str]:
    """The suffixes of a swept block; none for a name that is no text, which validation refuses."""
    return of_section.get(named, [""]) if isinstance(named, str) else [""]


def _experiments(name: str, block: Any, variants: dict[str, dict[str, list[str]]]) -> Iterator[tuple[str, Any]]:
    if not isinstance(block, Mapping):
        yield name, block
        return
    selections = _suffixes(variants.get("selections", {}), block.get("selection", ""))
    trainings = _suffixes(variants.get("trainings", {}), block.get("training", ""))
    for selection, training in itertools.product(selections, trainings):
        one = dict(block)
        if selection:
            one["selection"] = block["selection"] + selection
        if training:
            one["training"] = block["training"] + training
        yield name + selection + training, one
