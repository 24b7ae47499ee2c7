"""Unusual images: damaged or hostile files fail their row with one reason; odd ones give the right
pixels."""

import io
import json
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table
from perceptune.core.data.images import MAX_BYTES, open_image
from perceptune.stages.data import import_examples
from PIL import Image

GOOD = 3
"""Valid rows around every invalid one."""


def encoded(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    random = np.random.default_rng(0)
    picture = image or Image.fromarray(random.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def cut(kind: str, share: float = 0.5) -> bytes:
    data = encoded(kind)
    return data[: int(len(data) * share)]


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file with these chunks."""
    made = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        made += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return made


def header(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def wrapped(inner: bytes) -> dict[str, bytes]:
    """The same PNG as a 16 x 16 image in an ICO and in an ICNS file."""
    directory = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22)
    entry = b"icp4" + struct.pack(">I", 8 + len(inner)) + inner
    return {"ico": directory + inner, "icns": b"icns" + struct.pack(">I", 8 + len(entry)) + entry}


ROW = zlib.compress(b"\0" + b"\0" * 3)
BOMB = png(header(60000, 60000), (b"IDAT", ROW), (b"IEND", b""))
FILES: dict[str, tuple[bytes, str]] = {
    "empty.png": (b"", "the file is empty"),
    "cut.png": (cut("PNG"), "the image is damaged"),
    "cut.jpg": (cut("JPEG"), "the image is damaged"),
    "cut.gif": (cut("GIF"), "the image is damaged"),
    "cut.webp": (cut("WEBP"), "the image is damaged|not an image that Pillow can read"),
    "cut.bmp": (cut("BMP"), "the image is damaged"),
    "cut.tiff": (cut("TIFF"), "the image is damaged|not an image that Pillow can read"),
    "cut.ppm": (cut("PPM"), "the image is damaged"),
    "nearly.jpg": (cut("JPEG", 0.9), "the image is damaged"),
    "nearly.png": (cut("PNG", 0.97), "the image is damaged"),
    "signature.png": (b"\x89PNG\r\n\x1a\n", "the image is damaged|not an image that Pillow can read"),
    "start.jpg": (b"\xff\xd8", "not an image that Pillow can read|damaged"),
    "text.png": (b"this is no image", "not an image that Pillow can read"),
    "page.jpg": (b"<html><body>404 not found</body></html>", "not an image that Pillow can read"),
    "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image that Pillow can read"),
    "paper.pdf": (b"%PDF-1.7\n", "not an image that Pillow can read"),
    "noise.png": (np.random.default_rng(1).bytes(500), "not an image that Pillow can read"),
    "zeros.png": (bytes(500), "not an image that Pillow can read"),
    "crc.png": (flipped(encoded("PNG"), 20), "the image is damaged|not an image that Pillow can read"),
    "data.png": (flipped(encoded("PNG"), 400), "the image is damaged"),
    "riff.webp": (b"RIFF\x24\0\0\0WEBPVP8 " + bytes(24), "the image is damaged|not an image that Pillow can read"),
    "no-data.png": (png(header(8, 8), (b"IEND", b"")), "the image is damaged"),
    "flat.png": (png(header(0, 0), (b"IDAT", ROW), (b"IEND", b"")), "damaged|not an image that Pillow can read"),
    "bomb.ico": (wrapped(BOMB)["ico"], "decompression bomb"),
    "bomb.icns": (wrapped(BOMB)["icns"], "decompression bomb"),
    "bomb.png": (BOMB, "3600000000 pixels|60000 x 60000 pixels|damaged"),
    "big.png": (png(header(12000, 12000), (b"IDAT", ROW), (b"IEND", b"")), "12000 x 12000 pixels, expected at most 100,000,000"),
    "bomb.gif": (b"GIF89a" + struct.pack("<HH", 65000, 65000) + b"\0\0\0,\0\0\0\0" + struct.pack("<HH", 65000, 65000) + b"\0\x02", "65000 x 65000 pixels|damaged"),
    "bomb.bmp": (b"BM" + bytes(8) + struct.pack("<IIiiHHIIIIII", 54, 40, 50000, 50000, 1, 24, 0, 0, 0, 0, 0, 0), "50000 x 50000 pixels|damaged"),
    "program.eps": (encoded("EPS"), "EPS files may run programs, expected another format"),
    "program.png": (encoded("EPS"), "EPS files may run programs, expected another format"),
    "comment.png": (
        png(header(1, 1), (b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000))), (b"IDAT", ROW), (b"IEND", b"")), "its text or colour profile has more than 64 MiB"
    ),
}  # fmt: skip


def imported(folder: Path, rows: list[dict[str, object] | str], **settings: object) -> pl.DataFrame:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    config = FileDataset(kind="jsonl", path=str(folder / "data.jsonl"), **{"max_failed_share": 1.0, **settings})  # type: ignore[arg-type]
    import_examples.run(config=config, examples=folder / "examples.parquet")
    return pl.DataFrame(pl.from_arrow(read_table(folder / "examples.parquet", EXAMPLES)))


def row(image: object) -> dict[str, object]:
    return {"image": image, "question": "what?", "task": "open"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with valid images, inside a folder with an image that is not part of the data."""
    (tmp_path / "secret.png").write_bytes(encoded("PNG"))
    data = tmp_path / "data"
    data.mkdir()
    for number in range(GOOD):
        (data / f"{number}.png").write_bytes(encoded("PNG"))
    return data


def refused(folder: Path, image: object, reason: str) -> None:
    """The row fails with its reason and the others stay; if no failures are allowed, the stage
    stops with one line.
    """
    rows = [row("0.png"), row(image), row("1.png"), row("2.png")]
    table = imported(folder, rows)
    assert table["reason"].is_null().to_list() == [True, False, True, True]
    pattern = f"`image.*({reason})|image `.*`: .*({reason})|({reason})"
    assert pl.Series([table["reason"][1]]).str.contains(pattern).all(), table["reason"][1]
    with pytest.raises(UserError) as caught:
        imported(folder, rows, max_failed_share=0.0)
    assert "1 of 4 rows cannot be used, at most a share of 0 may fail\n  data.jsonl, line 2: " in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_one_reason(folder: Path, name: str) -> None:
    data, reason = FILES[name]
    (folder / name).write_bytes(data)
    refused(folder, name, reason)


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "x")


def _directory(folder: Path) -> None:
    (folder / "x").mkdir()


def _loop(folder: Path) -> None:
    (folder / "x").symlink_to("x")


def _dangling(folder: Path) -> None:
    (folder / "x").symlink_to("nowhere.png")


def _leaving(folder: Path) -> None:
    (folder / "x").symlink_to(folder.parent / "secret.png")


def _leaving_folder(folder: Path) -> None:
    (folder / "sub").symlink_to(folder.parent)


def _huge(folder: Path) -> None:
    with (folder / "x").open("wb") as file:
        file.truncate(MAX_BYTES + 1)


def _nothing(folder: Path) -> None: ...


@pytest.mark.parametrize(
    ("make", "image", "reason"),
    [
        (_pipe, "x", "not a regular file"),
        (_directory, "x", "not a regular file"),
        (_nothing, ".", "not a regular file"),
        (_nothing, "no.png", "the file does not exist"),
        (_nothing, "no/such/folder/x.png", "the file does not exist"),
        (_nothing, "0.png/x", "the file does not exist|cannot be read"),
        (_loop, "x", "symbolic link"),
        (_dangling, "x", "the file does not exist"),
        (
            _leaving,
            "x",
            r"image `x` is a link to `.*/secret\.png`, outside of the image folder .*: a copy, or a hard link",
        ),
        (_leaving_folder, "sub/secret.png", "is a link to `.*/secret.png`, outside of the image folder"),
        (_nothing, "../secret.png", "leaves the image folder .*key `images`"),
        (_nothing, "sub/../../secret.png", "leaves the image folder .*key `images`"),
        (_nothing, "/etc/passwd", "leaves the image folder .*key `images`"),
        (_nothing, "/dev/zero", "leaves the image folder .*key `images`"),
        (_nothing, "a\0b.png", "is not a valid file name"),
        (_nothing, "x" * 5000, "cannot be read|is not a valid file name"),
        (_huge, "x", "bytes, expected at most"),
        (_nothing, "file:///etc/passwd", "is a URL; URLs are not downloaded"),
        (_nothing, "http://host/x.png", "is a URL; URLs are not downloaded"),
        (_nothing, "~/x.png", "does not exist"),
        (_nothing, "", "expected a path"),
        (_nothing, 7, "expected a path"),
        (_nothing, {"path": ""}, "expected a path"),
        (_nothing, {"path": 7}, "expected a path"),
        (_nothing, {"bytes": 7}, "expected a path"),
        (_nothing, ["0.png"], "expected a path"),
        (_nothing, True, "expected a path"),
        (_nothing, "\ud800.png", "is not a valid file name"),
        (_nothing, "a\nb.png", r"image `a\\nb\.png`: the file does not exist"),
        (_nothing, "\x1b[31m\u202e\r.png", r"image `\\x1b\[31m\\u202e\\r\.png`: the file does not exist"),
        (_nothing, "../\n" * 100, "leaves the image folder"),
    ],
)
def test_a_bad_path_is_one_reason(folder: Path, make: Callable[[Path], None], image: object, reason: str) -> None:
    make(folder)
    refused(folder, image, reason)


def colour(data: bytes, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    return open_image({"bytes": data, "path": None}).getpixel(at)  # type: ignore[return-value]


def solid(mode: str, value: object, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new(mode, size, value)  # type: ignore[arg-type]


def _palette() -> Image.Image:
    image = solid("P", 1)
    image.putpalette([0, 0, 0, 10, 200, 30] + [0] * 762)
    return image


def _rotated() -> bytes:
    """64 x 48 as stored, to be displayed rotated: left half red."""
    image = solid("RGB", "blue", (64, 48))
    image.paste("red", (0, 0, 32, 48))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    return encoded("PNG", image, exif=exif)


ODD: dict[str, tuple[bytes, tuple[int, int, int], int]] = {
    "CMYK JPEG": (encoded("JPEG", solid("CMYK", (0, 255, 255, 0))), (254, 0, 0), 2),
    "CMYK TIFF": (encoded("TIFF", solid("CMYK", (255, 0, 0, 0))), (0, 255, 255), 0),
    "16-bit PNG": (encoded("PNG", Image.fromarray(np.full((8, 8), 32768, np.uint16))), (128, 128, 128), 1),
    "32-bit TIFF": (encoded("TIFF", solid("I", 65535)), (255, 255, 255), 0),
    "float TIFF": (encoded("TIFF", solid("F", 128.0)), (128, 128, 128), 0),
    "float TIFF of shares": (encoded("TIFF", solid("F", 0.5)), (127, 127, 127), 0),
    "16-bit TIFF, big end first": (encoded("TIFF", Image.frombytes("I;16B", (8, 8), b"\x33\x33" * 64)), (51, 51, 51), 0),
    "1-bit PNG": (encoded("PNG", solid("1", 1)), (255, 255, 255), 0),
    "grey PNG": (encoded("PNG", solid("L", 77)), (77, 77, 77), 0),
    "palette PNG": (encoded("PNG", _palette()), (10, 200, 30), 0),
    "palette with transparency": (encoded("PNG", _palette(), transparency=1), (255, 255, 255), 0),
    "grey and alpha": (encoded("PNG", solid("LA", (0, 0))), (255, 255, 255), 0),
    "half transparent": (encoded("PNG", solid("RGBA", (0, 0, 0, 128))), (127, 127, 127), 1),
    "animated GIF": (encoded("GIF", solid("RGB", "red"), save_all=True, append_images=[solid("RGB", "blue")]), (255, 0, 0), 1),
    "animated WebP": (encoded("WEBP", solid("RGB", "red"), save_all=True, lossless=True, append_images=[solid("RGB", "blue")]), (255, 0, 0), 0),
    "animated PNG": (encoded("PNG", solid("RGB", "red"), save_all=True, append_images=[solid("RGB", "blue")]), (255, 0, 0), 0),
    "TIFF of two pages": (encoded("TIFF", solid("RGB", "red"), save_all=True, append_images=[solid("RGB", "blue")]), (255, 0, 0), 0),
    "progressive JPEG": (encoded("JPEG", solid("RGB", (200, 30, 40)), progressive=True, quality=95), (200, 30, 40), 3),
    "YCbCr JPEG": (encoded("JPEG", solid("YCbCr", (128, 128, 128))), (128, 128, 128), 2),
    "LAB TIFF": (encoded("TIFF", solid("LAB", (255, 128, 128))), (255, 255, 255), 1),
    "one pixel": (encoded("PNG", solid("RGB", "red", (1, 1))), (255, 0, 0), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_image_has_the_right_pixels(name: str) -> None:
    data, expected, tolerance = ODD[name]
    assert all(abs(a - b) <= tolerance for a, b in zip(colour(data), expected, strict=True)), colour(data)


LONG = b"x" * 3 * 2**20
TEXTS = {
    "compressed text": (b"zTXt", b"k\0\0" + zlib.compress(LONG)),
    "international text": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG)),
    "plain text": (b"tEXt", b"k\0" + LONG),
    "colour profile": (b"iCCP", b"p\0\0" + zlib.compress(LONG)),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_png_with_long_text_has_the_right_pixels(name: str) -> None:
    data = encoded("PNG", solid("RGB", (200, 30, 40)))
    kind, text = TEXTS[name]
    chunk = png((kind, text))[8:]
    assert colour(data[:33] + chunk + data[33:]) == (200, 30, 40)  # after the header


def test_orientation_in_a_long_text_is_applied() -> None:
    text = b'<x tiff:Orientation="6"/>' + LONG
    chunk = png((b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(text)))[8:]
    data = encoded("PNG", solid("RGB", "red", (64, 48)))
    assert open_image({"bytes": data[:33] + chunk + data[33:], "path": None}).size == (48, 64)


def test_all_shades_of_eight_bits_survive_sixteen() -> None:
    shades = np.arange(256, dtype=np.uint16).reshape(16, 16)
    opened = np.asarray(open_image({"bytes": encoded("PNG", Image.fromarray(shades * 257)), "path": None}))
    assert (opened == shades[..., None]).all()


def test_threads_that_open_images_leave_warnings_as_they_were() -> None:
    """Pillow warns about the first two images while 16 threads suppress warnings."""
    icon = wrapped(encoded("PNG", solid("RGB", "red", (32, 32))))["ico"]
    files = [encoded("PNG", solid("1", 1, (9600, 9500))), encoded("PNG", solid("L", 7, (64, 64))), icon]
    before = list(warnings.filters)
    with ThreadPoolExecutor(16) as pool:
        sizes = set(pool.map(lambda n: open_image({"bytes": files[n % 3], "path": None}).size, range(60)))
    assert sizes == {(9600, 9500), (64, 64), (32, 32)}
    assert list(warnings.filters) == before


def test_exif_rotation_is_applied_to_pixels_and_size(folder: Path) -> None:
    (folder / "x.png").write_bytes(_rotated())
    assert colour(_rotated(), (0, 0)) == colour(_rotated(), (47, 0)) == (255, 0, 0)
    assert colour(_rotated(), (0, 63)) == (0, 0, 255)
    assert imported(folder, [row("x.png")])["image_sizes"].to_list() == [[[48, 64]]]


@pytest.mark.parametrize(("orientation", "size"), [(3, (64, 48)), (6, (48, 64))])
def test_a_box_on_a_rotated_image_is_reported(
    orientation: int, size: tuple[int, int], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    (folder / "x.jpg").write_bytes(encoded("JPEG", exif=exif))
    box = {"task": "grounding", "box": [1, 2, 30, 40]}
    imported(folder, [{**row("0.png"), **box}, {**row("x.jpg"), **box, "image_size": size}, row("x.jpg")])
    warned = "warning: 1 of 2 boxes (first: line 2) are on images that are rotated by their EXIF orientation"
    assert warned in capsys.readouterr().out
    imported(folder, [{**row("0.png"), **box}, row("x.jpg")])
    assert "EXIF" not in capsys.readouterr().out


def test_annotations_of_an_image_as_it_is_stored(folder: Path) -> None:
    (folder / "x.png").write_bytes(_rotated())
    rows = [{**row("x.png"), "image_size": size} for size in ([48, 64], [64, 48], [32, 24])]
    first, stored, resized = imported(folder, rows)["reason"].to_list()
    assert first is None
    assert stored == (
        "the image has 48 x 64 pixels after applying its EXIF orientation, the annotations expect 64 x 48, as stored:"
        " boxes refer to the upright image; rotate the boxes, or remove the EXIF tag from the image"
    )
    assert "boxes are wrong on a resized image" in resized


def test_links_and_absolute_paths_inside_the_folder_are_fine(folder: Path, tmp_path: Path) -> None:
    (folder / "link.png").symlink_to("0.png")
    (tmp_path / "alias").symlink_to(folder)
    (folder / "küche – 1.png").write_bytes(encoded("PNG"))
    rows = [row(image) for image in ("link.png", str(folder / "1.png"), "sub/../2.png", "./0.png", "küche – 1.png")]
    (folder / "sub").mkdir()
    assert imported(folder, rows)["reason"].null_count() == len(rows)
    assert imported(tmp_path / "alias", rows)["reason"].null_count() == len(rows)


def test_the_key_images_says_where_images_may_lie(folder: Path, tmp_path: Path) -> None:
    table = imported(folder, [row("secret.png"), row(str(tmp_path / "data/0.png"))], images=str(tmp_path))
    assert table["reason"].null_count() == 2
