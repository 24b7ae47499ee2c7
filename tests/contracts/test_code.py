"""Digests of code: by syntax tree, without comments, docstrings and messages."""

from pathlib import Path

import pytest
from perceptune.contracts import plugins
from perceptune.contracts.provenance import code
from perceptune.contracts.provenance.digests import DigestMemory


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of two modules, `fake.stage` importing `fake.core`, instead of perceptune."""
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "core.py").write_text(CORE)
    (folder / "stage.py").write_text("from fake import core\n\n\ndef run():\n    return core.loss(1)\n")
    (folder / "other.py").write_text("A = 1\n")
    monkeypatch.setattr(code, "PACKAGE", "fake")
    monkeypatch.setattr(plugins, "ROOT", folder)
    monkeypatch.setattr(code, "MEMORY", DigestMemory(tmp_path / "memory.sqlite"))
    return folder


CORE = """
import json


def loss(x):
    '''Doc.'''
    if x < 0:
        raise ValueError(f"got {x}, expected at least 0")
    problem = UserError("no file", hint="look again")
    return x * 2
"""


def digest() -> str:
    for function in (code.code_digests, code._read, code._remembered):
        function.cache_clear()
    return code.code_digest("fake.stage")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import json", "# a comment\nimport json"),
        ("Doc.", "Other words."),
        ("expected at least 0", "expected no negative number"),
        ("no file", "there is no such file"),
        ("look again", "look elsewhere"),
    ],
)
def test_comments_docstrings_and_messages_do_not_count(package: Path, old: str, new: str) -> None:
    before = digest()
    core = package / "core.py"
    core.write_text(CORE.replace(old, new))
    (package / "other.py").write_text("A = 2\n")
    assert core.read_text() != CORE
    assert digest() == before


@pytest.mark.parametrize(
    ("old", "new"), [("x * 2", "x * 3"), ("x < 0", "x < 1"), ("raise ValueError", "raise TypeError")]
)
def test_an_edit_in_an_imported_module_counts(package: Path, old: str, new: str) -> None:
    before = digest()
    core = package / "core.py"
    core.write_text(CORE.replace(old, new))
    assert digest() != before


@pytest.mark.parametrize(
    "line",
    [
        "from fake import core",
        "from . import core",
        "from .core import loss",
        "from fake.core import loss",
        "import fake.core",
    ],
)
def test_every_way_to_import_a_module_counts(package: Path, line: str) -> None:
    (package / "stage.py").write_text(f"{line}\n")
    before = digest()
    (package / "core.py").write_text(CORE.replace("x * 2", "x * 3"))
    assert digest() != before


def test_a_remembered_digest_is_that_of_the_file(package: Path) -> None:
    import os

    for file in package.glob("*.py"):
        os.utime(file, (1_000_000_000, 1_000_000_000))
    first = digest()
    assert digest() == first  # from the memory
    (package / "core.py").write_text(CORE.replace("x * 2", "x * 3"))
    assert digest() != first
