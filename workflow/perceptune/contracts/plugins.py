"""Plug-ins: found by path and loaded on demand.

A plug-in is a file that ends with a constant named after its kind, such as `REWARD = Reward(...)`. Its
name is the stem of the file. Built-in plug-ins are part of the package; a config can add the user's
folders, with one sub-folder per kind. Finding and listing plug-ins imports nothing.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from perceptune.contracts.errors import UserError, joined_mistakes, near

PACKAGE = "perceptune"
ROOT = Path(__file__).parents[1]
ENVIRONMENT = "PERCEPTUNE_PLUGINS"
"""Environment variable with the user's folders; passes them on to child processes."""
NAME = re.compile(r"[A-Za-z]\w*")
"""What plug-ins may be named: they are modules."""
KNOWN_PLACE = "place_in_plugin"
"""Attribute of exceptions from another process, see `keep_place`."""


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in: where its files are, and what each must define."""

    folder: str
    """Sub-folder of a user's plug-in folder."""
    package: str
    """Package of the built-in plug-ins; its modules are also looked up in that sub-folder."""
    constant: str
    """Name of the constant that ends a plug-in's file."""
    contract: tuple[str, str]
    """Module and class name of the constant's type."""
    modules: tuple[str, ...]
    """Modules that may define the plug-in `{}`; the first match wins. `*` stands for any folder."""


def _kind(folder: str, package: str, constant: str, contract: str, *more: str) -> Kind:
    stem = constant.lower()
    return Kind(folder, package, constant, (f"{package}.{stem}", contract), (f"{package}.{{}}", *more))


_BENCHMARK = "perceptune.core.benchmarks.{}"
_NAMED_REWARD = "perceptune.core.benchmarks.*.{}"
"""A reward in the folder of a benchmark whose name is not the benchmark's."""
PARTS = ("answers", "data", "metrics")
"""Modules in the folder of a benchmark that define plug-ins of the benchmark's name."""
KINDS = {
    "reward": _kind(
        "rewards", "perceptune.core.rewards", "REWARD", "Reward", f"{_BENCHMARK}.answers", _BENCHMARK, _NAMED_REWARD
    ),
    "method": _kind("methods", "perceptune.core.methods", "METHOD", "Method"),
    "view": _kind("views", "perceptune.core.views", "VIEW", "View"),
    "importer": _kind(
        "importers", "perceptune.core.importers", "IMPORTER", "Importer", f"{_BENCHMARK}.data", _BENCHMARK
    ),
    "exporter": _kind("exporters", "perceptune.core.exporters", "EXPORTER", "Exporter"),
    "benchmark": _kind("benchmarks", "perceptune.core.benchmarks", "BENCHMARK", "Benchmark", f"{_BENCHMARK}.metrics"),
    "family": _kind("families", "perceptune.models.families", "FAMILY", "Family"),
}


def use_folders(folders: Sequence[str | Path]) -> None:
    """Registers the user's plug-in folders for this process and its child processes.

    Raises `UserError` for a missing folder, an unknown sub-folder, a file without a plug-in, and a name
    that is impossible, that of a built-in plug-in, or in two folders.
    """
    paths = [Path(folder).absolute() for folder in folders]
    if mistakes := [*(mistake for path in paths for mistake in _mistakes(path)), *_named_twice(paths)]:
        raise UserError("config key `plugins`\n  " + joined_mistakes(mistakes))
    os.environ[ENVIRONMENT] = os.pathsep.join(map(str, paths))


def user_folders() -> list[Path]:
    """The folders passed to `use_folders` in this process or in a parent process."""
    return [Path(folder) for folder in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if folder]


def module_of(kind: str, name: str) -> str:
    """The module that defines a plug-in. Raises `UserError` for an unknown name."""
    for module in _candidates(kind, name):
        return module
    allowed = names(kind)
    raise UserError(
        f"{kind} `{name}` does not exist, expected one of {', '.join(f'`{n}`' for n in allowed)}", near(name, allowed)
    )


def names(kind: str) -> list[str]:
    """The names of all plug-ins of a kind, sorted."""
    return sorted(
        {
            name
            for pattern in KINDS[kind].modules
            for name in _names_of(pattern)
            if any(True for _ in _candidates(kind, name))
        }
    )


def exists(kind: str, name: str) -> bool:
    """Whether a plug-in of that name exists."""
    return any(True for _ in _candidates(kind, name))


def docstring(kind: str, name: str) -> str:
    """A plug-in's module docstring, without importing it; empty if it has none."""
    path = file_of(module_of(kind, name))
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path else None
    return text or ""


