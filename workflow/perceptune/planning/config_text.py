"""Mistakes in the text of a config: syntax errors, repeated keys, and names that YAML misreads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from perceptune.contracts.errors import UserError, joined_mistakes

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser, where PyYAML was built with it."""


def check_files(files: Iterable[str | Path]) -> None:
    """Raises `UserError` for config files with a syntax error or a key that is defined twice.

    Snakemake keeps the last of several values and drops the others. Files that do not exist are left
    to Snakemake.
    """
    for file in map(Path, files):
        if file.is_file() and (mistakes := [*_repeated(_parsed(file), ())]):
            raise UserError(f"config file `{file}`\n  " + joined_mistakes(mistakes))


def check_syntax(file: Path) -> None:
    """Raises `UserError` with line and column for a file that Snakemake cannot read.

    Snakemake uses PyYAML's own parser, which refuses more than libyaml's, such as tabs in braces, and
    builds the values, which fails for dates that do not exist.
    """
    _parsed(file, lambda text: yaml.load(text, yaml.SafeLoader))


def unquoted_names(value: Any, key: str = "") -> Iterator[str]:
    """A line per mapping key that YAML did not read as text, such as `no`, `1` or `2024-01-01`."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            place = f"{key}.{name}" if key else str(name)
            if not isinstance(name, str):
                yield f"key `{place}`: YAML reads this name as {_kind(name)}; write it in quotes"
            yield from unquoted_names(inner, place)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from unquoted_names(inner, key)


def _kind(name: Any) -> str:
    if isinstance(name, bool):
        return "true or false, as it does `yes`, `no`, `on` and `off`"
    if isinstance(name, int | float):
        return "a number"
    return "a date" if isinstance(name, date) else "null" if name is None else f"a {type(name).__name__}"


def _nodes(text: str) -> yaml.Node | None:
    return yaml.compose(text, Loader=LOADER)


def _parsed(file: Path, parse: Callable[[str], Any] = _nodes) -> Any:
    """What `parse` makes of a YAML or JSON file: its nodes, with their places; None for an empty
    file."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        return parse(text)
    except UnicodeDecodeError as error:
        raise UserError(f"config file `{file}`: not UTF-8 text (byte {error.start})") from None
    except yaml.MarkedYAMLError as error:
        if _is_json(text):  # may be indented with tabs
            return None
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"config file `{file}`{place}: {_problem(error, text)}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        if _is_json(text):
            return None
        raise UserError(f"config file `{file}`: {' '.join(str(error).split())}") from None


def _problem(error: yaml.MarkedYAMLError, text: str) -> str:
    """What is wrong with the text, in words of users."""
    problem, mark = str(error.problem or error.context), error.problem_mark or error.context_mark
    if "tab character" in problem or "'\\t'" in problem:
        return "found a tab; YAML is indented with spaces"
    return problem + (_indentation(text.splitlines()[: mark.line + 1]) if mark else "")


def _indentation(lines: list[str]) -> str:
    """What is wrong with the indentation of the last line; empty if it is that of a block which is open."""
    *before, last = [line for line in lines if line.strip() and not line.lstrip().startswith("#")] or [""]
    blocks: list[int] = []
    for line in before:
        blocks = [other for other in blocks if other < _indent(line)] + [_indent(line)]
    found = _indent(last)
    if found in blocks or not blocks or before[-1].rstrip().endswith(":"):
        return ""
    least = min(abs(other - found) for other in blocks)
    expected = " or ".join(str(other) for other in blocks if abs(other - found) == least)
    return f"; the line begins with {found} space{'' if found == 1 else 's'}, expected {expected}"


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _repeated(node: yaml.Node | None, key: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, list[int]] = {}
        for name, inner in node.value:
            text = str(name.value) if isinstance(name, yaml.ScalarNode) else ""
            if text and name.tag != "tag:yaml.org,2002:merge":  # several `<<` are merged, none is lost
                lines.setdefault(text, []).append(name.start_mark.line + 1)
            if inner.start_mark.index > node.start_mark.index:  # otherwise an alias
                yield from _repeated(inner, (*key, text))
        for text, found in lines.items():
            if len(found) > 1:
                places = f"{', '.join(map(str, found[:-1]))} and {found[-1]}"
                yield f"key `{'.'.join((*key, text))}` is defined more than once, in lines {places}"
    elif isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            if inner.start_mark.index > node.start_mark.index:
                yield from _repeated(inner, key)
