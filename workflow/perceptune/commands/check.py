"""Check config files without Snakemake, with the line and column of a syntax error.

perceptune check my.yaml
perceptune check base.yaml changes.yaml
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perceptune.contracts.errors import UserError
from perceptune.planning import policies
from perceptune.planning.config_text import check_files, check_syntax
from perceptune.planning.cross_checks import trained_on_test
from perceptune.planning.missing import from_the_future, missing
from perceptune.planning.model_folders import check_families


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `perceptune check`."""
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="config files; later ones override earlier ones"
    )


def run(options: argparse.Namespace) -> int:
    """Prints what a dry run would say about the config alone. Raises `UserError` for a mistake."""
    if absent := [file for file in options.files if not file.is_file()]:
        raise UserError(f"config file `{absent[0]}` does not exist")
    check_files(options.files)
    for file in options.files:
        check_syntax(file)
    plan = policies.load(_merged(options.files))
    check_families(plan.config)
    for line in missing(plan.config):
        print(f"missing: {line}")
    for line in [*from_the_future(plan.config), *trained_on_test(plan.config)]:
        print(f"warning: {line}")
    print(f"the config is valid: {len(plan.config.experiments)} experiments")
    return 0


def _merged(files: Sequence[Path]) -> dict[str, Any]:
    """The config of several files, read and merged as Snakemake does."""
    from snakemake.common.configfile import load_configfile
    from snakemake.exceptions import WorkflowError
    from snakemake.utils import update_config

    merged: dict[str, Any] = {}
    for file in files:
        try:
            update_config(merged, load_configfile(file))
        except WorkflowError as error:
            raise UserError(f"config file `{file}`: {error}") from None
    return merged
