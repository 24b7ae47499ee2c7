"""Digests: code by syntax tree, models by content."""

import importlib
import sys
from pathlib import Path

import pytest
from perceptune.contracts import lineage


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of two modules, `fake.stage` importing `fake.core`, in place of perceptune."""
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "core.py").write_text('"""Doc."""\n\n\ndef loss(x):\n    """Doc."""\n    return x * 2\n')
    (folder / "stage.py").write_text("from fake import core\n\n\ndef run():\n    return core.loss(1)\n")
    (folder / "other.py").write_text("A = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(lineage, "PACKAGE", "fake")
    yield folder
    for name in [n for n in sys.modules if n.split(".")[0] == "fake"]:
        del sys.modules[name]


def digest() -> str:
    for function in (lineage.code_digests, lineage._tree, lineage._is_module):
        function.cache_clear()
    importlib.invalidate_caches()
    return lineage.code_digest("fake.stage")


def test_comments_docstrings_and_unrelated_modules_do_not_count(package: Path) -> None:
    before = digest()
    core = package / "core.py"
    core.write_text("# a comment\n" + core.read_text().replace("Doc.", "Other words."))
    (package / "other.py").write_text("A = 2\n")
    assert digest() == before


def test_an_edit_in_an_imported_module_counts(package: Path) -> None:
    before = digest()
    core = package / "core.py"
    core.write_text(core.read_text().replace("x * 2", "x * 3"))
    assert digest() != before
