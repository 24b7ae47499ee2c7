"""Density of pages: the quarters, and the report's section."""

import numpy as np
import polars as pl
import pytest
from perceptune.core.benchmarks.density import quarters
from perceptune.report import results, write
from perceptune.report.sections.density import density_section

from tests.report_pages import metric_row
from tests.unit.test_charts import of_class

STYLES = {"llava": "base", "perpo": "s1"}


def test_quarters_by_hand() -> None:
    """The quartiles of 10, 20, ..., 80 are 27.5, 45 and 62.5."""
    assert quarters([80, 10, 20, 30, 40, 50, 60, 70]).tolist() == [4, 1, 1, 2, 2, 3, 3, 4]
    assert quarters([5]).tolist() == [1]
    assert quarters([]).tolist() == []


def test_pages_of_the_same_length_are_in_the_same_quarter() -> None:
    lengths = np.random.default_rng(0).integers(0, 6, 200)
    found = quarters(lengths.tolist())
    assert all(len(set(found[lengths == length])) == 1 for length in lengths)
    order = np.argsort(lengths, kind="stable")
    assert (np.diff(found[order]) >= 0).all()


def by_density(levels: int = 2) -> pl.DataFrame:
    made = []
    for policy, gain in (("llava", None), ("perpo", -0.08)):
        made.append(metric_row(policy, "ned", 0.6 + (gain or 0), gain=gain))
        made.append(metric_row(policy, "token_f1", 0.5))
        for level in range(1, levels + 1):
            fixed = {"condition": "density", "k": level, "n": 28}
            made.append(metric_row(policy, "ned", 0.1 * level + (gain or 0), gain=gain, **fixed))
            made.append(metric_row(policy, "token_f1", 0.5, **fixed))
            for name, value in (("characters", 1500.0), ("characters_min", 1000.0), ("characters_max", 1999.0)):
                made.append(metric_row(policy, name, level * value, **fixed))
    return pl.DataFrame(made, infer_schema_length=None)


def test_the_section_has_a_column_per_quarter_and_intervals() -> None:
    metrics = by_density()
    (result,) = results.results(metrics)
    found = density_section(metrics, result, STYLES)
    assert found is not None
    assert found["levels"] == [{"characters": "1,000 to 1,999", "n": 28}, {"characters": "2,000 to 3,998", "n": 28}]
    first, second = found["tables"]
    assert (first["measure"].label, second["measure"].label) == ("edit distance (NED)", "token F1")
    base, trained = first["rows"]
    assert [cell["value"] for cell in base["cells"]] == ["0.100", "0.200"]
    assert [cell["gain"] for cell in trained["cells"]] == ["\u22120.080 *", "\u22120.080 *"]
    assert trained["cells"][0]["interval"] == "[-0.020, 0.060]"
    assert len(of_class(found["panel"], "spread")) == 4  # an interval per policy and quarter
    assert len(of_class(found["gains"], "curve")) == 1


def test_other_benchmarks_have_no_section() -> None:
    metrics = by_density().filter(pl.col("condition") == "greedy")
    assert density_section(metrics, results.results(metrics)[0], STYLES) is None


@pytest.mark.parametrize("levels", [1, 4])
def test_the_page_shows_it(levels: int) -> None:
    metrics = by_density(levels)
    part = density_section(metrics, results.results(metrics)[0], STYLES)
    parts = write._environment().from_string(
        '{% from "macros.html.jinja" import entry, legend, named, table with context %}'
        '{% include "density.html.jinja" %}'
    )
    page = parts.render(density=[part], base=STYLES, styles=STYLES, more=False, unfolded=2, few=30)
    assert page.count('<th scope="col">1,000 to 1,999 characters<br>n = 28</th>') == 2
    assert page.count("<details>") == page.count("</details>") == 1
    assert page.count("<svg") == 2
