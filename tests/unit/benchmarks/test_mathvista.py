"""MathVista: the published query, the authors' and VLMEvalKit's rules, and extraction by a judge."""

import json
import math
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pytest
from perceptune.contracts.config import FileDataset
from perceptune.core.answers.extraction import final_answer, lettered, option_letter, typed_answer
from perceptune.core.benchmarks.mathvista.answers import same_as_published, without_extraction
from perceptune.core.benchmarks.mathvista.mathvista_vlmevalkit import accepts_extraction
from perceptune.core.data.read_files import Files

from tests.official_data import official
from tests.plugins import BENCHMARKS
from tests.unit.benchmarks.answering import (
    IMPORTERS,
    Row,
    answered,
    failures,
    questions,
    shuffled,
    through_the_stages,
    values,
)
from tests.unit.benchmarks.tables import embedded, in_base64, write_parquet, write_tsv

CHOICE = "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."
QUERY = f"{CHOICE}\nQuestion: Which is biggest?\nChoices:\n(A) red\n(B) blue"
ROWS: list[dict[str, Any]] = [
    {"question": "Which is biggest?", "choices": ["red", "blue"], "answer": "blue", "answer_type": "text", "task": "visual question answering"},
    {"question": "How many?", "choices": [], "answer": "14", "answer_type": "integer", "task": "figure question answering"},
    {"question": "How much?", "choices": [], "answer": "1.45", "answer_type": "float", "precision": 2.0, "unit": "$", "task": "math word problem"},
    {"question": "Between which years?", "choices": [], "answer": "[2007, 2008]", "answer_type": "list", "task": "figure question answering"},
]  # fmt: skip
RIGHT = ["The answer is B.", "So the number is 14.", "It costs $1.45.", "Between 2007 and 2008: [2007, 2008]"]


def parquet(folder: Path) -> Path:
    """Rows in the format of `AI4Math/MathVista`, two with a query and the others without."""
    rows = []
    for i, row in enumerate(ROWS):
        kind = "multi_choice" if row["choices"] else "free_form"
        about = {"task": row["task"], "skills": ["arithmetic reasoning"], "category": "general-vqa"}
        rows.append(
            {
                "pid": str(i + 1), "image": f"images/{i}.jpg", "decoded_image": embedded(i), "precision": row.get("precision"),
                **{k: row.get(k) for k in ("question", "choices", "unit", "answer", "answer_type")},
                "question_type": kind, "metadata": about, "query": QUERY if i == 0 else None,
            }
        )  # fmt: skip
    return write_parquet(folder / "testmini-00000-of-00001.parquet", rows)


def tsv(folder: Path) -> Path:
    """Rows in the format of VLMEvalKit's file."""
    rows = []
    for i, row in enumerate(ROWS):
        option = "B" if row["choices"] else ""
        hinted = QUERY if i == 0 else row["question"]
        rows.append(
            {
                "index": i + 1, "image": in_base64(i), "question": hinted, "answer": row["answer"], "answer_option": option,
                "choices": str(row["choices"]), "answer_type": row["answer_type"], "precision": row.get("precision", ""),
                "unit": row.get("unit", ""), "task": row["task"], "skills": "['arithmetic reasoning']", "question_type": "",
            }
        )  # fmt: skip
    return write_tsv(folder / "MathVista_MINI.tsv", rows)


def test_both_forms_give_the_same_rows(tmp_path: Path) -> None:
    first, second = questions("mathvista", parquet(tmp_path)), questions("mathvista", tsv(tmp_path))
    keys = ("id", "question", "answer", "choices", "answer_type", "precision", "subtask", "skills")
    assert [{k: row[k] for k in keys} for row in first] == [{k: row[k] for k in keys} for row in second]
    assert first[0]["question"] == QUERY
    assert first[0]["answer"] == "B"
    assert first[2]["question"].endswith("e.g., 1.23, 1.34, 1.45, at the end.\nQuestion: How much? (Unit: $)")
    assert [row["image"]["bytes"] for row in first] == [row["image"]["bytes"] for row in second]


