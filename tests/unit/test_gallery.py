"""The gallery: invisible characters, choice of examples, positions of boxes."""

from __future__ import annotations

import base64
import io
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from perceptune.report import gallery
from PIL import Image


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[0.1, 0.2]", "[0.1, 0.2]"),
        ("two\nlines\tand tab", "two\nlines\tand tab"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202egnp.exe", "\\u202egnp.exe"),  # right-to-left override
        ("zero\u200bwidth \ufeff", "zero\\u200bwidth \\ufeff"),
        ("\x00\r\x9b", "\\x00\\x0d\\x9b"),
        ("日本語 ñ 🙂", "日本語 ñ 🙂"),
        ("\U000e0041", "\\U000e0041"),  # tag character, invisible
        (None, ""),
    ],
)
def test_nothing_invisible_remains(text: str | None, shown: str) -> None:
    assert gallery.visible(text) == shown


@pytest.mark.parametrize(
    ("target", "box", "shown"),
    [
        ("A red cup.", [1.0, 2.0, 3.5, 4.0], "A red cup.\nbox [1, 2, 3.5, 4] in pixels"),
        ("A red cup.", None, "A red cup."),
        (None, [1.0, 2.0, 3.5, 12345.67], "box [1, 2, 3.5, 12345.7] in pixels"),
        ("", None, ""),  # an empty page
        (None, None, None),
    ],
)
def test_the_ground_truth_is_the_answer_and_the_box(target: str | None, box: list[float] | None, shown: str) -> None:
    assert gallery.ground_truth({"target": target, "box": box}) == shown
    assert gallery.ground_truth(None) is None
    assert gallery.ground_truth(None, "yes") == "yes"


def test_long_text_is_truncated_with_the_number_of_missing_characters() -> None:
    assert gallery.visible("x" * 100_000, 600) == "x" * 600 + "\u2026 (99,400 more characters)"  # 100,000 - 600
    assert gallery.visible("x" * 600, 600) == "x" * 600


@pytest.mark.parametrize(
    ("parsed", "box"),
    [
        ('{"box": [0, 0, 1, 1], "box_pixels": [1, 2, 3, 4.5]}', (1.0, 2.0, 3.0, 4.5)),
        ('{"box_pixels": [1, 2, 3]}', None),
        ('{"box_pixels": [1, 2, 3, NaN]}', None),
        ('{"box_pixels": [1, 2, 3, 1e999]}', None),
        ('{"box_pixels": "abcd"}', None),
        ('{"box_pixels": null}', None),
        ('{"box_pixels": [[1], 2, 3, 4]}', None),
        ("[1, 2]", None),
        ('"yes"', None),
        ("{", None),
        (None, None),
    ],
)
def test_boxes(parsed: str | None, box: gallery.Box | None) -> None:
    assert gallery.pixel_box(parsed) == box


def answers(rewards: dict[str, float]) -> pl.DataFrame:
    return pl.DataFrame({"example_id": list(rewards), "reward": list(rewards.values())})


def test_gains_and_losses_are_the_largest_outside_the_random_sample() -> None:
    ids = [f"e{i:02d}" for i in range(40)]
    base = answers(dict.fromkeys(ids, 0.5))
    after = answers({e: 0.5 + (i - 20) / 100 for i, e in enumerate(ids)})  # e00 loses most, e39 gains most, e20 nothing
    choices = gallery.chosen(base, after, 12, "shapes")
    groups = {g: [c.example_id for c in choices if c.group == g] for g in ("random", "gain", "loss")}
    assert [len(v) for v in groups.values()] == [6, 3, 3]
    free = [e for e in ids if e not in groups["random"]]
    assert groups["gain"] == free[::-1][:3]
    assert groups["loss"] == free[:3]
    assert choices == gallery.chosen(base.reverse(), after.reverse(), 12, "shapes")  # row order does not matter
    assert choices != gallery.chosen(base, after, 12, "other benchmark")