def summary(kind: str, name: str) -> str:
    """The first line of `docstring`, or why the file cannot be read."""
    try:
        return docstring(kind, name).partition("\n")[0]
    except SyntaxError as error:
        return f"cannot be loaded, line {error.lineno}: {error.msg}"


def brought(kind: str, name: str) -> bool:
    """Whether a plug-in comes from a folder of the user."""
    path = file_of(module_of(kind, name))
    return path is not None and not path.is_relative_to(ROOT)


def load(kind: str, name: str) -> Any:
    """The plug-in itself. Raises `UserError` for an unknown name or an incomplete declaration."""
    module = module_of(kind, name)
    declared = KINDS[kind]
    path = file_of(module)
    _extend_packages()
    try:
        plugin = getattr(import_module(module), declared.constant, None)
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        frame = _frame_in(error, [*user_folders(), *([path] if path else [])])
        where = f"`{frame.filename}`, line {frame.lineno}" if frame else f"`{path}`"
        raise UserError(f"{kind} `{name}` cannot be loaded from {where}: {reason}") from error
    contract = getattr(import_module(declared.contract[0]), declared.contract[1])
    if not isinstance(plugin, contract):
        found, wanted = f"a `{type(plugin).__name__}`", f"a `{contract.__name__}`"
        if isinstance(plugin, type) and issubclass(plugin, contract):
            found, wanted = f"the class `{plugin.__name__}`", f"an object, `{plugin.__name__}()`"
        raise UserError(f"`{path}`: `{declared.constant}` is {found}, expected {wanted}")
    if missing := _missing(plugin):
        raise UserError(f"`{path}`: the {kind} does not define `{missing[0]}`")
    if plugin.name != name:
        raise UserError(f"`{path}`: the {kind} is named `{plugin.name}`, expected the stem of its file, `{name}`")
    return plugin


def _missing(plugin: Any) -> list[str]:
    """Attributes that a plug-in's classes annotate but that are not set."""
    declared = (name for kind in type(plugin).__mro__ for name in inspect.get_annotations(kind))
    return [name for name in dict.fromkeys(declared) if not name.startswith("_") and not hasattr(plugin, name)]


def place_in_plugin(error: BaseException) -> str | None:
    """Where in a plug-in of the user an exception comes from, and what it says; None if it comes from
    elsewhere."""
    frame = _frame_in(error, user_folders())
    if frame is None:
        known: str | None = vars(error).get(KNOWN_PLACE)
        return known
    what = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return f"`{frame.filename}`, line {frame.lineno}, in `{frame.name}`: {what}"


def keep_place(error: BaseException) -> None:
    """Stores `place_in_plugin` on an exception that is about to be pickled, which drops its traceback."""
    if (place := place_in_plugin(error)) is not None:
        vars(error)[KNOWN_PLACE] = place


@contextmanager
def plugin_errors() -> Iterator[None]:
    """Turns exceptions that come from a plug-in of the user into a `UserError` with the place."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if (place := place_in_plugin(error)) is None:
            raise
        raise UserError(place) from error


def _frame_in(error: BaseException, places: Sequence[Path]) -> traceback.FrameSummary | None:
    """The innermost frame of an exception in one of these files and folders."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return next((f for f in frames if any(Path(f.filename).is_relative_to(place) for place in places)), None)


def file_of(module: str) -> Path | None:
    """The file of a module of the package or of the user's plug-ins; imports nothing."""
    for folder, parts in _places(module):
        path = folder.joinpath(*parts)
        if path.with_suffix(".py").is_file():
            return path.with_suffix(".py")
        if (path / "__init__.py").is_file():
            return path / "__init__.py"
    return None


def _places(module: str) -> Iterator[tuple[Path, list[str]]]:
    """Folders that may contain a module, each with the remaining parts of its name."""
    yield ROOT, module.split(".")[1:]
    for kind in KINDS.values():
        if module.startswith(f"{kind.package}."):
            rest = module.removeprefix(f"{kind.package}.").split(".")
            yield from ((folder / kind.folder, rest) for folder in user_folders())


def _candidates(kind: str, name: str) -> Iterator[str]:
    if not NAME.fullmatch(name):
        return
    for pattern in KINDS[kind].modules:
        if "*" in pattern and name in PARTS:
            continue
        for expanded in _expanded(pattern):
            module = expanded.format(name)
            path = file_of(module)
            if path is not None and _marked(path.read_text(encoding="utf-8"), KINDS[kind]):
                yield module


