"""The report page, the result table and the figures, made from small valid tables."""

from __future__ import annotations

import hashlib
import math
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest
from perceptune.contracts.config import BenchmarkBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import write_table
from perceptune.report import answer_cards, write
from perceptune.report.sections.results import MOST_SHOWN
from perceptune.stages.data.example_images import IllustratedExamples

from tests.plugins import BENCHMARKS
from tests.report_pages import (
    DEMO,
    HOSTILE,
    MADE,
    SWEEP,
    Page,
    attributes,
    cells,
    metric_row,
    written,
)


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
    assert titles[:6] == ["task", "policy", "accuracy at IoU 0.5, %", "gain, points", "acc@20, %", "mean IoU"]
    assert cells(page, "result", "perpo").startswith(
        "perpo 58.2 [54.2, 62.2] +10.2 [+7.2, +13.2] 50.2 [46.2, 54.2] 0.501"
    )
    assert "margin below 0.5" in page.text
    assert "940 80 480 1,500 17.2 12.0" in page.text  # kept, dropped for two reasons, all, two means
    assert "perceptune 0.1.0" in page.text
    assert page.source.count('class="scene"') == 12


def test_answers_stay_text(tmp_path: Path) -> None:
    page = Page(
        written(tmp_path, DEMO, hostile=True, gallery=40, title="<b>bold</b>", caption="</style><script>1</script>")
    )
    assert "alert(1)</script>" not in page.source
    assert HOSTILE[0] in page.text
    assert HOSTILE[1] in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202e]", page.source)
    assert "\\x1b[31mred" in page.text
    assert "99,400 more characters" in page.text
    assert len(page.source) < 600_000
    assert "<b>bold</b>" in page.text
    assert "no four numbers in <b>answer</b>" in page.text


def test_the_gallery_has_the_examples_of_a_benchmark_with_several_tasks(tmp_path: Path) -> None:
    rows = [metric_row(policy, "accuracy", 0.5, gain=gain, task="all") for policy, gain in DEMO.items()]
    page = Page(written(tmp_path, DEMO, metrics=rows))
    assert page.source.count('class="scene"') == 12


def test_the_text_table_counts_the_view_that_the_page_counts(tmp_path: Path) -> None:
    """That is the first view of the benchmark, even if `original` is another one."""
    rows = [
        metric_row(policy, "accuracy_iou_0.5", value + (gain or 0), gain=gain, view=view)
        for view, value in (("masked", 0.3), ("original", 0.6))
        for policy, gain in DEMO.items()
    ]
    block = BenchmarkBlock(dataset="shapes", reward="perception", views=("masked", "original"))
    page = Page(written(tmp_path, DEMO, metrics=rows, block=block))
    assert cells(page, "result", "perpo").startswith("perpo 40.2 [36.2, 44.2]")
    text = (tmp_path / "result.txt").read_text()
    assert "(test split, greedy, masked image)" in text
    assert "40.2 [36.2, 44.2]" in text
    assert "70.2" not in text


def test_all_tables_of_answers_are_sources(tmp_path: Path) -> None:
    """Benchmarks that different rewards score have tables of their own."""
    written(tmp_path, DEMO)
    other = shutil.copy(tmp_path / "rewards-tiny.parquet", tmp_path / "strict.parquet")
    page = Page(written(tmp_path, DEMO, also={"strict-test": other}))
    for table in ("rewards-tiny", "rewards-dpo", "rewards-perpo"):
        assert f"scored by {table}" in page.text
    assert page.text.count("scored by strict") == 3


def test_without_pairs_and_a_sweep_the_page_does_not_mention_them(tmp_path: Path) -> None:
    page = Page(written(tmp_path, DEMO))
    assert not {"noise", "attention", "pairs"} & set(page.ids)
    for word in ("AFR", "sigma", "IPS", "perplexity", "crop"):
        assert word not in page.text
        assert word not in (tmp_path / "result.txt").read_text()


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
    assert "25 more policies are in the tables below. 30 comparisons: " in page.text  # the base and 5 are in the matrix
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
    assert f"{len(names) - MOST_SHOWN} more metrics" in folded
    assert f"objects named that are not there ({reason})." in shown
    assert "+10.0 * [+7.0, +13.0]" in folded.partition("</details>")[0]
    assert folded.partition("</details>")[0].count("<tr>") == 1 + len(names) - MOST_SHOWN


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
        assert answer_cards._drawing(known, row, []) == (None, message)


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


def test_an_unknown_figure_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected one of `result`"):
        write._figure("pie", pl.DataFrame(), [], {}, None, {}, [])
