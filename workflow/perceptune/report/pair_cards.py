"""The report's gallery of generated pairs: the views and the answers behind each pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup
from PIL.Image import Image

from perceptune.contracts.tables.attention import ATTENTION
from perceptune.contracts.tables.crops import CROPS
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe
from perceptune.report import gallery
from perceptune.report.read import SHOWN_COLUMNS, rows_of
from perceptune.stages.data.example_images import IllustratedExamples
from perceptune.stages.data.scans import scan

CAPTIONS = {
    "enhanced": "crop, share of the image area",
    "degraded": "crop erased, share of the image area",
    "noise": "noise, r.m.s.",
}
NUMBERS = {"clip_image": "image", "clip_crop": "crop", "clip_inverse": "inverse crop"}
"""CLIP scores of a group: cosine similarity of the question and each picture."""


@dataclass(frozen=True)
class Picture:
    """One of the pictures behind a group."""

    name: str
    """`original`, `attention`, or that of a view."""
    image: Image
    outlines: Sequence[gallery.Outline]
    caption: str


def pair_galleries(
    pairs: Mapping[str, Mapping[str, Path]], count: int
) -> Iterator[tuple[str, dict[str, list[dict[str, Any]]]]]:
    """Per label the cards of some groups, `count` in total: all views, and the answers.

    `random` cards are drawn at random, `margin` cards have the largest margins.
    """
    for i, (label, tables) in enumerate(pairs.items()):
        share = count // len(pairs) + (i < count % len(pairs))
        found = scan(tables["preferences"], PREFERENCES)
        chosen = gallery.chosen_pairs(_margins(found), share, label)
        rows = rows_of(found, chosen, "group_id")
        groups = [rows[group] for group in chosen]
        ids = [group["example_id"] for group in groups]
        known = IllustratedExamples(tables["examples"])
        examples = known.rows(ids, SHOWN_COLUMNS)
        attention, crops = (
            rows_of(scan(tables[name], kind) if name in tables else None, ids)
            for name, kind in (("attention", ATTENTION), ("crops", CROPS))
        )
        cards = [
            _pair_card(g, known, examples.get(e), attention.get(e), crops.get(e))
            for g, e in zip(groups, ids, strict=True)
        ]
        drawn = (share + 1) // 2  # `chosen_pairs` puts the random ones first
        yield label, {name: part for name, part in (("random", cards[:drawn]), ("margin", cards[drawn:])) if part}


def _margins(groups: pl.LazyFrame) -> pl.DataFrame:
    """Of each group with views, `group_id` and the largest absolute `margin`, 0 without any."""
    margin = pl.col("pairs").list.eval(pl.element().struct.field("margin").abs()).list.max()
    found = groups.filter(pl.col("views").list.len() > 0).select("group_id", margin=margin.fill_null(0.0))
    return found.collect(engine="streaming")


def _pair_card(
    group: Mapping[str, Any],
    known: IllustratedExamples,
    example: Mapping[str, Any] | None,
    attention: Mapping[str, Any] | None,
    crop: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """One group: pictures with captions, and the answers of each pair with their numbers."""
    texts = {response["role"]: response["text"] for response in group["responses"]}
    pictures, problem = _pair_pictures(group, known, example, attention, crop)
    scores = {n["name"]: n["value"] for n in group["numbers"] if n["value"] is not None}
    return {
        "id": gallery.visible(group["example_id"], 80),
        "question": gallery.visible(example["question"], 400) if example else "",
        "truth": gallery.visible(gallery.ground_truth(example), 200),
        "pictures": pictures,
        "problem": problem,
        "pairs": [_pair_of(pair, texts) for pair in group["pairs"]],
        "scores": ", ".join(f"{NUMBERS.get(name, name)} {_three(value)}" for name, value in scores.items()),
    }


def _pair_of(pair: Mapping[str, Any], texts: Mapping[str, str | None]) -> dict[str, Any]:
    """One pair: both answers with their perplexities, margin, IPS, and whether it is kept."""
    found = {role: texts.get(f"{pair['kind']}_{role}") for role in ("chosen", "rejected")}
    answers = [
        {
            "role": role,
            "text": gallery.visible(text, 300),
            "silent": text is None,
            "perplexity": _three(pair[f"ppl_{role}"]),
        }
        for role, text in found.items()
    ]
    numbers = [f"{title} {_three(pair[name])}" for name, title in (("margin", "margin"), ("ips", "IPS"))]
    verdict = "kept" if pair["kept"] else f"dropped: {gallery.visible(pair['reason'], 120) or 'no reason given'}"
    return {"kind": pair["kind"], "verdict": verdict, "kept": pair["kept"], "answers": answers, "numbers": numbers}


def _three(value: float | None) -> str:
    """A number with three decimals; pairs of identical answers have no IPS."""
    return "none" if value is None else f"{value:.3f}".replace("-", "\u2212")


def _pair_pictures(
    group: Mapping[str, Any],
    known: IllustratedExamples,
    example: Mapping[str, Any] | None,
    attention: Mapping[str, Any] | None,
    crop: Mapping[str, Any] | None,
) -> tuple[list[tuple[Markup, str]], str | None]:
    """(drawings with captions, None), or ([], reason) if there are none."""
    if example is None or not example["image_sha256"]:
        return [], "no image in the table"
    try:
        found = pair_pictures(group, known.images(example["example_id"]), example, attention, crop)
    except ValueError as error:
        return [], gallery.visible(str(error), 200)
    return [(Markup(gallery.annotated_image(p.image, p.outlines, p.caption)), p.caption) for p in found], None


def pair_pictures(
    group: Mapping[str, Any],
    images: Sequence[Image],
    example: Mapping[str, Any],
    attention: Mapping[str, Any] | None,
    crop: Mapping[str, Any] | None,
) -> list[Picture]:
    """What a group's answers were made from: the original image with its boxes, the attention map, and
    every view. `attention` and `crop` are the example's rows of these tables, if there are any.

    Raises `ValueError` if a view cannot be applied.
    """
    truth = [gallery.Outline(tuple(example["box"]), "truth", "ground truth")] if example["box"] else []
    crops = _crop_outlines(crop)
    found = [Picture("original", images[0], truth + crops, "original image")]
    if attention is not None and attention["attention"] is not None:
        grid = np.array(attention["attention"], dtype=float).reshape(attention["grid"])
        caption = f"attention, maximum {grid.max():.3f} per cell"
        if attention["afr"] is not None:
            caption += f"; focus ratio {attention['afr']:.2f}"
        found.append(Picture("attention", gallery.heat_map(images[0], grid), truth + crops[:1], caption))
    for view in group["views"]:
        picture = shown(Recipe.read(view["recipe"]), images)[-1 if view["view"] == "enhanced" else 0]
        caption = f"{CAPTIONS.get(view['view'], view['view'])} {view['strength']:.3f}"
        found.append(Picture(view["view"], picture, [], caption))
    return found


def _crop_outlines(crop: Mapping[str, Any] | None) -> list[gallery.Outline]:
    """The crop and the inverse crop, if they exist."""
    drawn = (("box", "s1", "crop"), ("inverse", "s2", "inverse crop"))
    return [
        gallery.Outline(tuple(crop[name]), style, label)
        for name, style, label in drawn
        if crop is not None and crop[name] is not None
    ]
