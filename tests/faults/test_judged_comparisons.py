"""Comparisons and agreement with a judge that misbehaves: clear errors, and nothing is asked twice."""

import json
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from perceptune.contracts.config import AgreementBlock, ComparisonBlock, JudgeBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables.agreements import AGREEMENTS
from perceptune.contracts.tables.compared import COMPARED
from perceptune.contracts.tables.comparisons import COMPARISONS
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_lineage, read_table, write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.contracts.tables.verdicts import VERDICTS
from perceptune.core.benchmarks.benchmark import Answered
from perceptune.core.comparisons.rubrics import Pair
from perceptune.engines import judging
from perceptune.stages.evaluation import judge_comparison, measure_agreement, measure_comparison
from perceptune.stages.evaluation.judged_answers import Questions, answered

from .judge_server import BLOCK, MODEL, Server, serving, write_answers

COUNT = 6
POLICIES = {"policies": ("one", "other"), "benchmark": "b", "judge": "stub", "resamples": 99}
PAIRS = {"experiment": "e", "judge": "stub", "rubric": "grades", "resamples": 99}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Answers of two policies to six questions; short waits."""
    monkeypatch.setattr(judging, "FIRST_WAIT", 0.02)
    for policy, text in (("one", "A good answer"), ("other", "Another answer")):
        (tmp_path / policy).mkdir()
        write_answers(tmp_path / policy, COUNT, text)
    return tmp_path


def write_pairs(folder: Path, count: int = COUNT) -> None:
    """A focus pair about each of some questions, every third of which the filter drops."""
    examples, groups = [], []
    for number in range(count):
        given = [{"text": f"Person's good {number}", "reward": 1.0}, {"text": "Person's bad", "reward": 0.0}]
        examples.append({
            "example_id": str(number), "task": "open", "question": f"Question {number}?", "images": [], "image_sha256": [],
            "image_hashes": [], "image_sizes": [], "target": "t", "box": None, "split": "train",
            "source": json.dumps({"answers_given": given}), "reason": None,
        })  # fmt: skip
        texts = {"focus_chosen": f"A good answer {number}", "focus_rejected": f"Another answer {number}"}
        kept = number % 3 != 0
        pair = {
            "kind": "focus", "chosen": 0, "rejected": 1, "ppl_chosen": 1.5, "ppl_rejected": 1.5, "margin": 0.0, "ips": 0.0,
            "kept": kept, "reason": None if kept else "perplexity",
        }  # fmt: skip
        groups.append({
            "group_id": str(number), "example_id": str(number), "request_id": "r", "task": "open", "view": "original", "messages": [],
            "responses": [{"sample_index": 0, "text": t, "token_ids": [1], "reward": 0.0, "role": r} for r, t in texts.items()],
            "views": [], "pairs": [pair, {**pair, "kind": "robust", "margin": None, "kept": False}], "numbers": [], "kept": kept,
            "reason": None,
        })  # fmt: skip
    write_table(folder / "examples.parquet", EXAMPLES, examples, {})
    write_table(folder / "preferences.parquet", PREFERENCES, groups, {})


def judged(folder: Path, url: str, config: dict[str, Any], name: str = "stub", **settings: Any) -> list[dict[str, Any]]:
    """The verdicts of the judge at `url`."""
    judge = JudgeBlock(
        **{"model": name, "url": url, "retries": 2, "timeout": 30.0, "concurrency": 1, **settings},
    )
    of_pairs = "experiment" in config
    judge_comparison.run(
        name=name, judge=judge, config=ComparisonBlock(**config), compared=folder / f"{name}.parquet", kept=folder / f"kept-{name}",
        block=None if of_pairs else BLOCK, preferences=folder / "preferences.parquet" if of_pairs else None,
        rewards=None if of_pairs else (folder / "one/rewards.parquet", folder / "other/rewards.parquet"),
        examples=folder / ("examples.parquet" if of_pairs else "one/examples.parquet"),
    )  # fmt: skip
    return read_table(folder / f"{name}.parquet", COMPARED).to_pylist()


def measured(folder: Path, config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Metric to row of the comparison with the verdicts of `stub`."""
    measure_comparison.run(
        comparison="c",
        config=ComparisonBlock(**config),
        comparisons=folder / "c.parquet",
        compared=folder / "stub.parquet",
    )
    return {row["metric"]: row for row in read_table(folder / "c.parquet", COMPARISONS).to_pylist()}


