"""AMBER's full official files, and a stand-in for the language resources."""

from pathlib import Path

import pytest
from perceptune.core.answers.nouns import Language
from perceptune.core.benchmarks.amber import amber_nouns

from tests.official_data import official
from tests.unit.benchmarks.answering import Row, questions

from .texts import alike


@pytest.fixture
def language(monkeypatch: pytest.MonkeyPatch) -> Language:
    """Every word is a noun."""
    stand_in = Language(nouns=str.split, similar=alike)
    monkeypatch.setattr(amber_nouns, "english", lambda resources: stand_in)
    return stand_in


@pytest.fixture(scope="package")
def folder() -> Path:
    return official("amber")


@pytest.fixture(scope="package")
def rows(folder: Path) -> list[Row]:
    return questions("amber", folder)
