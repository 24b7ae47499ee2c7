"""A small folder of results, shared by the tests of `perceptune inspect`."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from perceptune.commands.inspect import server
from perceptune.commands.inspect.library import Library
from starlette.testclient import TestClient

from tests.inspect.pages import TOKEN
from tests.results_folder import write_results


@pytest.fixture(scope="package")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run."""
    folder, before = tmp_path_factory.mktemp("run"), Path.cwd()
    os.chdir(folder)
    try:
        write_results(folder)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def library(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    """Its tables, read from its directory."""
    monkeypatch.chdir(run_folder)
    yield Library(Path("results"))


@pytest.fixture
def client(library: Library) -> Iterator[TestClient]:
    with TestClient(server.application(library, TOKEN), f"http://127.0.0.1/{TOKEN}/") as client:
        yield client
