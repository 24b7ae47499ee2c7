"""What differs when a job runs again because of its params, in place of both versions of all of them."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from functools import cached_property, partial
from itertools import product
from typing import Any

from pydantic import BaseModel

from perceptune.contracts.errors import joined_mistakes, printable
from perceptune.planning.messages import dotted
from perceptune.planning.policies import Plan, parted, tracked
from perceptune.planning.rules import RULES

LONGEST, CONTEXT = 60, 12
"""Characters of a value that are shown, and how many of them may repeat what did not change."""

ADDED, DIGESTED = {"weights", "benchmarks"}, {"path", "resources"}
"""Keys that settings have beyond those of a config block, and keys whose values are digests there."""

MODULE = re.compile(r"module \S+ \S+")
"""A line of `planning.rules.code_lines`."""

DIGEST = re.compile(r"[0-9a-f]{64}")

MISSING = object()

Location = tuple[str | int, ...]


def short_reasons(workflow: Any, plan: Plan, logger: logging.Logger) -> None:
    """Lets Snakemake's logger name only the params that differ."""
    if workflow.is_main_process:
        logger.addFilter(Reasons(workflow, Places(plan)))


class Reasons(logging.Filter):
    """Shortens the reasons of this workflow's jobs. Snakemake's log events have a reason as text, so the
    sets of changed params come from its graph of jobs."""

    def __init__(self, workflow: Any, places: Places) -> None:
        super().__init__()
        self._workflow, self._places = workflow, places
        self._jobs: dict[int, Any] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Shows every message, with another reason where params have changed."""
        reason, rule = getattr(record, "reason", None), str(getattr(record, "rule_name", ""))
        if isinstance(reason, str) and rule.endswith(tuple(RULES)):
            changed = getattr(self._reason(getattr(record, "jobid", -1)), "params_changed", None)
            if changed and str(changed) in reason:
                names = self._places.names(getattr(record, "wildcards", {}).values())
                lines = described(changed.only_old, changed.only_new, partial(self._places.key, names=names))
                record.reason = reason.replace(f" {changed}", "".join(f"\n        {line}" for line in lines))
        return True

    def _reason(self, number: int) -> Any:
        dag = self._workflow.dag
        if number not in self._jobs:
            self._jobs = {dag.jobid(job): job for job in dag.needrun_jobs(exclude_finished=False)}
        return dag.reason(self._jobs[number]) if number in self._jobs else None


class Places:
    """Finds the blocks of a config by their values: settings are copies of blocks."""

    def __init__(self, plan: Plan) -> None:
        self._config = plan.config

    @cached_property
    def _blocks(self) -> dict[tuple[str, ...], dict[str, Any]]:
        """The tracked blocks of the config by their location."""
        blocks = dict[tuple[str, ...], dict[str, Any]]()
        for section in type(self._config).model_fields:
            value = getattr(self._config, section)
            if isinstance(value, BaseModel):
                blocks[section,] = tracked(value)
            elif isinstance(value, Mapping):
                blocks |= {(section, name): tracked(block) for name, block in value.items()}
        return blocks

    def names(self, wildcards: Iterable[str]) -> set[str]:
        """The names of blocks that a job with these wildcards concerns, among them those of its
        experiment."""
        found = set(wildcards)
        for policy in [*found]:
            if experiment := self._config.experiments.get(parted(policy)[0]):
                found |= {value for value in experiment.model_dump().values() if isinstance(value, str)}
        return found

    def key(self, location: Location, settings: Any, names: Set[str]) -> str:
        """A location in settings as a key of the config if its block is found, otherwise as it is. Of
        equal blocks, one of `names` is meant."""
        value = settings
        for length, part in enumerate(location):
            if isinstance(value, dict) and (block := self._block(value, names, location[length - 1] if length else "")):
                return dotted([*block, *location[length:]])
            inner = dict(enumerate(value)) if isinstance(value, list) else value
            if not isinstance(inner, dict) or part not in inner:
                break
            value = inner[part]
        return dotted(location) or "params"

    def _block(self, value: dict[str, Any], names: Set[str], outer: str | int) -> tuple[str, ...] | None:
        equal = [place for place, block in self._blocks.items() if _is_copy(value, block)]
        of_key = [place for place in equal if place[-1] == outer]
        of_job = [place for place in equal if place[-1] in names]
        return next((found[0] for found in (of_key, of_job, equal) if len(found) == 1), None)


def _is_copy(value: Mapping[str, Any], block: Mapping[str, Any]) -> bool:
    """Whether settings have at least half of a block's keys, with its values."""
    shared = value.keys() & block.keys()
    return (
        value.keys() - block.keys() <= ADDED
        and 2 * len(shared) >= len(block)
        and all(value[key] == block[key] for key in shared - DIGESTED)
    )


