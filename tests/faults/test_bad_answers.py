"""Arbitrary model responses: every response is scored and keeps its row in all tables."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from perceptune.contracts.config import ModelBlock, RewardBlock, SelectionBlock
from perceptune.contracts.errors import UserError, printable
from perceptune.contracts.tables import rewards as rewards_table
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.core.rewards.reward import Answers
from perceptune.stages.preferences import score, select

from tests.plugins import REWARDS

ANSWERS = {
    "empty": "",
    "blank": " \n\t\r ",
    "NUL": "a\x00b",
    "controls": "".join(map(chr, range(1, 32))),
    "ANSI": "\x1b[31m\x1b]0;title\x07[0.1, 0.2, 0.3, 0.4]",
    "HTML": "<script>alert(1)</script>",
    "template": "{{ 7 * 7 }}{% raise %}",
    "image token": "<image><image>[0.1, 0.2, 0.3, 0.4]",
    "special tokens": "</s><|im_end|><|vision_start|><|image_pad|>",
    "right to left": "\u202e[0.1, 0.2, 0.3, 0.4]\u2066",
    "other digits": "[٠.١, ٠.٢, ٠.٣, ٠.٤]",
    "full-width": "［0.1，0.2，0.3，0.4］",
    "combining": "Z" + "\u0335\u0321\u0322" * 500,
    "emoji": "👩‍👩‍👧‍👦" * 100,
    "replacement": "\ufffd" * 50,
    "huge numbers": "[1e999, 1e999, -1e999, 1e999]",
    "many digits": "[" + "9" * 100_000 + ", 1, 2, 3]",
    "nan": "[nan, nan, nan, nan]",
    "minus signs": "[" + "-" * 100_000 + "]",
    "open brackets": "[" * 100_000,
    "blanks in brackets": "[" + " " * 100_000 + "1",
    "commas": "[" + "1, " * 33_000,
    "almost boxes": "[1, 2, 3, " * 10_000,
    "dots": "[0." + "." * 100_000,
    "words": "yes no " * 14_000,
    "one word": "y" * 100_000,
    "negated": "not " * 25_000 + "yes",
    "number with commas": "1," * 50_000,
    "lines": "\n" * 100_000,
}
TASKS = {"grounding": "iou", "ocr": "edit_distance", "existence": "yes_no", "counting": "exact_match"}
TRUTH = {"grounding": None, "ocr": "word " * 20_000, "existence": "yes", "counting": "3"}
MODEL = ModelBlock(path="none", family="llava")


def tables(folder: Path, task: str, answers: list[str | None]) -> dict[str, Any]:
    example = {
        "example_id": "e", "task": task, "question": "?", "images": [], "image_sha256": [], "image_hashes": [], "image_sizes": [[64, 48]],
        "target": TRUTH[task], "box": [1.0, 2, 30, 40] if task == "grounding" else None, "split": "train", "source": None, "reason": None,
    }  # fmt: skip
    request = {
        "request_id": "r", "example_id": "e", "dataset": "d", "benchmark": None, "condition": "sampled", "view": "original", "recipe": "{}", "contrast": None, "messages": [],
        "n": len(answers), "temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_tokens": 9, "seed": 0,
    }  # fmt: skip
    rows = [
        {
            "request_id": "r", "example_id": "e", "view": "original", "sample_index": index, "text": text,
            "token_ids": None if text is None else [1], "reason": "why not" if text is None else None,
        }
        for index, text in enumerate(answers)
    ]  # fmt: skip
    for table, content in ((EXAMPLES, [example]), (REQUESTS, [request]), (RESPONSES, rows)):
        write_table(folder / f"{table.name}.parquet", table, content, {})
    return {"requests": folder / "requests.parquet", "responses": folder / "responses.parquet"}


def scored(folder: Path, task: str, answers: list[str | None], **settings: Any) -> pl.DataFrame:
    score.run(
        **tables(folder, task, answers), examples={"d": folder / "examples.parquet"}, rewards=folder / "rewards.parquet",
        config=RewardBlock(tasks=TASKS, **settings), model=MODEL,
    )  # fmt: skip
    return pl.DataFrame(pl.from_arrow(read_table(folder / "rewards.parquet", rewards_table.REWARDS)))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ANSWERS)
def test_any_answer_has_a_reward_and_keeps_its_text(tmp_path: Path, name: str, task: str) -> None:
    table = scored(tmp_path, task, ["[0, 0, 1, 1]", ANSWERS[name], "yes"])
    assert table["text"].to_list() == ["[0, 0, 1, 1]", ANSWERS[name], "yes"]
    assert table["reward"].is_between(0, 1).all()
    assert table["reward"].null_count() == 0


@pytest.mark.parametrize("text", ["\ud800", "yes \udfff[0.1, 0.2, 0.3, 0.4]", "\ud800" * 100_000])
@pytest.mark.parametrize("reward", REWARDS)
def test_halves_of_characters_are_scored(reward: str, text: str) -> None:
    """No table can store them, but rewards are also called directly from Python."""
    answers = Answers([text], ["yes"], np.array([[1.0, 2, 30, 40]]), np.array([[64.0, 48.0]]), "original", None)
    scores = REWARDS[reward](answers)
    assert 0 <= scores.rewards[0] <= 1
    assert all(text is None or text.isascii() for text in scores.parsed_json())


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("1234567", "1234568", 0.0),
        ("1,234,567", "1234567.0", 1.0),
        ("1e999", "2e999", 0.0),
        ("nan", "nan", 1.0),
        ("-0", "0", 1.0),
        ("0.1000001", "0.1000002", 0.0),
        ("9" * 400, "9" * 400, 1.0),
        ("9" * 400, "8" * 400, 0.0),
    ],
)
def test_numbers_are_compared_by_value_in_all_their_digits(answer: str, truth: str, right: float) -> None:
    nowhere = np.full((1, 4), np.nan)
    scores = REWARDS["exact_match"](Answers([answer], [truth], nowhere, np.ones((1, 2)), "original", None))
    assert scores.rewards.tolist() == [right]


@pytest.mark.parametrize("task", ["grounding", "ocr"])
def test_an_example_that_lost_its_ground_truth_is_no_wrong_answer(tmp_path: Path, task: str) -> None:
    """Its requests were planned for a reward that needs none."""
    places = tables(tmp_path, task, ["an answer"])
    (example,) = read_table(tmp_path / "examples.parquet", EXAMPLES).to_pylist()
    write_table(tmp_path / "examples.parquet", EXAMPLES, [{**example, "target": None, "box": None}], {})
    needs, reward = {"grounding": ("box", "iou"), "ocr": ("answer", "edit_distance")}[task]
    settings: dict[str, Any] = {
        "examples": {"d": tmp_path / "examples.parquet"},
        "rewards": tmp_path / "rewards.parquet",
        "model": MODEL,
    }
    with pytest.raises(UserError, match=f"the example of request `r` has no `{needs}`, which reward `{reward}` needs"):
        score.run(**places, **settings, config=RewardBlock(tasks={task: reward}))
    score.run(**places, **settings, config=RewardBlock(tasks={task: "free_text"}))


@pytest.mark.parametrize("name", ANSWERS)
def test_any_answer_can_be_ranked(tmp_path: Path, name: str) -> None:
    scored(tmp_path, "grounding", ["[0.02, 0.17, 0.47, 0.76]", ANSWERS[name]])
    select.run(
        requests=tmp_path / "requests.parquet", responses=tmp_path / "responses.parquet", rewards=tmp_path / "rewards.parquet",
        preferences=tmp_path / "preferences.parquet", statistics=tmp_path / "statistics.json", config=SelectionBlock(min_margin=0.0),
    )  # fmt: skip
    table = read_table(tmp_path / "preferences.parquet", PREFERENCES).to_pylist()
    assert [r["text"] for r in table[0]["responses"]].count(ANSWERS[name]) == 1


def test_missing_answers_keep_their_rows_up_to_the_ceiling(tmp_path: Path) -> None:
    answers: list[str | None] = ["yes", None, "no", None]
    table = scored(tmp_path, "existence", answers, max_failed_share=0.5)
    assert table["reward"].to_list() == [1.0, None, 0.0, None]
    assert table["reason"].to_list()[1] == "why not"
    for settings, limit in (
        ({"max_failed_share": 0.4}, "a share of 0.4"),
        ({"max_failed_share": 1.0, "max_failed_rows": 1}, "1 row"),
    ):
        (tmp_path / "rewards.parquet").unlink(missing_ok=True)
        with pytest.raises(UserError, match=f"2 of 4 responses are missing, at most {limit}") as caught:
            scored(tmp_path, "existence", answers, **settings)
        assert "request `r`: why not" in str(caught.value)
        assert not (tmp_path / "rewards.parquet").exists()


@pytest.mark.parametrize("name", ANSWERS)
def test_nothing_that_is_shown_on_a_terminal_steers_it(name: str) -> None:
    shown = printable(ANSWERS[name] + "\nnext line")
    assert shown.endswith("\nnext line")
    assert not any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in shown)
    assert not set(shown) & set("\u202e\u2066\u202a\u200f")