def test_without_gains_all_examples_are_random() -> None:
    base = answers({f"e{i}": 0.5 for i in range(40)})
    choices = gallery.chosen(base, base, 12, "shapes")
    assert len({c.example_id for c in choices}) == 12
    assert {c.group for c in choices} == {"random"}


def test_few_examples_are_shown_once_each() -> None:
    base = answers({"a": 0.0, "b": 1.0, "c": 0.0})
    after = answers({"a": 1.0, "b": 0.0, "c": 0.0})
    assert sorted(c.example_id for c in gallery.chosen(base, after, 12, "s")) == ["a", "b", "c"]
    assert gallery.chosen(base.clear(), None, 12, "s") == []
    assert gallery.chosen(base, after, 0, "s") == []


def test_the_random_half_does_not_depend_on_rewards() -> None:
    ids = [f"e{i:02d}" for i in range(40)]
    base = answers(dict.fromkeys(ids, 0.5))
    one = gallery.chosen(base, answers({e: i / 40 for i, e in enumerate(ids)}), 12, "s")
    other = gallery.chosen(base, answers({e: 1 - i / 40 for i, e in enumerate(ids)}), 12, "s")
    assert [c for c in one if c.group == "random"] == [c for c in other if c.group == "random"]


def test_a_box_is_drawn_in_the_pixels_of_the_original_image() -> None:
    image = Image.new("RGB", (2000, 1000), "red")  # embedded smaller, drawn in its own coordinates
    outline = gallery.Outline((300.0, 100.0, 100.0, 200.0), "s1", "<dpo>")  # x inverted
    svg = ElementTree.fromstring(gallery.annotated_image(image, [outline], "a & b"))
    assert svg.get("viewBox") == "0 0 2000 1000"
    rects = list(svg.iter("rect"))
    assert [r.get("class") for r in rects] == ["halo s1", "outline s1"]
    assert [rects[1].get(k) for k in ("x", "y", "width", "height")] == ["100", "100", "200", "100"]
    (picture,) = svg.iter("image")
    assert picture.get("class") is None  # smooth, because the image is not tiny
    data = base64.b64decode(picture.get("href", "").removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(data)).size == (440, 220)


def test_tiny_images_keep_their_pixels_and_photographs_stay_small() -> None:
    tiny = ElementTree.fromstring(gallery.annotated_image(Image.new("RGB", (112, 112)), [], ""))
    assert next(tiny.iter("image")).get("class") == "pixels"
    noise = Image.effect_noise((440, 440), 90).convert("RGB")
    uri = gallery.data_uri(noise)
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < 100_000
    hidden = Image.effect_noise((440, 330), 20).convert("RGB")
    assert len(uri) > len(gallery.data_uri(hidden)) > 30_000  # the best quality that is small enough


def test_attention_is_laid_over_a_grey_image() -> None:
    image = Image.new("RGB", (40, 20), (10, 200, 30))
    attention = np.zeros((2, 4))
    attention[0, 3] = 0.7
    heat = gallery.heat_map(image, attention)
    assert heat.size == image.size
    cold, hot = heat.getpixel((2, 17)), heat.getpixel((38, 2))
    assert cold[0] == cold[1] == cold[2]  # grey
    assert hot[0] > hot[1] + 50  # warm
    assert gallery.heat_map(image, np.zeros((2, 4))).getcolors() == [(800, cold)]


def test_pairs_are_drawn_by_seed_and_by_margin() -> None:
    groups = pl.DataFrame({"group_id": list("0123456789"), "margin": [float(i) for i in range(10)]})
    first, again = gallery.chosen_pairs(groups, 4, "a"), gallery.chosen_pairs(groups.reverse(), 4, "a")
    assert first == again
    assert len(set(first)) == 4
    rest = sorted(set("0123456789") - set(first[:2]), reverse=True)
    assert first[2:] == rest[:2]
    assert len(gallery.chosen_pairs(groups, 40, "a")) == 10
