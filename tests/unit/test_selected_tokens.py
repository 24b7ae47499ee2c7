"""Selected tokens: texts of tokens, the table of a round, and the report's section."""

import json
from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.config import ModelBlock
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.selected import SELECTED
from perceptune.contracts.tables.terms import TERMS
from perceptune.models.token_texts import token_texts
from perceptune.report import write
from perceptune.report.sections.tokens import tokens_sections
from perceptune.stages.training import select_tokens

MODEL = Path(__file__).parents[2] / "resources/tiny-llava/model"


class Bytes:
    """A tokenizer whose tokens are bytes."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


class Words:
    """A tokenizer that drops the space at the start of a text, as SentencePiece does."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(f" {'abcd'[i]}" for i in ids)[1:]


def test_texts_of_tokens_are_the_text_in_pieces() -> None:
    text = "né 🟥!"
    found = token_texts(Bytes(), list(text.encode()))  # type: ignore[arg-type]
    assert found == ["n", "", "é", " ", "", "", "", "🟥", "!"]
    assert token_texts(Words(), [0, 2, 1]) == ["a", " c", " b"]  # type: ignore[arg-type]
    assert token_texts(Bytes(), [255]) == ["\ufffd"]  # type: ignore[arg-type]
    assert token_texts(Bytes(), []) == []  # type: ignore[arg-type]


ENTROPY = [0.20, 1.10, 0.05, 0.90, 0.00, 1.50, 0.60]
REMOVED = [1.00, 1.60, 0.04, 2.10, 0.30, 1.50, 0.90]
SCORES = [0.799999, 0.3125, 0, 0.571428, 0.999997, 0, 0.333333]
MASK = [True, False, False, False, True, False, False]
"""The half of five rising tokens with the largest normalised rise, rounded down: two."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A round with a group of a right and a wrong answer of the same tokens, and one that was dropped."""
    folder = tmp_path_factory.mktemp("selected")
    content = [{"type": "image", "text": None}, {"type": "text", "text": "Which <b>colour</b>?"}]
    responses = [
        {"sample_index": i, "text": "", "token_ids": list(range(300, 307)), "reward": reward, "role": None}
        for i, reward in enumerate((1.0, 0.0))
    ]
    shared = {
        "example_id": "1",
        "request_id": "1",
        "task": "open",
        "view": "original",
        "messages": [{"role": "user", "content": content}],
    }
    groups = [
        {**shared, "group_id": name, "responses": responses, "views": [], "pairs": [], "numbers": [], "kept": kept, "reason": None}
        for name, kept in (("dropped", False), ("one", True), ("not-encoded", True))
    ]  # fmt: skip
    write_table(folder / "preferences.parquet", PREFERENCES, groups, {})
    for name, view, values in (("terms", "original", ENTROPY), ("removed", "removing", REMOVED)):
        logprobs = [[-float(1 + i + j) for i in range(7)] for j in range(2)]
        row = {"group_id": "one", "term": "old", "view": view, "logprobs": logprobs, "entropies": [values] * 2}
        other = {**row, "term": "reference", "entropies": [[9.0] * 7] * 2}
        write_table(folder / f"{name}.parquet", TERMS, [other, row], {})
    select_tokens.run(
        preferences=folder / "preferences.parquet", terms=folder / "terms.parquet", removed=folder / "removed.parquet",
        selected=folder / "cppo@2.parquet", lines=folder / "cppo@2.jsonl", method="cppo", parameters={}, view="original",
        model=ModelBlock(path=str(MODEL), family="llava"), weights="w",
    )  # fmt: skip
    return folder / "cppo@2.parquet"


def test_the_table_has_scores_selection_and_control_of_each_answer(table: Path) -> None:
    right, wrong = read_table(table, SELECTED).to_pylist()
    assert (right["group_id"], right["question"], right["sample_index"]) == ("one", "Which <b>colour</b>?", 0)
    assert right["scores"] == pytest.approx(SCORES, abs=1e-6)
    assert right["selected"] == MASK
    assert wrong["selected"] == [False] * 7  # its advantage is negative
    assert sum(right["random"]) == 2 and not any(wrong["random"])
    assert right["removed_entropies"] == pytest.approx(REMOVED)
    assert len(right["tokens"]) == 7


def test_json_lines_are_the_same_rows(table: Path) -> None:
    lines = [json.loads(line) for line in table.with_suffix(".jsonl").read_text().splitlines()]
    assert lines == read_table(table, SELECTED).to_pylist()


def test_the_report_marks_and_lists_selected_tokens(table: Path) -> None:
    (part,) = tokens_sections({"cppo": table}, 5)
    assert (part["policy"], part["answers"], part["having"]) == ("cppo@2", 2, 1)
    assert (part["selected"], part["rising"], part["tokens"]) == (2, 5, 7)
    (card,) = part["cards"]
    assert [chosen for *_, chosen in card["pieces"]] == MASK
    template = write._environment().from_string(
        '{% macro named(p, s) %}{{ p }}{% endmacro %}{% set styles = {} %}{% include "tokens.html.jinja" %}'
    )
    page = template.render(tokens=[part])
    assert page.count("<mark ") == 2 and 'title="score 0.800"' in page
    assert "Which &lt;b&gt;colour&lt;/b&gt;?" in page
    assert "2 of 7 tokens selected" in page
    assert tokens_sections({"cppo": table}, 0)[0]["cards"] == []
