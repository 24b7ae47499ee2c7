"""Small files in official layouts, with drawn placeholder images, through the import stage."""

import io
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table
from perceptune.stages.data import import_examples
from PIL import Image

Imported = Callable[..., list[dict[str, Any]]]


def draw(path: Path, size: tuple[int, int] = (64, 48)) -> None:
    """An image of this size; its colour depends on its name, so that no two images are equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = zlib.crc32(path.name.encode()) % 2**24
    Image.new("RGB", size, (colour % 256, colour // 256 % 256, colour // 65536)).save(path)


def drawn(size: tuple[int, int] = (64, 48), shade: int = 0) -> Image.Image:
    """An image for a Parquet file."""
    return Image.new("RGB", size, (shade, shade, shade))


def encoded(size: tuple[int, int] = (64, 48)) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    drawn(size).save(file, "PNG")
    return file.getvalue()


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], **features: Any) -> Path:
    """As `datasets` uploads it, with embedded images; `features` casts columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = datasets.Dataset.from_list(list(rows))
    for name, feature in features.items():
        data = data.cast_column(name, feature)
    data.to_parquet(str(path))
    return path


@pytest.fixture
def imported(tmp_path: Path) -> Imported:
    """The rows of the examples table, with parsed `source`."""

    def run(kind: str, path: Path, **settings: Any) -> list[dict[str, Any]]:
        block = FileDataset(
            kind=kind, path=str(path), **{k: str(v) if k == "images" else v for k, v in settings.items()}
        )
        import_examples.run(config=block, examples=tmp_path / "examples.parquet")
        table = read_table(tmp_path / "examples.parquet", EXAMPLES).to_pylist()
        return [{**row, "source": json.loads(row["source"] or "{}")} for row in table]

    return run


@pytest.fixture
def mistakes(imported: Imported) -> Callable[..., str]:
    """The message of a failed import."""

    def run(*args: Any, **settings: Any) -> str:
        with pytest.raises(UserError) as caught:
            imported(*args, **settings)
        return str(caught.value)

    return run
