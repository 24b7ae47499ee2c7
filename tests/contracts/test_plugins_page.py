"""The examples of docs/plugins.md are plug-ins that work."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from perceptune.contracts import plugins
from perceptune.core.benchmarks.benchmark import Answered
from perceptune.core.data.row_checks import RowError
from perceptune.core.methods.method import Group
from perceptune.core.rewards.reward import Answers
from perceptune.planning import policies as planning
from perceptune.planning.rules import RULES
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
        file = tmp_path / "my_plugins" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.chdir(tmp_path)
    plugins.use_folders(["my_plugins"])
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


def snippet(language: str, start: str) -> str:
    """The only block on the page in this language that starts with this text."""
    (found,) = re.findall(rf"```{language}\n({re.escape(start)}.+?)```", PAGE.read_text(), re.DOTALL)
    return str(found)


def test_the_test_on_the_page_passes(loaded: Callable[[str], Any]) -> None:
    exec(snippet("python", "import torch"), {})


def test_the_metrics_on_the_page_are_declared_as_they_must_be() -> None:
    found: dict[str, Any] = {}
    exec(snippet("python", "from perceptune.core.rewards.metrics"), found)
    errors = found["metrics"]["error"].metric({"error": np.array([0.25, 0.75])})
    assert errors == 0.5


def test_the_config_on_the_page_is_valid(loaded: Callable[[str], Any], tmp_path: Path) -> None:
    """With the blocks that any config has."""
    raw = yaml.safe_load(snippet("yaml", "plugins:"))
    raw |= {
        "models": {"tiny": {"path": str(PAGE.parents[1] / "resources/tiny-llava/model"), "family": "llava"}},
        "samplings": {"n8": {"n": 8}},
        "selections": {"ranked": {}},
        "experiments": {
            "hinge": {
                "model": "tiny", "dataset": "photos", "sampling": "n8", "reward": "words", "selection": "ranked",
                "training": "hinge", "benchmarks": ["shelves"],
            }
        },
    }  # fmt: skip
    plan = planning.load(raw)
    assert plan.config.benchmarks["shelves"].max_tokens == 16  # as the plug-in says
    for rule, wildcards, used in (
        ("import_examples", {"dataset": "photos"}, {"shelf_photos"}),
        ("train_adapter", {"experiment": "hinge"}, {"hinge"}),
        ("evaluate_policy", {"policy": "tiny"}, {"shelves", "contains"}),
    ):
        modules = {module.rpartition(".")[2] for module in RULES[rule].job(plan, **wildcards).modules}
        assert modules.intersection(KINDS) == used