def test_through_all_stages(tmp_path: Path) -> None:
    texts = dict(zip("1234", [*RIGHT[:2], "nothing", None], strict=True))
    table = through_the_stages(tmp_path, "mathvista", FileDataset(kind="mathvista", path=str(parquet(tmp_path))), texts)
    found = {r["metric"]: (r["value"], r["n"], r["n_failed"]) for r in table.iter_rows(named=True)}
    assert found["accuracy"] == (0.5, 4, 2)
    assert found["accuracy_figures"] == (0.5, 2, 1)
    assert found["accuracy_judged"][0] is None
    assert table.filter(metric="accuracy_judged")["reason"].item() == "not measured: needs a judge"
    assert found["accuracy_geometry"][:2] == (None, 0)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("(B) blue", "B"), ("The answer is B.", "B"), ("blue", "B"), ("A or B", None), ("it is C", None),
        ("B is what I would say after some thought", None),  # not near the end
        ("I see a blue thing, I think, but then again it is hard to say from here", None),  # too long for its options
    ],
)  # fmt: skip
def test_option_letters(answer: str, letter: str | None) -> None:
    assert option_letter(answer, lettered(["red", "blue"])) == letter


@pytest.mark.parametrize(
    ("text", "kind", "target", "precision", "right"),
    [
        ("14", "integer", "14", 0, (True, True)), ("14.0", "integer", "14", 0, (True, True)), ("It is 1,400", "integer", "1400", 0, (True, True)),
        ("14.9", "integer", "14", 0, (True, False)),  # truncated, as in the authors' script
        ("1.449", "float", "1.45", 2, (True, False)), ("1.44", "float", "1.45", 2, (False, False)), ("0.6", "float", "0.6", 1, (True, True)),
        ("[2007,2008]", "list", "[2007, 2008]", 0, (True, False)), ("2007, 2008", "list", "[2007, 2008]", 0, (False, False)),
        ("The answer is 3. It was not 4.", "integer", "3", 0, (True, True)),
        ("**Answer:** 7\n\nHope this helps 100 %", "integer", "7", 0, (True, True)), ("none", "integer", "0", 0, (False, False)),
        ("green", "text", "green", 0, (True, False)), ("Green", "text", "green", 0, (False, False)),
        ("1.4", "float", "1.2", None, (False, False)), ("1.24", "float", "1.2", None, (True, False)), ("3.04", "float", "3", None, (False, False)),
        ("3.0", "float", "3", None, (True, True)), ("\\boxed{\\frac{1}{2}}", "float", "2.0", 1, (False, False)), ("1/2", "integer", "2", 0, (False, False)),
        ("inf", "integer", "3", 0, (False, False)), ("", "integer", "0", 0, (False, False)),
    ],
)  # fmt: skip
def test_typed_answers(
    tmp_path: Path, text: str, kind: str, target: str, precision: int | None, right: tuple[bool, bool]
) -> None:
    """By the authors' rules and by VLMEvalKit's. Without a precision, answers are rounded to the ground
    truth's decimal places; without any, they must be equal.
    """
    row = {**rows(tmp_path)[1], "answer": target, "answer_type": kind, "precision": precision}
    (answer,) = answered("mathvista", [row], [text])
    assert (answer.components["accuracy"] == 1, answer.components["vlmevalkit"] == 1) == right


@pytest.mark.parametrize(
    ("extraction", "right"),
    [
        ("B", (True, True)), (" B ", (True, True)), ("(b) blue", (True, True)), ("(A) or (B)", (False, False)), ("b", (False, False)),
        ("bluish", (True, False)),  # the nearest choice; VLMEvalKit chooses none
        ("Cannot be determined", (False, False)), ("", (False, False)), ("none", (True, False)),
        ("B.", (False, True)),  # no letter to the authors' script, and `red` is nearer
    ],
)  # fmt: skip
def test_extracted_choices(extraction: str, right: tuple[bool, bool]) -> None:
    source = {"choices": ["red", "blue"], "answer_type": "text"}
    found = same_as_published(extraction, "B", source), accepts_extraction(extraction, "B", source)
    assert found == right


def test_options_of_the_same_text_are_the_same_choice() -> None:
    """The authors' script compares texts; `50` is options C and D of a published question."""
    source = {"choices": ["15", "100", "50", "50"], "answer_type": "text"}
    assert same_as_published("D", "C", source)


