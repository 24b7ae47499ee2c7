"""Examples before and after training: which examples to show, and images with boxes.

All text comes from models and users: invisible characters are spelled out, long text is truncated,
and the template escapes the result.
"""

from __future__ import annotations

import base64
import io
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
from PIL import Image

from perceptune.contracts.seeds import derived_seed

LONGEST_SIDE = 440
"""Maximum side length of an embedded image, in pixels."""
LARGEST = 40 * 1024
"""Maximum size of an embedded image in bytes; those with a larger PNG are embedded as JPEG."""
QUALITIES = (85, 70, 50, 30)
"""JPEG qualities, of which the first that is small enough is used, or the last."""

STYLE = """
/* boxes are drawn on photographs, which have no dark mode, so they keep the light palette */
.scene{--base:#6b7480;--s1:#0077bb;--s2:#e2661a;--s3:#d6246f;--s4:#1b95c5;--s5:#9a2b12;--truth:#007a6e;--rest:#858e99}
.scene rect{fill:none;vector-effect:non-scaling-stroke}
.scene .halo{stroke:#fff;stroke-opacity:.85}
.scene .outline{stroke:var(--c)}
.scene .truth.outline{stroke-dasharray:7 4}
.scene .pixels{image-rendering:pixelated}
.swatch.truth{background:repeating-linear-gradient(90deg,var(--c) 0 4px,transparent 4px 6px)}
"""
"""Of `annotated`, in addition to `svg.STYLE`."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Outline:
    """A box (x1, y1, x2, y2 in pixels of the original image) and its class in `svg.STYLE`."""

    box: Box
    style: str
    label: str


@dataclass(frozen=True)
class Choice:
    """One example of the gallery."""

    example_id: str
    group: str
    """`random`, `gain` or `loss`."""


def visible(text: str | None, limit: int = 600) -> str:
    """At most `limit` characters of `text`, with control and invisible characters spelled out.

    Line breaks and tabs stay. An escape character, a bidirectional override or a zero-width space
    becomes `\\x1b`, `\\u202e` or `\\u200b`, so that none can hide or reorder a model's answer. The
    number of truncated characters is appended.
    """
    if text is None:
        return ""
    spelled = "".join(c if c in "\n\t" or unicodedata.category(c) not in HIDDEN else _spelled(c) for c in text[:limit])
    return spelled if len(text) <= limit else f"{spelled}\u2026 ({len(text) - limit:,} more characters)"


def ground_truth(example: Mapping[str, Any] | None, target: str | None = None) -> str | None:
    """The answer of an example and its box in pixels, each on a line, as far as it has them; None if it
    has neither. `target` is the answer that rewards compared with, if it is known."""
    answer = target if target is not None or example is None else example["target"]
    box = None if example is None or not example["box"] else f"box {edges(example['box'])} in pixels"
    parts = [str(part) for part in (answer, box) if part is not None]
    return "\n".join(parts) if parts else None


def edges(box: Sequence[float]) -> str:
    """A box as text, with one decimal at most."""
    return f"[{', '.join(f'{round(edge, 1):g}' for edge in box)}]"


HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories of characters without a glyph."""


def pixel_box(parsed: str | None) -> Box | None:
    """The box of a parsed answer (JSON) in image pixels; None without four finite numbers."""
    try:
        value = json.loads(parsed or "null")
        box = tuple(float(v) for v in value["box_pixels"])
    except (ValueError, TypeError, KeyError, IndexError, OverflowError):
        return None
    return (box[0], box[1], box[2], box[3]) if len(box) == 4 and all(map(math.isfinite, box)) else None


