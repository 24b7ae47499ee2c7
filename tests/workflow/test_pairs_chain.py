"""P2-DPO's chain after a real run: the tables are consistent, and the report shows them."""

import math

import polars as pl
import pytest
from perceptune.core.data.images import open_image
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe, pixel_digest

from .conftest import Workflow

pytestmark = pytest.mark.slow


def table(finished: Workflow, path: str) -> pl.DataFrame:
    return pl.read_parquet(finished.folder / "results" / path)


def test_every_example_of_the_pairing_has_its_record(finished: Workflow) -> None:
    asked = table(finished, "requests/tiny/shapes/self-made.parquet")
    kept = table(finished, "preferences/tiny/shapes/self-made/central.parquet")
    assert set(kept["example_id"]) == set(asked["example_id"])
    assert 0 < kept["kept"].sum() < kept.height
    assert set(asked.filter(pl.col("contrast").is_not_null())["condition"]) == {"robust_chosen"}


def test_the_two_engines_agree_on_amplified_answers(finished: Workflow) -> None:
    """vLLM's log-probs of an amplified answer, given image and question, equal the stored log-probs
    from transformers.
    """
    groups = table(finished, "pairs/tiny/shapes/self-made.parquet").filter("kept")
    terms = dict(
        table(finished, "logprobs/tiny/shapes/self-made/reference@original.parquet")
        .select("group_id", "logprobs")
        .iter_rows()
    )
    answers = table(finished, "responses/tiny/shapes/self-made.parquet")
    requests = table(finished, "requests/tiny/shapes/self-made.parquet").filter(condition="robust_chosen")
    drawn = dict(answers.join(requests, "request_id", "semi").select("example_id", "logprobs").iter_rows())
    compared = 0
    for group in groups.to_dicts():
        places = [i for i, r in enumerate(group["responses"]) if r["role"] == "robust_chosen"]
        for place in places:
            expected = terms[group["group_id"]][place]
            assert math.fsum(drawn[group["example_id"]]) == pytest.approx(math.fsum(expected), abs=2e-3)
            compared += 1
    assert compared > 20


def test_views_are_made_again_from_the_tables_alone(finished: Workflow) -> None:
    groups = table(finished, "preferences/tiny/shapes/self-made/central.parquet").filter("kept").to_dicts()
    examples = {row["example_id"]: row for row in table(finished, "examples/shapes.parquet").to_dicts()}
    compared = 0
    for group in groups:
        images = [
            open_image(
                {"bytes": image["bytes"], "path": str(finished.folder / image["path"]) if image["path"] else None}
            )
            for image in examples[group["example_id"]]["images"]
        ]
        for view in group["views"]:
            assert pixel_digest(shown(Recipe.read(view["recipe"]), images)) == view["sha256"]
            compared += 1
    assert compared > 60


def test_the_page_and_the_table_show_it(finished: Workflow) -> None:
    page = (finished.folder / "results/report.html").read_text()
    for part in (
        'id="attention"',
        'id="pairs"',
        "attention focus ratio",
        "pairs with different answers",
        "inverse crop (control)",
    ):
        assert part in page, part
    assert page.count("<figcaption>attention, maximum") == page.count("<figcaption>noise, r.m.s.") > 0
    assert "the file does not exist" not in page
    assert "<script" not in page
    text = (finished.folder / "results/result.txt").read_text()
    assert "AFR" in text
    assert max(map(len, text.splitlines())) <= 100
