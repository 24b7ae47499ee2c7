"""Where rules, package and bundled models come from: a checkout, or an installed package."""

from __future__ import annotations

import os
from collections.abc import Callable, MutableMapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import PACKAGE, ROOT

REPOSITORY = ROOT.parents[1]
"""The checkout that the package is in; a folder without `resources` if it is installed."""

BUNDLED = ("resources/tiny-llava", "resources/tiny-clip")


def use_package_of(
    rules: str,
    version: str,
    package: Path = ROOT,
    environment: MutableMapping[str, str] = os.environ,
) -> None:
    """Makes sure that this process and all jobs import the package that belongs to the rules in the
    folder `rules`, which are of this `version`.

    Rules in a checkout use the package beside them, whatever is installed: Snakemake puts that folder
    first on the path of this process, but last on that of jobs. Rules from elsewhere, such as
    `github(...)`, come without it. Raises `UserError` if the imported `package` is another.
    """
    beside = Path(rules).parent / PACKAGE
    if not beside.is_dir():
        _check_version(version)
        return
    if beside.resolve() != package.resolve():
        raise UserError(
            f"the rules in `{rules}` belong to the package `{beside}`, but `{package}` is already imported",
            f"import nothing of `{PACKAGE}` before the module",
        )
    first, *others = [str(beside.parent), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    environment["PYTHONPATH"] = os.pathsep.join([first, *(folder for folder in others if folder != first)])


def _check_version(version: str) -> None:
    try:
        found = installed_version(PACKAGE)
    except PackageNotFoundError:  # on the path, but not installed
        return
    if found != version:
        raise UserError(
            f"the rules are those of {PACKAGE} {version}, but {PACKAGE} {found} is installed",
            "install the package from the tag or commit that the Snakefile names",
        )


def check_paths(moved: Callable[[str], str], named: Callable[[str], str]) -> None:
    """Raises `UserError` if a module moves files.

    `moved` gives the place of a file under the module's `prefix` or `replace_prefix`, `named` fills in
    its path variables.
    """
    for what, place in (("prefix", moved("results/report.html")), ("pathvars", named("<results>/report.html"))):
        if place != "results/report.html":
            raise UserError(
                f"module: `{what}` moves `results/report.html` to `{place}`, which {PACKAGE}'s jobs do not follow",
                "run in another folder: `snakemake --directory FOLDER`",
            )


def where_bundled(path: str) -> str | None:
    """How to get the bundled model that a config names; None for other paths."""
    if not path.startswith(BUNDLED):
        return None
    if (REPOSITORY / path).is_dir():
        return f"copy it: `cp -r {REPOSITORY / 'resources'} .`"
    return "it is in the repository: copy its folder `resources`, or name a model of your own"


def is_bundled(path: str) -> bool:
    """Whether a path names a bundled model, in a checkout or in a copy of its folder `resources`."""
    return any(f"/{folder}/" in f"/{path}/" for folder in BUNDLED)
