"""One job of the workflow, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Files = str | None | list[str] | dict[str, str]
"""One file, None for an optional file that is not needed, several files, or several by name."""


@dataclass(frozen=True)
class Job:
    """What a rule needs to know about one job, derived from its wildcards and the config alone.

    A stage receives its inputs, outputs, wildcards, settings and details as keyword arguments. A
    detail overrides everything else of the same name. See `perceptune.runtime.arguments`.
    """

    inputs: Mapping[str, Files]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Builtins in a fixed order. A change reruns the job."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Where and how fast the job runs, and complete blocks whose relevant keys are in the settings.
    A change reruns nothing."""
    modules: tuple[str, ...] = ()
    """Plug-ins that the settings name. An edit of their code reruns the job."""
    undated: tuple[str, ...] = ()
    """Inputs whose modification time is ignored, because the settings hold a digest of their
    content."""
    threads: int = 1
    gpus: int = 0

    def files(self) -> dict[str, str | list[str]]:
        """The inputs in Snakemake's form: a file, or a possibly empty list of files."""
        return {name: _listed(files) for name, files in self.inputs.items()}

    def names(self) -> dict[str, list[str]]:
        """The names within inputs that hold several files by name, in the order of `files`."""
        return {name: list(files) for name, files in self.inputs.items() if isinstance(files, dict)}


def _listed(files: Files) -> str | list[str]:
    if files is None:
        return []
    return list(files.values()) if isinstance(files, dict) else files
