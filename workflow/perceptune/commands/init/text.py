"""Configs as YAML with a comment for each value."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from perceptune.contracts.errors import printable

WIDTH = 100


class Said(NamedTuple):
    """A value with the reason for it. A mapping in it is written on one line."""

    value: Any
    why: str = ""


class Block(NamedTuple):
    """A mapping, written on several lines below the reason for it."""

    keys: Mapping[str, Any]
    why: str


def plain(tree: Any) -> Any:
    """The values without comments."""
    if isinstance(tree, Said):
        return plain(tree.value)
    if isinstance(tree, Block):
        return plain(tree.keys)
    return {key: plain(value) for key, value in tree.items()} if isinstance(tree, Mapping) else tree


def written(tree: Mapping[str, Any], heading: str) -> str:
    """The text of a config file: comments, then the sections with an empty line before each."""
    sections = ["\n".join(_lines({name: section}, 0)) for name, section in tree.items()]
    return "\n\n".join(["\n".join(_comment(heading, 0)), *sections]) + "\n"


def _lines(tree: Mapping[str, Any], depth: int) -> Iterator[str]:
    for key, given in tree.items():
        name = f"{'  ' * depth}{_flow(key)}:"
        value = given.keys if isinstance(given, Block) else given
        if isinstance(given, Block):
            yield from _comment(given.why, depth)
        if isinstance(value, Mapping) and value:
            yield name
            yield from _lines(value, depth + 1)
            continue
        said = value if isinstance(value, Said) else Said(value)
        line = f"{name} {_flow(plain(said.value))}"
        if said.why and len(line) + len(said.why) + 4 > WIDTH:
            yield from _comment(said.why, depth)
            yield line
        else:
            yield f"{line}  # {said.why}" if said.why else line


def _comment(text: str, depth: int) -> list[str]:
    """Comment lines. A line break in the text begins a new one."""
    indent = f"{'  ' * depth}# "
    lines = [
        wrapped for line in printable(text).splitlines() for wrapped in textwrap.wrap(line, WIDTH - len(indent)) or [""]
    ]
    return [f"{indent}{line}".rstrip() for line in lines]


class _OneLine(yaml.SafeDumper):
    """Writes texts with line breaks or control characters in double quotes, where they are escaped."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_OneLine.add_representer(str, _text)


def _flow(value: Any) -> str:
    """A value on one line."""
    text = _dumped(value)
    return _dumped(value, '"') if isinstance(value, str) and text != value else text


def _dumped(value: Any, style: str | None = None) -> str:
    text = yaml.dump(
        value,
        Dumper=_OneLine,
        default_flow_style=True,
        default_style=style,
        width=float("inf"),
        allow_unicode=True,
        sort_keys=False,
    )
    return text.removesuffix("\n").removesuffix("\n...")
