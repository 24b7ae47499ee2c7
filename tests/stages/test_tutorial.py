"""Every command of docs/tutorial.md works."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
COCO, TABLE = (
    re.findall(r"^```sh\n(.*?)^```$", part, re.DOTALL | re.MULTILINE)
    for part in (ROOT / "docs/tutorial.md").read_text().split("## The same with a spreadsheet")
)
DRAW = next(number for number, block in enumerate(COCO) if "instances.json" in block)
IMPORT = next(number for number, block in enumerate(COCO) if " data " in block)
DRY_RUN = next(number for number, block in enumerate(COCO) if " -n " in block)
INSPECT = """
perceptune() {  # `inspect` serves until it is stopped: read its page once instead
    if [ "$1" != inspect ]; then command perceptune "$@"; return; fi
    command perceptune "$@" > inspect.log 2>&1 &
    for _ in $(seq 120); do grep -q http inspect.log && break; sleep 0.5; done
    python -c 'import re, urllib.request as u; print(u.urlopen(re.search(r"http\\S+", open("inspect.log").read())[0]).status)'
    kill $!
}
"""


def run(folder: Path, blocks: list[str]) -> str:
    """Output of the commands of a reader who is in a clone of the repository; the first failure ends them."""
    for name in ("Snakefile", "workflow", "config", "resources"):
        (folder / name).symlink_to(ROOT / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", "\n".join(["set -euo pipefail", INSPECT, *blocks])],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "workflow"), "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
def test_a_reader_gets_to_the_dry_run(tmp_path: Path) -> None:
    said = run(tmp_path, [block for number, block in enumerate(COCO[: DRY_RUN + 1]) if number != IMPORT])
    assert "found: 900 rows (train: 900 grounding) about 300 images" in said
    assert "the config is valid: 1 experiment" in said
    assert re.search(r"^train_adapter +1$", said, re.MULTILINE)


@pytest.mark.extended
@pytest.mark.slow
def test_a_reader_trains_on_boxes(tmp_path: Path) -> None:
    said = run(tmp_path, COCO)
    folder = tmp_path / "runs/shapes"
    assert "nothing found that would stop the run\n" in said  # with the data imported
    result = (folder / "results/result.txt").read_text()
    assert result in said
    assert re.search(r"^perpo +\d", result, re.MULTILINE)
    assert (folder / "results/report.html").is_file()
    assert Image.open(folder / "0-perpo.png").size == (448, 448)
    again = said[said.rindex("Building DAG of jobs") :]
    assert re.search(r"^train_adapter +1$", again, re.MULTILINE)
    assert "        trainings.perpo.parameters.beta: 0.1 -> 0.2\n" in again
    assert not re.search(r"^(import_examples|select_preferences) +\d", again, re.MULTILINE)


@pytest.mark.extended
@pytest.mark.slow
def test_a_reader_trains_on_a_spreadsheet(tmp_path: Path) -> None:
    said = run(tmp_path, [*COCO[: DRAW + 1], *TABLE])
    assert "found: 300 rows (train: 300 existence) about 300 images" in said
    assert re.search(r"^dpo +\d", (tmp_path / "runs/questions/results/result.txt").read_text(), re.MULTILINE)
    assert re.search(r"^(yes|no)$", said, re.MULTILINE)  # what the policy answers
