"""HallusionBench on its full official file: groups and verdicts compared with plain loops over the
official records, and closed forms.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.core.benchmarks.hallusionbench.vlmevalkit_yes_no import yes_or_no
from perceptune.stages.data import import_examples

from tests.official_data import official
from tests.plugins import BENCHMARKS
from tests.unit.benchmarks.answering import (
    Row,
    answered,
    drawn_images,
    failures,
    questions,
    shuffled,
    through_the_stages,
    values,
)

TEXTS = (
    "Yes",
    "No",
    "yes.",
    "No, it is not.",
    "I cannot tell.",
    "",
    "Yes and no",
    "It is unclear",
    "Yes, the left one is larger.",
)
VERDICTS = ("correct", "incorrect", "unclear", "Correct.", "The prediction is Incorrect", "I do not know", '"correct"')
ADDRESS = ("category", "subcategory", "set_id", "figure_id", "question_id")
Record = dict[str, Any]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return list(json.loads((official("hallusionbench") / "HallusionBench.json").read_text()))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return questions("hallusionbench", official("hallusionbench"))


def checks_of_words(records: Sequence[Record], texts: Sequence[str]) -> list[int]:
    """0, 1 or 2 for answers where "yes" and "no" are whole words, which suffices for `TEXTS`."""
    found = []
    for record, text in zip(records, texts, strict=True):
        words = text.lower().replace(",", "").replace(".", "").split()
        yes, no = "yes" in words, "no" in words
        found.append(2 if yes == no else int(yes == (record["gt_answer"] == "1")))
    return found


def checks_of_judge(verdicts: Sequence[str]) -> list[int]:
    return [0 if "incorrect" in v.lower() else 1 if "correct" in v.lower() else 2 for v in verdicts]


def accuracy_of_groups(rows: Sequence[Record], *keys: str) -> float:
    groups: dict[tuple[str, ...], list[int]] = {}
    for r in rows:
        groups.setdefault(tuple(r[k] for k in ("category", "subcategory", "set_id", *keys)), []).append(r["correct"])
    return sum(sum(g) == len(g) for g in groups.values()) / len(groups)


def expected(records: Sequence[Record], checks: Sequence[int]) -> dict[str, float]:
    """The official tables, counted by plain loops over records and groups of records."""
    rows = []
    for record, check in zip(records, checks, strict=True):
        unsure_is_right = record["category"] == "VS" and int(record["figure_id"]) == 0
        rows.append({**record, "correct": 1 if check == 1 or (check == 2 and unsure_is_right) else 0})
    figures: dict[tuple[str, ...], list[int]] = {}
    for r in rows:
        if r["category"] == "VS" and r["figure_id"] == "0":
            continue
        figures.setdefault((r["category"], r["subcategory"], r["set_id"], r["figure_id"]), []).append(r["correct"])
    whole = sum(1 for f in figures.values() if sum(f) == len(f)) / len(figures)
    none = sum(1 for f in figures.values() if sum(f) == 0) / len(figures)
    predicted = [int(r["correct"] == int(r["gt_answer"])) for r in rows]
    errors = [int(r["gt_answer"]) for r in rows if r["correct"] == 0]
    with_image = [r for r in rows if r["filename"] is not None]
    found = {
        "aAcc": sum(r["correct"] for r in rows) / len(rows),
        "qAcc": accuracy_of_groups(rows, "question_id"),
        "fAcc": whole,
        "consistency_correct": whole,
        "consistency_wrong": none,
        "consistency_inconsistent": 1 - whole - none,
        "figure_score": sum(sum(f) / len(f) for f in figures.values()) / len(figures),
        "easy_aAcc": accuracy_of_groups([r for r in rows if r["visual_input"] != "2"], "question_id"),
        "hard_aAcc": accuracy_of_groups([r for r in rows if r["visual_input"] == "2"], "question_id"),
        "yes_bias": sum(predicted) / len(rows) - sum(int(r["gt_answer"]) for r in rows) / len(rows),
        "fp_ratio": (len(errors) - sum(errors)) / len(errors) if errors else 0.0,
        "aAcc_image": sum(r["correct"] for r in with_image) / len(with_image),
        "qAcc_image": accuracy_of_groups(with_image, "question_id"),
    }
    for category in ("VD", "VS"):
        inside = [r for r in rows if r["category"] == category]
        found[f"aAcc_{category}"] = sum(r["correct"] for r in inside) / len(inside)
        found[f"qAcc_{category}"] = accuracy_of_groups(inside, "question_id")
        shown = [r for r in inside if not (category == "VS" and r["figure_id"] == "0")]
        found[f"fAcc_{category}"] = accuracy_of_groups(shown, "figure_id")
    return found


def check(
    rows: list[Row], records: list[Record], texts: list[str], verdicts: list[str] | None = None
) -> dict[str, float]:
    answers = answered("hallusionbench", rows, texts, verdicts=verdicts)
    found = values("hallusionbench", answers)
    checks = checks_of_words(records, texts) if verdicts is None else checks_of_judge(verdicts)
    wanted = {**expected(records, checks), "judged": 0.0 if verdicts is None else 1.0}
    assert found == pytest.approx(wanted, abs=1e-12)
    assert failures("hallusionbench", answers, "aAcc") == (1129, checks.count(2))
    return found


def test_official_row_counts(rows: list[Row], records: list[Record]) -> None:
    """1,129 questions, 178 of them without an image, and 346 images; the published tables' groups
    are 455 and 430.
    """
    assert Counter(len(row["images"]) for row in rows) == {1: 951, 0: 178}
    assert len({row["id"] for row in rows}) == 1129
    assert len({image for row in rows for image in row["images"]}) == 346
    assert Counter(row["category"] for row in rows) == {"VD": 591, "VS": 538}
    columns = BENCHMARKS["hallusionbench"].columns(answered("hallusionbench", rows, ["Yes"] * 1129))
    totals = {
        name: int(columns[f"{name} n"].sum()) for name in ("questions", "pairs", "figures", "pairs_easy", "pairs_hard")
    }
    assert totals == {"questions": 1129, "pairs": 455, "figures": 346, "pairs_easy": 455, "pairs_hard": 430}
    assert len(columns["questions n"]) == len({(r["category"], r["subcategory"], r["set_id"]) for r in records}) == 167
    assert int(columns["questions_image n"].sum()) == 951


@pytest.mark.parametrize("seed", range(3))
def test_any_answers_by_words(rows: list[Row], records: list[Record], seed: int) -> None:
    draw = Random(seed)
    check(rows, records, [draw.choice(TEXTS) for _ in rows])


@pytest.mark.parametrize("seed", range(3))
def test_any_verdicts_of_a_judge(rows: list[Row], records: list[Record], seed: int) -> None:
    """The judge decides, whatever the answer's words."""
    draw = Random(seed)
    found = check(rows, records, ["Yes"] * 1129, [draw.choice(VERDICTS) for _ in rows])
    assert found["judged"] == 1.0


