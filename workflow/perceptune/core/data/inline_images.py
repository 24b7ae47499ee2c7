"""Text in place of an image's path: an image in base64, a data URI, or a URL."""

from __future__ import annotations

import base64
import re

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
DATA_URI = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?P<parameters>(;[^;,]*)*),", re.IGNORECASE)
BEGINNINGS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "SUkqA", "TU0AK")
"""How PNG, JPEG, GIF, WebP and TIFF files begin in base64."""
SHORTEST = 64
"""Shorter text is a file name: no image is that small."""


def is_inline(text: str) -> bool:
    """Whether the text is an image's content, not its name."""
    if text[:5].lower() == "data:":
        return True
    return len(text) >= SHORTEST and text.startswith(BEGINNINGS) and "." not in text


def is_url(text: str) -> bool:
    """Whether the text is a URL, which is never downloaded."""
    return URL.match(text) is not None


def inline_image(text: str) -> bytes:
    """The encoded file in a text for which `is_inline` holds.

    Raises `ValueError` with what was found and what is expected.
    """
    payload, name = text, "base64"
    if text[:5].lower() == "data:":
        match = DATA_URI.match(text)
        if match is None or ";base64" not in match["parameters"].lower():
            raise ValueError("a data URI without base64, expected `data:image/...;base64,...`")
        payload, name = text[match.end() :], "a data URI"
    try:
        return base64.b64decode("".join(payload.split()), validate=True)
    except ValueError as error:
        raise ValueError(f"{name} that cannot be decoded: {error}") from None
