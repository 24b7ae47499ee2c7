"""PAPO-Eval's test files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.importers.conftest import Imported, draw, write_json

ASK = "You first think through the reasoning process as an internal monologue, enclosed within <think> </think> tags."


def question(text: str, answer: str, *images: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    return {"messages": turns, "images": list(images)}


def test_questions(tmp_path: Path, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / "images/x" / name)
    records = [
        question(f"<image>Find x. {ASK}", "\\boxed{42}", "images/x/a.png"),
        question("Compare <image> and <image>.", "B", "images/x/a.png", "images/x/b.png"),
    ]
    rows = imported("papo_eval", write_json(tmp_path / "papo/hiyouga_geometry3k.json", records), images=tmp_path)
    assert [(row["question"], row["target"], len(row["images"])) for row in rows] == [
        ("Find x.", "42", 1),
        ("Compare and .", "B", 2),
    ]
    assert {(row["task"], row["split"]) for row in rows} == {("open", "test")}
    assert "hiyouga_geometry3k.json test: 2 rows, 601 published" in capsys.readouterr().out


def test_malformed_records_are_one_line_each(tmp_path: Path, mistakes: Callable[..., str]) -> None:
    draw(tmp_path / "a.png")
    good = question("<image>Find x.", "42", "a.png")
    bad = [{"images": ["a.png"]}, {**good, "messages": good["messages"][:1]}, {"messages": good["messages"]}]
    message = mistakes("papo_eval", write_json(tmp_path / "data.json", bad))
    assert "3 of 3 rows cannot be used" in message
    assert "key `messages` is missing" in message and "key `images` is missing" in message
