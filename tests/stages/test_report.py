"""The report page, the result table and the figures, made from small valid tables."""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest
from perceptune.contracts.config import BenchmarkBlock, ReportBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.attention import ATTENTION
from perceptune.contracts.tables.crops import CROPS
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.leakage import LEAKAGE
from perceptune.contracts.tables.metrics import METRICS
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.contracts.tables.training import TRAINING
from perceptune.core.data.images import open_image
from perceptune.core.data.shapes import render, scene_and_row
from perceptune.core.preferences.pair_filter import clip_statistics, described, pair_statistics
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe
from perceptune.report import gallery, pair_cards, read, write
from perceptune.report.sections import warnings
from perceptune.stages.data.example_images import IllustratedExamples

from tests.plugins import BENCHMARKS

MADE = {"stage": "test", "parameters": {}, "inputs": {}, "code": "0" * 64, "versions": {"perceptune": "0.1.0"}}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\x1b[31mred\x1b[0m \u202egnp.exe\u200b \x00",
    "</dd></article></main>{{ 7 * 7 }}{% raise %}",
    "x" * 100_000,
    "",
    "Z\u0335\u0321\u0322" * 200,
]
VOID = {"wbr", "meta", "br", "img", "link", "hr", "input"}


def metric_row(policy: str, metric: str, value: float | None, **changes: Any) -> dict[str, Any]:
    """One row of the metrics table; a `gain` has an interval of +-0.03 unless `changes` sets another."""
    row = dict.fromkeys(METRICS.schema.names)
    row |= {"policy": policy, "benchmark": "shapes-test", "split": "test", "task": "grounding", "view": "original"}
    row |= {"condition": "greedy", "k": 1, "metric": metric, "value": value, "n": 600, "n_failed": 0}
    if value is not None:
        row |= {"ci_low": value - 0.04, "ci_high": value + 0.04}
    row |= changes
    if row["gain"] is not None:
        row["base_value"] = (value or 0) - row["gain"]
        row["gain_ci_low"] = changes.get("gain_ci_low", row["gain"] - 0.03)
        row["gain_ci_high"] = changes.get("gain_ci_high", row["gain"] + 0.03)
    return row


def metrics_of(gains: dict[str, float | None], sampled: bool = True) -> list[dict[str, Any]]:
    """Metric rows of policies with these gains in accuracy over a base at 48 %; None marks the base."""
    rows = []
    for policy, gain in gains.items():
        for metric, value, scale in (("accuracy_iou_0.5", 0.48, 1.0), ("mean_iou", 0.44, 0.6)):
            change = None if gain is None else gain * scale
            failed = 7 if gain is None else 2
            rows.append(metric_row(policy, metric, value + (change or 0), gain=change, n_failed=failed))
            rows.append(metric_row(policy, metric, 0.05, gain=None if gain is None else 0.0, view="blank"))
        for k in (1, 2, 4, 8, 16, 20) if sampled else ():
            best = 0.4 + (gain or 0) + 0.11 * math.log2(k)
            rows.append(metric_row(policy, "accuracy_iou_0.5", min(best, 0.95), condition="best_of_n", k=k))
            rows.append(metric_row(policy, "mean_iou", min(best, 0.95) * 0.8, condition="best_of_n", k=k))
        if sampled:
            rows.append(metric_row(policy, "accuracy_iou_0.5", 0.4 + (gain or 0), condition="mean_of_n", k=20))
            rows.append(metric_row(policy, "mean_iou", 0.32 + 0.8 * (gain or 0), condition="mean_of_n", k=20))
    return rows


def write_examples(path: Path, count: int) -> list[dict[str, Any]]:
    rows = []
    for i in range(count):
        scene, row = scene_and_row(0, "test", i, "grounding")
        buffer = io.BytesIO()
        render(scene).save(buffer, "PNG")
        assert row.box is not None
        rows.append(
            {
                "example_id": f"e{i:03d}",
                "task": "grounding",
                "question": row.question,
                "images": [{"bytes": buffer.getvalue(), "path": f"e{i}.png"}],
                "image_sha256": [hashlib.sha256(buffer.getvalue()).hexdigest()],
                "image_hashes": [],
                "image_sizes": [[112, 112]],
                "target": row.answer,
                "box": list(map(float, row.box)),
                "split": "test",
                "source": None,
                "reason": None,
            }
        )
    write_table(path, EXAMPLES, rows, MADE)
    return rows


def write_rewards(path: Path, examples: list[dict[str, Any]], policy: str, hostile: bool, noise: float) -> None:
    draw = random.Random(policy)
    rows = []
    for i, example in enumerate(examples):
        box = [min(max(v + draw.gauss(0, noise), 0), 112) for v in example["box"]]
        text: str | None = "[" + ", ".join(f"{v / 112:.2f}" for v in box) + "]"
        parsed: str | None = json.dumps({"box": [v / 112 for v in box], "box_pixels": box})
        reason = None
        if hostile:
            text = HOSTILE[i % len(HOSTILE)]
            parsed = [None, "{", '{"box_pixels": [1, NaN, 3, 4]}', '{"box_pixels": "abcd"}', "[]"][i % 5]
            reason = "no four numbers in <b>answer</b>"
        rows.append(
            {
                "request_id": f"r-{example['example_id']}",
                "example_id": example["example_id"],
                "task": "grounding",
                "benchmark": "shapes-test",
                "condition": "greedy",
                "view": "original",
                "sample_index": 0,
                "text": text,
                "target": example["target"],
                "reward": 0.0
                if hostile
                else max(0.0, 1 - sum(abs(a - b) for a, b in zip(box, example["box"], strict=True)) / 60),
                "parsed": parsed,
                "components": [],
                "reason": reason,
            }
        )
    write_table(path, REWARDS, rows, MADE)


def write_training(path: Path, experiment: str, steps: int = 90) -> None:
    draw = random.Random(experiment)
    rows = []
    for step in range(1, steps + 1):
        rise = 1 - math.exp(-step / 30)
        for metric, value in (
            ("loss", 0.69 - 0.25 * rise + draw.gauss(0, 0.03)),
            ("margin", 3 * rise + draw.gauss(0, 0.3)),
            ("chosen_logps", -9 + rise + draw.gauss(0, 0.5)),
            ("rejected_logps", -11 - 2 * rise + draw.gauss(0, 0.5)),
            ("grad_norm", 1.2 + abs(draw.gauss(0, 0.3)) if step != 7 else math.nan),
            ("tokens_per_second", 2400 + draw.gauss(0, 60)),
        ):
            rows.append({"experiment": experiment, "step": step, "metric": metric, "value": value})
    write_table(path, TRAINING, rows, MADE)


def write_statistics(path: Path) -> None:
    counts = [400, 180, 120, 90, 80, 90, 120, 180, 260, 310]
    edges = [i / 10 for i in range(11)]
    path.write_text(
        json.dumps(
            {
                "groups": 1500,
                "kept": 940,
                "distinct_answers_per_group": 17.25,
                "mean_list_size": 12.0,
                "dropped": {"margin below 0.5": 480, "fewer than 2 distinct answers": 80},
                "reward_histogram": {"edges": edges, "counts": counts},
                "margin_histogram": {"edges": edges, "counts": counts[::-1]},
            }
        )
    )


NOISE = {"original": 0.0, "noise-0.1": 0.1, "noise-0.4": 0.4}
CROP, INVERSE = [10.0, 10.0, 50.0, 50.0], [60.0, 60.0, 100.0, 100.0]
RECIPES = {
    "enhanced": Recipe("enhanced", box=(10.0, 10.0, 50.0, 50.0)),
    "degraded": Recipe("degraded", box=(10.0, 10.0, 50.0, 50.0)),
    "noise": Recipe("noise", {"sigma": 0.2}, seed=7),
}


def noise_and_attention_of(gains: dict[str, float | None]) -> list[dict[str, Any]]:
    """Metric rows of a noise sweep and of the condition `attention` with four layers."""
    rows = []
    for policy, gain in gains.items():
        for view, value in (("noise-0.1", 0.41), ("noise-0.4", 0.23)):
            change = None if gain is None else gain / 2
            rows.append(metric_row(policy, "accuracy_iou_0.5", value + (change or 0), gain=change, view=view))
        layers = [
            (f"{m}_layer_{i:02}", v) for i in range(4) for m, v in (("afr", 2.0 + i), ("image_share", 0.3 + i / 10))
        ]
        for metric, value in [("afr", 4.5), ("image_share", 0.55), ("p_accuracy", 0.61), *layers]:
            rows.append(
                metric_row(
                    policy, metric, value + (gain or 0), gain=gain, condition="attention", n=250 - (metric[0] == "p")
                )
            )
    return rows


def write_pairs(folder: Path, examples: list[dict[str, Any]], hostile: bool) -> dict[str, Path]:
    """Writes groups of pairs and the tables behind them: every third is dropped, margins grow with the number."""
    groups = []
    for i, example in enumerate(examples):
        text = HOSTILE[i % len(HOSTILE)] if hostile else None
        texts = {role: text if text is not None else f"{role} {i}" for role in ROLES}
        pairs = [
            {
                "kind": kind, "chosen": 2 * k, "rejected": 2 * k + 1, "ppl_chosen": 1.5 + i, "ppl_rejected": 2.25 + i,
                "margin": (-1) ** i * (i + k / 2) / 100, "ips": i - 7.5, "kept": i % 3 != 0,
                "reason": None if i % 3 else (text or "margin"),
            }
            for k, kind in enumerate(("focus", "robust"))
        ]  # fmt: skip
        responses = [
            {"sample_index": 0, "text": text, "token_ids": [1], "reward": 0.0, "role": role}
            for role, text in texts.items()
        ]
        views = [
            {"view": view, "recipe": recipe.text(), "messages": [], "sha256": "0" * 64, "strength": 0.125}
            for view, recipe in RECIPES.items()
        ]
        groups.append(
            {
                "group_id": f"g{i:03d}", "example_id": example["example_id"], "request_id": "r", "task": "grounding",
                "view": "original", "messages": [], "responses": responses, "views": views, "pairs": pairs,
                "numbers": [{"name": "clip_image", "value": 0.25}, {"name": "clip_crop", "value": -0.5}],
                "kept": i % 3 != 0, "reason": "why" if i % 3 == 0 else None,
            }
        )  # fmt: skip
    ids = [example["example_id"] for example in examples]
    maps = {"size": [112, 112], "grid": [2, 2], "attention": [0.0, 0.5, 0.25, 0.25], "afr": 3.25}
    maps |= {"layer_afr": [3.25], "image_share": [0.5], "reason": None}
    crops = {"box": CROP, "inverse": INVERSE, "ratio": 1.0, "contrast": 2.0, "flag": None, "reason": None}
    write_table(folder / "preferences.parquet", PREFERENCES, groups, MADE)
    write_table(folder / "attention.parquet", ATTENTION, [{"example_id": i, **maps} for i in ids], MADE)
    write_table(folder / "crops.parquet", CROPS, [{"example_id": i, **crops} for i in ids], MADE)
    counted = {
        "groups": len(groups), "kept": sum(g["kept"] for g in groups), "dropped": {}, "context": "own",
        "limits": {"max_ppl": 2.5, "margin": {"focus": [-0.174, 0.208], "robust": None}},
        "kinds": {kind: pair_statistics([g["pairs"][k] for g in groups]) for k, kind in enumerate(("focus", "robust"))},
        "strength": {"noise": described([0.1, 0.2])},
        "clip": clip_statistics([{"image": 0.5, "crop": 0.25, "inverse": 0.125}, {"image": -1, "crop": 0, "inverse": 0}]),
    }  # fmt: skip
    (folder / "pairs.json").write_text(json.dumps(counted))
    tables = {name: folder / f"{name}.parquet" for name in ("preferences", "attention", "crops", "examples")}
    return {"statistics": folder / "pairs.json", **tables}


ROLES = ("focus_chosen", "focus_rejected", "robust_chosen", "robust_rejected")
LABEL = "tiny/shapes/self-made/central"


def written(
    folder: Path,
    gains: dict[str, float | None],
    *,
    metrics: list[dict[str, Any]] | None = None,
    hostile: bool = False,
    pairs: bool = False,
    **config: Any,
) -> Path:
    """Writes all tables for these policies, runs the stage and returns the page."""
    rows = metrics_of(gains) + (noise_and_attention_of(gains) if pairs else []) if metrics is None else metrics
    folder.mkdir(exist_ok=True)
    write_table(folder / "metrics.parquet", METRICS, rows, MADE)
    examples = write_examples(folder / "examples.parquet", 40)
    base = next((p for p, gain in gains.items() if gain is None), "tiny")
    trained = [p for p, gain in gains.items() if gain is not None]
    for policy in gains:
        write_rewards(folder / f"rewards-{policy}.parquet", examples, policy, hostile, 14 if policy == base else 7)
    for policy in trained:
        write_training(folder / f"training-{policy}.parquet", policy)
    write_statistics(folder / "statistics.json")
    write.run(
        metrics=folder / "metrics.parquet",
        training={p: folder / f"training-{p}.parquet" for p in trained},
        statistics={"tiny/shapes/n20/perception/ranked": folder / "statistics.json"} if trained else {},
        pairs={LABEL: write_pairs(folder, examples, hostile)} if pairs else {},
        rounds={},
        noise=NOISE if pairs else {},
        predictions={p: {"shapes-test": folder / f"rewards-{p}.parquet"} for p in gains},
        examples={"shapes": folder / "examples.parquet"},
        benchmarks={"shapes-test": BenchmarkBlock(dataset="shapes", reward="perception")},
        base=dict.fromkeys(gains, base),
        report=folder / "report.html",
        result_table=folder / "result.txt",
        figures={name: folder / f"{name}.svg" for name in ("result", "best_of_n", "training", "rewards")},
        config=ReportBlock(**config),
    )
    return folder / "report.html"


DEMO = {"tiny": None, "dpo": 0.021, "perpo": 0.102}
SWEEP: dict[str, float | None] = {
    "tiny": None,
    **{f"perpo-list_size_{n}-min_margin_0.{m}-beta_0.05": 0.01 * (n + m - 8) for n in range(2, 12) for m in (3, 5, 8)},
}


class Page(HTMLParser):
    """The elements of a page; fails for tags that are not opened or not closed."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.source = path.read_text()
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        """The visible text, with single spaces."""
        return " ".join(" ".join(self.words).split())


def attributes(page: Page) -> list[tuple[str, str, str]]:
    return [(tag, name, value or "") for tag, found in page.elements for name, value in found.items()]


@pytest.mark.parametrize("pairs", [False, True], ids=["lists", "pairs"])
@pytest.mark.parametrize(
    ("gains", "hostile"),
    [(DEMO, False), (DEMO, True), ({"tiny": None}, False), (SWEEP, False)],
    ids=["demo", "hostile answers", "base only", "sweep"],
)
def test_every_page_is_complete_and_self_contained(
    tmp_path: Path, gains: dict[str, float | None], hostile: bool, pairs: bool
) -> None:
    page = Page(written(tmp_path, gains, hostile=hostile, pairs=pairs))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "link", "form", "base"}
    for tag, name, value in attributes(page):
        assert not name.startswith("on"), (tag, name)
        if name in ("href", "src", "srcset", "action", "xlink:href"):
            assert value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#")), (tag, name, value[:80])
        assert "http:" not in value and "https:" not in value, (tag, name, value[:80])
    assert "url(" not in page.source
    assert "@import" not in page.source
    policies = [
        found["content"] for tag, found in page.elements if found.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    links = {value[1:] for _, name, value in attributes(page) if name == "href" and value.startswith("#")}
    assert links <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert "nan" not in page.text.lower().split()


def test_the_page_shows_the_result(tmp_path: Path) -> None:
    page = Page(written(tmp_path, DEMO, title="A title & more", caption="What it is about"))
    for words in (
        "A title & more",
        "What it is about",
        "48.0 [44.0, 52.0]",
        "+10.2 [+7.2, +13.2]",
        "+2.1 [\u22120.9, +5.1]",
    ):
        assert words in page.text
    assert "Not distinguishable from the base, interval includes 0: dpo".lower() in page.text.lower()
    assert cells(page, "blank", "tiny") == "tiny 5.0 [1.0, 9.0] 48.0 [44.0, 52.0] +43.0"
    titles = re.findall(r'<th scope="col">([^<]*)</th>', page.source)
    assert titles[:6] == ["policy", "accuracy at IoU 0.5 %", "gain, points", "acc@20 %", "no image %", "mean IoU"]
    assert cells(page, "result", "perpo").startswith(
        "perpo 58.2 [54.2, 62.2] +10.2 [+7.2, +13.2] 50.2 [46.2, 54.2] 5.0 [1.0, 9.0] 0.501"
    )
    assert "margin below 0.5" in page.text
    assert "940 480 80 1,500 17.2 12.0" in page.text  # kept, dropped for two reasons, all, two means
    assert "perceptune 0.1.0" in page.text
    assert page.source.count('class="scene"') == 12


def test_answers_stay_text(tmp_path: Path) -> None:
    page = Page(
        written(tmp_path, DEMO, hostile=True, gallery=40, title="<b>bold</b>", caption="</style><script>1</script>")
    )
    assert "alert(1)</script>" not in page.source
    assert "<script>alert(1)</script>" in page.text
    assert '"><img src=x onerror=alert(1)>' in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202e]", page.source)
    assert "\\x1b[31mred" in page.text
    assert "99,400 more characters" in page.text
    assert len(page.source) < 600_000
    assert "<b>bold</b>" in page.text
    assert "no four numbers in <b>answer</b>" in page.text


def test_without_pairs_and_a_sweep_the_page_does_not_mention_them(tmp_path: Path) -> None:
    page = Page(written(tmp_path, DEMO))
    assert not {"noise", "attention", "pairs"} & set(page.ids)
    for word in ("AFR", "sigma", "IPS", "perplexity", "crop"):
        assert word not in page.text
        assert word not in (tmp_path / "result.txt").read_text()


def cells(page: Page, section: str, row: str) -> str:
    """The text of the first table row named `row` in a section."""
    start = page.source.index(f'<section id="{section}">')
    found = re.search(
        rf'<tr[^>]*><th scope="row">(?:<[^>]*>)*{re.escape(row)}<.*?</tr>', page.source[start:], re.DOTALL
    )
    assert found is not None
    return " ".join(re.sub(r"<[^>]*>", " ", found[0]).split())


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


def test_a_file_without_pair_statistics_is_named(tmp_path: Path) -> None:
    (tmp_path / "central.json").write_text('{"groups": 3, "kept": 1}')
    with pytest.raises(UserError, match=r"central.json.: no `context`, `kinds`, `limits`, `strength`, expected"):
        read.pair_statistics(tmp_path / "central.json")


def test_a_base_model_alone_has_no_training_and_no_gains(tmp_path: Path) -> None:
    page = Page(written(tmp_path, {"tiny": None}))
    assert not {"training", "lists"} & set(page.ids)
    assert {"result", "gallery"} <= set(page.ids)
    assert "Largest gains" not in page.text
    assert "no trained policy to compare" in page.text


def test_thirty_policies_share_five_colours(tmp_path: Path) -> None:
    page = Page(written(tmp_path, SWEEP))
    coloured = {
        found["class"] for tag, found in page.elements if tag == "i" and "swatch s" in (found.get("class") or "")
    }
    assert coloured == {f"swatch s{i}" for i in range(1, 6)}
    assert all(policy in page.text for policy in SWEEP)
    assert "27 not shown" in page.text  # 30 trained policies, 3 in the gallery
    answers = [found for tag, found in page.elements if found.get("class") == "answer"]
    assert len(answers) == 12 * 5  # truth, base and three policies


def test_empty_tables_and_missing_values_still_make_a_page(tmp_path: Path) -> None:
    page = Page(written(tmp_path, {}, metrics=[]))
    assert "No results" in page.text
    rows = [
        metric_row("tiny", "accuracy_iou_0.5", math.nan),
        metric_row("dpo", "accuracy_iou_0.5", None, base_value=0.4),
    ]
    page = Page(written(tmp_path / "nan", {"tiny": None, "dpo": 0.0}, metrics=rows))
    assert "n/a" in page.text


def test_an_unknown_metric_and_task_is_shown_under_its_name(tmp_path: Path) -> None:
    rows = [metric_row("tiny", "my_metric", 0.25, task="open")]
    assert "my metric" in Page(written(tmp_path, {"tiny": None}, metrics=rows)).text


def test_many_metrics_are_folded_with_the_reason_below(tmp_path: Path) -> None:
    names, reason = list(BENCHMARKS["amber"].metrics), "not measured: needs language resources"
    rows = []
    for policy, gain in (("tiny", None), ("dpo", 0.1)):
        rows += [
            metric_row(policy, name, None, reason=reason)
            if name in ("chair", "cog")
            else metric_row(policy, name, 0.5, gain=gain)
            for name in names
        ]
    page = written(tmp_path, {"tiny": None, "dpo": 0.1}, metrics=rows).read_text()
    shown, folded = page.partition("<details>")[::2]
    assert f"{len(names) - len(BENCHMARKS['amber'].quoted)} more metrics" in folded
    assert f"objects named that are not there ({reason})." in shown
    assert "+10.0 *" in folded.partition("</details>")[0]
    assert folded.partition("</details>")[0].count("<tr>") == 1 + len(names) - len(BENCHMARKS["amber"].quoted)


def test_an_image_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    written(tmp_path, DEMO)
    (row, *_) = pl.read_parquet(tmp_path / "examples.parquet").to_dicts()
    row |= {"images": [{"bytes": b"no image", "path": "x.png"}]}
    for digest, message in (
        (hashlib.sha256(b"no image").hexdigest(), "the file is not an image that Pillow can read"),
        (row["image_sha256"][0], "the image has changed since the import; import the dataset again"),
    ):
        write_table(tmp_path / "broken.parquet", EXAMPLES, [{**row, "image_sha256": [digest]}], MADE)
        known = IllustratedExamples(tmp_path / "broken.parquet")
        assert write._drawing(known, row, []) == (None, message)


def test_figures_are_svg_files_and_the_table_is_the_printed_one(tmp_path: Path) -> None:
    written(tmp_path, DEMO)
    for name in ("result", "best_of_n", "training", "rewards"):
        source = (tmp_path / f"{name}.svg").read_text()
        root = ElementTree.fromstring(source.encode())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert re.findall(r"https?://[^\"]*", source) == ["http://www.w3.org/2000/svg"]
    assert "perpo" in (tmp_path / "result.svg").read_text()
    frame = pl.read_parquet(tmp_path / "metrics.parquet")
    assert (tmp_path / "result.txt").read_text() == write.result_text(frame, {})


def test_the_same_tables_give_the_same_page(tmp_path: Path) -> None:
    first, second = (written(tmp_path / "same", DEMO).read_text() for _ in range(2))
    when = re.compile(r"Written \d{4}-\d\d-\d\d \d\d:\d\d UTC")
    assert when.sub("", first) == when.sub("", second)


def test_warnings_stand_above_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(written(tmp_path / "usual", DEMO))
    assert "Warnings" not in page.text
    monkeypatch.setattr(warnings, "FEW_STEPS", 10_000)
    page = Page(written(tmp_path / "short", DEMO))
    said = "perpo was trained for only "
    assert page.text.index("Warnings") < page.text.index(said) < page.text.index("600 questions")
    text = (tmp_path / "short/result.txt").read_text()
    assert text.startswith("warning: ") and said in text


def leaking(folder: Path) -> dict[str, Path]:
    """A table of training data that share images and questions with a benchmark."""
    counts = {
        "images": 600,
        "same_images": 12,
        "similar_images": 3,
        "questions": 1600,
        "same_questions": 5,
        "similar_questions": 2,
    }
    one = {"kind": "same image", "training_id": "t", "benchmark_id": "b"}
    folder.mkdir(exist_ok=True)
    write_table(folder / "leak.parquet", LEAKAGE, [{"benchmark": "shapes-test", **counts, "examples": [one]}], MADE)
    return {"shapes/n20": folder / "leak.parquet"}


SHARED = "training data shapes/n20 share 12 of 600 images, near duplicates of 3 more, and 7 of 1,600 questions with benchmark shapes-test"


@pytest.mark.parametrize("mode", ["warn", "allow"])
def test_leakage_is_counted_and_warned_about(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "run", partial(write.run, leakage=leaking(tmp_path), leakage_mode=mode))
    page = Page(written(tmp_path, DEMO))
    text = " ".join((tmp_path / "result.txt").read_text().split())
    assert (SHARED in page.text, SHARED in text) == (mode == "warn", mode == "warn")
    assert "shapes/n20 shapes-test 600 12 3 1,600 5 2" in page.text
    assert "data" in page.ids


def test_leakage_can_refuse_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "run", partial(write.run, leakage=leaking(tmp_path), leakage_mode="refuse"))
    with pytest.raises(UserError, match="share 12 of 600 images"):
        written(tmp_path, DEMO)
    assert not (tmp_path / "report.html").exists()


def test_an_unknown_figure_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected one of `result`"):
        write._figure("pie", pl.DataFrame(), [], {}, None, {}, [])
