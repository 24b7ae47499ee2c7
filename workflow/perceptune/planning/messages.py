"""The errors of pydantic as lines for users: key, problem, value found, closest valid name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from perceptune.contracts.config import Config
from perceptune.contracts.errors import near, nearest


def mistakes_of(invalid: ValidationError) -> list[str]:
    """A line per mistake in a config. A key that is missing because it is misspelled is one mistake."""
    errors = [(error, _place(error)) for error in invalid.errors()]
    meant = [
        (*place[:-1], nearest(str(place[-1]), _keys_beside(place)))
        for error, place in errors
        if error["type"] == "extra_forbidden"
    ]
    return [
        _mistake(error, place) for error, place in errors if error["type"] != "missing" or tuple(place) not in meant
    ]


def _place(error: Any) -> list[Any]:
    """The keys that lead to an error."""
    location = list(error["loc"])
    if location[:1] == ["datasets"] and len(location) > 2 and location[2] in ("shapes", "file"):
        del location[2]  # the discriminator's tag is not a key
    return location


def _mistake(error: Any, location: list[Any]) -> str:
    text = described(dotted(location), error, _keys_beside(location))
    if error["type"] == "model_type" and location[-1] in _keys_beside([*location, ""]):
        text += f"; `{location[-1]}` is a key of a block in `{dotted(location[:-1])}`, expected below the block's name"
    return text


def _keys_beside(location: list[Any]) -> set[str]:
    """The valid keys of the blocks that the last part of a location may belong to."""
    found: list[type[BaseModel]] = [Config]
    parts = iter(location[:-1])
    for part in parts:
        annotations = [block.model_fields[part].annotation for block in found if part in block.model_fields]
        found = [block for annotation in annotations for block in _blocks_in(annotation)]
        if any(get_origin(annotation) is dict for annotation in annotations):
            next(parts, None)  # the block's name
    return {key for block in found for key in block.model_fields}


def _blocks_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The blocks that a field's type names, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _blocks_in(inner)


def described(key: str, error: Any, allowed: Any) -> str:
    """One error as a line. `allowed` are the valid keys beside this one."""
    value, kind = error.get("input"), error["type"]
    value = repr(value) if kind == "int_type" and isinstance(value, str) else value  # '20' is not a number
    found = f", got `{value}`" if not isinstance(value, Mapping | BaseModel) else ""
    message = error["msg"].removeprefix("Value error, ")
    if kind == "tuple_type":
        message = "expected a list" + (f": `[{value}]`" if isinstance(value, str) else "")
    elif kind in ("dict_type", "model_type"):
        message = "expected blocks by name" if kind == "dict_type" and "." not in key else "expected keys with values"
        message += " (remove the key if there are none)" if value is None else ""
    elif kind == "extra_forbidden":
        message, found = "unknown key", ""
    elif kind == "string_pattern_mismatch" and (part := re.fullmatch(r"\\\{(\w+)\\\}", error["ctx"]["pattern"])):
        message = f"expected text that contains `{{{part[1]}}}`"
    about = f"key `{key}`: {message[0].lower()}{message[1:]}" if key else message
    hint = near(key.rpartition(".")[2], allowed) if kind == "extra_forbidden" else None
    if kind == "literal_error" and isinstance(value, str):
        hint = near(value, re.findall(r"'([^']*)'", error["ctx"]["expected"]))
    if kind == "string_type" and isinstance(value, bool | int | float | date):
        hint = "write it in quotes"
    if kind == "float_parsing" and isinstance(value, str) and "," in value:
        hint = "write a decimal point instead of the comma"
    return f"{about}{found}; {hint}" if hint else f"{about}{found}"


def dotted(location: Any) -> str:
    """A location as users write it: `trainings.dpo.lora.r`."""
    return ".".join(str(part) for part in location if part != "[key]")