def content(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"])


def prefers_good(body: dict[str, Any], number: int) -> str:
    """Prefers `A good answer`, wherever it stands."""
    return "A" if "Answer A:\nA good" in content(body) else "B"


@contextmanager
def judge(say: Any, behave: Any = lambda number: "fine") -> Iterator[Server]:
    with serving(behave) as server:
        server.say = say
        yield server


def test_two_policies_are_compared(folder: Path) -> None:
    with judge(prefers_good) as server:
        rows = judged(folder, server.url, POLICIES)
        assert judged(folder, server.url, POLICIES) == rows
    assert len(server.asked) == COUNT  # no request was repeated
    assert [row["outcome"] for row in rows] == ["win"] * COUNT
    assert {row["one_first"] for row in rows} == {True, False}
    for body in server.asked:
        assert "What the image shows:\nCat, Mat" in content(body)
        assert "A reference answer:\nReference" in content(body)
    found = measured(folder, POLICIES)
    assert (found["win_rate"]["value"], found["win"]["count"], found["lose"]["count"]) == (1.0, COUNT, 0)
    assert (found["win_rate"]["n"], found["win_rate"]["n_failed"]) == (COUNT, 0)
    assert found["win_rate"]["judge"] == f"stub: {MODEL}"
    assert (found["win_rate"]["one"], found["win_rate"]["other"], found["win_rate"]["source"]) == ("one", "other", "b")
    shown = sum(row["one_first"] for row in rows)
    assert found["first_preferred"]["value"] == pytest.approx(shown / COUNT)
    assert read_lineage(folder / "stub.parquet")["parameters"]["judge"]["model"] == "stub"


def test_both_orders_measure_a_preferred_place(folder: Path) -> None:
    config = {**POLICIES, "orders": "both"}
    with judge(lambda body, number: "A") as server:
        rows = judged(folder, server.url, config)
    assert len(server.asked) == len(rows) == 2 * COUNT
    found = measured(folder, config)
    assert (found["first_preferred"]["value"], found["win_rate"]["value"]) == (1.0, 0.5)
    assert (found["consistent"]["count"], found["consistent"]["of"]) == (0, COUNT)


def test_a_limit_draws_questions_by_seed(folder: Path) -> None:
    def drawn(**config: Any) -> list[str]:
        return [row["example_id"] for row in judged(folder, server.url, {**POLICIES, **config})]

    with judge(prefers_good) as server:
        four, three = drawn(limit=4), drawn(limit=3)
        assert (len(four), len(three), len(server.asked)) == (4, 3, 4)
        assert set(three) < set(four)  # a larger limit keeps what is paid for
        assert len(drawn(limit=99)) == COUNT
        assert any(set(drawn(limit=3, seed=seed)) != set(three) for seed in (1, 2, 3))


@pytest.mark.parametrize("limit", [None, 5])
@pytest.mark.parametrize("config", [POLICIES, PAIRS], ids=["policies", "pairs"])
def test_pairs_are_never_all_in_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], limit: int | None
) -> None:
    """The table does not depend on the size of the batches, nor on the order of the other policy's table."""
    count, counts, batches = 24, [0], [0]
    write_pairs(folder, count)
    for policy, text in (("one", "A good answer"), ("other", "Another answer")):
        write_answers(folder / policy, count, text)
    turned = read_table(folder / "other/rewards.parquet", REWARDS).to_pylist()[::-1]
    write_table(folder / "other/rewards.parquet", REWARDS, turned, {})

    def counted(*values: Any) -> Pair:
        pair = Pair(*values)
        counts.append(counts[-1] + 1)
        weakref.finalize(pair, lambda: counts.append(counts[-1] - 1))
        return pair

    def noted(rows: pl.DataFrame, questions: Questions) -> list[Answered]:
        batches.append(rows.height)
        return answered(rows, questions)

    monkeypatch.setattr(judge_comparison, "Pair", counted)
    monkeypatch.setattr(judge_comparison, "answered", noted)
    monkeypatch.setattr(judge_comparison, "AT_ONCE", 4)
    asked = {**config, "limit": limit}
    with judge(prefers_good) as server:
        rows = judged(folder, server.url, asked)
        assert max(counts) <= 8
        assert max(batches) <= 4
        monkeypatch.setattr(judge_comparison, "AT_ONCE", 1024)
        assert judged(folder, server.url, asked) == rows
    by_hash = sorted(map(str, range(count)), key=lambda one: derived_seed("questions", 0, one))
    drawn = set(by_hash[:limit])
    assert [row["example_id"] for row in rows] == [str(number) for number in range(count) if str(number) in drawn]
    for body in server.asked:
        number = content(body).partition("Question ")[2].partition("?")[0]
        assert f"A good answer {number}\n" in content(body)
        assert f"Another answer {number}\n" in content(body)