def test_all_yes(rows: list[Row], records: list[Record]) -> None:
    found = check(rows, records, ["Yes"] * 1129)
    assert found["aAcc"] == pytest.approx(484 / 1129)
    assert found["yes_bias"] == pytest.approx(1 - 484 / 1129)
    assert found["fp_ratio"] == 1.0


def test_all_no(rows: list[Row], records: list[Record]) -> None:
    found = check(rows, records, ["No"] * 1129)
    assert found["aAcc"] == pytest.approx(645 / 1129)
    assert found["yes_bias"] == pytest.approx(-484 / 1129)
    assert found["fp_ratio"] == 0.0


def test_perfect(rows: list[Row], records: list[Record]) -> None:
    found = check(rows, records, ["Yes" if r["gt_answer"] == "1" else "No" for r in records])
    zero = {"consistency_wrong", "consistency_inconsistent", "yes_bias", "fp_ratio", "judged"}
    assert {name for name, value in found.items() if value == 0} == zero
    assert {value for name, value in found.items() if name not in zero} == {1.0}


def test_empty_answers_are_unclear(rows: list[Row], records: list[Record]) -> None:
    """They are right only for the 178 questions without a figure, where not knowing is acceptable."""
    found = check(rows, records, [""] * 1129)
    assert found["aAcc"] == pytest.approx(178 / 1129)
    assert (found["fAcc"], found["aAcc_image"], found["consistency_wrong"]) == (0.0, 0.0, 1.0)
    alone = Counter(tuple(r[k] for k in ADDRESS if k != "figure_id") for r in records)
    only_text = sum(
        1 for r in records if not r["filename"] and alone[tuple(r[k] for k in ADDRESS if k != "figure_id")] == 1
    )
    assert found["qAcc"] == pytest.approx(only_text / 455)


