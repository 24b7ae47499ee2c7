"""We-Math: four classes of 525 problems compared with a plain loop, a score by hand, and the
official letter rule.
"""

import math
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from perceptune.contracts.config import FileDataset
from perceptune.core.benchmarks.benchmark import Answered
from perceptune.core.benchmarks.we_math.answers import letter_of
from perceptune.core.benchmarks.we_math.metrics import score

from tests.unit.benchmarks.answering import (
    Row,
    answered,
    failures,
    questions,
    shuffled,
    through_the_stages,
    values,
)
from tests.unit.benchmarks.tables import drawn_names, embedded, in_base64, write_json, write_parquet, write_tsv

PROBLEMS = [("2steps", 360), ("3steps", 165)]


def records() -> list[dict[str, Any]]:
    """1,740 questions in the order of `testmini.json` (all first steps of two-step problems, and so
    on); the answer is always C.
    """
    found = []
    for kind, number in PROBLEMS:
        for part in [*range(1, int(kind[0]) + 1), "multi"]:
            for i in range(number):
                found.append(
                    {
                        "ID": f"{kind}_{i}", "split": "testmini", "knowledge concept": "Area", "question": f"What is {i}?",
                        "option": "A. 1;B. 2; C. 3", "answer": "C", "image_path": "image.png", "key": f"{kind}_{part}",
                    }
                )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return questions("we_math", write_json(tmp_path_factory.mktemp("we") / "testmini.json", records()))