def test_missing_and_equal_answers_need_no_judge(folder: Path) -> None:
    write_answers(folder / "other", COUNT, "A good answer")  # the same as those of `one`
    with judge(prefers_good) as server:
        rows = judged(folder, server.url, POLICIES)
        assert not server.asked
        assert {(row["outcome"], row["reason"], row["key"]) for row in rows} == {("tie", "equal answers", "")}
        found = measured(folder, POLICIES)
        assert (found["win_rate"]["value"], found["first_preferred"]["of"]) == (0.5, 0)
        judged(folder, server.url, {**POLICIES, "rubric": "grades"})
        assert len(server.asked) == COUNT  # they have grades


def test_pairs_are_graded_against_the_answers_of_people(folder: Path) -> None:
    """P2-DPO's appendix G.1: 1 and 2 are invalid, by the lowest grade and by a lower one; 0 and 3 are
    dropped, of which none is invalid; 4 cannot be read."""
    write_pairs(folder)
    grades = {0: (3, 2), 1: (1, 1), 2: (2, 3), 3: (2, 2), 4: (4, 1), 5: (3, 1)}

    def say(body: dict[str, Any], number: int) -> str:
        text = content(body)
        chosen, rejected = grades[int(text.partition("Person's good ")[2][0])]
        first = "Answer A:\nA good" in text
        return "A: {}\nB: {}".format(*((chosen, rejected) if first else (rejected, chosen)))

    with judge(say) as server:
        rows = judged(folder, server.url, PAIRS)
    assert len(server.asked) == COUNT  # the robust pairs have no two answers
    assert "A good answer:\nPerson's good" in content(server.asked[0])
    assert "A bad answer:\nPerson's bad" in content(server.asked[0])
    assert [(row["grade"], row["other_grade"]) for row in rows] == [
        (3, 2),
        (1, 1),
        (2, 3),
        (2, 2),
        (None, None),
        (3, 1),
    ]
    assert rows[4]["reason"] == "the verdict cannot be read"
    found = measured(folder, PAIRS)
    assert (found["invalid"]["count"], found["invalid"]["of"], found["invalid"]["n_failed"]) == (2, 5, 1)
    assert (found["dropped"]["count"], found["invalid_of_dropped"]["value"]) == (2, 0.0)
    assert found["grade"]["value"] == pytest.approx((3 + 1 + 2 + 2 + 3) / 5)
    assert (found["win"]["one"], found["win"]["other"], found["win"]["source"]) == ("chosen", "rejected", "e")


@pytest.mark.parametrize("fault", ["500", "slow", "garbage", "cut json", "empty"])
def test_a_fault_that_passes_is_got_over(folder: Path, fault: str) -> None:
    with judge(prefers_good, lambda number: fault if number in (1, 4) else "fine") as server:
        rows = judged(folder, server.url, POLICIES, timeout=1.0 if fault == "slow" else 30.0)
        assert len(server.asked) == COUNT + 2
    assert [row["outcome"] for row in rows] == ["win"] * COUNT


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("500", "answered 500: `out of order`, 3 times"),
        ("slow", "gave no answer within 1 s, 3 times"),
        ("other json", "answered with no chat completion"),
        ("empty", "gave an empty verdict, 3 times"),
        ("401", "answered 401: `Incorrect API key"),
    ],
)
def test_what_is_paid_for_is_kept_and_a_rerun_asks_the_rest(folder: Path, fault: str, expected: str) -> None:
    with judge(prefers_good, lambda number: "fine" if number <= 2 else fault) as server:
        with pytest.raises(UserError) as caught:
            judged(folder, server.url, POLICIES, timeout=1.0 if fault == "slow" else 30.0)
        assert expected in str(caught.value)
        assert f"2 of {COUNT} verdicts are stored; rerun to request only the others" in str(caught.value)
        assert not (folder / "stub.parquet").exists()
        server.asked.clear()
        server.behave = lambda number: "fine"
        rows = judged(folder, server.url, POLICIES)
        assert len(server.asked) == COUNT - 2
    assert [row["outcome"] for row in rows] == ["win"] * COUNT


