"""One job of the workflow, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Files = str | None | list[str] | dict[str, str]
"""One file, none where an optional one is not needed, several, or several by name."""


@dataclass(frozen=True)
class Job:
    """What a rule needs to know of one job. Made of wildcards and the config alone.

    A stage is called with its inputs, outputs, wildcards, settings and details as arguments, by their names; a detail
    takes precedence over everything else of its name. See `perceptune.runtime.arguments`.
    """

    inputs: Mapping[str, Files]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Builtins in a fixed order. A change reruns the job."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Where and how fast, and whole blocks of which the settings hold the part that counts. A change reruns nothing."""
    modules: tuple[str, ...] = ()
    """Plug-ins that the settings name. Their code counts as that of the stage does."""
    undated: tuple[str, ...] = ()
    """Inputs whose modification time does not count, because the settings hold a digest of their content."""
    threads: int = 1
    gpus: int = 0

    def files(self) -> dict[str, str | list[str]]:
        """The inputs as Snakemake takes them: a file, or a list of files that may be empty."""
        return {name: _listed(files) for name, files in self.inputs.items()}

    def names(self) -> dict[str, list[str]]:
        """The names of the inputs that have several files by name, in the order of `files`."""
        return {name: list(files) for name, files in self.inputs.items() if isinstance(files, dict)}


def _listed(files: Files) -> str | list[str]:
    if files is None:
        return []
    return list(files.values()) if isinstance(files, dict) else files
