"""Opening images: any valid file becomes RGB pixels, anything else a `ValueError` with a reason."""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from perceptune.core.data.signatures import GIT_LFS, mistaken

MAX_BYTES = 256 * 2**20
"""Larger image files are rejected before they are read."""

MAX_PIXELS = 100_000_000
"""Images with more pixels are rejected: decompression bombs, or far beyond what a model can use."""

# Pillow's own limit also stays active: only it sees the image inside an ICO or ICNS file before
# that is decoded.

PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
"""A single text or colour profile of a PNG file may have as many bytes as all of them together, 64
MiB, not only 1 MiB: Photoshop's history is longer. Orientation may be in such a text, so they are
read."""

UPRIGHT_BY = range(2, 9)
"""EXIF orientations of images that are stored rotated or mirrored; 1 is upright."""

REFUSED_FORMATS = {"EPS", "IPTC"}
"""An EPS file is a program, and opening it runs that program; an IPTC file can wrap one."""


def open_image(image: Mapping[str, Any]) -> Image.Image:
    """The image of a struct with `bytes` or `path`: RGB, upright, loaded, first frame only.

    Transparent images are composited onto white. Greyscale of more than 8 bits is scaled to 8 bits,
    not clipped (`_white`). Raises `ValueError` with the reason if the file is unusable.
    """
    return decoded(image_bytes(image))[0]


def image_bytes(image: Mapping[str, Any]) -> bytes:
    """The encoded file of an image struct. Raises `ValueError` if it is missing or unreadable."""
    if image.get("bytes") is not None:
        return bytes(image["bytes"])
    path = Path(image["path"])
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # reading a named pipe blocks forever, a device has no end
            raise ValueError("it is not a regular file")
        if facts.st_size > MAX_BYTES:
            raise ValueError(f"the file has {facts.st_size:,} bytes, expected at most {MAX_BYTES:,}")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError("the file does not exist") from None
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from None


def decoded(data: bytes) -> tuple[Image.Image, bool]:
    """The upright image of an encoded file, and whether it was stored in another orientation.

    Raises `ValueError` with the reason if the file is unusable.
    """
    if not data:
        raise ValueError("the file is empty")
    if mistaken(data) is GIT_LFS:
        raise ValueError(f"the file is {GIT_LFS.what}; {GIT_LFS.hint}")
    try:
        with _SILENCE, Image.open(io.BytesIO(data)) as image:
            if image.format in REFUSED_FORMATS:
                raise _RefusedError(f"{image.format} files may run programs, expected another format")
            if image.width * image.height > MAX_PIXELS:
                raise _RefusedError(f"{image.width} x {image.height} pixels, expected at most {MAX_PIXELS:,}")
            image.load()
            turned = image.getexif().get(ExifTags.Base.Orientation) in UPRIGHT_BY
            return _rgb(ImageOps.exif_transpose(image)), turned
    except UnidentifiedImageError:
        raise ValueError("the file is not an image that Pillow can read") from None
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except ValueError as error:
        if "MAX_TEXT" in str(error):
            most = PngImagePlugin.MAX_TEXT_MEMORY // 2**20
            raise ValueError(f"its text or colour profile has more than {most} MiB, remove it from the file") from None
        raise ValueError(f"the image is damaged: {_brief(error)}") from None
    except Exception as error:  # on hostile files, Pillow's decoders also raise struct.error, IndexError, ...
        raise ValueError(f"the image is damaged: {_brief(error)}") from None


class _RefusedError(Exception):
    """A readable image that is not accepted."""


class _Silence:
    """Suppress warnings from the first thread that enters until the last one leaves.

    `warnings.catch_warnings` sets the filters of the whole process: overlapping threads would
    restore each other's filters, and all later warnings of the process would be lost.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._threads = 0
        self._filters = warnings.catch_warnings(action="ignore")

    def __enter__(self) -> None:
        with self._lock:
            if not self._threads:
                self._filters = warnings.catch_warnings(action="ignore")
                self._filters.__enter__()
            self._threads += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self._filters.__exit__(None, None, None)


_SILENCE = _Silence()


def _brief(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        grey = image.convert("F")
        highest: Any = grey.getextrema()[1]
        white = _white(image.mode, highest)
        return grey.point(lambda value: value * (255.0 / white)).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _white(mode: str, highest: float) -> float:
    """The value of white: the mode's own, else the smallest usual one >= `highest`."""
    if mode.startswith("I;16") or highest > 255:
        return 65535.0
    return 1.0 if mode == "F" and highest <= 1 else 255.0
