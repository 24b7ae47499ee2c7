"""Traces a number of the report back to images, weights, parameters and versions."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from perceptune.commands.config_files import enter
from perceptune.contracts import paths
from perceptune.contracts.errors import UserError, expected
from perceptune.contracts.provenance.code import MEMORY
from perceptune.contracts.provenance.digests import DigestMemory, digest_of, digest_of_folder, sha256_of_json
from perceptune.contracts.provenance.lineage import FILE
from perceptune.contracts.tables.controls import CONTROLS
from perceptune.contracts.tables.io import read_lineage, read_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.report.results import FEW_QUESTIONS, reliable
from perceptune.stages.data.examples import Examples

ADDRESS = ("policy", "benchmark", "task", "view", "condition", "metric")
"""Columns of the metrics table that identify a number."""

USUAL = {"condition": "greedy", "view": "original"}
"""Default values of these columns."""

HIDDEN = {"engine", "path", "weights"}
"""Parameters that are shown elsewhere or do not affect results."""

SHOWN = 12
"""Hexadecimal digits of a digest to print."""

TABLES = {"metrics": METRICS, "controls": CONTROLS}


@dataclass
class Ancestry:
    """Builds the lineage tree of numbers, and collects versions and changed files."""

    memory: DigestMemory
    versions: dict[str, set[str]] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    """Files that have changed since they were used."""
    _shown: set[str] = field(default_factory=set)

    def grow(self, tree: Tree, name: str, path: Path, used: str | None) -> None:
        """Adds the file `path` as `name`, and its inputs. `used`: its digest when it was used."""
        found = digest_of(path, self.memory) if path.exists() else "missing"
        state = ""
        if used is not None and found != used:
            state = " [red]missing[/]" if found == "missing" else f" [red]has changed, {used[:SHOWN]} was used[/]"
            self.changed.append(str(path))
        role = f"{name}: " if name else ""
        record = recorded(path)
        stage = f" by {record['stage']}" if "stage" in record else ""
        above = " [dim](as above)[/]" if str(path) in self._shown and record else ""
        node = tree.add(
            f"[bold]{escape(role)}[/]{escape(str(path))} [dim]{found[:SHOWN]}[/]{escape(stage)}{state}{above}"
        )
        if str(path) in self._shown:
            return
        self._shown.add(str(path))
        parameters = record.get("parameters", {})
        if parameters.get("weights"):  # null for a judge behind an endpoint
            self._weigh(node, Path(parameters["model"]["path"]), parameters["weights"])
        for fact in _facts(path, record):
            node.add(escape(fact))
        for package, version in record.get("versions", {}).items():
            self.versions.setdefault(package, set()).add(version)
        for role, source in record.get("inputs", {}).items():
            self.grow(node, role, Path(source["path"]), source["sha256"])

    def _weigh(self, node: Tree, folder: Path, used: str) -> None:
        """Adds a base model, identified by its contents."""
        found = digest_of_folder(folder, self.memory)
        state = "" if found == used else f" [red]has changed, now {found[:SHOWN]}[/]"
        if state:
            self.changed.append(str(folder))
        node.add(f"weights: {escape(str(folder))} [dim]{used[:SHOWN]}[/]{state}")


def recorded(path: Path) -> dict[str, Any]:
    """The lineage of a table, an adapter or generated data; empty for the user's files."""
    if path.suffix == ".parquet" and path.exists():
        try:
            return read_lineage(path)
        except (UserError, OSError, ValueError):  # no longer a table, which its digest shows
            return {}
    file = path.with_name(FILE)
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _facts(path: Path, record: Mapping[str, Any]) -> Iterator[str]:
    """Images, parameters and code of one file."""
    parameters = record.get("parameters", {})
    if record.get("table") == "examples":
        digests = sorted(
            {d for digests in Examples(path).table(["image_sha256"])["image_sha256"].to_pylist() for d in digests}
        )
        yield f"images: {len(digests):,}, together {sha256_of_json(digests)[:SHOWN]}"
    described = ", ".join(_flat(parameters))
    if described:
        yield f"parameters: {described}"
    if "code" in record:
        yield f"code: {record['code'][:SHOWN]}"


