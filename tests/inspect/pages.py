"""Reads the pages of `perceptune inspect`."""

from html.parser import HTMLParser

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
