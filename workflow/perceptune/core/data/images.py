"""Opening images: any sane file becomes RGB pixels, anything else a `ValueError` with its reason."""

from __future__ import annotations

import hashlib
import io
import stat
import warnings
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

MAX_BYTES = 256 * 2**20
"""Larger image files are refused before they are read."""

MAX_PIXELS = 100_000_000
"""Images with more pixels than this are refused: a decompression bomb, or nothing that a model could look at."""

# Pillow's own limit stays as well: it alone sees the image inside an ICO or ICNS file before that is decoded

UPRIGHT_BY = range(2, 9)
"""EXIF orientations of images that are stored turned or mirrored; 1 is upright."""

REFUSED_FORMATS = {"EPS", "IPTC"}
"""To open an EPS file is to run the program that it is; an IPTC file can wrap one."""


def open_image(image: Mapping[str, Any]) -> Image.Image:
    """The pixels of an image struct (`bytes` or `path`): RGB, upright, loaded; of an animation the first frame.

    Transparency is laid on white. Deep greyscale is scaled to 8 bits, not clipped (`_white`).
    Raises `ValueError` saying what is wrong with the file.
    """
    return _decoded(image_bytes(image))[0]


def image_bytes(image: Mapping[str, Any]) -> bytes:
    """The encoded file of an image struct; `ValueError` when it is absent or unreadable."""
    if image.get("bytes") is not None:
        return bytes(image["bytes"])
    path = Path(image["path"])
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # a named pipe would be waited for for ever, a device has no end
            raise ValueError("it is no regular file")
        if facts.st_size > MAX_BYTES:
            raise ValueError(f"the file has {facts.st_size:,} bytes, at most {MAX_BYTES:,} are accepted")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError("the file does not exist") from None
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from None


class ImageFacts(NamedTuple):
    """What is known of an image that could be opened."""

    sha256: str
    """Of the encoded file, hexadecimal."""
    size: tuple[int, int]
    """Width and height of the upright image, in pixels."""
    turned: bool
    """Whether it is stored in another orientation (turned or mirrored), as EXIF says."""


def image_facts(image: Mapping[str, Any]) -> ImageFacts:
    """The facts of an image struct, which is fully decoded on the way; `ValueError` as of `open_image`."""
    data = image_bytes(image)
    opened, turned = _decoded(data)
    return ImageFacts(hashlib.sha256(data).hexdigest(), opened.size, turned)


def _decoded(data: bytes) -> tuple[Image.Image, bool]:
    """The upright image, and whether it had to be turned for that."""
    if not data:
        raise ValueError("the file is empty")
    try:
        with _SILENCE, Image.open(io.BytesIO(data)) as image:
            if image.format in REFUSED_FORMATS:
                raise _RefusedError(f"{image.format} files may run programs, expected another format")
            if image.width * image.height > MAX_PIXELS:
                raise _RefusedError(f"{image.width} x {image.height} pixels, at most {MAX_PIXELS:,} are accepted")
            image.load()
            turned = image.getexif().get(ExifTags.Base.Orientation) in UPRIGHT_BY
            return _rgb(ImageOps.exif_transpose(image)), turned
    except UnidentifiedImageError:
        raise ValueError("the file is no image that Pillow can read") from None
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except (
        Exception
    ) as error:  # Pillow's decoders raise nearly everything on hostile files: struct.error, IndexError, ...
        raise ValueError(f"the image is damaged: {_brief(error)}") from None


class _RefusedError(Exception):
    """A readable image that is not accepted."""


class _Silence:
    """No warnings from the first thread that enters to the last that leaves.

    `warnings.catch_warnings` sets the filters of the whole process: threads that overlap restore one another's, and every
    later warning of the process is lost.
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
    """The value that means white: the type's own, or where the type does not say, the smallest usual one that holds `highest`."""
    if mode.startswith("I;16") or highest > 255:
        return 65535.0
    return 1.0 if mode == "F" and highest <= 1 else 255.0