def test_missing_answers_are_wrong(rows: list[Row]) -> None:
    answers = answered("hallusionbench", rows, [None] * 1129)
    found = values("hallusionbench", answers)
    assert (found["aAcc"], found["qAcc"], found["consistency_wrong"]) == (0.0, 0.0, 1.0)
    assert failures("hallusionbench", answers, "aAcc") == (1129, 1129)


def test_order_does_not_matter(rows: list[Row]) -> None:
    draw = Random(9)
    answers = answered("hallusionbench", rows, [draw.choice(TEXTS) for _ in rows])
    assert values("hallusionbench", shuffled(answers, 2)) == pytest.approx(values("hallusionbench", answers), abs=1e-12)


def test_toy() -> None:
    """Questions A and B, each on figures 1 and 2; only B on figure 2 is wrong."""
    rows: list[Row] = [
        {"id": f"{q}{f}", "question": "?", "answer": "yes", "category": "VD", "subcategory": "illusion", "set_id": "0", "figure_id": f,
         "question_id": q, "visual_input": f, "gt_answer_details": "so"}
        for q in "AB" for f in "12"
    ]  # fmt: skip
    found = values("hallusionbench", answered("hallusionbench", rows, ["Yes", "Yes", "Yes", "No"]))
    assert (found["aAcc"], found["qAcc"], found["fAcc"]) == (0.75, 0.5, 0.5)
    assert (found["easy_aAcc"], found["hard_aAcc"]) == (1.0, 0.5)


def test_sample_predictions(rows: list[Row], records: list[Record]) -> None:
    """The authors' sample of 254 answers, read by their words, compared with plain loops over its
    records.
    """
    folder = official("hallusionbench")
    sample = json.loads((folder / "HallusionBench_result_sample.json").read_text())
    of_address = {tuple(r[k] for k in ADDRESS): (r, row) for r, row in zip(records, rows, strict=True)}
    known = [of_address[tuple(r[k] for k in ADDRESS)] for r in sample]  # the sample has no ground truth
    records, rows = [record for record, _ in known], [row for _, row in known]
    texts = [r["model_prediction"] for r in sample]
    found = values("hallusionbench", answered("hallusionbench", rows, texts))
    checks = [2 if (s := yes_or_no(t)) is None else int(s == r["answer"]) for t, r in zip(texts, rows, strict=True)]
    wanted = expected(records, checks)
    assert found == pytest.approx({**wanted, "judged": 0.0}, abs=1e-12)
    assert 0 < checks.count(2) < len(checks) / 2


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("1. " * 32 + "Yes.", "yes"), (". " * 32 + "Yes.", None), ("In 1990. Yes.", "yes"),
        ("Yes", "yes"), ("No.", "no"), ("Yes, it is.", "yes"), ("Yes,it is", "yes"), ("(yes)", "yes"), ("No!", "no"), ("yes/no", None),
        ("**Yes**", None), ("Yes: it is", None), ("", None), ("There is not", None), ("I know", None), ("The answer is no.", "no"),
        ("It says 1,000. Yes,", "yes"), ("It says 1,000;yes", None), ("No yes", None),
    ],
)  # fmt: skip
def test_words(text: str, read: str | None) -> None:
    assert yes_or_no(text) == read


