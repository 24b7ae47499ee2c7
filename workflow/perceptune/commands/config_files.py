"""Reads the config files that a command names, as Snakemake does, and enters the directory of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import use_folders


def merged(files: Sequence[Path]) -> dict[str, Any]:
    """The config of several files, read and merged as Snakemake does.

    Raises `UserError` for a file that does not exist, and for syntax errors and repeated keys.
    """
    from snakemake.common.configfile import load_configfile  # slow to import
    from snakemake.exceptions import WorkflowError
    from snakemake.utils import update_config

    from perceptune.planning.config_text import check_files, check_syntax
    from perceptune.planning.missing import similar

    if absent := [file for file in files if not file.is_file()]:
        raise UserError(f"config file `{absent[0]}` does not exist{similar(str(absent[0]))}")
    check_files(files)
    for file in files:
        check_syntax(file)
    found: dict[str, Any] = {}
    for file in files:
        try:
            update_config(found, load_configfile(file))
        except WorkflowError as error:
            raise UserError(f"config file `{file}`: {error}") from None
    return found


def use_plugins(files: Sequence[Path]) -> None:
    """Registers the plug-in folders of config files, of which the rest may be invalid.

    Raises `UserError` for a file that cannot be read, and for an invalid folder.
    """
    if not files:
        return
    folders = merged(files).get("plugins", ())
    if not isinstance(folders, list | tuple) or not all(isinstance(folder, str) for folder in folders):
        raise UserError(f"config key `plugins`: expected a list of folders, got `{folders}`")
    use_folders(folders)


def enter(directory: Path) -> None:
    """Makes a run's directory the current one, to which paths in its config and tables are relative.

    Raises `UserError` if it does not exist.
    """
    if not directory.is_dir():
        raise UserError(f"directory `{directory}` does not exist, expected the directory of a run")
    os.chdir(directory)
