"""`perceptune check` calls the user's plug-ins: their mistakes show before anything is sampled."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from perceptune.__main__ import main
from perceptune.contracts import plugins
from PIL import Image

ROOT = Path(__file__).parents[2]

REWARD = '''"""Counts: 1 minus the relative error."""

import re

import numpy as np

from perceptune.core.rewards.metrics import mean
from perceptune.core.rewards.reward import Reward, RewardMetric, Scores


def count_error(answers):
    """1 - |said - true| / max(said, true); 0 without a number."""
    found = [re.search(r"\\d+", text) for text in answers.texts]
    said = np.array([float(one[0]) if one else np.nan for one in found])
    true = np.array([float(target) for target in answers.targets])
    error = np.abs(said - true) / np.maximum(np.maximum(said, true), 1)
    rewards = np.nan_to_num(1 - error)
    parsed = [{"count": float(number)} if one else None for one, number in zip(found, said)]
    return Scores(rewards, parsed, {"error": np.nan_to_num(error, nan=1.0)}, [None if one else "no number" for one in found])


REWARD = Reward(
    name="count_error",
    summary="1 minus the relative error of a count",
    score=count_error,
    components=("error",),
    metrics={"error": RewardMetric(mean("error"), "relative error", lower_is_better=True, component="error")},
    needs="answer",
)
'''
VIEW = '''"""JPEG compression."""

from typing import Annotated

from pydantic import Field

from perceptune.core.views.view import View, ViewParameters


class JpegParameters(ViewParameters):
    quality: Annotated[int, Field(ge=1, le=95)] = 10
    """Pillow's quality."""


class Jpeg(View):
    name = "jpeg"
    Parameters = JpegParameters

    def apply(self, images, parameters, seed, box):
        """Every image after compression."""
        from io import BytesIO

        from PIL import Image

        compressed = []
        for image in images:
            file = BytesIO()
            image.save(file, "JPEG", quality=parameters.quality)
            compressed.append(Image.open(file).convert("RGB"))
        return compressed


VIEW = Jpeg()
'''
METHOD = '''"""DPO with a margin that grows with the difference of the rewards."""

from typing import Annotated

from pydantic import Field

from perceptune.core.methods.method import MethodParameters
from perceptune.core.methods.pair import PairMethod, log_ratio_margin


