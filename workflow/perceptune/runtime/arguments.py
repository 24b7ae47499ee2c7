"""From a job of Snakemake to the arguments of a stage, by name and type."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter


def arguments_of(snakemake: Any) -> dict[str, Any]:
    """Everything that a job brings: wildcards, settings, inputs, outputs and details, later ones taking precedence.

    Inputs with several files by name become mappings, optional ones that are absent become None.
    """
    details = dict(snakemake.params.details)
    names = details.pop("names")
    inputs = {name: _named(files, names.get(name)) for name, files in snakemake.input.items()}
    given = (dict(snakemake.wildcards.items()), snakemake.params.settings, inputs, dict(snakemake.output.items()))
    return {key: value for part in (*given, details) for key, value in part.items()}


def _named(files: Any, names: list[str] | None) -> Any:
    if isinstance(files, str):
        return files
    return dict(zip(names, files, strict=True)) if names is not None else list(files)


def bound(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that `function` takes, converted to the types that it declares.

    Paths come as text and blocks of the config as mappings. An empty list stands for an optional file that is absent.
    Raises `TypeError` where an argument without default is missing.
    """
    hints, arguments = get_type_hints(function), dict[str, Any]()
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in given:
            if parameter.default is inspect.Parameter.empty:
                raise TypeError(f"{function.__module__}.{function.__name__}: no argument `{name}`")
            continue
        value = given[name]
        if value == [] and hints[name] in (Path | None, Path):
            value = None
        arguments[name] = TypeAdapter(hints[name], config=None).validate_python(value)
    return arguments
