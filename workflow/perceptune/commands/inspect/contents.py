"""What a folder of results contains: its tables, found by their paths and connected by their lineage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from perceptune.contracts.errors import UserError
from perceptune.contracts.paths import ROUND_MARK
from perceptune.contracts.tables.io import read_lineage

BENCHMARKS = "benchmarks"
"""The request plan of the benchmarks; the others are `<dataset>/<block>`."""
KINDS = {
    "preferences.select": "ranked lists",
    "preferences.select_batch": "rollout groups",
    "preferences.filter_pairs": "pairs",
    "preferences.dataset_preferences": "dataset preferences",
}
"""Stage that writes preferences to what they are called."""


class Stamp(NamedTuple):
    """A table's file in its present state: another state has another stamp."""

    path: Path
    modified: int
    size: int


@dataclass(frozen=True)
class Answered:
    """A rewards table: the scored answers of a policy."""

    path: Path
    policy: str
    plan: str
    scored: str
    """The reward block."""
    rows: int
    inputs: Mapping[str, Path] = field(default_factory=dict, compare=False)
    model: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The model block of the policy."""

    @property
    def name(self) -> str:
        """Policy, plan and reward block, which identify the table."""
        return f"{self.policy}/{self.plan}/{self.scored}"

    @property
    def examples(self) -> dict[str, Path]:
        """Dataset to its table of examples."""
        return {
            role.removeprefix("examples "): path for role, path in self.inputs.items() if role.startswith("examples ")
        }


@dataclass(frozen=True)
class Grouped:
    """A preferences table: the ranked lists, pairs or rollout groups of a training."""

    path: Path
    name: str
    """Policy and blocks, as in its path."""
    kind: str
    rows: int

    @property
    def policy(self) -> str:
        """The policy that answered."""
        return self.name.split("/")[0]

    @property
    def dataset(self) -> str:
        """The dataset of the questions."""
        return self.name.split("/")[1]


@dataclass(frozen=True)
class Contents:
    """The tables in a folder of results."""

    folder: Path
    answers: Mapping[str, Answered]
    """By name."""
    groups: Mapping[str, Grouped]
    """By name."""
    examples: Mapping[str, Path]
    """By dataset."""
    trained: tuple[str, ...] = ()
    """Policies with an adapter; the others are base models."""
    unreadable: tuple[str, ...] = ()
    """A message for each table that cannot be read."""

    @classmethod
    def read(cls, folder: Path) -> Contents:
        """Reads the metadata of all tables; damaged ones are listed in `unreadable`."""
        unreadable: list[str] = []

        def read(paths: Iterator[Path], made: Callable[[Path, list[str]], Any]) -> dict[str, Any]:
            found = {}
            for path in sorted(paths):
                try:
                    one = made(path, [*path.relative_to(folder).parts[1:-1], path.stem])
                except UserError as error:
                    unreadable.append(str(error.args[0]))
                else:
                    found[one.name] = one
            return found

        rewards = read(_at_depths(folder / "rewards", 3, 4), _answered)
        groups = read(_at_depths(folder / "preferences", 3, 4, 5), _grouped)
        examples = {path.stem: path for path in sorted(folder.glob("examples/*.parquet"))}
        for one in rewards.values():  # a rehearsal shares those of full runs
            examples |= {name: path for name, path in one.examples.items() if path.is_file()}
        trained = sorted(path.parent.name for path in folder.glob("adapters/*/adapter_config.json"))
        return cls(folder, rewards, groups, examples, tuple(trained), tuple(unreadable))

    @property
    def policies(self) -> list[str]:
        """Policies with scored answers."""
        return list(dict.fromkeys(one.policy for one in self.answers.values()))

    @property
    def experiments(self) -> dict[str, list[str]]:
        """Experiments that train in rounds, each with the policies of its rounds, in order.

        An experiment with an adapter of its own keeps those of epochs, which have the same names.
        """
        found: dict[str, set[str]] = {}
        for policy in (*self.policies, *(one.policy for one in self.groups.values()), *self.trained):
            name, mark, number = policy.rpartition(ROUND_MARK)
            if mark and number.isdigit() and name not in self.trained:
                found.setdefault(name, set()).add(policy)
        return {name: sorted(found[name], key=round_of) for name in sorted(found)}

    def compared_with(self, one: Answered) -> list[Answered]:
        """The answers to the same benchmarks by the base model and by the round before."""
        if one.plan != BENCHMARKS:
            return []
        number = round_of(one.policy)
        before = f"{one.policy.rpartition(ROUND_MARK)[0]}{ROUND_MARK}{number - 1}" if number else None
        found = []
        for other in self.chosen(None, one.plan, one.scored):
            base = self._is_trained(one.policy) and not self._is_trained(other.policy) and other.model == one.model
            found += [other] if base or other.policy == before else []
        return found

    def _is_trained(self, policy: str) -> bool:
        return policy in self.trained or round_of(policy) > 0

    def chosen(self, policy: str | None, plan: str | None, scored: str | None) -> list[Answered]:
        """The tables of answers with these names; None stands for any."""
        wanted = {"policy": policy, "plan": plan, "scored": scored}
        return [
            one for one in self.answers.values() if all(v is None or getattr(one, k) == v for k, v in wanted.items())
        ]


def round_of(policy: str) -> int:
    """The number of the round that made a policy; 0 without rounds."""
    number = policy.rpartition(ROUND_MARK)[2]
    return int(number) if ROUND_MARK in policy and number.isdigit() else 0


def stamp(path: Path) -> Stamp:
    """The file in its present state. Raises `UserError` if it does not exist."""
    try:
        facts = path.stat()
    except OSError:
        raise UserError(f"`{path}` does not exist", "go to the start page, which looks for tables again") from None
    return Stamp(path, facts.st_mtime_ns, facts.st_size)


def inputs_of(path: Path) -> dict[str, Path]:
    """Role to path of the files that a table was made from."""
    return {role: Path(source["path"]) for role, source in read_lineage(path).get("inputs", {}).items()}


def ancestors(path: Path) -> dict[str, Path]:
    """Kind of table to the nearest table of that kind that `path` was made from."""
    found: dict[str, Path] = {}
    seen, waiting = {path}, [path]
    while waiting:
        for source in inputs_of(waiting.pop(0)).values():
            if source.suffix != ".parquet" or source in seen or not source.is_file():
                continue
            seen.add(source)
            waiting.append(source)
            found.setdefault(str(read_lineage(source).get("table", "")), source)
    return found


def _at_depths(folder: Path, *depths: int) -> Iterator[Path]:
    for depth in depths:
        yield from folder.glob("/".join(["*"] * (depth - 1) + ["*.parquet"]))


def _answered(path: Path, parts: list[str]) -> Answered:
    policy, *plan, scored = parts
    rows, record = _metadata(stamp(path))
    inputs = {role: Path(source["path"]) for role, source in record.get("inputs", {}).items()}
    model = record.get("parameters", {}).get("model", {})
    return Answered(path, policy, "/".join(plan), scored, rows, inputs, model)


def _grouped(path: Path, parts: list[str]) -> Grouped:
    rows, record = _metadata(stamp(path))
    return Grouped(path, "/".join(parts), KINDS.get(record.get("stage", ""), "preferences"), rows)


@lru_cache(2**14)
def _metadata(table: Stamp) -> tuple[int, dict[str, Any]]:
    """Number of rows and lineage, read once: the start page looks at all tables every time."""
    record = read_lineage(table.path)
    return int(pq.read_metadata(table.path).num_rows), record