def test_a_verdict_that_says_nothing_counts_as_unreadable(folder: Path) -> None:
    """It is a verdict: at temperature 0 it would be the same again."""
    with judge(lambda body, number: "I cannot see the image." if number == 2 else "C") as server:
        judged(folder, server.url, POLICIES)
    found = measured(folder, POLICIES)
    assert (found["tie"]["count"], found["tie"]["of"], found["tie"]["n"], found["tie"]["n_failed"]) == (5, 5, 6, 1)


def agreed(folder: Path, **config: Any) -> list[dict[str, Any]]:
    block = AgreementBlock(**config, resamples=99)
    of_comparison = {"compared": folder / "stub.parquet"} if block.comparison else {"block": ERRORS, "view": "original"}
    tables: dict[str, Any] = {"people": Path(block.labels)} if block.labels else {}
    if block.judge and block.comparison:
        tables["second"] = folder / "second.parquet"
    if block.benchmark:
        tables["verdicts"] = {p: folder / f"{p}/verdicts.parquet" for p in ("one", "other")}
    measure_agreement.run(
        agreement="a", config=block, judge="stub", agreements=folder / "a.parquet", **of_comparison, **tables
    )
    return read_table(folder / "a.parquet", AGREEMENTS).to_pylist()


ERRORS = BLOCK.model_copy(update={"protocol": "papo_eval", "variant": "errors"})


def test_two_judges_are_compared_on_the_same_pairs(folder: Path) -> None:
    with judge(prefers_good) as server:
        judged(folder, server.url, POLICIES)
        server.say = lambda body, number: prefers_good(body, number) if number % 2 else "tie"
        server.asked.clear()
        judged(folder, server.url, POLICIES, "second")
        assert len(server.asked) == COUNT  # the second judge has verdicts of its own
    found = {(row["metric"], row["other_label"]): row for row in agreed(folder, comparison="c", judge="second")}
    raw = found["agreement", None]
    assert (raw["value"], raw["n"], raw["n_unread"], raw["judge"], raw["other"]) == (0.5, COUNT, 0, "stub", "second")
    assert (found["count", "win"]["value"], found["count", "tie"]["value"]) == (3, 3)
    assert found["kappa", None]["value"] == 0  # one judge always says the same


def test_a_judge_is_compared_with_people(folder: Path) -> None:
    """PAPO's kinds of errors of two policies; three answers have labels, one by its verdict's key."""
    for policy, kinds in (("one", ["perception", "reasoning"]), ("other", ["perception", "unclear"])):
        rows = [
            {
                "request_id": f"r{i}", "sample_index": 0, "example_id": str(i), "view": "original", "condition": "greedy",
                "key": f"{policy}{i}", "text": kind, "model": MODEL, "reason": None,
            }
            for i, kind in enumerate(kinds)
        ]  # fmt: skip
        write_table(folder / policy / "verdicts.parquet", VERDICTS, rows, {})
    (folder / "people.csv").write_text(
        "example_id,policy,key,label\n0,one,,perception\n1,one,,Other\n,,other1,calculation\n"
    )
    rows = agreed(folder, benchmark="b", labels=str(folder / "people.csv"))
    found = {(row["part"], row["metric"]): row for row in rows if row["metric"] != "count"}
    raw = found["all", "agreement"]
    assert (raw["value"], raw["n"], raw["n_unread"], raw["n_unlabelled"], raw["other"]) == (0.5, 2, 1, 1, "people")
    assert found["other", "agreement"]["reason"] == "no answers with two labels"
    assert [
        (row["label"], row["other_label"]) for row in rows if row["metric"] == "count" and row["part"] == "all"
    ] == [
        ("perception", "perception"),
        ("reasoning", "other"),
    ]
    (folder / "people.csv").write_text("example_id,label\nnowhere,perception\n")
    with pytest.raises(
        UserError, match=r"has no label of any of the 4 answers with a verdict of `stub`\nhint: rows need"
    ):
        agreed(folder, benchmark="b", labels=str(folder / "people.csv"))
