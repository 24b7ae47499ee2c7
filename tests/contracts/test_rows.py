"""Rows that are read when they are needed, against the whole table."""

import pickle
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables import io
from perceptune.contracts.tables.crops import CROPS
from perceptune.contracts.tables.io import Rows, read_table, write_table
from perceptune.contracts.tables.places import Places
from perceptune.contracts.tables.terms import TERMS
from perceptune.contracts.tables.training import TRAINING


def written(folder: Path, count: int, chance: random.Random) -> Path:
    rows = [
        {
            "group_id": f"g{number}", "term": "old", "view": "original", "entropies": None,
            "logprobs": [[chance.random() for _ in range(chance.randrange(4))] for _ in range(chance.randrange(3))],
        }
        for number in range(count)
    ]  # fmt: skip
    write_table(folder / "terms.parquet", TERMS, rows, {})
    return folder / "terms.parquet"


@pytest.mark.parametrize("count", [0, 1, 6, 7, 50])
def test_rows_are_those_of_the_table(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order, some of them repeatedly, and in a copy as for another process."""
    monkeypatch.setattr(io, "GROUP_ROWS", 7)
    chance = random.Random(count)
    path = written(tmp_path, count, chance)
    table = read_table(path, TERMS, ["group_id", "logprobs"])
    stored = table.to_pylist()
    for rows in (found := Rows(path, TERMS, ["group_id", "logprobs"]), pickle.loads(pickle.dumps(found))):
        assert len(rows) == count
        assert [rows[number] for number in range(count)] == stored
        asked = [chance.randrange(count) for _ in range(40)] if count else []
        assert rows.take(asked) == [stored[number] for number in asked]
        assert pa.concat_tables(rows.groups()) == table


def test_only_the_named_parts_of_a_column_are_read(tmp_path: Path) -> None:
    path = tmp_path / "nested.parquet"
    pq.write_table(pa.table({"a": [[{"x": 1, "y": "z"}], []], "b": [1, 2]}), path)
    kind = type("Kind", (), {"name": "nested", "schema": pq.read_schema(path)})()
    assert Rows(path, kind, ["a.list.element.x"]).take([1, 0]) == [{"a": []}, {"a": [{"x": 1}]}]


def test_tables_of_rows_that_are_fetched_have_small_groups(tmp_path: Path) -> None:
    path = written(tmp_path, 20_000, random.Random(0))
    metadata = pq.read_metadata(path)
    assert metadata.num_row_groups > 1
    assert all(metadata.row_group(n).total_byte_size < 2**20 for n in range(metadata.num_row_groups))


def test_another_file_is_named(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", TRAINING, [], {})
    (tmp_path / "text.parquet").write_text("no table")
    for name, said in (
        ("gone", "does not exist"),
        ("text", "is not readable as Parquet"),
        ("t", "is not a `crops` table"),
    ):
        with pytest.raises(UserError, match=rf"{name}\.parquet` {said}"):
            Rows(tmp_path / f"{name}.parquet", CROPS, ["box"])


@pytest.mark.parametrize("seed", range(5))
def test_places_are_those_of_a_dict(seed: int) -> None:
    chance = random.Random(seed)
    ids = list({"".join(chance.choices("aé\U0001f600/0", k=chance.randrange(4))) for _ in range(seed * 20)})
    chance.shuffle(ids)
    rows = chance.sample(range(1000), len(ids))
    cut = chance.randrange(len(ids) + 1)
    column = pa.chunked_array([ids[:cut], ids[cut:]], pa.string())
    places, numbered = Places(column, pa.array(rows, pa.uint64())), Places(column)
    for name in [*ids, "b", "aaaaa", "\U0001f600" * 9]:
        expected = dict(zip(ids, rows, strict=True)).get(name)
        assert places.find(name) == expected
        assert numbered.find(name) == (ids.index(name) if name in ids else None)
        if expected is None:
            with pytest.raises(KeyError):
                places[name]
        else:
            assert places[name] == expected
