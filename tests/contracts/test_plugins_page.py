"""The examples of docs/plugins.md are plug-ins that work."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from perceptune.contracts import plugins
from perceptune.core.benchmarks.benchmark import Answered
from perceptune.core.data.row_checks import RowError
from perceptune.core.methods.method import Group
from perceptune.core.rewards.reward import Answers
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs/plugins.md"
KINDS = {
    "contains": "reward",
    "posterise": "view",
    "hinge": "method",
    "shelf_photos": "importer",
    "shelves": "benchmark",
}


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Loads an example after all of them are written into a folder of plug-ins."""
    monkeypatch.setenv(plugins.ENVIRONMENT, "")
    blocks = re.findall(r"```python\n# my_plugins/(\S+)\n(.+?)```", PAGE.read_text(), re.DOTALL)
    assert [Path(name).stem for name, _ in blocks] == [*KINDS]
    for name, text in blocks:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    plugins.use_folders([tmp_path])
    return lambda name: plugins.load(KINDS[name], name)


def test_the_reward_finds_the_true_word(loaded: Callable[[str], Any]) -> None:
    texts = ["A Red cup.", "reddish", "?!"]
    nothing = np.full((3, 4), np.nan)
    scores = loaded("contains").score(Answers(texts, ["red"] * 3, nothing, np.full((3, 2), 9), None))
    assert scores.rewards.tolist() == [1, 0, 0]
    assert scores.reasons == [None, None, "no word: expected at least one"]


def test_the_view_keeps_as_many_levels_as_it_says(loaded: Callable[[str], Any]) -> None:
    view = loaded("posterise")
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(3, 0)).convert("RGB")
    (shown,) = view.apply([ramp], view.Parameters(bits=2), 0, None)
    assert len(set(np.asarray(shown).ravel().tolist())) == 4


def test_the_loss_of_the_method_is_a_hinge(loaded: Callable[[str], Any]) -> None:
    method = loaded("hinge")
    for margin, expected in ((0.0, 1.0), (4.0, 0.8), (30.0, 0.0)):
        logps, reference = torch.tensor([margin - 5, -7.0, -5.0]), torch.tensor([-5.0, -6.0, -5.0])
        group = Group(logps, reference, torch.ones(3), torch.tensor([1.0, 0.5, 0.0]))
        assert method.loss(group, method.Parameters()).item() == pytest.approx(expected)


def test_the_importer_says_what_is_wrong_with_a_row(loaded: Callable[[str], Any]) -> None:
    class Lines:
        split = None

        def names(self, pattern: str) -> list[str]:
            return []

        def records(self) -> list[tuple[str, dict[str, Any]]]:
            row = {"photo": "1.jpg", "ask": "What?", "shelf": 101}
            return [("line 1", {**row, "truth": "tea"}), ("line 2", {**row, "truth": ""})]

    (_, good), (place, bad) = loaded("shelf_photos").rows(Lines())
    assert good == {"image": "1.jpg", "question": "What?", "answer": "tea", "split": "test", "shelf": 101}
    assert place == "line 2"
    assert isinstance(bad, RowError)


def test_the_benchmark_counts_shelves(loaded: Callable[[str], Any]) -> None:
    benchmark = loaded("shelves")

    def answered(shelf: int, right: float) -> Answered:
        return Answered("e", "open", "?", "tea", "tea", {}, {"accuracy": right}, None, {"shelf": shelf})

    columns = benchmark.columns([answered(1, 1.0), answered(1, 1.0), answered(2, 1.0), answered(2, 0.0)])
    found = {name: float(measured.metric(columns)) for name, measured in benchmark.metrics.items()}
    assert found == {"accuracy": 0.75, "solved": 0.5}


def test_the_test_on_the_page_passes(loaded: Callable[[str], Any], tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(import torch.+?)```", PAGE.read_text(), re.DOTALL)
    assert 'use_folders(["my_plugins"])' in block
    exec(block.replace('"my_plugins"', repr(str(tmp_path))), {})
