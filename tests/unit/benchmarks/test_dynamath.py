"""DynaMath: JSON replies by type, average and worst-case accuracy, compared with a plain loop over
questions.
"""

import json
import math
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import pytest
from perceptune.contracts.config import FileDataset

from tests.plugins import BENCHMARKS
from tests.unit.benchmarks.answering import Row, answered, failures, questions, shuffled, through_the_stages, values
from tests.unit.benchmarks.tables import embedded, in_base64, write_parquet, write_tsv

KINDS = [("float", "2.500"), ("multiple choice", "B"), ("text", "Yes, it is even")]


def published(variant: int) -> list[dict[str, Any]]:
    """One of the ten splits, with three questions, one of each type."""
    return [
        {
            "id": str(seed), "question": f"{seed}, variant {variant}?", "image": f"{seed}.png", "decoded_image": embedded(seed),
            "ground_truth": truth, "answer_type": kind, "subject": "algebra", "knowledge_level": "high school",
        }
        for seed, (kind, truth) in enumerate(KINDS, 1)
    ]  # fmt: skip


def folder_of_splits(folder: Path, variants: int = 10) -> Path:
    for variant in range(1, variants + 1):
        write_parquet(folder / f"sample_variant{variant:02}-00000-of-00001.parquet", published(variant))
    return folder


def rows(folder: Path, variants: int = 10) -> list[Row]:
    return questions("dynamath", folder_of_splits(folder / "data", variants))


def reply(answer: Any) -> str:
    as_json = json.dumps({"solution": "a \\frac", "short answer": answer}, ensure_ascii=False)
    return f"```json\n{as_json}\n```"


def boxed_reply(answer: Any, box: str) -> str:
    """A reply with a box in its solution."""
    return json.dumps({"solution": f"so it is \\boxed{{{box}}}, of course", "short answer": answer})


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (reply("2.501"), (True, False, False)), (reply(2.4995), (True, False, False)), (reply("2.502"), (False, False, False)),
        (reply("2.5 cm"), (True, False, False)), ("2.5", (True, False, False)), ("\\boxed{2.5}", (True, False, False)),
        (reply("B"), (False, True, False)), (reply("(b) 7"), (False, True, False)), (reply("A or B"), (False, False, False)),
        ("b", (False, True, False)), ("B: because D", (False, True, False)),  # two letters, but starts with the right one
        (reply("yes"), (False, False, True)), ("yes", (False, False, True)), (reply("no"), (False, False, False)),
        (boxed_reply("B", "20 cm^2"), (False, True, False)), (boxed_reply("2.500", "\\frac{5}{2}"), (True, False, False)),
        ("Here it is:\n" + boxed_reply("B", "C"), (False, True, False)), (f"We get \\boxed{{20}}.\n{reply('B')}", (False, True, False)),
        ("<think>Let x be 2.</think> \\boxed{B}", (False, True, False)), ("\\boxed{" + reply("2.5") + "}", (True, False, False)),
        (reply("B") + "\n\\boxed{C}", (False, False, False)), ("<think>" + reply("2") + "</think> \\boxed{2.5}", (True, False, False)),
        (reply(""), (False, False, False)), ("", (False, False, False)), ("{'short answer': 2.5}", (False, False, False)),
    ],
)  # fmt: skip
def test_replies_by_type_under_vlmevalkits_rules(tmp_path: Path, text: str, right: tuple[bool, ...]) -> None:
    answers = answered("dynamath", rows(tmp_path, 1), [text] * 3)
    assert tuple(a.components["vlmevalkit"] == 1 for a in answers) == right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (reply("2.501"), (True, False, False)), (reply(2.4995), (True, False, False)), (reply("2.502"), (False, False, False)),
        (reply("2.5 cm"), (True, False, False)), (reply(" 2.5"), (False, False, False)),  # a number ends at the first blank
        (reply("B"), (False, True, False)), (reply("(B) 7"), (False, True, False)), (reply("B or A"), (False, True, False)),
        (reply("b"), (False, False, False)), (reply("The B"), (False, False, False)), (reply(["B"]), (False, True, False)),
        (reply("Yes, it is even."), (False, False, True)), (reply("Yes"), (False, False, False)), (reply("yes, it is even"), (False, False, False)),
        ("so it is 2.5.\n2.5.", (True, False, False)), ("2.5", (False, False, False)),  # the last line without its last character
        ("B.", (False, True, False)), ("B", (False, False, False)), ("I say: Yes, it is even.", (False, False, True)),
        (boxed_reply("B", "20 cm^2"), (False, True, False)), ("\\boxed{2.5}", (False, False, False)), ("{2.5}\n2.5.", (False, False, False)),
        (reply(""), (False, False, False)), ("", (False, False, False)), ('{"solution": "2.5"}', (False, False, False)), ("[2.5]", (False, False, False)),
    ],
)  # fmt: skip
def test_replies_by_type_under_the_authors_rules(tmp_path: Path, text: str, right: tuple[bool, ...]) -> None:
    """The verdicts are those of the authors' script."""
    answers = answered("dynamath", rows(tmp_path, 1), [text] * 3)
    assert tuple(a.components["accuracy"] == 1 for a in answers) == right


