"""All jobs of a config, computed without Snakemake, and the jobs that an edit reruns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from perceptune.contracts import paths
from perceptune.planning.job import Job
from perceptune.planning.policies import Plan
from perceptune.planning.rules import RULES, code_lines, job_of, patterns

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A job's rule and its wildcards."""

TARGETS = (paths.REPORT, paths.ALL_METRICS)
"""The default targets of `snakemake`."""


@dataclass(frozen=True)
class Node:
    """A job in the graph."""

    job: Job
    needs: frozenset[Key]
    """Jobs whose outputs it reads."""
    follows: frozenset[Key]
    """Those of them whose rerun reruns it."""
    code: tuple[str, ...]

    @property
    def spec(self) -> tuple[Any, ...]:
        """What `reruns` compares before and after an edit."""
        return self.job.files(), dict(self.job.settings), self.code


def graph(plan: Plan, targets: Iterable[str] = TARGETS, shards: int = 1) -> dict[Key, Node]:
    """The jobs that the targets need, by rule and wildcards, with sampling split into `shards`."""
    known = list(patterns(plan))
    nodes: dict[Key, Node] = {}
    makers: dict[str, Key | None] = {}

    def maker(path: str) -> Key | None:
        if path not in makers:
            found = [(rule, match.groupdict()) for rule, pattern in known if (match := pattern.match(path))]
            assert len(found) <= 1, f"{path}: {found}"
            makers[path] = (found[0][0], tuple(sorted(found[0][1].items()))) if found else None
        return makers[path]

    waiting = [key for target in targets if (key := maker(target))]
    while waiting:
        key = waiting.pop()
        if key in nodes:
            continue
        rule, wildcards = key[0], dict(key[1])
        job = job_of(plan, rule, wildcards)
        dated, undated = (
            [
                file
                for name, value in job.files().items()
                if (name in job.undated) == without_date
                for file in ([value] if isinstance(value, str) else value)
            ]
            for without_date in (False, True)
        )
        if rule == "gather_responses":
            dated += [
                paths.RESPONSE_SHARD.format(**wildcards, scatteritem=f"{i + 1}-of-{shards}") for i in range(shards)
            ]
        follows = frozenset(found for file in dated if (found := maker(file)))
        needs = follows | {found for file in undated if (found := maker(file))}
        nodes[key] = Node(job, needs, follows, tuple(code_lines(RULES[rule].module, *job.modules)))
        waiting.extend(needs)
    return nodes


def reruns(before: Mapping[Key, Node], after: Mapping[Key, Node]) -> set[Key]:
    """The jobs of `after` that run once those of `before` have finished.

    These are new jobs, changed jobs, and all jobs downstream of them.
    """
    changed = {key for key, node in after.items() if key not in before or node.spec != before[key].spec}
    while more := {key for key, node in after.items() if node.follows & changed} - changed:
        changed |= more
    return changed
