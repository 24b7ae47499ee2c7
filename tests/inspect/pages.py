"""Reads the pages of `perceptune inspect`."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
from perceptune.contracts.config import FileDataset, GivenBlock
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table
from perceptune.core.preferences.ranked_lists import ranked_lists
from perceptune.stages.data import import_examples
from starlette.testclient import TestClient

TOKEN = "secret-token"
PAIRS = "tiny/shapes/made/central"
"""A table of pairs."""
QUESTION = {"table": "perpo/benchmarks/overlap", "request": "shapes-test/e1/original/sampled"}


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        """With single spaces."""
        return " ".join(" ".join(self.words).split())

    def links(self, *names: str) -> list[str]:
        """The values of these attributes, by default all with addresses."""
        attributes = names or ("href", "src", "action")
        return [str(found[name]) for _, found in self.elements for name in attributes if found.get(name)]


def page(client: TestClient, address: str, status: int = 200) -> Page:
    response = client.get(address)
    assert response.status_code == status, response.text
    return Page(response.text)


def imported(file: Path) -> list[dict[str, Any]]:
    """The examples of an exported file, as our own importer reads them."""
    config = FileDataset(kind="jsonl", path=str(file), images="/")
    import_examples.run(config=config, examples=file.with_suffix(".parquet"))
    return read_table(file.with_suffix(".parquet"), EXAMPLES).to_pylist()


def trained_on(file: Path) -> dict[str, list[float]]:
    """Example to the rewards of the ranked list that a training would get from an exported file, without those
    that are dropped."""
    found = {}
    for row in imported(file):
        given = json.loads(row["source"])["answers_given"]
        answers = [{"request_id": "r", "sample_index": i, "token_ids": [1], **one} for i, one in enumerate(given)]
        (listed,) = ranked_lists(pl.DataFrame(answers), GivenBlock()).to_dicts()
        if listed["kept"]:
            found[row["example_id"]] = [one["reward"] for one in listed["responses"]]
    return found
