"""The kinds of plug-ins as commands print them. Imports nothing slow."""

from __future__ import annotations

from perceptune.contracts.errors import UserError, listed, near

KINDS = {
    "method": "trainings.<name>.method",
    "view": "views.<name>.type",
    "reward": "rewards.<name>.tasks.<task>",
    "benchmark": "benchmarks.<name>.protocol",
    "importer": "datasets.<name>.kind",
    "exporter": "exports.<name>.format",
    "family": "models.<name>.family",
}
"""Kinds of plug-ins, in the order they are printed, each with the config key that names one."""


def check_kind(kind: str) -> None:
    """Raises `UserError` for an unknown kind."""
    if kind not in KINDS:
        raise UserError(f"kind `{kind}` does not exist, expected one of {listed([*KINDS])}", near(kind, KINDS))
