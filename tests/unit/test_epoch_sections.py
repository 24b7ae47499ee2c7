"""The report's section on kept epochs: numbers, order and drawings."""

import polars as pl
from perceptune.report import results, write
from perceptune.report.sections.epochs import epochs_section

from tests.report_pages import metric_row
from tests.unit.test_charts import of_class

STYLES = {"tiny": "base", "p2dpo": "s1"}
EPOCHS = {"p2dpo": {"p2dpo@1": 1.0, "p2dpo": 2.5}}
BASE = {"p2dpo": "tiny"}


def measured(attention: bool = True) -> pl.DataFrame:
    rows = []
    for policy, gain in (("tiny", None), ("p2dpo@1", 0.05), ("p2dpo", 0.1)):
        rows.append(metric_row(policy, "accuracy_iou_0.5", 0.5 + (gain or 0), gain=gain))
        if attention:
            for metric, value in (("afr", 14.0), ("image_share", 0.4), ("afr_layer_00", 2.0)):
                rows.append(metric_row(policy, metric, value + (gain or 0), gain=gain, condition="attention"))
    return pl.DataFrame(rows, infer_schema_length=None)


def test_accuracy_and_attention_by_epoch() -> None:
    metrics = measured()
    found = epochs_section(metrics, results.results(metrics)[0], EPOCHS, BASE, STYLES)
    assert found is not None
    assert [how.label for how in found["measures"]][1:] == ["attention on the image", "attention focus ratio"]
    assert [(row["name"], row["epoch"]) for row in found["rows"]] == [("p2dpo", "0"), ("p2dpo", "1"), ("p2dpo", "2.5")]
    assert [[cell["value"] for cell in row["cells"]] for row in found["rows"]] == [
        ["50.0", "40.0", "14.000"], ["55.0", "45.0", "14.050"], ["60.0", "50.0", "14.100"],
    ]  # fmt: skip
    assert [cell["gain"] for cell in found["rows"][2]["cells"]] == ["+10.0 *", "+10.0 *", "+0.100 *"]
    assert [len(of_class(panel, "spread")) for panel in found["panels"]] == [3, 3, 3]


def test_without_attention_only_the_accuracy_is_shown() -> None:
    metrics = measured(attention=False)
    found = epochs_section(metrics, results.results(metrics)[0], EPOCHS, BASE, STYLES)
    assert found is not None
    assert [len(row["cells"]) for row in found["rows"]] == [1, 1, 1]
    others = metrics.filter(pl.col("policy") == "tiny")
    assert epochs_section(others, results.results(others)[0], EPOCHS, BASE, STYLES) is None


def test_the_page_shows_a_row_per_epoch() -> None:
    metrics = measured()
    part = epochs_section(metrics, results.results(metrics)[0], EPOCHS, BASE, STYLES)
    template = write._environment().from_string(
        '{% from "macros.html.jinja" import entry, legend, named, table with context %}'
        '{% include "epochs.html.jinja" %}'
    )
    page = template.render(epochs=[part], styles=STYLES, more=False, unfolded=2)
    assert page.count("<span>p2dpo</span></span></th>") == page.count("<svg") == 3