def by_the_loop(answers: list[Answered]) -> dict[str, float]:
    """Classes and scores by the paper's definition, in a loop over problems."""
    problems: dict[str, dict[str, bool]] = defaultdict(dict)
    for a in answers:
        problems[a.source["problem"]][a.source["key"].split("_")[1]] = bool(a.components.get("accuracy"))
    count: dict[str, int] = defaultdict(int)
    for parts in problems.values():
        whole, steps = parts.pop("multi"), list(parts.values())
        if whole:
            count["cm_strict" if all(steps) else "rm_strict"] += 1
            count["cm_loose" if any(steps) else "rm_loose"] += 1
        else:
            count["ig" if all(steps) else "ik"] += 1
    n = len(problems)
    return {
        "score_strict": (n - 0.5 * count["ig"] - count["rm_strict"] - count["ik"]) / n,
        "score_loose": (n - 0.5 * count["ig"] - count["rm_loose"] - count["ik"]) / n,
        "insufficient_knowledge": count["ik"] / n,
        "inadequate_generalisation": count["ig"] / n,
        "complete_mastery_strict": count["cm_strict"] / n,
        "complete_mastery_loose": count["cm_loose"] / n,
        "rote_memorisation_strict": count["rm_strict"] / (count["rm_strict"] + count["cm_strict"]),
        "rote_memorisation_loose": count["rm_loose"] / (count["rm_loose"] + count["cm_loose"]),
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_scores_are_those_of_the_loop(rows: list[Row], seed: int) -> None:
    random = Random(seed)
    texts = [random.choice(["<Answer>: <<C>>", "<Answer>: <<C>>", "Answer: B", "I do not know", None]) for _ in rows]
    answers = answered("we_math", rows, texts)
    found = values("we_math", answers)
    expected = by_the_loop(answers)
    assert {k: found[k] for k in expected} == pytest.approx(expected)
    right = {a.example_id: a.components.get("accuracy", 0) for a in answers}
    single = [right[a.example_id] for a in answers if not a.example_id.endswith("multi")]
    assert found["one_step_accuracy"] == pytest.approx(sum(single) / 1215)
    two = [right[a.example_id] for a in answers if a.example_id.endswith("2steps_multi")]
    assert found["two_step_accuracy"] == pytest.approx(sum(two) / 360)
    assert values("we_math", shuffled(answers, seed)) == pytest.approx(found)
    assert failures("we_math", answers, "score_strict")[0] == 525
    assert failures("we_math", answers, "three_step_accuracy")[0] == 165
    assert failures("we_math", answers, "accuracy") == (1740, sum(t in (None, "I do not know") for t in texts))


def test_score_by_hand() -> None:
    """Of 525 problems, 100 IG, 50 RM and 200 IK lose 50, 50 and 200."""
    columns = {name: np.zeros(525) for name in ("problems", "ig", "rm strict", "ik")}
    columns["problems"][:] = 1
    for name, start, end in (("ig", 0, 100), ("rm strict", 100, 150), ("ik", 150, 350)):
        columns[name][start:end] = 1
    assert float(score("rm strict")(columns)) == (525 - 50 - 50 - 200) / 525 == pytest.approx(0.428571, abs=5e-7)


def test_perfect_wrong_and_empty(rows: list[Row]) -> None:
    perfect = values("we_math", answered("we_math", rows, ["<Answer>: <<C>>"] * len(rows)))
    ones = {k for k, v in perfect.items() if v == 1}
    zeros = {
        "insufficient_knowledge",
        "inadequate_generalisation",
        "rote_memorisation_strict",
        "rote_memorisation_loose",
    }
    assert ones == perfect.keys() - zeros
    wrong = values("we_math", answered("we_math", rows, ["Answer: A"] * len(rows)))
    assert wrong["score_strict"] == wrong["score_loose"] == 0
    assert wrong["insufficient_knowledge"] == 1
    assert math.isnan(wrong["rote_memorisation_strict"])  # nothing was solved
    assert all(math.isnan(v) for v in values("we_math", []).values())


def test_problems_without_all_their_steps_have_no_class(rows: list[Row]) -> None:
    first = [row for row in rows if row["key"] == "2steps_1"][:20]
    found = values("we_math", answered("we_math", first, ["Answer: C"] * 20))
    assert found["one_step_accuracy"] == found["accuracy"] == 1
    assert math.isnan(found["score_strict"]) and math.isnan(found["two_step_accuracy"])
    one_whole = [row for row in rows if row["problem"] in ("2steps_0", "3steps_0")]
    partial = [row for row in one_whole if row["key"] != "3steps_2"]
    assert values("we_math", answered("we_math", partial, ["Answer: C"] * 6))["score_strict"] == 1
    assert failures("we_math", answered("we_math", one_whole, ["Answer: C"] * 7), "score_strict")[0] == 2


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("<Thought process>: <<An Answer of B>> <Answer>: <<D>>", "D"), ("Answer: E. No correct answer", "E"),
        ("C", "C"), ("Because", "B"), ("the second", None), ("Answer: (C)", None), ("answer: C", None), ("Answer", None),
        ("\\boxed{\\text{B}}", "B"), ("\\boxed{\\textbf{(B)}\\ 12}", "B"), ("\\boxed{\\mathrm{B}}", "B"),
        ("\\boxed{C}", "C"), ("<think>Answer: A</think> \\boxed{(D)}", "D"), ("\\boxed{none}", None),
        ("<Thought process>: <<\\boxed{A + B = 5}>> <Answer>: <<B>>", "B"), ("We get \\boxed{12}.\n\nAnswer: C. 12", "C"),
        ("\\boxed{B}\n\n**Answer**: B", "B"), ("\\boxed{B} Answering further, C", "B"), ("\\boxed{B} for Answer Choice B", "B"),
        ("\\boxed{Answer: B}", "B"), ("<think>Answer: A</think> \\boxed{none}", None), ("\\boxed{B}. Because", "B"),
    ],
)  # fmt: skip
def test_letters(text: str, letter: str | None) -> None:
    """The last `Answer` (case-sensitive) counts; a bracket is not a letter; a box after it
    overrides it.
    """
    assert letter_of(text) == letter


