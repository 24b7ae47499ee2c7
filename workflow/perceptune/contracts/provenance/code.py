"""Digests of code, so that an edit reruns the jobs it affects.

Snakemake's own triggers miss edits in imported modules. The code of a stage is the syntax trees of
all modules it imports and of the plug-ins its settings name. Comments, docstrings, formatting and
error messages do not count.
"""

from __future__ import annotations

import ast
import time
from collections.abc import Iterable
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from perceptune.contracts.plugins import PACKAGE, file_of
from perceptune.contracts.provenance.digests import FRESH, DigestMemory, sha256_of_json

MEMORY = DigestMemory(Path(".snakemake/perceptune-digests.sqlite"))

FORMAT = 1
"""Increase by hand when a module in `PLUMBING` changes what it writes. Reruns everything."""

READING = 2
"""Version of how this module computes digests. Cached digests of other versions are ignored."""

PLUMBING = frozenset(
    f"{PACKAGE}.contracts.{name}"
    for name in (
        "errors",
        "files",
        "plugins",
        "progress",
        "provenance.code",
        "provenance.digests",
        "provenance.lineage",
        "tables.io",
    )
)
"""Modules that affect how results are written and reported, not the results themselves."""

CONFIG = f"{PACKAGE}.contracts.config"
"""The package is not part of the code digest: config values count individually, as settings."""

MESSAGES = {"UserError", "RowError"}
"""Exceptions whose string arguments are always messages; those of other exceptions only in a
`raise`."""


def code_digest(module: str, *plugins: str) -> str:
    """One digest of everything in `code_digests`."""
    return sha256_of_json(code_digests(module, *plugins))


@cache
def code_digests(*modules: str) -> dict[str, str]:
    """Module name to the digest of its syntax tree, for `modules` and all package modules they import.

    Plug-ins that only a setting names, such as a method or a reward, must be passed explicitly.
    """
    digests = {name: _read(name)[0] for name in sorted(_closure(modules))}
    _remember()
    return digests | {"format": str(FORMAT)}


def _closure(modules: Iterable[str]) -> set[str]:
    found, waiting = set[str](), list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found and name not in PLUMBING and not f"{name}.".startswith(f"{CONFIG}."):
            found.add(name)
            waiting.extend(_read(name)[1])
    return found


@cache
def _read(module: str) -> tuple[str, tuple[str, ...]]:
    """The digest of a module's syntax tree, and the package modules that it imports."""
    path = file_of(module)
    if path is None:
        raise ModuleNotFoundError(module)
    facts = path.stat()
    key = f"{path} {facts.st_size} {facts.st_mtime_ns}"
    known = _remembered()
    if key not in known:
        found = _digest_and_imports(path, module if path.stem == "__init__" else module.rpartition(".")[0])
        if time.time_ns() - facts.st_mtime_ns <= FRESH:
            known = {key: found}
        else:
            known[key] = found
            _NEW.append(key)
    digest, imports = known[key]
    return digest, tuple(name for name in imports if file_of(name))


_NEW: list[str] = []
"""Keys added since the last call of `_remember`."""


@cache
def _remembered() -> dict[str, Any]:
    """Cached digests and imports by path, size and modification time. Every job needs them, and
    parsing takes a second."""
    return dict(MEMORY.recall(f"code {READING}", dict))


def _remember() -> None:
    if _NEW:
        MEMORY.store(f"code {READING}", _remembered())
        _NEW.clear()


def _digest_and_imports(path: Path, package: str) -> tuple[str, list[str]]:
    tree = _parsed(path)
    return sha256_of_json(ast.dump(tree)), sorted(set(_imports(tree, package)))


def _parsed(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [s for s in tree.body if not _is_for_type_checkers(s)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [s for s in node.body if not _is_text(s)] or [ast.Pass()]
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            _drop_messages(node.exc)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MESSAGES:
            _drop_messages(node)
    return tree


def _drop_messages(call: ast.Call) -> None:
    """Removes message strings from the arguments of an exception."""
    call.args = [argument for argument in call.args if not _is_message(argument)]
    call.keywords = [keyword for keyword in call.keywords if not _is_message(keyword.value)]


def _is_message(argument: ast.expr) -> bool:
    """Whether an argument is a string, an f-string, or a combination of these."""
    if isinstance(argument, ast.BinOp):
        return _is_message(argument.left) or _is_message(argument.right)
    if isinstance(argument, ast.IfExp):
        return _is_message(argument.body) or _is_message(argument.orelse)
    return isinstance(argument, ast.JoinedStr) or (
        isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    )


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


def _imports(tree: ast.Module, package: str) -> Iterable[str]:
    """The full names of the modules of perceptune and of plug-ins that a module in `package` may import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == PACKAGE)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name(f"{'.' * node.level}{node.module or ''}", package)
            if module.split(".")[0] == PACKAGE:
                yield module
                yield from (f"{module}.{a.name}" for a in node.names)
