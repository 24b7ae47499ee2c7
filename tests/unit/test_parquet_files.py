"""Parquet files are read with and without the images in them."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from perceptune.core.data.parquet_files import UNREAD, parquet_rows

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
INSIDE, NAMED = {"bytes": b"image", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}
COLUMNS: dict[str, tuple[pa.DataType, list[list[Any]]]] = {
    "struct": (IMAGE, [[INSIDE, INSIDE], [NAMED, NAMED], [INSIDE, NAMED], [INSIDE, None]]),
    "list": (pa.list_(IMAGE), [[[INSIDE], [INSIDE, INSIDE]], [[NAMED], [INSIDE]], [[INSIDE], []], [[INSIDE], None]]),
    "bytes": (pa.binary(), [[b"image", b"image"], [b"image", None]]),
    "only": (pa.struct([("bytes", pa.binary())]), [[{"bytes": b"image"}, None]]),
    "several": (pa.list_(pa.binary()), [[[b"image"], []]]),
}


def blanked(value: Any) -> Any:
    """The value with `UNREAD` for all bytes."""
    match value:
        case bytes():
            return UNREAD
        case list():
            return [blanked(one) for one in value]
        case dict():
            return {key: blanked(one) for key, one in value.items()}
    return value


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(("name", "number"), [(n, i) for n, (_, c) in COLUMNS.items() for i in range(len(c))])
def test_without_images_only_their_bytes_are_missing(name: str, number: int, large: bool, tmp_path: Path) -> None:
    kind, values = COLUMNS[name][0], COLUMNS[name][1][number]
    if large and name == "bytes":
        kind = pa.large_binary()
    columns = {"image": pa.array(values, kind), "question": pa.array(["q", "r"]), "other": pa.array([b"x", b"y"])}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=1 if large else 2)
    full = list(parquet_rows(tmp_path / "t.parquet"))
    assert [row["question"] for _, row in full] == ["q", "r"]
    assert [(place, blanked(row)) for place, row in full] == [
        (place, blanked(row)) for place, row in parquet_rows(tmp_path / "t.parquet", images=False)
    ]


def test_images_are_not_read_and_otherwise_in_batches(tmp_path: Path) -> None:
    """Peak memory of a process of its own: 200 MB of images in one row group."""
    image = bytes(range(256)) * 80
    table = pa.table({"image": pa.array([{"bytes": image, "path": "a.jpg"}] * 10, IMAGE), "id": list(range(10))})
    with pq.ParquetWriter(tmp_path / "t.parquet", table.schema, compression="none", use_dictionary=False) as writer:
        writer.write_table(pa.concat_tables(itertools.repeat(table, 1000)).combine_chunks())
    assert pq.read_metadata(tmp_path / "t.parquet").num_row_groups == 1
    code = """
import re, sys
from pathlib import Path
from perceptune.core.data.parquet_files import parquet_rows

def peak():  # unlike ru_maxrss, without that of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

peaks = [peak()]
for images in (False, True):
    assert sum(1 for _ in parquet_rows(Path(sys.argv[1]), images=images)) == 10_000
    peaks.append(peak())
print(peaks[1] - peaks[0], peaks[2] - peaks[0])
"""
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "t.parquet"], capture_output=True, text=True, check=True
    )
    without, with_images = map(float, run.stdout.split())
    assert without < 20
    assert with_images < 200