@pytest.mark.parametrize(
    ("text", "kind", "choices", "answer"),
    [
        ("blue", "text", ["red", "blue"], "blue"), ("Blue", "text", ["red", "blue"], None), ("B", "text", ["red", "blue"], None),
        ("14", "integer", [], "14"), ("14.0", "integer", [], None), ("14", "float", [], "14.0"), ("[1]", "list", [], None), ("", "list", [], ""),
    ],
)  # fmt: skip
def test_answers_that_need_no_extraction(text: str, kind: str, choices: list[str], answer: str | None) -> None:
    assert without_extraction(text, {"choices": choices, "answer_type": kind}) == answer


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("\\boxed{12\\text{ cm}^2}", 12), ("5 m^2", 5), ("The area is 5 m²", 5), ("answer is 5 (see step 2)", 5), ("2020-2021", 2021),
        ("−3", -3), ("\\(x = -3\\)", -3), ("x-3", 3), ("\\boxed{\\textbf{12}}", 12), ("\\boxed{45^\\circ}", 45),
        ("\\boxed{1{,}400}", 1400), ("\\boxed{1\\,400\\text{ m}}", 1400), ("-1,400.5", -1400.5), ("Rs.5", 5), (".5", 0.5), ("CO2", None),
        ("1,5", 5), ("1,2,3", 3), ("1,234,567", 1234567), ("1,2345", 2345),
        ("1/2", None), ("\\boxed{\\frac{1}{2}}", None), ("\\boxed{\\frac12}", None), ("The answer is 1/2 = 0.5", 0.5),
        ("**14**", 14), ("So the number is 14.", 14), ("It costs $1.45.", 1.45), ("答案是5。", 5), ("1e3", 1000),
        ("\\boxed{3 + 4 = 7}", 7), ("\\boxed{x = 12}", 12), ("\\boxed{3\\times4=12}", 12), ("\\boxed{\\approx5}", 5),
        ("Therefore, 5 - 3 = 2 apples are left.", 2), ("The answer is 12, since 3 times 4 is 12.", 12),
        ("The answer is approximately 3.14 (rounded to 2 decimals).", 3.14), ("Answer: the difference of 15 and 7 is 8", 8),
        ("<think>3 of 4</think> \\boxed{3}", 3), ("There are 14 bars.\nI hope this helps!", 14), ("none", None),
    ],
)  # fmt: skip
def test_numbers_of_final_answers(text: str, number: float | None) -> None:
    assert typed_answer(text, "float", {}) == number


def test_a_fraction_is_left_to_the_judge(tmp_path: Path) -> None:
    """The published scripts cannot parse `1/2` as a number either."""
    row = {**rows(tmp_path)[2], "answer": "0.50"}
    (answer,) = answered("mathvista", [row], ["\\boxed{\\frac{1}{2}}"], verdicts=["0.5"])
    assert failures("mathvista", [answer], "accuracy") == (1, 1)
    assert BENCHMARKS["mathvista"].judged.asked(answer)  # type: ignore[union-attr]
    assert values("mathvista", [answer])["accuracy_judged"] == 1


def test_without_a_precision_floats_are_rounded_as_their_answer_is_written(tmp_path: Path) -> None:
    """VLMEvalKit's file may lack the column."""
    shared = {"image": in_base64(), "question": "How much?", "choices": "[]", "task": "math word problem"}
    given = [
        {"index": i, **shared, "answer": answer, "answer_type": kind}
        for i, (answer, kind) in enumerate([("1.2", "float"), ("1.45", "float"), ("3", "float"), ("14", "integer")], 1)
    ]
    found = questions("mathvista", write_tsv(tmp_path / "MathVista_MINI.tsv", given))
    assert [row["precision"] for row in found] == [None, None, None, 0]
    assert "provide the final answer at the end." in found[0]["question"]
    answers = answered("mathvista", found, ["1.4", "1.449", "3.04", "14"])
    assert [a.components["accuracy"] for a in answers] == [0, 1, 0, 1]


def test_published_responses() -> None:
    """GPT-4, 2-shot, with the authors' extractions as the judge's words: all 1,000 verdicts are those of
    the authors, 292 right. VLMEvalKit's rules accept 174 of these extractions, 18 of them of free answers.
    """
    given = list(json.loads((official("mathvista") / "output_gpt4_2shot_solution.json").read_text()).values())
    asked = [
        {
            "id": row["pid"], "question": row["question"], "choices": row["choices"] or [], "precision": row["precision"],
            "answer": ascii_uppercase[row["choices"].index(row["answer"])] if row["choices"] else row["answer"],
            "answer_type": "text" if row["choices"] else row["answer_type"], "subtask": row["metadata"]["task"],
        }
        for row in given
    ]  # fmt: skip
    extractions = [row["extraction"] for row in given]
    answers = answered("mathvista", asked, [row["response"] for row in given], verdicts=extractions)
    judged = BENCHMARKS["mathvista"].judged
    assert judged is not None and all(map(judged.asked, answers))
    theirs = [row["true_false"] for row in given]
    assert (len(given), sum(theirs)) == (1000, 292)
    assert [same_as_published(a.verdict or "", a.target or "", a.source) for a in answers] == theirs
    assert values("mathvista", answers)["accuracy_judged"] == 0.292
    accepted = [accepts_extraction(a.verdict or "", a.target or "", a.source) for a in answers]
    assert (sum(accepted), sum(one for one, row in zip(accepted, asked, strict=True) if not row["choices"])) == (
        174,
        18,
    )


