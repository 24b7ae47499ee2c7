"""The package metadata lists the packages of the locked environments, in ranges that admit their versions."""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TOOLS = {"setuptools", "uv"}
"""Build and locking tools, which the package itself does not need."""


def names(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def lines(name: str) -> list[str]:
    """The requirements of `envs/<name>.in`, without those of included files."""
    stripped = (line.partition("#")[0].strip() for line in (ROOT / f"envs/{name}.in").read_text().splitlines())
    return [line for line in stripped if line and not line.startswith("-r ")]


def locked() -> dict[str, str]:
    """The version of each package in the lock files of all environments except `cuda`, which has the same packages."""
    found: dict[str, str] = {}
    for name in ("cpu", "dev", "docs", "language", "slurm"):
        for package, version in re.findall(r"^([\w.-]+)==([^ \\]+)", (ROOT / f"envs/{name}.txt").read_text(), re.M):
            found.setdefault(canonicalize_name(package), version)
    return found


def test_the_dependencies_are_those_of_every_environment() -> None:
    assert names(PROJECT["dependencies"]) == names(lines("base")) - TOOLS


@pytest.mark.parametrize("extra", ["cpu", "cuda", "dev", "docs", "language", "slurm"])
def test_an_extra_is_what_its_environment_adds(extra: str) -> None:
    assert names(PROJECT["optional-dependencies"][extra]) == names(lines(extra))


def test_every_range_admits_the_locked_version() -> None:
    versions = locked()
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(text for name in sorted(extras.keys() - {"cuda"}) for text in extras[name])]
    outside = [text for text in wanted if not Requirement(text).specifier.contains(versions[_name(text)])]
    assert outside == []


def test_the_package_has_all_files_that_are_no_modules() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["perceptune"]
    package = ROOT / "workflow/perceptune"
    packed = {file for pattern in patterns for file in package.glob(pattern)}
    others = {file for file in package.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")}
    assert others
    assert others - packed == set()
    folders = {file.parent for file in package.rglob("*.py")}
    assert {folder for folder in folders if not (folder / "__init__.py").exists()} == set()


def _name(text: str) -> str:
    return canonicalize_name(Requirement(text).name)


def test_the_environment_takes_the_same_space_in_all_documents() -> None:
    documents = ("Makefile", "docs/install.md", "docs/module.md", "docs/decisions/0001-environments.md")
    said = [re.findall(r"([\d.]+) GB (?:on disk|of an installed)", (ROOT / name).read_text()) for name in documents]
    assert said == [["7"]] * len(documents)
