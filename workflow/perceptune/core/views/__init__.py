"""Views by name: ways of showing an example's images. A new one is a file here, a test, and a line in the dict."""

from __future__ import annotations

from collections.abc import Callable

from PIL.Image import Image

from perceptune.core.views.blank import blank
from perceptune.core.views.original import original

VIEWS: dict[str, Callable[[list[Image]], list[Image]]] = {"blank": blank, "original": original}
"""Takes and gives RGB images; same pixels on every machine."""
