"""Shards of responses to one table."""

from pathlib import Path

import pytest
from perceptune.contracts.config import BatchBlock
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.stages.preferences import select_batch
from perceptune.stages.sampling import gather, responses

from .scored_tables import MODEL, ROWS, Tables, example, request, response


def test_gathering_keeps_the_order_of_requests_and_refuses_lost_rows(tmp_path: Path) -> None:
    asked = [request(str(i), 2) for i in range(5)]
    Tables(
        tmp_path, [example(str(i), "grounding", box=[0.0, 0, 1, 1]) for i in range(5)], [(r, ["a", "b"]) for r in asked]
    )
    shards = []
    for shard in range(2):
        shards.append(tmp_path / f"shard-{shard}.parquet")
        rows = [response(r, i, "x") for r in asked[shard::2] for i in range(2)]
        write_table(shards[-1], RESPONSES, rows, {})
    target = tmp_path / "gathered.parquet"
    gather.run(requests=tmp_path / "requests.parquet", shards=shards, responses=target, journal=tmp_path / "journal")
    table = read_table(target, RESPONSES).to_pylist()
    assert [r["request_id"] for r in table] == [r["request_id"] for r in asked for _ in range(2)]
    assert [r["sample_index"] for r in table] == [0, 1] * 5
    with pytest.raises(ValueError, match="has 0 answers, expected 2; 2 such requests"):
        gather.run(
            requests=tmp_path / "requests.parquet", shards=shards[:1], responses=target, journal=tmp_path / "journal"
        )


def test_a_round_without_requests_has_empty_tables(tmp_path: Path) -> None:
    """Rounds after the one in which training stopped ask nothing."""
    tables = Tables(tmp_path, ROWS, [])
    responses.run(
        requests=tables["requests"], examples={"mine": tables["examples"]}, responses=tables["shard"], journal=tmp_path / "journal",
        model=MODEL, weights="w", adapter=None, shard=0, shards=1,
    )  # fmt: skip
    gather.run(
        requests=tables["requests"],
        shards=[tables["shard"]],
        responses=tables["responses"],
        journal=tmp_path / "journal",
    )
    assert tables.rewards().is_empty()
    names = ("requests", "responses", "rewards", "preferences")
    select_batch.run(
        **{name: tables[name] for name in names}, statistics=tmp_path / "statistics.json", config=BatchBlock()
    )
    assert read_table(tables["preferences"], PREFERENCES).num_rows == 0