def described(old: Iterable[str], new: Iterable[str], key: Callable[[Location, Any], str]) -> list[str]:
    """Lines that say what differs, from Snakemake's texts of the params that only the existing files and
    only the planned job have. `key` names a location in the new settings."""
    old_code, old_settings = _parsed(old)
    new_code, new_settings = _parsed(new)
    lines = dict[str, None]()
    for before, after in product(old_settings or [{}], new_settings or [{}]):
        lines |= dict.fromkeys(_line(key(place, after), *values) for place, *values in changes(before, after))
    if old_settings and not lines:
        lines["the same settings in another order"] = None
    shown = joined_mistakes([*lines], separator="\n").splitlines()
    both = old_code.keys() & new_code.keys()
    edits = {
        "code changed": {name for name in both if old_code[name] != new_code[name]},
        "code added": new_code.keys() - both,
        "code no longer used": old_code.keys() - both,
    }
    shown += [f"{what}: {joined_mistakes(sorted(names), separator=', ')}" for what, names in edits.items() if names]
    return [printable(line) for line in shown]


def _parsed(params: Iterable[str]) -> tuple[dict[str, set[str]], list[Any]]:
    """Module to digests, and all params that are no modules. Snakemake records the `repr` of each."""
    code, settings = defaultdict[str, set[str]](set), []
    for text in sorted(params):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        lines = [value] if isinstance(value, str) else value
        if isinstance(lines, list) and lines and all(MODULE.fullmatch(str(line)) for line in lines):
            for line in lines:
                code[line.split()[1]].add(line)
        else:
            settings.append(value)
    return code, settings


def changes(old: Any, new: Any, location: Location = ()) -> Iterator[tuple[Location, Any, Any]]:
    """Location, old and new value of what differs, at the deepest location; a value may be `MISSING`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(key for key in old if key not in new)]:
            yield from changes(old.get(key, MISSING), new.get(key, MISSING), (*location, key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, pair in enumerate(zip(old, new, strict=True)):
            yield from changes(*pair, (*location, place))
    elif repr(old) != repr(new):  # 1, 1.0 and True are equal
        yield location, old, new


def _line(key: str, old: Any, new: Any) -> str:
    before, after = _text(old), _text(new)
    if old is MISSING:
        return f"{key}: new, {_shortened(after)}"
    if new is MISSING:
        return f"{key}: removed, was {_shortened(before)}"
    pairs = enumerate(zip(before, after, strict=False))
    same = next((place for place, pair in pairs if len({*pair}) > 1), min(len(before), len(after)))
    start = max(same - CONTEXT, 0) if max(len(before), len(after)) > LONGEST else 0
    return f"{key}: {_shortened(before, start)} -> {_shortened(after, start)}"


def _text(value: Any) -> str:
    """A value as in a config; of a digest, its beginning."""
    if isinstance(value, str) and DIGEST.fullmatch(value):
        return f"{value[:12]}..."
    return "" if value is MISSING else json.dumps(value, ensure_ascii=False, default=str)


def _shortened(text: str, start: int = 0) -> str:
    shown = text[start : start + LONGEST]
    return "..." * (start > 0) + shown + "..." * (start + len(shown) < len(text))
