"""One job of the workflow, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from perceptune.planning import resources
from perceptune.planning.resources import Needs, Table
from perceptune.planning.sizes import table_of

Files = str | None | list[str] | dict[str, str]
"""One file, None for an optional file that is not needed, several files, or several by name."""

Read = Callable[..., Table]
"""The sizes of the tables in the inputs with these names, or in all inputs, when a job is planned."""


def _tables(read: Read) -> Needs:
    return resources.tables(read())


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
    """On all nodes together."""
    nodes: int = 1
    needs: Callable[[Read], Needs] = _tables
    """The memory and time that it requests. It may start after other jobs have written its inputs, so
    their sizes are read when they are asked for."""

    def files(self) -> dict[str, str | list[str]]:
        """The inputs in Snakemake's form: a file, or a possibly empty list of files."""
        return {name: _listed(files) for name, files in self.inputs.items()}

    def requested(self, placed: Callable[[str], str]) -> Needs:
        """What the job requests now. `placed` fills path variables in."""

        def read(*names: str) -> Table:
            chosen = [_listed(files) for name, files in self.inputs.items() if not names or name in names]
            return table_of(placed(file) for files in chosen for file in ([files] if isinstance(files, str) else files))

        return self.needs(read)

    def names(self) -> dict[str, list[str]]:
        """The names within inputs that hold several files by name, in the order of `files`."""
        return {name: list(files) for name, files in self.inputs.items() if isinstance(files, dict)}


def _listed(files: Files) -> str | list[str]:
    if files is None:
        return []
    return list(files.values()) if isinstance(files, dict) else files