def test_judge_is_asked_as_by_the_authors(rows: list[Row]) -> None:
    judged = BENCHMARKS["hallusionbench"].judged
    assert judged is not None
    answers = answered("hallusionbench", rows[:2], ["Yes {reference}", None])
    ((message,), needs_judge) = judged.messages(answers[0]), [judged.asked(answer) for answer in answers]
    assert needs_judge == [True, False]
    assert message["role"] == "user"
    assert message["content"].startswith("Imagine you are an intelligent teacher. Thoroughly read the question, ")
    assert message["content"].endswith(
        f"\n\n Question:{rows[0]['question']}\nReference answer: {rows[0]['gt_answer_details']}"
        "\nPrediction answer:Yes {reference}\nOutput:"
    )


def test_full_file_through_the_stages(rows: list[Row], tmp_path: Path) -> None:
    """1,129 questions with 346 stand-in images go through all stages except sampling; 178 have no
    image.
    """
    images = drawn_images(tmp_path / "hallusion_bench", [image for row in rows for image in row["images"]])
    draw = Random(3)
    texts: dict[str, str | None] = {row["id"]: draw.choice(TEXTS) for row in rows}
    dataset = FileDataset(kind="hallusionbench", path=str(official("hallusionbench")), images=str(images))
    table = through_the_stages(tmp_path, "hallusionbench", dataset, texts, views=["original", "blank"])
    wanted = values("hallusionbench", answered("hallusionbench", rows, [texts[row["id"]] for row in rows]))
    for view in ("original", "blank"):
        inside = table.filter(view=view)
        assert dict(inside.select("metric", "value").iter_rows()) == pytest.approx(wanted, abs=1e-12)
        n = dict(inside.select("metric", "n").iter_rows())
        assert (n["aAcc"], n["fAcc"], n["aAcc_image"], n["aAcc_VD"]) == (1129, 951, 951, 591)
    needs_judge = read_table(tmp_path / "requests.parquet", REQUESTS).to_pylist()
    kinds = Counter(tuple(item["type"] for item in row["messages"][0]["content"]) for row in needs_judge)
    assert kinds == {("image", "text"): 2 * 951, ("text",): 2 * 178}


def imported(folder: Path, **changes: Any) -> None:
    record = {
        "category": "VS", "subcategory": "chart", "visual_input": "0", "set_id": "0", "figure_id": "0", "question_id": "0",
        "question": "Is it?", "gt_answer_details": "It is.", "gt_answer": "1", "filename": None,
    } | changes  # fmt: skip
    (folder / "HallusionBench.json").write_text(json.dumps([record]))
    config = FileDataset(kind="hallusionbench", path=str(folder / "HallusionBench.json"))
    import_examples.run(config=config, examples=folder / "examples.parquet")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gt_answer": "2"}, "`gt_answer` is '2', expected `0` or `1`"),
        ({"visual_input": "1"}, "key `filename` is missing"),
        ({"visual_input": "1", "filename": "./VS/chart/0_1.png"}, "image `VS/chart/0_1.png`: the file does not exist"),
    ],
)
def test_mistakes(tmp_path: Path, changes: Record, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        imported(tmp_path, **changes)
    assert reason in str(caught.value)


def test_a_question_without_image_is_an_example(tmp_path: Path) -> None:
    imported(tmp_path)
    (row,) = read_table(tmp_path / "examples.parquet", EXAMPLES).to_pylist()
    assert (row["images"], row["image_sha256"], row["image_sizes"], row["reason"]) == ([], [], [], None)
