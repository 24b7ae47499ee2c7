"""Imports: many rows, many images, large images, images inside Parquet files.

python benchmarks/importing.py
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from before_now import Row, main
from PIL import Image

LONG_AGO = 1_700_000_000
"""Date of input files: recently changed ones are read again."""


def image_files(folder: Path, images: int) -> None:
    """Small PNG files, all different, 1,000 in each folder."""
    for number in range(images):
        file = folder / named(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 48)).save(file)
        os.utime(file, (LONG_AGO, LONG_AGO))


def named(number: int) -> str:
    return f"images/{number // 1000}/{number}.png"


def json_lines(folder: Path, rows: int, images: int) -> None:
    """A row per line; several share an image, far apart."""
    with (folder / "data.jsonl").open("w") as file:
        for row in range(rows):
            split = "test" if row % 20 == 0 else "train"
            example = {"image": named(row % images), "question": f"Locate object {row}.", "box": [1, 2, 30, 40]}
            file.write(json.dumps({**example, "task": "grounding", "split": split}) + "\n")
    os.utime(folder / "data.jsonl", (LONG_AGO, LONG_AGO))


def jpeg(width: int, height: int) -> bytes:
    """Noise of this size."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=92)
    return file.getvalue()


def parquet(folder: Path, images: int) -> None:
    """JPEG files of 87 kB in one row group, as `pyarrow` writes it. Bytes after the end of a JPEG file
    make them different."""
    image, kind = jpeg(344, 256), pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "image": pa.array([{"bytes": image + number.to_bytes(4), "path": None} for number in range(images)], kind),
        "question": [f"What is {number}?" for number in range(images)],
        "answer": ["noise"] * images,
        "task": ["open"] * images,
    }
    pq.write_table(pa.table(columns), folder / "data.parquet")
    os.utime(folder / "data.parquet", (LONG_AGO, LONG_AGO))


def imported(folder: Path, file: str) -> None:
    """Imports a file, without facts of images from earlier imports."""
    from perceptune.contracts.config import FileDataset
    from perceptune.stages.data import import_examples

    os.chdir(folder)
    block = FileDataset(kind=Path(file).suffix[1:], path=file)
    import_examples.run(config=block, examples=Path("results/examples/own.parquet"))


def prepare_lines(folder: Path, rows: int, images: int) -> None:
    image_files(folder, images)
    json_lines(folder, rows, images)


def prepare_shared(folder: Path, rows: int, megapixels: int) -> None:
    (folder / "images/0").mkdir(parents=True)
    (folder / named(0)).write_bytes(jpeg(1000 * megapixels // 3, 3000))
    json_lines(folder, rows, 1)


def work_parquet(folder: Path, images: int) -> None:
    imported(folder, "data.parquet")


def work_lines(folder: Path, **_: Any) -> None:
    imported(folder, "data.jsonl")


ROWS = [
    Row(
        "import images inside a Parquet file",
        parquet,
        work_parquet,
        {"images": 8000},
        {"images": 1500},
        "500 MB",
    ),
    Row(
        "import rows that share image files",
        prepare_lines,
        work_lines,
        {"rows": 1_000_000, "images": 50_000},
        {"rows": 50_000, "images": 2500},
        "each image opened once, 500 MB",
    ),
    Row(
        "import rows that share a JPEG of 12 megapixels",
        prepare_shared,
        work_lines,
        {"rows": 200, "megapixels": 12},
        {"rows": 50, "megapixels": 12},
        "decoded once",
    ),
]

if __name__ == "__main__":
    main(ROWS)
