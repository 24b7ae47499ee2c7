"""A user's plug-ins in a folder of their own: a reward with a helper, a view, a method and a benchmark
with its importer; and a working directory that uses them all.
"""

import json
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageDraw

from tests.workflow.conftest import ROOT, Workflow

REWARD = '''"""Generalised intersection over union of the answered box with the true one."""

import numpy as np

from perceptune.core.answers import boxes
from perceptune.core.rewards._corners import hull
from perceptune.core.rewards.metrics import mean
from perceptune.core.rewards.reward import Answers, Reward, RewardMetric, Scores


def giou(answers: Answers) -> Scores:
    """Reward: (GIoU + 1) / 2, and 0 where there is no box. Component: `giou`, -1 where there is no box."""
    found = [boxes.parse_box(text) for text in answers.texts]
    written = np.array([f or (np.nan,) * 4 for f in found], dtype=float).reshape(-1, 4)
    ours, theirs = boxes.to_pixels(written, answers.frame, answers.sizes, answers.resized), answers.boxes
    sane = boxes.is_box(ours)
    x1, y1, x2, y2 = hull(ours, theirs)
    enclosing = (x2 - x1) * (y2 - y1)
    areas = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (ours, theirs)]
    iou = boxes.iou(ours, theirs)
    union = (areas[0] + areas[1]) / (1 + iou)
    values = np.where(sane, iou - (enclosing - union) / np.where(sane, enclosing, 1), -1)
    parsed = [{"box": list(f)} if f and good else None for f, good in zip(found, sane)]
    reasons = [None if p else "no box" for p in parsed]
    return Scores((values + 1) / 2, parsed, {"giou": values}, reasons)


REWARD = Reward(
    name="giou",
    summary="GIoU of the answered box with the true one",
    score=giou,
    components=("giou",),
    metrics={"mean_giou": RewardMetric(mean("giou"), "mean GIoU", percent=False, component="giou")},
)
'''

HELPERS = '''"""What several of my rewards share."""

import numpy as np


def hull(ours, theirs):
    """Corners of the smallest box around both, (n,) each."""
    least, most = np.minimum(ours, theirs), np.maximum(ours, theirs)
    return least[:, 0], least[:, 1], most[:, 2], most[:, 3]
'''

VIEW = '''"""Black stripes."""

from PIL import ImageDraw

from perceptune.core.views.view import View, ViewParameters


class StripesParameters(ViewParameters):
    width: int = 8
    """Width of a stripe in pixels, and of what is left between two."""


class Stripes(View):
    name = "stripes"
    Parameters = StripesParameters

    def apply(self, images, parameters, seed, box):
        """Every image with upright black stripes."""
        striped = [image.copy() for image in images]
        for image in striped:
            for left in range(0, image.width, 2 * parameters.width):
                ImageDraw.Draw(image).rectangle((left, 0, left + parameters.width - 1, image.height), fill=0)
        return striped


VIEW = Stripes()
'''

METHOD = '''"""Prefers the better answer, and the image to a spoilt one."""

from perceptune.core.methods.logprob_queries import Look
from perceptune.core.methods.method import GroupMethod, MethodParameters, Stored, ViewName


class TwoImagesParameters(MethodParameters):
    beta: float = 0.1
    """Scale of the implicit reward."""
    spoilt: ViewName = "spoilt"
    """The second view."""


class TwoImages(GroupMethod):
    name = "two_images"
    Parameters = TwoImagesParameters

    def stored(self, parameters, view):
        """The reference under both views."""
        return (Stored("reference", view), Stored("reference", parameters.spoilt))

    def looks(self, rewards, pairs, parameters, view):
        """Best and worst answer under the image, the best under the second view."""
        return [Look(view, (0, len(rewards) - 1)), Look(parameters.spoilt, (0,))]

    def loss(self, group, parameters):
        """Two preferences."""
        from torch.nn.functional import softplus

        scores = group.scores
        return softplus(-parameters.beta * (scores[0] - scores[-1])) + softplus(-parameters.beta * self.gap(group, parameters))

    def gap(self, group, parameters):
        policy, reference = group.views[parameters.spoilt]
        return group.scores[0] - (policy[0] - reference[0])

    def metrics(self, group, parameters):
        """The usual ones, and the preference for the image."""
        return {**super().metrics(group, parameters), "image_gap": self.gap(group, parameters).item()}


METHOD = TwoImages()
'''