def test_all_forms_give_the_same_rows(tmp_path: Path) -> None:
    few = [r for r in records() if r["ID"] == "2steps_7"]
    parquet = write_parquet(tmp_path / "p" / "testmini.parquet", [{**r, "image_path": embedded()} for r in few])
    options = {"A": "1", "B": "2", "C": "3"}
    kept = ("ID", "key", "question", "answer", "knowledge concept")
    tsv = [{"index": i, "image": in_base64(), **{k: r[k] for k in kept}, **options} for i, r in enumerate(few)]
    first = questions("we_math", write_json(tmp_path / "testmini.json", few))
    second = questions("we_math", parquet)
    third = questions("we_math", write_tsv(tmp_path / "WeMath.tsv", tsv))
    keys = ("id", "answer", "problem", "key", "concept")
    assert [[row[k] for k in keys] for row in first] == [[row[k] for k in keys] for row in second]
    assert [[row[k] for k in keys] for row in first] == [[row[k] for k in keys] for row in third]
    assert first[0]["question"] == "Question: What is 7?\nOption: A. 1;B. 2; C. 3"
    assert third[0]["question"] == "Question: What is 7?\nOption: A. 1; B. 2; C. 3"
    assert first[0]["id"] == "2steps_7-2steps_1"


def test_a_run_that_solves_nothing_says_nothing_of_rote_memorisation(tmp_path: Path) -> None:
    """Two problems, three runs: the first run solves both, one by rote; the second none; the third
    one, by rote.
    """
    few = [r for r in records() if r["ID"] in ("2steps_0", "3steps_0")]
    drawn_names(tmp_path, ["image.png"])
    data = FileDataset(kind="we_math", path=str(write_json(tmp_path / "testmini.json", few)))
    right, wrong = "Answer: C", "Answer: A"
    texts: dict[str, str | list[str] | None] = {f"{r['ID']}-{r['key']}": [right, wrong, wrong] for r in few}
    texts |= {"2steps_0-2steps_multi": [right, wrong, right], "3steps_0-3steps_1": "nothing"}
    table = through_the_stages(tmp_path, "we_math", data, texts, n=3)
    found = {r["metric"]: r for r in table.filter(condition="mean_of_n").iter_rows(named=True)}
    rote = found["rote_memorisation_strict"]
    assert rote["value"] == pytest.approx((0.5 + 1) / 2) and rote["reason"] is None
    assert found["rote_memorisation_strict_run_std"]["value"] == pytest.approx(0.125**0.5)
    assert found["score_strict"]["value"] == pytest.approx((0.5 + 0 + 0) / 3)
    assert (found["accuracy"]["n"], found["accuracy"]["n_failed"], found["score_strict"]["n"]) == (21, 3, 6)
    solved_once = through_the_stages(
        tmp_path, "we_math", data, {**texts, "2steps_0-2steps_multi": [right, wrong, wrong]}, n=3
    )
    assert "rote_memorisation_strict_run_std" not in solved_once.filter(condition="mean_of_n")["metric"].to_list()
    none = through_the_stages(tmp_path, "we_math", data, dict.fromkeys(texts, wrong), n=2).filter(condition="mean_of_n")
    assert none.filter(metric="rote_memorisation_strict")["reason"].item().startswith("not measured: needs a solved")


def test_through_all_stages(tmp_path: Path) -> None:
    few = [r for r in records() if r["ID"] in ("2steps_0", "3steps_0")]
    drawn_names(tmp_path, ["image.png"])
    data = FileDataset(kind="we_math", path=str(write_json(tmp_path / "testmini.json", few)))
    texts = {f"{r['ID']}-{r['key']}": "Answer: C" if r["ID"] == "2steps_0" else "Answer: A" for r in few}
    table = through_the_stages(tmp_path, "we_math", data, texts)
    found = {r["metric"]: r for r in table.iter_rows(named=True)}
    assert found["score_strict"]["value"] == found["insufficient_knowledge"]["value"] == 0.5
    assert (found["score_strict"]["n"], found["accuracy"]["n"]) == (2, 7)
    assert found["accuracy"]["value"] == pytest.approx(3 / 7)