def test_multiples_of_pi(tmp_path: Path) -> None:
    row = {**rows(tmp_path, 1)[0], "answer": str(2 * math.pi)}
    assert answered("dynamath", [row, row], [reply("2π"), reply("pi")])[0].components["accuracy"] == 1
    assert failures("dynamath", answered("dynamath", [row], [reply("π")]), "accuracy_vlmevalkit") == (1, 1)


@pytest.mark.parametrize("seed", [1, 2])
def test_average_and_worst_case_are_those_of_the_loop(tmp_path: Path, seed: int) -> None:
    random, given = Random(seed), rows(tmp_path)
    truths = dict(KINDS)
    texts = [
        reply(truths[row["answer_type"]]) if row["seed_question"] == "2" or random.random() < 0.9 else None
        for row in given
    ]
    answers = answered("dynamath", given, texts)
    right: dict[str, list[float]] = defaultdict(list)
    for a in answers:
        right[a.source["seed_question"]].append(a.components.get("accuracy", 0))
    found = values("dynamath", answers)
    assert found["accuracy"] == pytest.approx(sum(map(sum, right.values())) / 30)
    assert found["worst_case_accuracy"] == pytest.approx(sum(all(r) for r in right.values()) / 3)
    assert found["worst_case_accuracy_vlmevalkit"] == found["worst_case_accuracy"]
    assert found["accuracy_vlmevalkit"] == found["accuracy"]
    assert values("dynamath", shuffled(answers, seed)) == pytest.approx(found)
    assert failures("dynamath", answers, "worst_case_accuracy")[0] == 3
    assert failures("dynamath", answers, "accuracy") == (30, texts.count(None))


def test_perfect_partial_and_empty(tmp_path: Path) -> None:
    truths = dict(KINDS)
    given = rows(tmp_path)
    assert set(
        values("dynamath", answered("dynamath", given, [reply(truths[r["answer_type"]]) for r in given])).values()
    ) == {1}
    few = [row for row in given if row["variant"] < 10]
    assert math.isnan(values("dynamath", answered("dynamath", few, [None] * len(few)))["worst_case_accuracy"])
    assert all(math.isnan(v) for v in values("dynamath", []).values())


@pytest.mark.parametrize("protocol", ["dynamath", "mathvision", "mathvista"])
def test_the_variant_vlmevalkit_has_the_same_metrics_in_another_order(protocol: str) -> None:
    official, variant = (BENCHMARKS[name].metrics for name in (protocol, f"{protocol}_vlmevalkit"))
    assert (next(iter(official)), next(iter(variant))) == ("accuracy", "accuracy_vlmevalkit")
    assert dict(variant) == dict(official)
    assert "VLMEvalKit's rules, July 2025" in official["accuracy_vlmevalkit"].label


def test_the_prompt_says_how_to_reply(tmp_path: Path) -> None:
    first, second, third = rows(tmp_path, 1)
    assert first["question"].startswith("## Question\n 1, variant 1?\n## Answer Instruction Please provide")
    assert "three-digit floating-point number and provide it" in first["question"]
    assert "such as 'A', 'B', 'C', or 'D'." in second["question"]
    assert "Float numbers in the answer" in third["question"]
    assert first["question"].endswith(
        '{\n    "solution": "[Detailed step-by-step explanation]",\n    "short answer": "[Concise Answer]"\n}'
    )


def test_both_forms_give_the_same_rows(tmp_path: Path) -> None:
    tsv = [
        {
            "index": f"{variant}{r['id']}", "qid": r["id"], "varid": variant, "image": in_base64(int(r["id"])),
            "answer": r["ground_truth"], **{k: r[k] for k in ("question", "answer_type", "subject", "knowledge_level")},
        }
        for variant in (1, 2)
        for r in published(variant)
    ]  # fmt: skip
    first, second = rows(tmp_path, 2), questions("dynamath", write_tsv(tmp_path / "DynaMath.tsv", tsv))
    assert first == second or [{**r, "image": None} for r in first] == [{**r, "image": None} for r in second]
    assert [r["id"] for r in first] == ["1-1", "2-1", "3-1", "1-2", "2-2", "3-2"]
    assert [r["image"]["bytes"] for r in first] == [r["image"]["bytes"] for r in second]


def test_through_all_stages(tmp_path: Path) -> None:
    data = FileDataset(kind="dynamath", path=str(folder_of_splits(tmp_path / "data")))
    texts = {f"{seed}-{v}": reply("B") for seed in (1, 2, 3) for v in range(1, 11)}
    table = through_the_stages(tmp_path, "dynamath", data, texts)
    found = {r["metric"]: r["value"] for r in table.iter_rows(named=True)}
    assert found["accuracy"] == found["worst_case_accuracy"] == pytest.approx(1 / 3)
    assert (found["accuracy_float"], found["accuracy_multiple_choice"]) == (0, 1)
