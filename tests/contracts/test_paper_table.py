"""docs/papers.md names files, experiments, benchmarks, trainings and comparisons that exist."""

import re
from pathlib import Path

import pytest
from perceptune.planning.sweeps import expand_sweeps

from tests.shipped import paper_with_ablations

ROOT = Path(__file__).parents[2]
SECTIONS = ("experiments", "benchmarks", "trainings", "comparisons")
TEXT = (ROOT / "docs/papers.md").read_text()


def rows() -> list[tuple[str, list[str]]]:
    """(paper, cells) of every row."""
    found, paper = [], ""
    for line in TEXT.splitlines():
        if line.startswith("## "):
            paper = line.removeprefix("## ").lower().replace("-", "")
        elif line.startswith("| ") and not line.startswith("| element"):
            found.append((paper, [cell.strip() for cell in line.strip("|").split(" | ")]))
    return found


def test_every_file_exists() -> None:
    named = re.findall(r"`([\w/.-]+\.(?:py|yaml))`", TEXT)
    assert len(named) > 40
    missing = [
        name for name in named if not any((base / name).exists() for base in (ROOT, ROOT / "workflow/perceptune"))
    ]
    assert not missing


@pytest.mark.parametrize("paper", ["p2dpo", "perpo", "papo", "cppo"])
def test_what_is_run_is_in_the_configs(paper: str) -> None:
    """Names of `run`; a capital at the end stands for each value of a sweep."""
    expanded = expand_sweeps(paper_with_ablations(paper))
    known = (
        {name for section in (*SECTIONS, "views") for name in expanded.get(section, {})} | {"blank"} | {"split: train"}
    )
    own = [cells for of, cells in rows() if of == paper]
    assert len(own) >= 4
    for cells in own:
        assert len(cells) == 4, cells
        for name in re.findall(r"`([^`]+)`", cells[2]):
            metric = name.startswith(("afr", "image_share", "p_accuracy"))
            swept = any(one.startswith(name[:-1]) for one in known) and name[-1].isupper()
            assert metric or name in known or swept, (name, cells)


def test_what_is_missing_has_no_test() -> None:
    for _, cells in rows():
        if cells[1].startswith("missing") and cells[2] == "–":
            assert cells[3] == "–", cells
        else:
            assert cells[1].startswith("equal") or "`" in cells[1] or cells[1] == "the same" or "missing" in cells[1], (
                cells
            )
