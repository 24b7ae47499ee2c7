"""Controls on the page and in the result table."""

from pathlib import Path

from perceptune.contracts.config import BenchmarkBlock, ReportBlock
from perceptune.contracts.tables.controls import CONTROLS
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.report import write

from tests.report_pages import DEMO, MADE, Page, cells, metrics_of, write_examples, write_rewards, written

from ..unit.test_verdicts import NOTHING, control

PROMPTS = ("Look. {question}", "<b>{question}</b>")


def page_of(folder: Path, twinless: dict[str, str] | None = None) -> Page:
    """A page on which DPO has no gain and PerPO's gain is explained by SFT on the best answers."""
    rows = [{**NOTHING, "sft_on_best": control("sft_on_best", 0.01)}, NOTHING]
    controls = {}
    for policy, found in zip(("perpo", "dpo"), rows, strict=True):
        controls[policy] = folder / f"controls-{policy}.parquet"
        write_table(controls[policy], CONTROLS, [r | {"policy": policy} for r in found.values()], MADE)
    write_table(folder / "metrics.parquet", METRICS, metrics_of(DEMO), MADE)
    examples = write_examples(folder / "examples.parquet", 4)
    for policy in DEMO:
        write_rewards(folder / f"rewards-{policy}.parquet", examples, policy, False, 7)
    write.run(
        metrics=folder / "metrics.parquet", training={}, statistics={}, pairs={}, rounds={}, noise={},
        predictions={p: {"shapes-test": folder / f"rewards-{p}.parquet"} for p in DEMO},
        examples={"shapes": folder / "examples.parquet"},
        benchmarks={"shapes-test": BenchmarkBlock(dataset="shapes", reward="perception", prompts=PROMPTS)},
        base=dict.fromkeys(DEMO, "tiny"), report=folder / "report.html", result_table=folder / "result.txt",
        figures={}, config=ReportBlock(), controls=controls, twinless=twinless or {},
    )  # fmt: skip
    return Page(folder / "report.html")


def test_the_page_shows_what_explains_a_gain(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert {"controls", "result"} <= set(page.ids)
    assert "controls: the gain of perpo is explained by SFT on the best answers" in page.text
    counterpart = "sft-on-best-n20-ranked, trained on the same lists with the same budget, scores"
    assert f"explained by SFT on the best answers: {counterpart}" in page.text
    assert (
        "not explained by another prompt (the base scores best with the original one), a blank image (accounts for 0.0 "
        "of 10.0" in page.text
    )
    numbers = cells(page, "controls", "perpo")
    assert numbers.startswith("perpo +10.2 * [+7.2, +13.2] base 48.0 % +10.0 * [+8.0, +12.0] base 48.0 %, own prompt")
    assert "+1.0 explained [\u22121.0, +3.0] SFT 57.0 %" in numbers
    assert "explained" not in cells(page, "controls", "dpo")  # it has no gain
    assert "<b>{question}</b>" in page.text  # a prompt stays text
    assert "controls of perpo" in page.text


def test_the_result_table_shows_what_explains_a_gain(tmp_path: Path) -> None:
    page_of(tmp_path, {"perpo": "it learns from pairs"})
    text = (tmp_path / "result.txt").read_text()
    assert "shapes-test / grounding, controls: gain in accuracy at IoU 0.5, points" in text
    assert "+1.0 (explained)" in text
    words = " ".join(text.split())
    assert "perpo: explained by SFT on the best answers: sft-on-best-n20-ranked" in words
    assert "perpo: no SFT counterpart: it learns from pairs." in words
    assert all(len(line) <= 100 for line in text.splitlines())


def test_without_controls_the_page_does_not_mention_them(tmp_path: Path) -> None:
    page = Page(written(tmp_path, DEMO))
    assert "controls" not in page.ids
    for text in (page.text, (tmp_path / "result.txt").read_text()):
        assert "Controls" not in text
        assert "controls: " not in text
