"""Noise, attention and pairs on the report page."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.core.data.images import open_image
from perceptune.core.views.apply import shown
from perceptune.report import gallery, pair_cards, read, write
from perceptune.stages.data.example_images import IllustratedExamples

from tests.report_pages import (
    DEMO,
    LABEL,
    NOISE,
    RECIPES,
    ROLES,
    Page,
    cells,
    written,
)


def test_noise_and_attention_have_the_numbers_of_the_metrics(tmp_path: Path) -> None:
    page = Page(written(tmp_path, DEMO, pairs=True))
    assert cells(page, "noise", "tiny") == "tiny 48.0 [44.0, 52.0] 41.0 [37.0, 45.0] 23.0 [19.0, 27.0]"
    assert cells(page, "noise", "perpo") == (
        "perpo 58.2 [54.2, 62.2] +10.2 * [+7.2, +13.2] 46.1 [42.1, 50.1] +5.1 * [+2.1, +8.1] "
        "28.1 [24.1, 32.1] +5.1 * [+2.1, +8.1]"
    )
    assert "n = 600 questions per level" in page.text
    assert cells(page, "attention", "perpo") == (
        "perpo 4.60 [4.56, 4.64] +0.10 [+0.07, +0.13] * 65.2 % [61.2, 69.2] +10.2 [+7.2, +13.2] * "
        "71.2 % [67.2, 75.2] +10.2 [+7.2, +13.2] *"
    )
    assert cells(page, "attention", "dpo").count("*") == 0  # +2.1 [-0.9, +5.1]
    assert "n = 250" in page.text
    assert "n = 249" in page.text
    for title in ("attention focus ratio by layer", "attention on the image: gain over the base, points"):
        assert title in page.text
    text = (tmp_path / "result.txt").read_text()
    frame = pl.read_parquet(tmp_path / "metrics.parquet")
    assert text == write.result_text(frame, NOISE)
    assert "perpo   58.2*  46.1*  28.1*  4.60 +0.10 *" in text
    assert "dpo +0.02 [-0.01, +0.05], perpo +0.10 [+0.07, +0.13] *." in text


def test_the_section_on_pairs_has_their_numbers(tmp_path: Path) -> None:
    page = Page(written(tmp_path, DEMO, pairs=True))
    assert "26 of 40 records kept" in page.text
    assert "perplexity below 2.5" in page.text
    assert cells(page, "pairs", "focus") == "focus 26 14 40 \u22120.174 to 0.208 20.0 % 19.2 %"  # 8 of 40, 5 of 26
    assert cells(page, "pairs", "robust") == "robust 26 14 40 none 20.0 % 19.2 %"
    chosen = "focus, perplexity, chosen before 40 21.000 11.690 1.500 11.250 21.000 30.750 40.500"  # 1.5, 2.5 ... 40.5
    assert cells(page, "pairs", "focus, perplexity, chosen") == chosen
    assert cells(page, "pairs", "noise, r.m.s. per pixel").startswith("noise, r.m.s. per pixel 2 0.150")
    assert "attention crop, crop / image 1 0.500" in page.text
    assert "examples omitted because the image scores 0 or less: 1." in page.text


def test_the_pictures_of_pairs_are_the_views_of_the_model(tmp_path: Path) -> None:
    page = Page(written(tmp_path, DEMO, pairs=True, gallery=4))
    start = page.source.index('<section id="pairs">')
    part = page.source[start : page.source.index("</section>", start)]
    assert part.count('<article class="card">') == 4
    assert part.count("<figure>") == 4 * 5  # image, attention, and three views
    assert "g039" not in part  # the page has example ids, not group ids
    ids = re.findall(r'title="(e\d+)"', part)
    assert len(set(ids)) == 4
    drawn = {int(i[1:]) for i in ids[:2]}
    assert [int(i[1:]) for i in ids[2:]] == sorted(set(range(40)) - drawn)[-2:][::-1]  # the largest margins
    assert part.count("<figcaption>attention, maximum 0.500 per cell; focus ratio 3.25</figcaption>") == 4
    assert 'x="60" y="60" width="40" height="40"' in part  # the inverse crop
    number = int(ids[2][1:])
    for role in ROLES:
        assert f"{role} {number}" in part
    margin = (-1) ** number * number / 100
    assert f"margin {margin:.3f}".replace("-", "\u2212") in part
    assert f"IPS {number - 7.5:.3f}" in part
    assert f"perplexity {2.25 + number:.3f}" in part
    assert "image 0.250, crop \u22120.500" in part
    assert ("kept" if number % 3 else "dropped: margin") in part
    examples = {row["example_id"]: row for row in pl.read_parquet(tmp_path / "examples.parquet").to_dicts()}
    image = open_image(examples[ids[2]]["images"][0])
    for view, picture in (("enhanced", -1), ("degraded", 0), ("noise", 0)):
        assert gallery.data_uri(shown(RECIPES[view], [image])[picture]) in part


def test_answers_of_pairs_stay_text(tmp_path: Path) -> None:
    page = Page(written(tmp_path, DEMO, hostile=True, pairs=True, gallery=40))
    start = page.source.index('<section id="pairs">')
    part = page.source[start : page.source.index("</section>", start)]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in part
    assert "dropped: &lt;script&gt;" in part
    assert "<script" not in page.source
    assert "<img" not in page.source
    assert "99,700 more characters" in part
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202e]", page.source)


def test_pairs_without_attention_or_with_a_broken_example_still_have_a_card(tmp_path: Path) -> None:
    written(tmp_path, DEMO, pairs=True)
    tables = {name: tmp_path / f"{name}.parquet" for name in ("preferences", "examples", "attention", "crops")}
    plain = {name: tables[name] for name in ("preferences", "examples")}
    ((_, cards),) = pair_cards.pair_galleries({LABEL: plain}, 2)
    assert [len(card["pictures"]) for group in cards.values() for card in group] == [4, 4]
    assert list(pair_cards.pair_galleries({LABEL: plain}, 0)) == [(LABEL, {})]
    (group,) = pl.read_parquet(tables["preferences"]).head(1).to_dicts()
    (example,) = pl.read_parquet(tables["examples"]).head(1).to_dicts()
    (attention,) = pl.read_parquet(tables["attention"]).head(1).to_dicts()
    known = IllustratedExamples(tables["examples"])
    assert pair_cards._pair_pictures(group, known, None, None, None) == ([], "no image in the table")
    imageless = {**example, "image_sha256": []}
    assert pair_cards._pair_pictures(group, known, imageless, None, None) == ([], "no image in the table")
    pictures, problem = pair_cards._pair_pictures(group, known, example, {**attention, "grid": [3, 3]}, None)
    assert pictures == []
    assert "reshape" in (problem or "")
    without = {"box": None, "inverse": None}
    pictures, problem = pair_cards._pair_pictures(group, known, example, {**attention, "attention": None}, without)
    assert problem is None
    assert len(pictures) == 4


def test_a_missing_answer_of_a_pair_is_not_an_empty_one(tmp_path: Path) -> None:
    written(tmp_path, DEMO, pairs=True)
    table = tmp_path / "preferences.parquet"
    groups = read_table(table, PREFERENCES).to_pylist()
    for group in groups:
        group["responses"] = [one for one in group["responses"] if one["role"] != "focus_chosen"]
        group["responses"][0]["text"] = ""  # focus_rejected
    write_table(table, PREFERENCES, groups, {})
    tables = {name: tmp_path / f"{name}.parquet" for name in ("preferences", "examples")}
    ((_, cards),) = pair_cards.pair_galleries({LABEL: tables}, 1)
    (card,) = cards["random"]
    shown = {f"{pair['kind']}_{one['role']}": one["silent"] for pair in card["pairs"] for one in pair["answers"]}
    assert shown == {role: role == "focus_chosen" for role in ROLES}


def test_a_file_without_pair_statistics_is_named(tmp_path: Path) -> None:
    (tmp_path / "central.json").write_text('{"groups": 3, "kept": 1}')
    with pytest.raises(UserError, match=r"central.json.: no `context`, `kinds`, `limits`, `strength`, expected"):
        read.pair_statistics(tmp_path / "central.json")
