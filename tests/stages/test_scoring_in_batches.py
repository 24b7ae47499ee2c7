"""Scoring and selection read tables in batches: the same results for any batch, and bounded memory."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from perceptune.contracts.config import RewardBlock, SelectionBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.rewards import component_lists
from perceptune.core.answers.boxes import parse_box
from perceptune.core.rewards.reward import Answers, Scores
from perceptune.stages.preferences import score
from perceptune.stages.preferences.batches import whole_requests

from ..plugins import REWARDS
from .scored_tables import Tables, example, request

TASKS = {"grounding": "iou_threshold", "existence": "yes_no", "counting": "exact_match", "ocr": "edit_distance"}
BLOCK = RewardBlock(tasks=TASKS, max_failed_share=1.0)  # type: ignore[arg-type]
WORDS = [
    "[0.1, 0.1, 0.5, 0.5]",
    "[0.5 0.5 0.9 0.9]",
    "yes",
    "No,",
    "3",
    "é",
    '"',
    "<think>",
    "</think>",
    " ",
    "(.1,.2),(.3,.4)",
]


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """60 questions of four tasks with up to six answers each, of which some are missing."""
    draw = random.Random(0)
    rows, asked = [], []
    for number in range(60):
        task = draw.choice(list(TASKS))
        box = [10.0, 10, 50, 50] if task == "grounding" else None
        target = None if box else draw.choice(["yes", "no", "3", "é"])
        width = draw.choice([100, 200])
        rows.append(example(str(number), task, box=box, target=target, image_sizes=[[width, 100]]))
        texts = [None if draw.random() < 0.05 else "".join(draw.choices(WORDS, k=draw.randint(0, 3))) for _ in range(6)]
        asked.append((request(str(number), 6), texts[: draw.randint(1, 6)]))
    return Tables(tmp_path_factory.mktemp("messy"), rows, asked)


@pytest.mark.parametrize("batch", [3, 100])
def test_the_table_is_the_same_for_any_batch(messy: Tables, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    whole = messy.rewards(BLOCK)
    monkeypatch.setattr(score, "BATCH", batch)
    assert messy.rewards(BLOCK).equals(whole)


def test_each_answer_is_scored_as_if_it_were_alone(messy: Tables) -> None:
    sizes = {row["example_id"]: row["image_sizes"][0] for row in pq.read_table(messy["examples"]).to_pylist()}
    places = [(row["request_id"], row["sample_index"]) for row in pq.read_table(messy["responses"]).to_pylist()]
    rows = messy.rewards(BLOCK).to_dicts()
    assert [(row["request_id"], row["sample_index"]) for row in rows] == places
    for row in rows:
        if row["answer"] is None:
            assert not row["reward"] and row["parsed"] is None and row["reason"]
            continue
        box = np.array([[10.0, 10, 50, 50]]) if row["task"] == "grounding" else np.full((1, 4), np.nan)
        alone = REWARDS[TASKS[row["task"]]](
            Answers([row["answer"]], [row["target"]], box, np.array([sizes[row["example_id"]]], float), "padded_square")
        )
        assert (row["reward"], row["reason"]) == (alone.rewards[0], alone.reasons[0])
        assert {c["name"]: c["value"] for c in row["components"]} == {k: v[0] for k, v in alone.components.items()}
        assert (row["parsed"] and json.loads(row["parsed"])) == next(iter(alone.parsed))
        if row["task"] == "grounding":
            found = parse_box(row["answer"])
            assert (found and list(found)) == (row["parsed"] and json.loads(row["parsed"])["box"])


def test_missing_responses_are_counted_over_all_batches(messy: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = messy.rewards(BLOCK)["text"].null_count()
    monkeypatch.setattr(score, "BATCH", 10)
    messy.rewards(BLOCK.model_copy(update={"max_failed_share": 0.0, "max_failed_rows": missing}))
    with pytest.raises(UserError, match=f"{missing} of [0-9]+ responses are missing, at most {missing - 1} rows may"):
        messy.rewards(BLOCK.model_copy(update={"max_failed_share": 0.0, "max_failed_rows": missing - 1}))


def test_source_columns_belong_to_their_answers_and_are_read_only_if_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worth(answers: Answers) -> Scores:
        values = np.array([source["worth"] for source in answers.each_source()])
        return Scores(values, list(answers.texts), {"correct": values}, [None] * len(values))

    rows = [example(str(n), "counting", target="1", source=json.dumps({"worth": n / 10})) for n in range(9)]
    tables = Tables(tmp_path, rows, [(request(str(n), 2), ["1", "2"]) for n in reversed(range(9))])
    monkeypatch.setattr(score, "BATCH", 3)
    block = RewardBlock(tasks={"counting": "exact_match"})
    with monkeypatch.context() as unread:
        unread.setattr(score.Asked, "_sources", property(lambda _: pytest.fail("source columns are read")))
        tables.rewards(block)
    reward = replace(load("reward", "exact_match"), score=worth)
    monkeypatch.setattr(score, "load", lambda kind, name: reward if kind == "reward" else load(kind, name))
    assert tables.rewards(block)["reward"].to_list() == [n / 10 for n in reversed(range(9)) for _ in range(2)]


def in_groups_of(path: Path, rows: int) -> None:
    pq.write_table(pq.read_table(path), path, row_group_size=rows)


def plain_lists(table: pl.DataFrame, block: SelectionBlock) -> Iterator[tuple[list[str], str | None]]:
    """Texts of each ranked list, and why it is dropped; without `max_groups`."""
    for _, part in table.group_by("request_id", maintain_order=True):
        answers = [(-r["reward"], r["sample_index"], r["text"]) for r in part.to_dicts() if r["reward"] is not None]
        distinct = sorted({text: (reward, at, text) for reward, at, text in reversed(answers)}.values())
        if len(distinct) < 2:
            yield [text for *_, text in distinct], "one distinct answer" if distinct else "no scored answer"
            continue
        margin = distinct[-1][0] - distinct[0][0]
        low = (
            "all rewards equal"
            if margin == 0
            else f"margin below {block.min_margin:g}"
            if margin < block.min_margin
            else None
        )
        yield [text for *_, text in distinct], low


def test_lists_are_the_same_for_any_row_groups(messy: Tables, tmp_path: Path) -> None:
    table = messy.rewards(BLOCK)
    for max_groups in (None, 5):
        block = SelectionBlock(min_margin=0.3, max_groups=max_groups)
        rows, counted = messy.preferences(block)
        if max_groups is None:
            assert [([r["text"] for r in row["responses"]], row["reason"]) for row in rows] == list(
                plain_lists(table, block)
            )
        for name, size in (("rewards", 40), ("responses", 50), ("requests", 7)):
            in_groups_of(messy[name], size)
        assert messy.preferences(block) == (rows, counted)
        assert counted["kept"] == (max_groups or counted["kept"]) == sum(row["kept"] for row in rows)
        messy.rewards(BLOCK)


def test_tables_that_do_not_belong_together_are_reported(tmp_path: Path) -> None:
    rows = [example(name, "existence", target="yes") for name in "ab"]
    asked: list[tuple[dict[str, Any], list[str | None]]] = [(request(name, 2), ["yes", "no"]) for name in "ab"]
    tables = Tables(tmp_path, rows, asked)
    tables.rewards()
    Tables(tmp_path, rows, asked[::-1])
    with pytest.raises(UserError, match=r"the rows of the `responses` table `.*` are not those of"):
        tables.preferences(SelectionBlock(min_margin=0.5))
    assert not tables["preferences"].exists()
    write_table(tables["requests"], REQUESTS, [asked[0][0]], {})
    with pytest.raises(UserError, match=r"requests\.parquet` has no request `mine/b/original/sampled`, which has"):
        tables.rewards()


@pytest.mark.parametrize("sizes", [[9], [1] * 9, [2, 3, 4], [4, 0, 5]])
def test_batches_do_not_split_requests(sizes: list[int]) -> None:
    table = pa.table({"request_id": list("aabbbbccd"), "n": list(range(9))})
    starts = np.cumsum([0, *sizes])
    batches = [table.slice(start, size) for start, size in zip(starts, sizes, strict=False)]
    found = list(whole_requests(batches))
    assert pl.concat(found).rows() == list(zip("aabbbbccd", range(9), strict=True))
    seen = [name for part in found for name in part["request_id"].unique()]
    assert sorted(seen) == list("abcd")
    assert not list(whole_requests([]))


@pytest.mark.parametrize("names", [[], ["iou"], ["b", "a"]])
def test_components_become_lists_of_names_and_values(names: list[str]) -> None:
    columns = {name: np.array([0.5, np.inf, 2.0]) + place for place, name in enumerate(names)}
    rows = [[{"name": name, "value": columns[name][row]} for name in names] for row in range(3)]
    assert component_lists(columns, 3).to_pylist() == rows


MEASURED = """
import resource, sys
from pathlib import Path
from perceptune.contracts.config import ModelBlock, RewardBlock, SelectionBlock
from perceptune.stages.preferences import score, select

