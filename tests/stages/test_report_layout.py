"""The report page is usable without sight, and short with many tasks."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from tests.report_pages import DEMO, Page, cells, metric_row, written

TASKS = {
    "ocr": ("ned", "token_f1", "token_precision", "token_recall", "exact"),
    "existence": ("f1", "accuracy", "precision", "recall", "yes_ratio"),
    "counting": ("accuracy",),
}
POLICIES = {"tiny": None, "dpo": 0.0, "grpo": -0.1, "perpo": 0.1}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(written(tmp_path_factory.mktemp("demo"), DEMO, pairs=True))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Three tasks and four policies, with and without the image."""
    rows = [
        metric_row(policy, metric, 0.5 + (gain or 0), gain=gain, benchmark=f"photos-{task}", task=task, view=view)
        for task, metrics in TASKS.items()
        for policy, gain in POLICIES.items()
        for view in ("original", "blank")
        for metric in metrics
    ]
    return Page(written(tmp_path_factory.mktemp("tasks"), POLICIES, metrics=rows))


def test_the_matrix_has_every_task_and_policy(tasks: Page) -> None:
    assert cells(tasks, "summary", "photos-ocr") == (
        "photos-ocr ocr \u00b7 edit distance (NED), lower is better \u00b7 600 questions 0.500 base "
        "0.500 0.000 not distinguishable 0.400 \u22120.100 \u25b2 better 0.600 +0.100 \u25bc worse"
    )
    assert cells(tasks, "summary", "photos-counting").endswith(
        "50.0 base 50.0 0.0 not distinguishable 40.0 \u221210.0 \u25bc worse 60.0 +10.0 \u25b2 better"
    )
    assert tasks.source.index(' id="summary"') < tasks.source.index("<section")


def test_many_tasks_are_folded_and_few_are_not(demo: Page, tasks: Page) -> None:
    for page, folded in ((demo, 0), (tasks, 2 * len(TASKS))):  # in the sections on results and on blank images
        assert page.source.count('<details class="part">') == folded
    assert "no image" not in tasks.source[tasks.source.index('id="result"') : tasks.source.index('id="blank"')].lower()


@pytest.mark.parametrize("name", ["demo", "tasks"])
def test_drawings_tables_and_headings_are_named(name: str, request: pytest.FixtureRequest) -> None:
    page: Page = request.getfixturevalue(name)
    charts = [found for tag, found in page.elements if tag == "svg" and found["class"] == "chart"]
    named = [found["aria-label"] or "" for found in charts if "aria-hidden" not in found]
    assert len(charts) > len(named) > 0
    assert all(len(label) > 10 for label in named)
    assert len(set(named)) == len(named)
    assert page.source.count('class="scene"') == len(
        re.findall(r'<svg class="scene"[^>]*><title>[^<]{8,}', page.source)
    )
    captions = re.findall(r'<table class="[a-z ]*"><caption class="unseen">([^<]{8,})</caption>', page.source)
    assert page.source.count("<table") == len(captions) == len(set(captions))
    assert not re.search(r"<th[^>]*>(<span[^>]*></span>)?</th>", page.source)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))
    tabs = [found for tag, found in page.elements if tag in ("a", "summary") or found.get("tabindex") == "0"]
    assert tabs[0] == {"class": "skip", "href": "#main"}
    assert page.source.index("<nav") < page.source.index('<main id="main"') < page.source.index("<h1")
    assert all(
        found.get("tabindex") == "0" and found.get("aria-label")
        for _, found in page.elements
        if found.get("class") == "scroll"
    )
