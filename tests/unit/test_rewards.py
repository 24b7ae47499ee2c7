"""Rewards: reference vectors, a plain reference, and arbitrary responses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perceptune.contracts.plugins import load
from perceptune.core.answers.short_answers import normalised
from perceptune.core.rewards.edit_distance import token_overlap
from perceptune.core.rewards.reward import Answers, Scores
from perceptune.core.rewards.yes_no import parse_yes_no

from tests.plugins import REWARDS


def scored(reward: str, texts: list[str], targets: list[str | None], **fields: object) -> Scores:
    n = len(texts)
    settings: dict[str, object] = {
        "boxes": np.full((n, 4), np.nan),
        "sizes": np.full((n, 2), 100.0),
        "frame": "original",
    }
    return REWARDS[reward](Answers(texts=texts, targets=targets, **{**settings, **fields}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "target", "ned"),
    [
        ("kitten", "sitting", 3 / 7),
        ("abcd", "abxd", 1 / 4),
        ("hello world", "hello", 6 / 11),
        ("", "abc", 1.0),
        ("", "", 0.0),
        (" abc\n", "abc", 0.0),
        ("cafe\u0301", "caf\u00e9", 0.0),  # composed and decomposed
        ("caf\u00e9", "cafe", 1 / 4),
    ],
)
def test_edit_distance_vectors(text: str, target: str, ned: float) -> None:
    scores = scored("edit_distance", [text], [target])
    assert scores.components["ned"][0] == pytest.approx(ned)
    assert scores.rewards[0] == pytest.approx(1 - ned)


@given(st.text("ab", max_size=6), st.text("ab", max_size=6))
def test_edit_distance_equals_the_textbook_recursion(first: str, second: str) -> None:
    def distance(a: str, b: str) -> int:
        row = list(range(len(b) + 1))
        for i, x in enumerate(a, 1):
            row, last = [i, *row[1:]], row
            for j, y in enumerate(b, 1):
                row[j] = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y))
        return row[-1]

    expected = distance(first, second) / max(len(first), len(second), 1)
    assert scored("edit_distance", [first], [second]).components["ned"][0] == pytest.approx(expected)


def test_precision_and_recall_are_not_swapped() -> None:
    """Ground truth `a b c d`, answer `a b x`."""
    assert token_overlap("a b x", "a b c d") == pytest.approx((2 / 3, 0.5, 4 / 7))
    assert token_overlap("", "") == (1, 1, 1)
    assert token_overlap("", "a") == (0, 0, 0)


def test_iou_reads_the_declared_frame_and_reports_both() -> None:
    fields = {"boxes": np.array([[160.0, 120, 320, 360]]), "sizes": np.array([[640.0, 480]])}
    text = "[0.25, 0.3125, 0.5, 0.6875]"
    for frame, reward in (("padded_square", 1.0), ("original", 0.75)):
        scores = scored("iou", [text], [None], frame=frame, **fields)
        assert scores.rewards[0] == pytest.approx(reward)
        assert scores.components["iou_padded_frame"][0] == pytest.approx(1.0)
        assert scores.components["iou_original_frame"][0] == pytest.approx(0.75)
    assert scores.parsed[0]["box"] == [0.25, 0.3125, 0.5, 0.6875]


def test_iou_of_unreadable_answers_is_zero_with_a_reason() -> None:
    boxes = np.tile([10.0, 10, 50, 50], (3, 1))
    sizes = np.full((3, 2), 100.0)
    scores = scored(
        "iou", ["over there", "[0.5, 0.5, 0.1, 0.1]", "[0.1, 0.1, 0.5, 0.5]"], [None] * 3, boxes=boxes, sizes=sizes
    )
    assert scores.rewards.tolist() == pytest.approx([0, 0, 1])
    assert scores.reasons == [
        "no box: expected four numbers in brackets",
        "the box is inverted or empty",
        None,
    ]
    assert scores.parsed[0] is None


def test_the_rounded_truth_of_perpos_example_is_not_a_perfect_score() -> None:
    """IoU with the two-decimal box is 0.8182; the file, computed from the unrounded box, has
    0.8003.
    """
    boxes, sizes = np.array([[61.0, 10, 77, 54]]), np.array([[100.0, 100]])
    reward = scored("iou", ["[0.61, 0.1, 0.77, 0.54]"], [None], boxes=boxes, sizes=sizes).rewards[0]
    assert reward == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", "yes"),
        (" yes, there is a dog.", "yes"),
        ("No.", "no"),
        ("There is not a dog. Yes.", "no"),
        ("There isn't one", "no"),
        ("I know a dog", None),
        ("yesterday", None),
        ("", None),
        ("Yes\n\nExplanation: no other animal is near.", "yes"),
        ("Answer:\nNo", "no"),
        ("Yes! There is no doubt", "yes"),
        ("A dog? No", "no"),
        ("1. Yes", "yes"),
        ("2) No, there are 3.", "no"),
        ("There isn’t a dog", "no"),
        ("Let me look. Yes", None),
    ],
)
def test_yes_no_rule(text: str, expected: str | None) -> None:
    assert parse_yes_no(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Not sure.", None), ("I am not entirely sure", None), ("It's not clear.", None), ("I can't tell", None),
        ("We cannot determine that", None), ("I am not sure, but yes", "yes"), ("I'm not sure, but there is no dog", "no"),
        ("The dog is not visible", "no"), ("I can't see a dog", "no"), ("It is not a dog", "no"),
    ],
)  # fmt: skip
def test_an_unsure_answer_is_neither(text: str, expected: str | None) -> None:
    assert parse_yes_no(text) == expected


def test_yes_no_scores() -> None:
    scores = scored("yes_no", ["yes", "no", "maybe"], ["yes", "yes", "no"])
    assert scores.rewards.tolist() == [1, 0, 0]
    assert scores.reasons == [None, None, "neither yes nor no"]
    assert scores.components["predicted_yes"].tolist() == [1, 0, 0]
    assert scores.components["target_yes"].tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" 3.0. ", "3"), ("1,000", "1000"), ("The  Cat.", "the cat"), ("nan", "nan"), ("", ""), ("1,234,567.50", "1234567.5"),
        ("1,5", "1,5"), ("1,2,3", "1,2,3"), ("12,34,567", "12,34,567"), ("1,0000", "1,0000"), ("1_0", "1_0"), ("+7", "7"),
        ("12345678901234567890", "12345678901234567890"), ("9007199254740993.0", "9007199254740993"), ("1e3", "1000"),
        (".5", "0.5"), ("-0.0", "0"), ("2.50e-1", "0.25"), ("1e9999", "1e9999"), ("inf", "inf"), ("007", "7"), ("100", "100"),
    ],
)  # fmt: skip
def test_normalisation(text: str, expected: str) -> None:
    assert normalised(text) == expected


def test_exact_match_scores() -> None:
    scores = scored("exact_match", ["3", "three", ""], ["3.0", "3", ""])
    assert scores.rewards.tolist() == [1, 0, 0]
    assert scores.reasons == [None, None, "the answer is empty"]


SLOW = {"mathverse", "mathvision", "mathvision_vlmevalkit"}
"""They pass undecided pairs to processes, which every call starts anew."""


@pytest.mark.parametrize("reward", sorted(REWARDS))
def test_any_text_gives_a_reward_in_range(reward: str) -> None:
    @settings(max_examples=4 if reward in SLOW else 100)
    @given(texts=st.lists(st.text(), max_size=4))
    def check(texts: list[str]) -> None:
        boxes, sizes = np.tile([1.0, 1, 9, 9], (len(texts), 1)), np.full((len(texts), 2), 10.0)
        scores = scored(reward, texts, ["yes"] * len(texts), boxes=boxes, sizes=sizes)
        assert len(scores.rewards) == len(scores.parsed) == len(scores.reasons) == len(texts)
        assert ((scores.rewards >= 0) & (scores.rewards <= 1)).all()

    check()


def test_a_hundred_thousand_characters_are_scored() -> None:
    scores = scored("edit_distance", ["x" * 100_000], ["y" * 10])
    assert scores.rewards[0] == 0


SOURCE = {
    "question_type": "multi-choice", "question_for_eval": "?\nA: x\nB: y", "truth": [], "hallu": [], "association": {},
    "vocabulary": [], "safe_words": [],
}  # fmt: skip
"""Source columns that some rewards read."""
REFUSE_NONE = [name for name in REWARDS if load("reward", name).needs is None and name != "free_text"]
"""Rewards that say themselves what questions without a ground truth are worth."""


@pytest.mark.parametrize("name", REFUSE_NONE)
@pytest.mark.parametrize(
    "columns",
    [
        {"answer_type": "text"},
        {"answer_type": "float"},
        {"answer_type": "multiple choice"},
        {"choices": ["x", "y"]},
    ],
)
def test_without_a_ground_truth_no_answer_is_right(name: str, columns: dict[str, object]) -> None:
    texts = ["", "yes", "No.", "A", "x", "0", "none", '{"short answer": "A"}', r"\boxed{A}", "The answer is (B).", "?"]
    sources = [{**SOURCE, **columns}] * len(texts)
    rewards = scored(name, texts, [None] * len(texts), sources=sources).rewards
    assert rewards.tolist() == [0.0] * len(texts)