class GapMarginParameters(MethodParameters):
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Scale of the implicit reward."""
    scale: Annotated[float, Field(ge=0)] = 1.0
    """Margin for a difference of 1 between the rewards."""


class GapMargin(PairMethod):
    name = "gap_margin"
    Parameters = GapMarginParameters

    def loss(self, group, parameters):
        """-log sigmoid(beta (s_best - s_worst) - scale (R_best - R_worst))."""
        from torch.nn.functional import softplus

        gap = group.rewards[0] - group.rewards[-1]
        return softplus(parameters.scale * gap - parameters.beta * log_ratio_margin(group))


METHOD = GapMargin()
'''
BENCHMARK = '''"""Shelves: the share of shelves of which all items are counted right."""

import numpy as np

from perceptune.core.benchmarks.benchmark import Benchmark, Measured, share, summed


def columns(answers):
    """A unit is a shelf."""
    shelves = [str(answer.source["shelf"]) for answer in answers]
    right = [float(answer.components.get("error", 1.0) == 0) for answer in answers]
    found = summed(shelves, {"right": right, "asked": [1.0] * len(answers)})
    return {**found, "solved": found["right"] == found["asked"], "shelves": np.ones(len(found["asked"]))}


BENCHMARK = Benchmark(
    name="shelf_counts",
    rewards={"counting": "count_error"},
    components={"counting": ("error",)},
    reads={"counting": ("shelf",)},
    columns=columns,
    metrics={"solved": Measured(share("solved", "shelves"), "shelves counted right")},
)
'''
FILES = {
    "rewards/count_error.py": REWARD,
    "views/jpeg.py": VIEW,
    "methods/gap_margin.py": METHOD,
    "benchmarks/shelf_counts.py": BENCHMARK,
}
NAMES = [Path(file).stem for file in FILES]
CONFIG: dict[str, Any] = {
    "plugins": ["own"],
    "models": {"tiny": {"path": "model", "family": "llava", "dtype": "float32", "max_model_len": 512}},
    "datasets": {"shelf": {"kind": "jsonl", "path": "shelf.jsonl", "task": "counting"}},
    "views": {"compressed": {"type": "jpeg", "parameters": {"quality": 20}}},
    "samplings": {"n8": {"n": 8, "max_tokens": 24}},
    "rewards": {"counts": {"tasks": {"counting": "count_error"}}},
    "selections": {"ranked": {"list_size": 8, "min_margin": 0.1}},
    "trainings": {"gap": {"method": "gap_margin", "parameters": {"scale": 0.5}}},
    "benchmarks": {"test": {"dataset": "shelf", "protocol": "shelf_counts", "views": ["original", "compressed"]}},
    "experiments": {
        "gap": {
            "model": "tiny", "dataset": "shelf", "sampling": "n8", "reward": "counts", "selection": "ranked",
            "training": "gap", "benchmarks": ["test"],
        },
    },
}  # fmt: skip

Checked = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Checked:
    """Writes these plug-ins, whose names get a suffix: modules of a name are imported once in a process.
    Returns the exit status of `check`, and its lines without the table of disk space, or its error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(plugins.ENVIRONMENT, "")
    (tmp_path / "model").symlink_to(ROOT / "resources/tiny-llava/model")
    Image.new("RGB", (64, 48), "red").save("a.png")
    rows = [
        {"image": "a.png", "question": f"how many on shelf {n}?", "answer": n % 4, "shelf": n // 2, "split": split}
        for n in range(6)
        for split in ("train", "test")
    ]
    Path("shelf.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def check(files: dict[str, str], suffix: str, config: dict[str, Any] = CONFIG) -> tuple[int, list[str]]:
        def renamed(text: str) -> str:
            return re.sub(rf'(?<=["/])({"|".join(NAMES)})(?=["/.])', rf"\1{suffix}", text)

        for name, text in files.items():
            file = tmp_path / "own" / renamed(f"/{name}")[1:]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(renamed(text))
        Path("my.yaml").write_text(yaml.safe_dump(json.loads(renamed(json.dumps(config)))))
        status = main(["check", "my.yaml"])
        printed = capsys.readouterr()
        lines = [line.replace(suffix, "") for line in (printed.out or printed.err).splitlines()]
        disk = [n for n, line in enumerate(lines) if line.startswith("disk space")]
        return status, [*lines[: disk[0]], lines[-1]] if disk else lines

    return check


def test_plugins_that_work_are_not_mentioned(checked: Checked) -> None:
    assert checked(FILES, "_good") == (0, ["the config is valid: 1 experiment; nothing found that would stop the run"])


LOSS = "return softplus(parameters.scale * gap - parameters.beta * log_ratio_margin(group))"
MISTAKES = {
    "reward: no Scores": ("rewards/count_error.py", "    return Scores(rewards, ", "    return (rewards, ", "`rewards.counts.tasks.counting`: reward `count_error` returns a `tuple`, expected `Scores`"),
    "reward: below 0": ("rewards/count_error.py", "np.nan_to_num(1 - error)", "np.nan_to_num(-np.abs(said - true)) - 1.5", "reward `count_error` is -1.5 for the answer '0', expected a number from 0 to 1"),
    "reward: shape": ("rewards/count_error.py", "Scores(rewards, ", "Scores(rewards[:1], ", "reward `count_error`: `rewards` has shape (1,), expected ("),
    "reward: exception": ("rewards/count_error.py", 'float(one[0]) if one else np.nan', "float(one[0])", "own/rewards/count_error.py`, line 14, in `"),
    "reward: not JSON": ("rewards/count_error.py", '{"count": float(number)}', '{"count": np.int64(3)}', "reward `count_error`: `parsed` cannot be stored as JSON: Object of type int64 is not JSON serializable; use text, Python's numbers"),
    "reward: compares answers": ("rewards/count_error.py", "np.nan_to_num(1 - error)", "(found_any := np.nan_to_num(1 - error)) / max(found_any.sum(), 1)", "expected the same; answers come in batches of any size"),
    "reward: NaN": ("rewards/count_error.py", "np.nan_to_num(1 - error)", "np.full_like(error, np.nan)", "reward `count_error` is nan for all answers that were tried"),
    "reward: component": ("rewards/count_error.py", "np.nan_to_num(error, nan=1.0)", "error", "reward `count_error`: metric `error` of the answers that were tried is nan; components are finite"),
    "view: not a list": ("views/jpeg.py", "return compressed", "return compressed[0]", "`views.compressed.type`: view `jpeg` returns a `Image`, expected a list of RGB images"),
    "view: not RGB": ("views/jpeg.py", 'convert("RGB")', 'convert("L")', "view `jpeg` returns `L` in its list, expected RGB images"),
    "view: other size": ("views/jpeg.py", 'convert("RGB")', 'convert("RGB").resize((9, 9))', "view `jpeg` changed sizes"),
    "view: too few": ("views/jpeg.py", "return compressed", "return compressed[:1]", "view `jpeg` returns 1 images, expected 2"),
    "view: unseeded": ("views/jpeg.py", "quality=parameters.quality", "quality=parameters.quality + seed", "view `jpeg`: it uses `seed` but does not declare `seeded = True`, so every image would get the seed 0"),
    "view: random": ("views/jpeg.py", "        from io import BytesIO\n", "        from io import BytesIO\n        Jpeg.calls = getattr(Jpeg, 'calls', 0) + 10\n        parameters = JpegParameters(quality=Jpeg.calls)\n", "view `jpeg`: the same seed gives other pixels"),
    "view: draws on the given image": ("views/jpeg.py", "        compressed = []\n", "        images[0].putpixel((0, 0), (9, 9, 9))\n        compressed = []\n", "view `jpeg`: it changes the images that it is given, which other views are made of; draw on `image.copy()`"),
    "view: ValueError": ("views/jpeg.py", "quality=parameters.quality)", "quality=float('ten'))", "line 28, in `apply`: ValueError: could not convert string to float: 'ten'"),
    "view: exception": ("views/jpeg.py", "parameters.quality)", "parameters.qualty)", "line 28, in `apply`: AttributeError: 'JpegParameters' object has no attribute 'qualty'"),
    "method: shape": ("methods/gap_margin.py", LOSS, "return softplus(-group.scores)", "`trainings.gap.method`: method `gap_margin`: the loss has shape (4,), expected a scalar, shape ()"),
    "method: number": ("methods/gap_margin.py", LOSS, "return 1.0", "method `gap_margin`: the loss is a `float`, expected a tensor"),
    "method: detached": ("methods/gap_margin.py", LOSS, LOSS + ".detach()", "method `gap_margin`: the loss has no gradient"),
    "method: answers that it does not ask for": ("methods/gap_margin.py", LOSS, "return softplus(-group.scores).mean()", "method `gap_margin`: the loss of a made-up list is nan; the log-probs that the method asked for are finite"),
    "method: gradient": ("methods/gap_margin.py", LOSS, "return (log_ratio_margin(group) * 0).sqrt()", "method `gap_margin`: the gradient of the loss of a made-up list is not finite"),
    "method: metrics": ("methods/gap_margin.py", "METHOD =", "GapMargin.metrics = lambda self, group, parameters: {'gap': None}\nMETHOD =", "method `gap_margin`: TypeError: float() argument"),
    "benchmark: column": ("benchmarks/shelf_counts.py", 'share("solved", ', 'share("sloved", ', "`benchmarks.test.protocol`: benchmark `shelf_counts`: metric `solved` reads unknown column 'sloved', expected one of `right`, `asked`, `solved`, `shelves`"),
    "benchmark: no dictionary": ("benchmarks/shelf_counts.py", "return {**found,", "return found['right'] if found else {**found,", "benchmark `shelf_counts`: `columns` returns a `ndarray`, expected a dictionary of arrays"),
    "benchmark: mean of units": ("benchmarks/shelf_counts.py", 'share("solved", "shelves")', 'lambda columns: columns["right"].mean(axis=-1)', "benchmark `shelf_counts`: metric `solved` is 2 for columns and 6 for their sums, expected the same; intervals come from sums"),
    "benchmark: sum of everything": ("benchmarks/shelf_counts.py", 'share("solved", "shelves")', 'lambda columns: columns["solved"].sum() / columns["shelves"].sum()', "benchmark `shelf_counts`: metric `solved` returns shape () for columns of shape (2, 1), expected (2,)"),
    "benchmark: shapes": ("benchmarks/shelf_counts.py", 'np.ones(len(found["asked"]))', "np.ones(len(answers))", "benchmark `shelf_counts`: column `shelves` has shape (6,), expected one number per unit"),
    "benchmark: missing answers": ("benchmarks/shelf_counts.py", 'components.get("error", 1.0)', 'components["error"]', "own/benchmarks/shelf_counts.py`, line 11, in `"),
    "benchmark: source": ("benchmarks/shelf_counts.py", 'source["shelf"]', 'source["rack"]', "has no column `rack`"),
}  # fmt: skip
"""Case: file, text to replace, its replacement, and what `check` says."""


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_plugin(case: str, checked: Checked) -> None:
    file, old, new, expected = MISTAKES[case]
    assert FILES[file].count(old) == 1
    files = copy.copy(FILES) | {file: FILES[file].replace(old, new)}
    status, lines = checked(files, f"_{[*MISTAKES].index(case)}x")
    assert status == 1
    assert lines[0].startswith("stops: ") and expected in lines[0]
    assert lines[1:] == [
        "not checked: prompts, until the plug-ins above work",
        "the config is valid: 1 experiment; the run would stop (1 reason above)",
    ]


IMPORTER = '''"""Shelves in my own words."""

from perceptune.core.importers.importer import Importer, each


def row(record):
    """A row of mine as one of perceptune's."""
    return {**record, "shelf": record["shelf"].strip()}


IMPORTER = Importer("shelf_rows", each(row), task="counting", reads="jsonl")
'''


def test_an_exception_of_an_importer_is_one_line(checked: Checked) -> None:
    config = {**CONFIG, "datasets": {"shelf": {"kind": "shelf_rows", "path": "shelf.jsonl"}}}
    status, lines = checked({**FILES, "importers/shelf_rows.py": IMPORTER}, "_imported", config)
    assert status == 1
    assert lines[-1].startswith("error: `")
    assert lines[-1].endswith("shelf_rows.py`, line 8, in `row`: AttributeError: 'int' object has no attribute 'strip'")
