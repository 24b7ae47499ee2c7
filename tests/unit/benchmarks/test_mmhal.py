"""MMHal-Bench on its full official file: parsing of verdicts, and scores by hand."""

import math
from pathlib import Path

import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table
from perceptune.core.benchmarks.mmhal.metrics import HALLUCINATED_BELOW, PROMPT, TYPES, fields, rating
from perceptune.stages.data import import_examples

from tests.official_data import official
from tests.plugins import BENCHMARKS

from .answering import Row, answered, drawn_images, failures, questions, shuffled, values

FILE = "response_template.json"


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return questions("mmhal", official("mmhal") / FILE)


def rated(ratings: list[int]) -> list[str]:
    return [f"It says what is there.\nRating: {number}" for number in ratings]


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("Well.\n\nRating: 4, somewhat informative, no hallucination", 4),
        ("RATING: 0", 0),
        ("- Rating: 6", 6),
        ("Rating: 3 since ... so Rating: 3", 3),
        ("Rating: 3. On second thoughts, Rating: 4", None),
        ("Rating: 7", None),
        ("Rating:5", None),  # the official script requires the space
        ("Rating: 10", 1),  # and reads a single digit
        ("4", None),
        ("", None),
        (None, None),
    ],
)
def test_the_one_rating_counts(verdict: str | None, expected: int | None) -> None:
    assert rating(verdict) == expected


def test_the_official_rows_load(rows: list[Row]) -> None:
    assert len(rows) == 96 == len({row["id"] for row in rows}) == len({row["image"] for row in rows})
    assert [row["question_type"] for row in rows] == list(TYPES) * 12  # the order that the official script assumes
    assert rows[0]["image"] == "7206072054_c53d53b97d_o.jpg"
    assert rows[0]["answer"] == "The color of the fire hydrant cap in the image is yellow."


def test_the_official_file_becomes_examples(tmp_path: Path) -> None:
    folder = official("mmhal")
    names = [row["image"] for row in questions("mmhal", folder / FILE)]
    images = drawn_images(tmp_path / "images", names)
    block = FileDataset(kind="mmhal", path=str(folder / FILE), images=str(images))
    import_examples.run(config=block, examples=tmp_path / "examples.parquet")
    table = read_table(tmp_path / "examples.parquet", EXAMPLES).to_pylist()
    assert len(table) == 96
    assert {row["reason"] for row in table} == {None}
    assert {row["task"] for row in table} == {"open"}


def test_scores_of_known_ratings(rows: list[Row]) -> None:
    """Type t has ratings t, except that `holistic` (6) has one 0, and `other` (7) three verdicts
    without a rating.
    """
    ratings = [index % 8 for index in range(96)]
    ratings[6] = 0
    verdicts: list[str | None] = [*rated(ratings)]
    others = range(7, 96, 8)
    for index in others:
        verdicts[index] = "Rating: 5"
    for index in list(others)[:3]:
        verdicts[index] = "I cannot say."
    found = values("mmhal", answered("mmhal", rows, ["Some answer."] * 96, verdicts=verdicts))
    by_type = [0, 1, 2, 3, 4, 5, 6 * 11 / 12, 5 * 9 / 12]
    assert [found[f"mmhal_score_{kind}"] for kind in TYPES] == pytest.approx(by_type)
    assert found["mmhal_score"] == pytest.approx(sum(by_type) / 8)  # twelve of each
    # below 3: all attribute, adversarial and comparison, one holistic, three without a rating
    assert HALLUCINATED_BELOW == 3
    assert found["mmhal_hallucination_rate"] == pytest.approx((3 * 12 + 1 + 3) / 96)


def test_failures_are_verdicts_that_cannot_be_read_and_answers_that_are_missing(rows: list[Row]) -> None:
    verdicts: list[str | None] = [*rated([4] * 96)]
    verdicts[0] = "no number"
    verdicts[8] = None
    texts: list[str | None] = ["Some answer."] * 96
    texts[8] = None
    answers = answered("mmhal", rows, texts, verdicts=verdicts)
    assert failures("mmhal", answers, "mmhal_score") == (96, 2)
    assert failures("mmhal", answers, "mmhal_score_attribute") == (12, 2)
    assert failures("mmhal", answers, "mmhal_score_other") == (12, 0)
    judged = BENCHMARKS["mmhal"].judged
    assert judged
    assert [index for index, answer in enumerate(answers) if not judged.asked(answer)] == [8]


def test_the_order_of_questions_says_nothing(rows: list[Row]) -> None:
    verdicts = rated([(index * 5) % 7 for index in range(96)])
    answers = answered("mmhal", rows, ["Some answer."] * 96, verdicts=verdicts)
    assert values("mmhal", shuffled(answers, 1)) == pytest.approx(values("mmhal", answers))


def test_a_type_that_was_not_asked_has_no_score(rows: list[Row]) -> None:
    some = [row for row in rows if row["question_type"] != "counting"]
    found = values("mmhal", answered("mmhal", some, ["Some answer."] * 84, verdicts=rated([3] * 84)))
    assert math.isnan(found["mmhal_score_counting"])
    assert found["mmhal_score"] == 3


def test_the_prompt_holds_all_that_is_known_and_braces_in_answers_stay(rows: list[Row]) -> None:
    text = "It shows {question} and {nothing}."
    (answer,) = answered("mmhal", rows[2:3], [text])
    judged = BENCHMARKS["mmhal"].judged
    assert judged
    (message,) = judged.messages(answer)
    assert message["role"] == "user"
    assert all(f"{{{name}}}" in PROMPT for name in fields(answer))
    known = ("Vase, Houseplant, Stool, Coffee table, Flower", rows[2]["question"], rows[2]["answer"], text)
    assert all(part in message["content"] for part in known)
    assert "{contents}" not in message["content"]
