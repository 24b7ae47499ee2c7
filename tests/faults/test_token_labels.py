"""A judge's labels of tokens, from a judge that misbehaves: nothing is asked twice, and what cannot be
mapped is counted."""

import json
from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.config import AgreementBlock, JudgeBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.agreements import AGREEMENTS
from perceptune.contracts.tables.io import read_lineage, read_table, write_table
from perceptune.contracts.tables.labelled_tokens import LABELLED_TOKENS
from perceptune.contracts.tables.selected import SELECTED
from perceptune.engines import judging
from perceptune.stages.evaluation import label_tokens, measure_agreement

from .judge_server import MODEL, serving

COUNT = 6


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six answers `A red cube N.` whose selection is `red` and the number, and one without a selection."""
    monkeypatch.setattr(judging, "FIRST_WAIT", 0.02)
    rows = []
    for number in range(COUNT + 1):
        tokens = ["A", " red", " cube", f" {number}", ".", "</s>"]
        zeros = [0.0] * len(tokens)
        some = number < COUNT
        rows.append({
            "group_id": str(number), "example_id": str(number), "sample_index": 0, "question": f"What {number}?", "reward": 1.0,
            "tokens": tokens, "entropies": zeros, "removed_entropies": zeros, "scores": zeros,
            "selected": [False, some, False, some, False, False], "random": [some, False, some, False, False, False],
        })  # fmt: skip
    write_table(tmp_path / "selected.parquet", SELECTED, rows, {})
    return tmp_path


def labelled(folder: Path, url: str, timeout: float = 30.0, **config: Any) -> list[dict[str, Any]]:
    judge = JudgeBlock(model="stub", url=url, retries=2, timeout=timeout, concurrency=1)
    label_tokens.run(
        name="stub", judge=judge, config=block(**config), selected=folder / "selected.parquet",
        labelled=folder / "labelled.parquet", kept=folder / "kept",
    )  # fmt: skip
    return read_table(folder / "labelled.parquet", LABELLED_TOKENS).to_pylist()


def agreed(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Part and metric to row, without counts."""
    measure_agreement.run(
        agreement="a", config=block(), judge="stub", agreements=folder / "a.parquet",
        labelled=folder / "labelled.parquet", policy="cppo@4",
    )  # fmt: skip
    rows = read_table(folder / "a.parquet", AGREEMENTS).to_pylist()
    return {(row["part"], row["metric"]): row for row in rows if row["metric"] != "count"}


def block(**config: Any) -> AgreementBlock:
    return AgreementBlock(tokens="cppo", judge="stub", resamples=99, **config)


def words(body: dict[str, Any], number: int) -> str:
    return '["red cube"]'


def test_labels_are_compared_with_both_selections(folder: Path) -> None:
    """Of `red cube`, the selection has one token and a wrong one; so has the random selection."""
    with serving() as server:
        server.say = lambda body, number: (
            "No image." if number == 1 else '["blue"]' if number == 2 else words(body, number)
        )
        rows = labelled(folder, server.url)
        assert labelled(folder, server.url) == rows
        assert len(server.asked) == len(rows) == COUNT  # nothing is selected in the seventh
    assert "Answer:\nA red cube 0.\n" in server.asked[0]["messages"][0]["content"]
    assert [row["reason"] for row in rows[:3]] == [
        "the verdict has no JSON list of texts",
        "`blue` is not in the answer",
        None,
    ]
    assert [row["labels"] for row in rows[1:3]] == [None, [False, True, True, False, False, False]]
    assert (rows[2]["precision"], rows[2]["recall"], rows[2]["f1"], rows[1]["f1"]) == (0.5, 0.5, 0.5, None)
    assert rows[2]["kappa"] == pytest.approx((4 / 6 - 20 / 36) / (1 - 20 / 36))
    assert rows[2]["random_f1"] == 0.5
    found = agreed(folder)
    assert (found["selected", "f1"]["value"], found["selected", "f1"]["n"], found["selected", "f1"]["n_unread"]) == (
        0.5,
        4,
        2,
    )
    assert (found["difference", "f1"]["value"], found["difference", "f1"]["ci_low"]) == (0.0, 0.0)
    assert (found["random", "kappa"]["source"], found["random", "kappa"]["judge"]) == ("cppo@4", "stub")
    counts = [row for row in read_table(folder / "a.parquet", AGREEMENTS).to_pylist() if row["metric"] == "count"]
    assert [(row["label"], row["other_label"], row["value"]) for row in counts if row["part"] == "selected"] == [
        ("perception", "selected", 4), ("perception", "not selected", 4), ("other", "selected", 4), ("other", "not selected", 12),
    ]  # fmt: skip
    assert (rows[0]["model"], read_lineage(folder / "a.parquet")["parameters"]["policy"]) == (MODEL, "cppo@4")


def test_a_limit_draws_answers_by_seed(folder: Path) -> None:
    def drawn(**config: Any) -> list[str]:
        return [row["group_id"] for row in labelled(folder, server.url, **config)]

    with serving() as server:
        server.say = words
        four, three = drawn(limit=4), drawn(limit=3)
        assert (len(four), len(three), len(server.asked)) == (4, 3, 4)
        assert set(three) < set(four)  # a larger limit keeps what is paid for
        assert any(set(drawn(limit=3, seed=seed)) != set(three) for seed in (1, 2, 3))


def test_without_a_readable_verdict_there_are_reasons_instead_of_numbers(folder: Path) -> None:
    with serving() as server:
        server.say = lambda body, number: "I cannot see the image."
        labelled(folder, server.url)
    row = agreed(folder)["selected", "f1"]
    assert (row["value"], row["n"], row["n_unread"], row["reason"]) == (None, 0, COUNT, "no answers with labels")


@pytest.mark.parametrize("fault", ["500", "garbage", "empty"])
def test_what_is_paid_for_is_kept_and_a_rerun_asks_the_rest(folder: Path, fault: str) -> None:
    with serving(lambda number: "fine" if number <= 2 else fault) as server:
        server.say = words
        with pytest.raises(UserError, match=f"2 of {COUNT} verdicts are stored; rerun to request only the others"):
            labelled(folder, server.url)
        assert not (folder / "labelled.parquet").exists()
        server.asked.clear()
        server.behave = lambda number: "fine"
        rows = labelled(folder, server.url)
        assert len(server.asked) == COUNT - 2
    assert all(row["labels"] for row in rows)


def test_a_list_that_is_cut_off_counts_as_unreadable(folder: Path) -> None:
    with serving(lambda number: "cut off" if number == 1 else "fine") as server:
        server.say = lambda body, number: json.dumps(["cube"])
        rows = labelled(folder, server.url)
    assert [row["labels"] is None for row in rows] == [True] + [False] * (COUNT - 1)