def _flat(parameters: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in parameters.items():
        if key in HIDDEN:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value not in (None, [], ""):
            yield f"{prefix}{key}={value}"


def chosen_rows(metrics: pl.DataFrame, wanted: Mapping[str, str]) -> pl.DataFrame:
    """The matching rows of the metrics table. Raises `UserError` if there are none."""
    rows = metrics
    for column, value in wanted.items():
        available = rows[column].unique(maintain_order=True).to_list()
        rows = rows.filter(pl.col(column) == value)
        if rows.is_empty():
            raise UserError(f"no number with {column} `{value}`, {expected(available)}")
    return rows


def explain(tables: Sequence[Path], kind: str, wanted: Mapping[str, str], console: Console) -> list[str]:
    """Prints numbers and their lineage; returns the files that have changed since they were used.

    `tables` is the table of all policies for `kind` `metrics`, or one table per policy for `controls`.
    """
    numbers = pl.concat([pl.DataFrame(pl.from_arrow(read_table(path, TABLES[kind]))) for path in tables])
    rows = chosen_rows(_with_intervals(numbers, kind), wanted)
    ancestry, made_in = Ancestry(MEMORY), _of_policies(tables, kind)
    for (policy,), numbers in rows.group_by("policy", maintain_order=True):
        tree = Tree(f"[bold]{escape(str(policy))}[/]")
        for row in numbers.iter_rows(named=True):
            tree.add(_difference(row) if kind == "controls" else _number(row))
        ancestry.grow(tree, kind, *made_in[str(policy)])
        console.print(tree)
    listed = ", ".join(f"{p} {' and '.join(sorted(v))}" for p, v in sorted(ancestry.versions.items()))
    console.print(f"versions: {listed}", soft_wrap=True)
    for changed in dict.fromkeys(ancestry.changed):
        console.print(f"[red]{escape(changed)} has changed since the number was computed[/]", soft_wrap=True)
    return ancestry.changed


def _with_intervals(numbers: pl.DataFrame, kind: str) -> pl.DataFrame:
    """The numbers without intervals of too few questions, as in the report; `few` marks those rows."""
    if kind == "controls":
        enough = pl.col("n") >= FEW_QUESTIONS
        shown = numbers.with_columns(pl.when(enough).then(bound).alias(bound) for bound in ("ci_low", "ci_high"))
    else:
        shown = reliable(numbers)
    return shown.with_columns(few=numbers["ci_low"].is_not_null() & shown["ci_low"].is_null())


def _of_policies(tables: Sequence[Path], kind: str) -> dict[str, tuple[Path, str | None]]:
    """Each policy's own table, and its digest when it was collected."""
    if kind == "controls":
        return {path.stem: (path, None) for path in tables}
    sources = [source for path in tables for source in read_lineage(path)["inputs"].values()]
    return {Path(source["path"]).stem: (Path(source["path"]), source["sha256"]) for source in sources}


def _difference(row: Mapping[str, Any]) -> str:
    address = f"{row['benchmark']} {row['task']} {row['view']} {row['control']} {row['k']} of {row['against']} {row['metric']}"
    between = _interval(row)
    values = f"{row['value']:.4f} against {row['control_value']:.4f}, difference [bold]{row['difference']:.4f}[/]"
    return f"{escape(address)}: {values}{escape(between)}, n {row['n']}"


def _interval(row: Mapping[str, Any]) -> str:
    if row["few"]:
        return " (too few questions for an interval)"
    known = all(row[bound] is not None and math.isfinite(row[bound]) for bound in ("ci_low", "ci_high"))
    return f" [{row['ci_low']:.4f}, {row['ci_high']:.4f}]" if known else ""


def _number(row: Mapping[str, Any]) -> str:
    k = f" of {row['k']}" if row["condition"] != "greedy" else ""
    address = f"{row['benchmark']} {row['task']} {row['view']} {row['condition']}{k} {row['metric']}"
    value = "none" if row["value"] is None else f"{row['value']:.4f}"
    between = _interval(row)
    return f"{escape(address)} = [bold]{value}[/]{escape(between)}, n {row['n']}, unparsed {row['n_failed']}"


def _query(results: str, options: Mapping[str, str]) -> tuple[list[Path], str, dict[str, str]]:
    """The tables to search in the folder of results, their kind, and the required values of columns."""
    if "control" not in options:
        usual = {} if "metric" in options and "condition" in options else USUAL
        return [_table(paths.ALL_METRICS, results)], "metrics", {**usual, **options}
    if "condition" in options:
        raise UserError("--condition and --control: found both, expected only one")
    folder = _table(paths.CONTROLS, results).parent
    if not (tables := sorted(folder.glob("*.parquet"))):
        raise UserError(
            f"`{folder}`: no tables found", "set `controls: {}` in the config and run the workflow to create them"
        )
    return tables, "controls", dict(options)


def _table(path: str, results: str) -> Path:
    return Path(path.replace("<results>", results))


def run(folder: Path, wanted: Mapping[str, str]) -> int:
    """Explains the numbers with these values of columns. Returns 0 if no file has changed since,
    otherwise 1.

    `folder` is the directory of a run, or its folder of results.
    """
    here, results = folder, "results"
    if _table(paths.ALL_METRICS, str(folder)).is_file():
        here, results = folder.absolute().parent, folder.absolute().name
    enter(here)
    width = None if sys.stdout.isatty() else 240
    changed = explain(*_query(results, wanted), Console(highlight=False, width=width))
    return int(bool(changed))
