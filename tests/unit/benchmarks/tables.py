"""Files in the published formats of the mathematical benchmarks, with drawn images."""

import base64
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(number: int = 0) -> bytes:
    """The bytes of a small image whose colour depends on its number."""
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (number % 251, number // 251, 77)).save(file, "PNG")
    return file.getvalue()


def embedded(number: int = 0) -> dict[str, Any]:
    """An image as the Hugging Face `Image` feature stores it."""
    return {"bytes": picture(number), "path": f"{number}.png"}


def in_base64(number: int = 0) -> str:
    """An image as VLMEvalKit's TSV files store it."""
    return base64.b64encode(picture(number)).decode()


def write_tsv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
    return path


def drawn_names(folder: Path, names: Sequence[str]) -> None:
    """Images with these names in a folder."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number))