def _names_of(pattern: str) -> Iterator[str]:
    """Names for which a module may match the pattern."""
    for expanded in _expanded(pattern):
        for folder in _folders_of(expanded.partition(".{}")[0]):
            for path in folder.glob("*") if folder.is_dir() else ():
                if path.suffix == ".py" or (path / "__init__.py").is_file():
                    yield path.stem


def _expanded(pattern: str) -> Iterator[str]:
    """The pattern, once for every folder of its package that `*` can stand for."""
    package, star, rest = pattern.partition(".*")
    if not star:
        yield pattern
        return
    for folder in _folders_of(package):
        inner = folder.glob("*/__init__.py") if folder.is_dir() else ()
        yield from sorted(f"{package}.{path.parent.name}{rest}" for path in inner)


def _folders_of(package: str) -> Iterator[Path]:
    """The folders that hold a package's modules: the built-in one and those of the user."""
    yield ROOT.joinpath(*package.split(".")[1:])
    for kind in KINDS.values():
        if f"{package}.".startswith(f"{kind.package}."):
            rest = package.removeprefix(kind.package).split(".")[1:]
            yield from (folder.joinpath(kind.folder, *rest) for folder in user_folders())


def _extend_packages() -> None:
    """Makes the user's plug-ins importable as modules of their kind's package."""
    for kind in KINDS.values():
        places = [str(folder / kind.folder) for folder in user_folders() if (folder / kind.folder).is_dir()]
        if places:
            package = import_module(kind.package)
            package.__path__.extend(place for place in places if place not in package.__path__)


def _kinds_in(text: str, package: str | None = None) -> list[str]:
    """The kinds of plug-ins that the text of a file defines, of those that belong in the package."""
    return [
        name
        for name, kind in KINDS.items()
        if (package is None or f"{package}.{{}}" in kind.modules) and _marked(text, kind)
    ]


def _marked(text: str, kind: Kind) -> bool:
    """Whether the text of a file defines a plug-in of the kind."""
    return re.search(rf"^{kind.constant}\b.*=", text, re.MULTILINE) is not None


def _mistakes(folder: Path) -> Iterator[str]:
    if not folder.is_dir():
        yield f"`{folder}` is not a directory; paths are relative to the working directory"
        return
    expected = {kind.folder: name for name, kind in KINDS.items()}
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__")):
            continue
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace") if path.suffix == ".py" else ""
            if PACKAGE in text and (found := _kinds_in(text)):
                kind = KINDS[found[0]]
                yield f"`{path}` defines `{kind.constant}`, expected it in the sub-folder `{kind.folder}`"
        elif path.name not in expected:
            allowed = ", ".join(f"`{name}`" for name in sorted(expected))
            yield f"`{path}` is not a kind of plug-in, expected one of {allowed}"
        else:
            yield from _mistaken_files(path, expected[path.name])


def _mistaken_files(folder: Path, kind: str) -> Iterator[str]:
    """The mistakes in a user's folder with plug-ins of a kind."""
    for file in sorted(folder.iterdir()):
        if file.suffix != ".py" or file.name.startswith("_"):
            continue
        try:
            found = _kinds_in(file.read_text(encoding="utf-8"), KINDS[kind].package)
        except UnicodeDecodeError as error:
            yield f"`{file}` is not UTF-8 text: {error.reason} at byte {error.start}"
            continue
        if not NAME.fullmatch(file.stem):
            yield f"`{file}`: expected a name of letters, digits and `_` that starts with a letter"
        elif any(_is_built_in(one, file.stem) for one in {kind, *found}):
            yield f"`{file}`: a built-in plug-in is already named `{file.stem}`, expected another name"
        elif not found:
            yield f"`{file}` does not define `{KINDS[kind].constant}`; start the names of helper files with `_`"


def _named_twice(folders: Sequence[Path]) -> Iterator[str]:
    """Files, helpers included, with the name of another one in an earlier folder, which hides them."""
    known: dict[tuple[str, str], Path] = {}
    for folder in dict.fromkeys(folders):
        for kind in KINDS.values():
            for file in sorted((folder / kind.folder).glob("*.py")):
                first = known.setdefault((kind.folder, file.stem), file)
                if first != file and file.stem != "__init__":
                    yield f"`{file}`: `{first}` has the same name, expected another one"


def _is_built_in(kind: str, name: str) -> bool:
    """Whether a built-in module has that name or defines a plug-in of that name."""
    modules = (f"{KINDS[kind].package}.{name}", *_candidates(kind, name))
    return any(path.is_relative_to(ROOT) for module in modules if (path := file_of(module)))
