"""The sections on density, epochs and selected tokens on a whole page of the report."""

import re
from pathlib import Path

from perceptune.contracts.config import BenchmarkBlock, ReportBlock
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.contracts.tables.selected import SELECTED
from perceptune.report import write

from tests.report_pages import metric_row


def test_each_has_a_link_and_only_it_shows_kept_epochs(tmp_path: Path) -> None:
    rows = []
    for policy, gain in (("tiny", None), ("perpo@1", -0.05), ("perpo", -0.1)):
        rows.append(metric_row(policy, "ned", 0.6 + (gain or 0), gain=gain))
        for k in (1, 2):
            rows.append(metric_row(policy, "ned", 0.6 + (gain or 0), gain=gain, condition="density", k=k))
            names = ("characters", "characters_min", "characters_max")
            rows += [metric_row(policy, name, 900.0 * k, condition="density", k=k) for name in names]
    write_table(tmp_path / "metrics.parquet", METRICS, rows, {})
    numbers = {name: [0.5, 0.0] for name in ("entropies", "removed_entropies", "scores")}
    answer = {
        "group_id": "g", "example_id": "e", "sample_index": 0, "question": "<script>?", "reward": 1.0, "tokens": ["<b>", "\u202e"],
        "selected": [True, False], "random": [False, True], **numbers,
    }  # fmt: skip
    write_table(tmp_path / "cppo@4.parquet", SELECTED, [answer], {})
    write.run(
        metrics=tmp_path / "metrics.parquet", training={}, statistics={}, pairs={}, rounds={}, noise={}, predictions={}, examples={},
        benchmarks={"shapes-test": BenchmarkBlock(dataset="shapes", reward="perception")},
        base={"tiny": "tiny", "perpo@1": "tiny", "perpo": "tiny"}, report=tmp_path / "report.html", result_table=tmp_path / "result.txt",
        figures={}, config=ReportBlock(tokens=3), epochs={"perpo": {"perpo@1": 1, "perpo": 2}}, tokens={"cppo": tmp_path / "cppo@4.parquet"},
    )  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    sections = dict(re.findall(r'<section id="(\w+)">(.*?)</section>', page, re.DOTALL))
    assert [name for name in sections if f'href="#{name}"' in page] == [*sections]
    assert {"result", "density", "epochs", "tokens"} <= sections.keys()
    assert "perpo@1" not in page + (tmp_path / "result.txt").read_text()
    assert "<td>2</td>" in sections["epochs"]
    assert '<mark title="score 0.500">&lt;b&gt;</mark>\\u202e' in sections["tokens"]
    assert "<script>" not in page
