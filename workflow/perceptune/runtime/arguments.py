"""Converts a Snakemake job into the arguments of a stage, by name and type."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter


def arguments_of(snakemake: Any) -> dict[str, Any]:
    """A job's wildcards, settings, inputs, outputs and details; later ones take precedence.

    Inputs with several named files become mappings; missing optional inputs become None.
    """
    details = dict(snakemake.params.details)
    names = details.pop("names")
    inputs = {name: _named(files, names.get(name)) for name, files in snakemake.input.items()}
    sources = (dict(snakemake.wildcards.items()), snakemake.params.settings, inputs, dict(snakemake.output.items()))
    return {key: value for part in (*sources, details) for key, value in part.items()}


def _named(files: Any, names: list[str] | None) -> Any:
    if isinstance(files, str):
        return files
    return dict(zip(names, files, strict=True)) if names is not None else list(files)


def bound(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that `function` takes, converted to their declared types.

    Paths arrive as text and config blocks as mappings. An empty list stands for a missing optional
    file. Raises `TypeError` if a required argument is missing.
    """
    hints, arguments = get_type_hints(function), dict[str, Any]()
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in values:
            if parameter.default is inspect.Parameter.empty:
                raise TypeError(f"{function.__module__}.{function.__name__}: missing argument `{name}`")
            continue
        value = values[name]
        if value == [] and hints[name] in (Path | None, Path):
            value = None
        arguments[name] = TypeAdapter(hints[name], config=None).validate_python(value)
    return arguments