def chosen(base: pl.DataFrame, after: pl.DataFrame | None, count: int, *seed: str) -> list[Choice]:
    """The examples to show: half of `count` at random, the rest the largest gains and losses.

    `base` and `after` have the columns `example_id` and `reward`, one answer per example. Without
    `after`, all examples are drawn at random. Gains and losses differ from 0, and no example is
    shown twice; if there are too few, more are drawn at random. Ties go to the smaller `example_id`.
    `seed` determines the draw.
    """
    ids = sorted(base["example_id"].unique().to_list())
    shuffled = Random(derived_seed("gallery", *seed)).sample(ids, len(ids))
    if after is None:
        return [Choice(example, "random") for example in shuffled[:count]]
    half = (count + 1) // 2
    both = base.select("example_id", before="reward").join(after.select("example_id", "reward"), on="example_id")
    both = both.unique("example_id", keep="first").with_columns(gain=pl.col("reward") - pl.col("before"))
    both = both.filter(~pl.col("example_id").is_in(shuffled[:half]))
    up = both.filter(pl.col("gain") > 0).sort("gain", "example_id", descending=[True, False])["example_id"].to_list()
    down = both.filter(pl.col("gain") < 0).sort("gain", "example_id")["example_id"].to_list()
    gains = up[: (count - half + 1) // 2]
    losses = down[: (count - half) // 2]
    special = {*gains, *losses}
    drawn = [e for e in shuffled if e not in special][: count - len(special)]
    groups = (("random", drawn), ("gain", gains), ("loss", losses))
    return [Choice(example, group) for group, examples in groups for example in examples]


def data_uri(image: Image.Image) -> str:
    """The image as a data URI, at most `LONGEST_SIDE`: PNG, or JPEG if the PNG is too large."""
    small = image.copy()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    data, kind = _encoded(small, "PNG"), "png"
    for quality in QUALITIES:
        if len(data) > LARGEST:
            data, kind = _encoded(small, "JPEG", quality=quality), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _encoded(image: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def heat_map(image: Image.Image, attention: np.ndarray) -> Image.Image:
    """The image in grey under a red overlay of the attention map.

    The opacity of the overlay is proportional to the attention (rows, columns) divided by its maximum.
    """
    grey = image.convert("L").convert("RGB")
    scaled = attention / max(float(attention.max()), 1e-12)
    mask = Image.fromarray(np.rint(scaled * 200).astype(np.uint8)).resize(image.size, Image.Resampling.BILINEAR)
    return Image.composite(Image.new("RGB", image.size, (226, 60, 20)), grey, mask)


def chosen_pairs(groups: pl.DataFrame, count: int, seed: str) -> list[str]:
    """The groups to show: half of `count` at random, half with the largest margin.

    `groups` has the columns `group_id` and `margin`. `seed` determines the draw. Ties go to the
    smaller `group_id`.
    """
    ids = sorted(groups["group_id"].to_list())
    drawn = Random(derived_seed("pairs", seed)).sample(ids, min(len(ids), (count + 1) // 2))
    rest = groups.filter(~pl.col("group_id").is_in(drawn)).sort("margin", "group_id", descending=[True, False])
    return [*drawn, *rest["group_id"].head(count - len(drawn))]


def annotated_image(image: Image.Image, outlines: Sequence[Outline], description: str) -> str:
    """The image with boxes as SVG that contains the image. See `annotated`."""
    return annotated(data_uri(image), image.size, outlines, description)


def annotated(href: str, size: tuple[int, int], outlines: Sequence[Outline], description: str) -> str:
    """The image at `href` with boxes as SVG; `size` is width and height in pixels, in which boxes are.

    Small images keep square pixels; the line width does not scale. Outlines are drawn in the given
    order. Each has a white halo, to be visible on any background, and is slightly thinner than the one
    below it, so that coinciding edges can be told apart.
    """
    width, height = size
    svg = ElementTree.Element("svg", {"class": "scene", "viewBox": f"0 0 {width} {height}", "role": "img"})
    ElementTree.SubElement(svg, "title").text = description
    picture = {"href": href, "width": str(width), "height": str(height), "preserveAspectRatio": "none"}
    if max(width, height) < LONGEST_SIDE:
        picture["class"] = "pixels"
    ElementTree.SubElement(svg, "image", picture)
    for edge in ("halo", "outline"):
        for i, outline in enumerate(outlines):
            x1, x2 = sorted((outline.box[0], outline.box[2]))
            y1, y2 = sorted((outline.box[1], outline.box[3]))
            place = {"x": x1, "y": y1, "width": max(x2 - x1, 0.01), "height": max(y2 - y1, 0.01)}
            drawn = {k: f"{v:.6g}" for k, v in place.items()}
            stroke = {"halo": 5.0, "outline": 3.0}[edge] - 0.4 * min(i, 4)
            rect = ElementTree.SubElement(
                svg, "rect", {**drawn, "class": f"{edge} {outline.style}", "stroke-width": f"{stroke:.1f}"}
            )
            ElementTree.SubElement(rect, "title").text = outline.label
    return ElementTree.tostring(svg, encoding="unicode")


def _spelled(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