def test_final_answers() -> None:
    assert final_answer("x\n\\boxed{5}\nso the answer is 6") == "5"
    assert final_answer("The answer is: **12**.\nBye") == "12"
    assert final_answer("first\nsecond.\n\n") == "second"
    assert final_answer("") == ""


def rows(tmp_path: Path) -> list[Row]:
    return questions("mathvista", parquet(tmp_path))


def test_invariants(tmp_path: Path) -> None:
    given = rows(tmp_path)
    perfect = values("mathvista", answered("mathvista", given, RIGHT, verdicts=["B", "14", "1.45", "[2007, 2008]"]))
    assert perfect["accuracy"] == perfect["accuracy_judged"] == 1
    assert perfect["accuracy_vlmevalkit"] == perfect["accuracy_judged_vlmevalkit"] == 3 / 4  # no list is right there
    mixed = answered("mathvista", given, ["A", None, "1.45", "[1]"])
    assert values("mathvista", mixed)["accuracy"] == 0.25
    assert values("mathvista", shuffled(mixed, 2)) == pytest.approx(values("mathvista", mixed), nan_ok=True)
    assert all(math.isnan(v) for v in values("mathvista", []).values())


def test_the_judge_extracts_what_the_authors_script_asks_for(tmp_path: Path) -> None:
    """No judge is asked about the text of an option and a plain number, but about a sentence with
    either. VLMEvalKit's rules settle the named option and the right number.
    """
    given = rows(tmp_path)
    texts = ["blue", "14", "a dollar forty-five", "from 2007 to 2008", "The answer is B", "It is 14", None]
    verdicts = [None, None, "1.449", "[2007, 2008]", "red", "15", None]
    answers = answered("mathvista", [*given, *given[:3]], texts, verdicts=verdicts)
    judged = BENCHMARKS["mathvista"].judged
    assert judged is not None and judged.fields is not None
    assert [judged.asked(a) for a in answers] == [False, False, True, True, True, True, False]
    found = values("mathvista", answers)
    assert found["accuracy_judged"] == 4 / 7
    assert found["accuracy_judged_vlmevalkit"] == 3 / 7
    assert found["accuracy"] == found["accuracy_vlmevalkit"] == 4 / 7
    assert failures("mathvista", answers, "accuracy_judged") == (7, 1)
    message = judged.messages(answers[2])[0]["content"]
    assert "a dollar forty-five" in message and "(Unit: $)" in message
    assert set(judged.fields(answers[2])) == {"question", "response"}
    unjudged = values("mathvista", answered("mathvista", given, texts[:4]))
    assert math.isnan(unjudged["accuracy_judged"]) and math.isnan(unjudged["accuracy_judged_vlmevalkit"])


def test_the_nearest_choice_counts_where_the_judge_names_none(tmp_path: Path) -> None:
    """The authors' script takes an empty answer for the shortest option; without a judge it is wrong."""
    row = {**rows(tmp_path)[0], "answer": "A"}
    answers = answered("mathvista", [row, row], ["Who knows?", ""], verdicts=["Cannot be determined", None])
    found = values("mathvista", answers)
    assert (found["accuracy_judged"], found["accuracy_judged_vlmevalkit"], found["accuracy"]) == (1, 0, 0)
    assert failures("mathvista", answers, "accuracy") == (2, 2)


def test_what_is_wrong_with_a_row_is_said(tmp_path: Path) -> None:
    good = {"index": 1, "image": in_base64(), "question": "?", "answer": "5", "choices": "[]", "answer_type": "integer"}
    bad = [
        {**good, "index": 2, "image": "7"},
        {**good, "index": 3, "choices": "no list"},
        {**good, "index": 4, "image": "ä" * 99},
    ]
    same = {**good, "index": 5, "image": "1"}
    found = [row for _, row in IMPORTERS["mathvista"].rows(Files(write_tsv(tmp_path / "m.tsv", [good, *bad, same])))]
    assert [str(row) for row in found[1:4]] == [
        "`image` is '7', expected the `index` of an earlier row, a path or base64",
        "`choices` is 'no list', expected a list",
        f"`image` is '{'ä' * 56}..., expected a path or an image in base64",
    ]
    assert found[4]["image"] == found[0]["image"]