score.BATCH = 2000
peaks = []
for folder in map(Path, sys.argv[1:]):
    tables = {name: folder / f"{name}.parquet" for name in ("requests", "responses", "rewards")}
    block = RewardBlock(tasks={"grounding": "iou"})
    score.run(**tables, examples={"mine": folder / "examples.parquet"}, config=block, model=ModelBlock(path="nowhere", family="llava"))
    select.run(**tables, preferences=folder / "p.parquet", statistics=folder / "s.json", config=SelectionBlock(min_margin=0.1))
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(*peaks)
"""


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    """As one dict per answer, the second table would take 500 MB."""
    for name, count in (("few", 2000), ("many", 60_000)):
        (tmp_path / name).mkdir()
        rows = [example(str(n), "grounding", box=[10.0, 10, 50, 50]) for n in range(count // 20)]
        texts: list[str | None] = [f"[0.1, 0.{n + 1:02d}, 0.5, 0.5]" for n in range(20)]
        tables = Tables(tmp_path / name, rows, [(request(row["example_id"], 20), texts) for row in rows])
        in_groups_of(tables["responses"], 2000)
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "few"), str(tmp_path / "many")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    few, many = map(float, done.stdout.splitlines()[-1].split())
    assert many < few + 200  # the row groups that are being written
