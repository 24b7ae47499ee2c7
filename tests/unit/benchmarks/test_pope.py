"""POPE on its full official files: both published rules, compared with plain loops over the answers
and with closed forms.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.core.answers.yes_no import vcd_answer
from perceptune.core.benchmarks.pope.answers import official_answer
from perceptune.core.benchmarks.pope.data import CATEGORIES
from perceptune.core.data.read_files import Files

from tests.official_data import official
from tests.unit.benchmarks.answering import (
    IMPORTERS,
    Row,
    answered,
    drawn_images,
    failures,
    questions,
    shuffled,
    through_the_stages,
    values,
)

ANSWERS = (
    "Yes", "No", "Yes, there is a dog in the image.", "No, there is not.", "no", "yes.", "NO", "No!", "not at all",
    "There is a dog. No cat.", "There is no dog, only a cat.", "I know of another one", "", "Yes and no", " No", "No\nsorry",
)  # fmt: skip
"""Includes answers that the rules read differently."""


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return questions("pope", official("pope"))


def counted(
    rows: list[Row], texts: list[str], rule: Callable[[str, str], bool]
) -> dict[str, tuple[int, int, int, int]]:
    """TP, FP, TN, FN by category, as the official scripts count them; `rule` maps text and truth to
    "is a yes".
    """
    table = {category: [0, 0, 0, 0] for category in CATEGORIES}
    for row, text in zip(rows, texts, strict=True):
        is_yes, true = rule(text, row["answer"]), row["answer"] == "yes"
        place = (0 if true else 1) if is_yes else (3 if true else 2)
        table[row["category"]][place] += 1
    return {category: tuple(found) for category, found in table.items()}  # type: ignore[misc]


def pope_yes(text: str, _: str) -> bool:
    if text.find(".") != -1:
        text = text[: text.find(".")]
    words = "".join(character for character in text if character != ",").split(" ")
    return "No" not in words and "not" not in words and "no" not in words


def vcd_yes(text: str, truth: str) -> bool:
    return "yes" in text.lower() if truth == "yes" else "no" not in text.lower()


def expected(tp: int, fp: int, tn: int, fn: int) -> dict[str, float]:
    precision, recall = tp / max(tp + fp, 1), tp / max(tp + fn, 1)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "accuracy": (tp + tn) / (tp + fp + tn + fn),
        "yes_ratio": (tp + fp) / (tp + fp + tn + fn),
    }


def check(rows: list[Row], texts: list[str]) -> dict[str, float]:
    """Compares all metrics with plain loops."""
    found = values("pope", answered("pope", rows, [text.strip() for text in texts]))
    for suffix, rule in (("", pope_yes), ("_vcd", vcd_yes)):
        by_category = counted(rows, [text.strip() for text in texts], rule)
        pooled = expected(*(sum(four[place] for four in by_category.values()) for place in range(4)))
        for name, value in pooled.items():
            assert found[f"{name}{suffix}"] == pytest.approx(value, abs=1e-12), (name, suffix)
        for category, four in by_category.items():
            for name, value in expected(*four).items():
                assert found[f"{name}_{category}{suffix}"] == pytest.approx(value, abs=1e-12), (name, category, suffix)
        mean = sum(expected(*four)["f1"] for four in by_category.values()) / 3
        assert found[f"mean_f1{suffix}"] == pytest.approx(mean, abs=1e-12)
    return found


def test_official_row_counts(rows: list[Row]) -> None:
    assert [sum(row["category"] == category for row in rows) for category in CATEGORIES] == [3000] * 3
    assert len({row["id"] for row in rows}) == 9000
    assert sum(row["answer"] == "yes" for row in rows) == 4500
    assert IMPORTERS["pope"].published(Files(official("pope"))) == {"test": 9000}


def test_one_file_alone(rows: list[Row]) -> None:
    alone = questions("pope", official("pope") / "coco_pope_popular.json")
    assert alone == [row for row in rows if row["category"] == "popular"]
    found = values("pope", answered("pope", alone, ["Yes"] * 3000))
    assert found["mean_f1"] == found["f1"] == found["f1_popular"] == pytest.approx(2 / 3)
    assert found["f1_random"] != found["f1_random"]  # NaN: no questions


@pytest.mark.parametrize("seed", range(3))
def test_any_answers(rows: list[Row], seed: int) -> None:
    draw = Random(seed)
    texts = [draw.choice(ANSWERS) for _ in rows]
    found = check(rows, texts)
    assert found["f1"] != found["f1_vcd"]


def test_all_yes(rows: list[Row]) -> None:
    found = check(rows, ["Yes"] * len(rows))
    assert found["mean_f1"] == pytest.approx(2 / 3)  # precision 1/2, recall 1
    assert (found["accuracy"], found["recall"], found["yes_ratio"]) == (0.5, 1.0, 1.0)


def test_all_no(rows: list[Row]) -> None:
    found = check(rows, ["No"] * len(rows))
    assert (found["mean_f1"], found["accuracy"], found["yes_ratio"]) == (0.0, 0.5, 0.0)


def test_perfect(rows: list[Row]) -> None:
    found = check(rows, [row["answer"] for row in rows])
    assert all(found[name] == 1.0 for name in found if "yes_ratio" not in name)


def test_empty_answers_are_a_yes_by_the_official_rule_and_counted(rows: list[Row]) -> None:
    """By VCD's rule, an empty answer is never right: TP = TN = 0."""
    found = check(rows, [""] * len(rows))
    assert found["mean_f1"] == pytest.approx(2 / 3)
    assert (found["accuracy_vcd"], found["mean_f1_vcd"], found["yes_ratio_vcd"]) == (0.0, 0.0, 0.5)
    answers = answered("pope", rows, [""] * len(rows))
    assert failures("pope", answers, "mean_f1") == (9000, 9000)
    assert failures("pope", answers, "f1_random_vcd") == (3000, 3000)


