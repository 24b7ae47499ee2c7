"""TextVQA: VQA accuracy of ten answers, by hand and compared with a plain leave-one-out loop; the
official normalisation.
"""

import json
import math
from itertools import combinations_with_replacement
from pathlib import Path

import pytest
from perceptune.contracts.config import BenchmarkBlock, FileDataset
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.attention import ATTENTION
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.core.benchmarks.textvqa.vqa_accuracy import CONTRACTIONS, accuracy_of, normalised
from perceptune.stages.evaluation import evaluate

from tests.plugins import BENCHMARKS
from tests.unit.benchmarks.answering import (
    MODEL,
    Row,
    answered,
    drawn_images,
    failures,
    shuffled,
    through_the_stages,
    values,
)


@pytest.mark.parametrize(("agree", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_accuracy_by_hand(agree: int, accuracy: float) -> None:
    """Three agree. Leaving out one of them leaves 2 of 3; leaving out any of the other seven leaves
    all 3: (3 * 2/3 + 7) / 10.
    """
    assert accuracy_of("x", ["x"] * agree + ["y"] * (10 - agree)) == pytest.approx(accuracy)


def test_accuracy_is_that_of_the_loop() -> None:
    for answers_of_ten in combinations_with_replacement("xyz", 10):
        loop = 0.0
        for left_out in range(10):
            others = [one for i, one in enumerate(answers_of_ten) if i != left_out]
            loop += min(1, sum(one == "x" for one in others) / 3)
        assert accuracy_of("x", list(answers_of_ten)) == pytest.approx(loop / 10)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("The Coca-Cola.", "coca cola"),
        ("a  STOP sign", "stop sign"),
        ("two", "2"),
        ("none", "0"),
        ("$1,000.50", "$1000.50"),
        ("3.14", "3.14"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),  # two apostrophes are missing
        ("couldnt've", "couldn't've"),
        ("john's", "john 's"),
        ("yes / no", "yes no"),
        ("yes/no", "yes no"),
        ("up- and down-", "up and down"),
        ("line\nbreak", "line break"),
        ("whereve", "where've"),
        ("q-\rr-s", "q r s"),  # other line ends are no spaces to the rule for punctuation
        ("a-\u2028b-c", "b c"),
        ("?", ""),
    ],
)
def test_normalisation(text: str, same: str) -> None:
    assert normalised(text) == same


def test_contractions_are_the_official_ones() -> None:
    """A sample of the official list, and similar words that are not in it."""
    official = {"aint": "ain't", "hes": "he's", "yall'd've": "y'all'd've", "y'alld've": "y'all'd've", "twas": "'twas"}
    official |= {
        "somebodyd've": "somebody'd've",
        "'ows'at": "'ow's'at",
        "ow's'at": "'ow's'at",
        "somebody'd": "somebodyd",
    }
    assert official.items() <= CONTRACTIONS.items()
    assert not {"wed", "well", "were", "shed", "id", "ill", "im"} & CONTRACTIONS.keys()


def question(number: int, answers: list[str]) -> Row:
    return {
        "question_id": number, "image_id": f"i{number // 2}", "question": f"what is written on number {number}?",
        "answers": answers,
    }  # fmt: skip


RECORDS = [
    question(0, ["nokia"] * 4 + ["Nokia phone"] * 6),
    question(1, ["ten"] * 10),
    question(2, ["stop"] * 2 + ["go"] * 8),
]
TEXTS = {"0": "Nokia", "1": "10", "2": "stop"}  # 1, 1 and 0.6


def test_official_file_through_all_stages(tmp_path: Path) -> None:
    file = tmp_path / "TextVQA_0.5.1_val.json"
    file.write_text(json.dumps({"data": RECORDS}))
    images = drawn_images(tmp_path / "images", ["i0.jpg", "i1.jpg"])
    data = FileDataset(kind="textvqa", path=str(file), images=str(images))
    table = through_the_stages(tmp_path, "textvqa", data, TEXTS)
    row = table.row(0, named=True)
    assert (row["metric"], row["value"], row["n"]) == ("accuracy", pytest.approx(2.6 / 3), 3)


def test_p_acc_is_this_accuracy_where_the_policy_looks_well(tmp_path: Path) -> None:
    """AFRs of 1, 4 and 7 have mean 4; only the last question is above it, and its answer scores
    0.6.
    """
    file = tmp_path / "TextVQA_0.5.1_val.json"
    file.write_text(json.dumps({"data": RECORDS}))
    images = drawn_images(tmp_path / "images", ["i0.jpg", "i1.jpg"])
    data = FileDataset(kind="textvqa", path=str(file), images=str(images))
    through_the_stages(tmp_path, "textvqa", data, TEXTS)
    looked = [
        {"example_id": i, "size": [8, 6], "grid": [1, 1], "attention": [1.0], "afr": afr, "layer_afr": [afr], "image_share": [0.5],
         "reason": None}
        for i, afr in zip(TEXTS, (1.0, 4.0, 7.0), strict=True)
    ]  # fmt: skip
    write_table(tmp_path / "attention.parquet", ATTENTION, looked, {})
    settings = {
        **BENCHMARKS["textvqa"].settings,
        "dataset": "d",
        "reward": "r",
        "n": 0,
        "resamples": 20,
        "attention_map": "a",
    }
    evaluate.run(
        policy="base", base="base", rewards={"b": tmp_path / "rewards.parquet"}, base_rewards=None,
        attention={"b": tmp_path / "attention.parquet"}, base_attention=None, metrics=tmp_path / "metrics.parquet",
        benchmarks={"b": BenchmarkBlock(**settings, protocol="textvqa", views=("original",))}, model=MODEL,
        reward_tasks={"r": {"open": "vqa_accuracy"}}, examples={"d": tmp_path / "examples.parquet"},
    )  # fmt: skip
    table = read_table(tmp_path / "metrics.parquet", METRICS).to_pylist()
    found = {row["metric"]: (row["value"], row["n"]) for row in table if row["condition"] == "attention"}
    assert found["p_accuracy"] == (pytest.approx(0.6), 1)
    assert found["afr"] == (pytest.approx(4), 3)


def rows() -> list[Row]:
    return [{"id": str(n), "question": r["question"], "answer": r["answers"][0], **r} for n, r in enumerate(RECORDS)]


def test_invariants() -> None:
    answers = answered("textvqa", rows(), list(TEXTS.values()))
    assert values("textvqa", shuffled(answers, 3)) == pytest.approx(values("textvqa", answers))
    perfect = answered("textvqa", rows(), ["nokia phone", "ten", "go"])
    assert values("textvqa", perfect)["accuracy"] == pytest.approx(1)
    nothing = answered("textvqa", rows(), ["", None, "a"])
    assert values("textvqa", nothing)["accuracy"] == 0
    assert failures("textvqa", nothing, "accuracy") == (3, 3)


def test_other_numbers_of_answers_are_no_vqa_accuracy() -> None:
    with pytest.raises(UserError, match="a question has 3 `answers`, expected 10"):
        answered("textvqa", [{**rows()[0], "answers": ["a"] * 3}], ["a"])
    bare = answered("textvqa", [{k: v for k, v in rows()[0].items() if k != "answers"}], ["nokia"])
    assert bare[0].components["accuracy"] == 1  # the reward still separates right from wrong
    assert math.isnan(values("textvqa", bare)["accuracy"])
