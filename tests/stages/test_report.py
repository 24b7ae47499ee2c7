"""The report page, the result table and the figures, from small tables that fit the contracts."""

from __future__ import annotations

import io
import json
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest
from perceptune.contracts.config import BenchmarkBlock, ReportBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables import SCHEMAS, write_table
from perceptune.core.shapes import render, scene_and_row
from perceptune.stages import report

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
    """One row of the metrics table; a `gain` brings an interval of +-0.03 unless told otherwise."""
    row = dict.fromkeys(SCHEMAS["metrics"].names)
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
    """Rows of policies with these gains in accuracy over a base at 48 %; None marks the base."""
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
                "image_sha256": ["0" * 64],
                "image_sizes": [[112, 112]],
                "target": row.answer,
                "box": list(map(float, row.box)),
                "split": "test",
                "source": None,
                "reason": None,
            }
        )
    write_table(path, "examples", rows, MADE)
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
    write_table(path, "rewards", rows, MADE)


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
    write_table(path, "training", rows, MADE)


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


def written(
    folder: Path,
    gains: dict[str, float | None],
    *,
    metrics: list[dict[str, Any]] | None = None,
    hostile: bool = False,
    **config: Any,
) -> Path:
    """Writes all tables for these policies, runs the stage, and returns the page."""
    rows = metrics_of(gains) if metrics is None else metrics
    folder.mkdir(exist_ok=True)
    write_table(folder / "metrics.parquet", "metrics", rows, MADE)
    examples = write_examples(folder / "examples.parquet", 40)
    base = next((p for p, gain in gains.items() if gain is None), "tiny")
    trained = [p for p, gain in gains.items() if gain is not None]
    for policy in gains:
        write_rewards(folder / f"rewards-{policy}.parquet", examples, policy, hostile, 14 if policy == base else 7)
    for policy in trained:
        write_training(folder / f"training-{policy}.parquet", policy)
    write_statistics(folder / "statistics.json")
    report.run(
        metrics=folder / "metrics.parquet",
        training={p: folder / f"training-{p}.parquet" for p in trained},
        statistics={"tiny/shapes/n20/perception/ranked": folder / "statistics.json"} if trained else {},
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
    """The page's elements; complains about a tag that closes nothing or stays open."""

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
        """What a reader sees, with single spaces."""
        return " ".join(" ".join(self.words).split())


def attributes(page: Page) -> list[tuple[str, str, str]]:
    return [(tag, name, value or "") for tag, found in page.elements for name, value in found.items()]


@pytest.mark.parametrize(
    ("gains", "hostile"),
    [(DEMO, False), (DEMO, True), ({"tiny": None}, False), (SWEEP, False)],
    ids=["demo", "hostile answers", "base only", "sweep"],
)
def test_every_page_is_whole_and_needs_nothing_else(
    tmp_path: Path, gains: dict[str, float | None], hostile: bool
) -> None:
    page = Page(written(tmp_path, gains, hostile=hostile))
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


def test_the_page_tells_the_result(tmp_path: Path) -> None:
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
    assert "without the image: tiny 5.0 % (with it 48.0 %)" in page.text
    assert "margin below 0.5" in page.text
    assert "940 480 80 1,500 17.2 12.0" in page.text  # kept, dropped for two reasons, all, two means
    assert "perceptune 0.1.0" in page.text
    assert page.source.count('class="scene"') == 12


def test_what_a_model_says_stays_text(tmp_path: Path) -> None:
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


def test_only_a_base_model_has_no_training_and_no_gains(tmp_path: Path) -> None:
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
    assert "27 left out" in page.text  # 30 trained, 3 beside the base
    answers = [found for tag, found in page.elements if found.get("class") == "answer"]
    assert len(answers) == 12 * 5  # truth, base and three policies


def test_empty_and_broken_tables_still_make_a_page(tmp_path: Path) -> None:
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


def test_an_image_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    written(tmp_path, DEMO)
    broken = pl.read_parquet(tmp_path / "examples.parquet").with_columns(
        images=pl.lit(
            [{"bytes": b"no image", "path": "x.png"}], dtype=pl.List(pl.Struct({"bytes": pl.Binary, "path": pl.String}))
        )
    )
    drawing, problem = report._drawing(broken.row(0, named=True), [])
    assert drawing is None
    assert problem == "the file is no image that Pillow can read"


def test_figures_are_svg_files_and_the_table_is_the_printed_one(tmp_path: Path) -> None:
    written(tmp_path, DEMO)
    for name in ("result", "best_of_n", "training", "rewards"):
        source = (tmp_path / f"{name}.svg").read_text()
        root = ElementTree.fromstring(source.encode())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert re.findall(r"https?://[^\"]*", source) == ["http://www.w3.org/2000/svg"]
    assert "perpo" in (tmp_path / "result.svg").read_text()
    frame = pl.read_parquet(tmp_path / "metrics.parquet")
    assert (tmp_path / "result.txt").read_text() == report.result_text(frame)


def test_the_same_tables_give_the_same_page(tmp_path: Path) -> None:
    first, second = (written(tmp_path / "same", DEMO).read_text() for _ in range(2))
    when = re.compile(r"Written \d{4}-\d\d-\d\d \d\d:\d\d UTC")
    assert when.sub("", first) == when.sub("", second)


def test_an_unknown_figure_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected one of `result`"):
        report._figure("pie", pl.DataFrame(), [], {}, None, {})