def test_missing_answers_are_wrong(rows: list[Row]) -> None:
    answers = answered("pope", rows, [None] * len(rows))
    found = values("pope", answers)
    assert found["accuracy"] == found["accuracy_vcd"] == found["mean_f1"] == 0.0
    assert failures("pope", answers, "accuracy") == (9000, 9000)


def test_order_does_not_matter(rows: list[Row]) -> None:
    draw = Random(5)
    answers = answered("pope", rows, [draw.choice(ANSWERS) for _ in rows])
    assert values("pope", shuffled(answers, 1)) == values("pope", answers)


def test_units_are_images(rows: list[Row]) -> None:
    from tests.plugins import BENCHMARKS

    columns = BENCHMARKS["pope"].columns(answered("pope", rows, ["Yes"] * len(rows)))
    assert columns["pooled n"].shape == (500,)
    assert set(columns["pooled n"]) == {18.0}


def test_known_counts() -> None:
    """TP 80, FP 10, FN 20, TN 90."""
    made = [("Yes", "yes")] * 80 + [("Yes", "no")] * 10 + [("No", "yes")] * 20 + [("No", "no")] * 90
    rows = [
        {"id": str(n), "question": "?", "answer": true, "category": "random", "image_file": str(n)}
        for n, (_, true) in enumerate(made)
    ]
    found = values("pope", answered("pope", rows, [text for text, _ in made]))
    assert found["precision"] == pytest.approx(0.8889, abs=5e-5)
    assert found["recall"] == 0.8
    assert found["f1"] == pytest.approx(0.8421, abs=5e-5)
    assert found["accuracy"] == 0.85
    assert found["yes_ratio"] == 0.45


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("No, there is none.", "no"), ("There is no dog", "no"), ("It is not there", "no"),
        ("NO", "yes"), ("No!", "yes"), ("I see none", "yes"), ("", "yes"), ("A cat. No dog.", "yes"), ("Nothing", "yes"),
        (" No\n", "no"), ("No\nsorry", "yes"), ("No.", "no"),
    ],
)  # fmt: skip
def test_official_rule(text: str, read: str) -> None:
    assert official_answer(text) == read


@pytest.mark.parametrize(
    ("text", "target", "read"),
    [
        ("Yes", "yes", "yes"), ("Yes", "no", "yes"), ("I know it", "no", "no"), ("I know it", "yes", "no"),
        ("yes and no", "yes", "yes"), ("yes and no", "no", "no"), ("", "yes", "no"), ("", "no", "yes"),
    ],
)  # fmt: skip
def test_vcd_rule(text: str, target: str, read: str) -> None:
    assert vcd_answer(text, target) == read


def test_questions_without_a_category_have_no_mean_of_categories(rows: list[Row]) -> None:
    own = [{key: value for key, value in row.items() if key != "category"} for row in rows[:60]]
    found = values("pope", answered("pope", own, [row["answer"].capitalize() for row in own]))
    assert found["f1"] == found["accuracy"] == 1
    assert all(math.isnan(found[name]) for name in ("mean_f1", "mean_f1_vcd", "f1_random"))


def test_other_data_sets_and_wrong_names(tmp_path: Path) -> None:
    line = json.dumps({"question_id": 7, "image": "a.jpg", "text": "Is there a cup?", "label": "no"})
    for name in ("gqa_pope_seem_popular.json", "gqa_pope_seem_random.json", "answers.json"):
        (tmp_path / name).write_text(line + "\n")
    assert [(row["id"], row["category"]) for row in questions("pope", tmp_path)] == [
        ("gqa-random-7", "random"),
        ("gqa-popular-7", "popular"),
    ]
    (tmp_path / "coco_pope_random.json").write_text(line + "\n")
    with pytest.raises(UserError) as caught:
        list(IMPORTERS["pope"].rows(Files(tmp_path)))
    assert str(caught.value) == (
        f"error: `{tmp_path}` has POPE files of coco, gqa, expected one image source\n"
        "hint: results of different sources are never pooled: use a folder and a dataset block for each"
    )
    with pytest.raises(UserError, match=r"no POPE file, expected names such as `coco_pope_random.json`"):
        list(IMPORTERS["pope"].rows(Files(tmp_path / "answers.json")))


def test_full_file_through_the_stages(rows: list[Row], tmp_path: Path) -> None:
    """9,000 rows with stand-in images go through all stages except sampling."""
    images = drawn_images(tmp_path / "val2014", [row["image"] for row in rows])
    draw = Random(11)
    texts: dict[str, str | None] = {row["id"]: draw.choice(ANSWERS) for row in rows}
    texts |= {row["id"]: None for row in rows[:90]}
    dataset = FileDataset(kind="pope", path=str(official("pope")), images=str(images))
    table = through_the_stages(tmp_path, "pope", dataset, texts)
    wanted = values("pope", answered("pope", rows, [texts[row["id"]] for row in rows]))
    assert dict(table.select("metric", "value").iter_rows()) == pytest.approx(wanted, abs=1e-12)
    primary = table.row(0, named=True)
    assert (primary["metric"], primary["n"], primary["task"]) == ("mean_f1", 9000, "existence")
    assert primary["ci_low"] < primary["value"] < primary["ci_high"]
    unread = sum(1 for text in texts.values() if text is None or not says_something(text))
    assert primary["n_failed"] == unread > 90


def says_something(text: str) -> bool:
    """Whether the first sentence contains a yes or, by the official rule, a no."""
    first = text.split(".")[0]
    return not pope_yes(text.strip(), "") or (first.lower().startswith("yes") and " no" not in first)