BENCHMARK = '''"""My boxes: a data set in my own words, and its official metric."""

import numpy as np

from perceptune.core.benchmarks.benchmark import Benchmark, Measured, known_share, summed
from perceptune.core.importers.importer import Importer, corners, each


def row(record):
    """A row of mine as one of perceptune's."""
    return {
        "id": record["name"], "image": record["file"], "question": f"locate the {record['what']}.",
        "box": corners(record["xywh"]), "task": "grounding", "split": record["part"],
    }


def columns(answers):
    """An answer's GIoU, and whether it is positive."""
    values = [answer.components.get("giou", -1.0) for answer in answers]
    names = [answer.example_id for answer in answers]
    return summed(names, {"asked": [1.0] * len(answers), "giou": values, "near": [float(v > 0) for v in values]})


IMPORTER = Importer("my_boxes", each(row), coordinates="pixels", reads="jsonl")

BENCHMARK = Benchmark(
    name="my_boxes",
    rewards={"grounding": "giou"},
    components={"grounding": ("giou",)},
    columns=columns,
    metrics={
        "mean_giou": Measured(known_share("giou", "asked"), "mean GIoU", percent=False, needs="questions"),
        "near": Measured(known_share("near", "asked"), "positive GIoU", needs="questions"),
    },
    settings={"max_tokens": 24},
)
'''

FILES = {
    "rewards/giou.py": REWARD,
    "rewards/_corners.py": HELPERS,
    "views/stripes.py": VIEW,
    "methods/two_images.py": METHOD,
    "benchmarks/my_boxes.py": BENCHMARK,
}

CONFIG: dict[str, Any] = {
    "plugins": ["my_plugins"],
    "models": {
        "tiny": {
            "path": "resources/tiny-llava/model", "family": "llava", "dtype": "float32", "max_model_len": 512,
            "engine": {"enforce_eager": True},
        },
    },
    "datasets": {"mine": {"kind": "my_boxes", "path": "mine/data.jsonl"}},
    "views": {"striped": {"type": "stripes", "parameters": {"width": 6}}},
    "samplings": {"n6": {"n": 6, "max_tokens": 24}},
    "rewards": {"overlap": {"tasks": {"grounding": "giou"}}},
    "selections": {"ranked": {"list_size": 4, "min_margin": 0.01}},
    "trainings": {
        "two": {
            "method": "two_images", "parameters": {"spoilt": "striped"}, "learning_rate": 1e-4, "batch_size": 4,
            "lora": {"r": 4, "alpha": 8},
        },
    },
    "benchmarks": {
        "mine": {"dataset": "mine", "protocol": "my_boxes", "views": ["original", "striped"], "resamples": 99},
        "plain": {"dataset": "mine", "reward": "overlap", "n": 2, "max_tokens": 24, "resamples": 99},
    },
    "experiments": {
        "taught": {
            "model": "tiny", "dataset": "mine", "sampling": "n6", "reward": "overlap", "selection": "ranked",
            "training": "two", "benchmarks": ["mine", "plain"],
        },
    },
}  # fmt: skip


def write_plugins(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = folder / "my_plugins" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def written(folder: Path, **changes: Any) -> Workflow:
    """A working directory with plug-ins, data (8 training and 4 test questions), and a config."""
    (folder / "resources").symlink_to(ROOT / "resources")
    write_plugins(folder, FILES)
    (folder / "mine").mkdir()
    lines = []
    for number in range(12):
        x, y, width, height = 10 + 4 * number, 60 - 4 * number, 30 + number, 24 + 2 * number
        image = Image.new("RGB", (112, 112), "white")
        ImageDraw.Draw(image).ellipse((x, y, x + width, y + height), fill="red")
        image.save(folder / f"mine/{number}.png")
        row = {"name": f"q{number}", "file": f"{number}.png", "what": "red circle", "xywh": [x, y, width, height]}
        lines.append(json.dumps({**row, "part": "train" if number < 8 else "test"}))
    (folder / "mine/data.jsonl").write_text("\n".join(lines))
    (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}, sort_keys=False))
    return Workflow(folder)
