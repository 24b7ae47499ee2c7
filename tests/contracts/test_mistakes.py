"""Mistakes that new users make: `perceptune check` says what is wrong, and what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from perceptune.__main__ import main
from perceptune.contracts.plugins import names
from PIL import Image

ROOT = Path(__file__).parents[2]
CONFIG = """\
models:
  tiny: {path: models/llava, family: llava, dtype: float32, max_model_len: 512}
datasets:
  photos: {kind: jsonl, path: data/photos.jsonl, images: data/photos}
samplings:
  n8: {n: 8, max_tokens: 24}
rewards:
  overlap: {tasks: {grounding: iou}}
selections:
  ranked: {list_size: 8}
trainings:
  perpo:
    method: perpo
    parameters: {beta: 0.1, gamma: 0.5}
    learning_rate: 1.0e-4
    batch_size: 2
benchmarks:
  photos-test: {dataset: photos, reward: overlap, n: 4, max_tokens: 24}
experiments:
  perpo:
    model: tiny
    dataset: photos
    sampling: n8
    reward: overlap
    selection: ranked
    training: perpo
    benchmarks: [photos-test]
"""
SIZE = (74, 50)
BOXES = [(5 + n, 3 + n, 40 + n, 18 + n) for n in range(20)]
"""x1, y1, x2, y2 in pixels."""
Row = dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two model folders, and 20 images."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "models/qwen").mkdir(parents=True)
    (folder / "models/llava").symlink_to(ROOT / "resources/tiny-llava/model")
    (folder / "models/qwen/config.json").write_text('{"model_type": "qwen2_5_vl"}')
    (folder / "photos").mkdir()
    for n in range(len(BOXES)):
        Image.new("RGB", SIZE, (12 * n, 0, 0)).save(folder / f"photos/{n}.png")
    return folder


@pytest.fixture(autouse=True)
def _in_a_folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models").symlink_to(made / "models")
    Path("data").mkdir()
    Path("data/photos").symlink_to(made / "photos")
    Path("my.yaml").write_text(CONFIG)
    write(lambda row: row)


def write(change: Callable[[Row], Row]) -> None:
    """The data, with a change to every row."""
    rows = [
        {"image": f"{n}.png", "question": "locate the cup.", "task": "grounding", "box": box, "split": "test" if n > 13 else "train"}
        for n, box in enumerate(BOXES)
    ]  # fmt: skip
    Path("data/photos.jsonl").write_text("".join(f"{json.dumps(change(row))}\n" for row in rows))


def put(old: str, new: str) -> Callable[[], None]:
    """A change to the config."""

    def change() -> None:
        assert old in CONFIG
        Path("my.yaml").write_text(CONFIG.replace(old, new))

    return change


def rows(change: Callable[[Row], Row]) -> Callable[[], None]:
    """A change to the data."""
    return lambda: write(change)


def without(key: str) -> Callable[[Row], Row]:
    return lambda row: {name: value for name, value in row.items() if name != key}


def boxes(order: tuple[int, ...], size: bool = False) -> Callable[[], None]:
    """The boxes with their numbers in another order, with width and height in place of x2 and y2."""

    def change(row: Row) -> Row:
        x1, y1, x2, y2 = row["box"]
        box = (x1, y1, x2 - x1, y2 - y1) if size else row["box"]
        return {**row, "box": [box[place] for place in order]}

    return lambda: write(change)


def said(capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit status and the lines about mistakes."""
    capsys.readouterr()
    status = main(["check", "my.yaml"])
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    place = next((n for n, line in enumerate(lines) if line.startswith("disk space")), 0)
    errors = [line for line in printed.err.splitlines() if not line.startswith("checking ")]  # progress
    return status, [*lines[:place], *errors]


ERROR = "error: config"
FAILED = "stops: `datasets.photos`: {} of 20 rows cannot be used, at most a share of 0 may fail"
TASKS = "grounding, ocr, existence, counting, open"
MISTAKES: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "key": (
        put("learning_rate", "learing_rate"),
        [
            ERROR,
            "  key `trainings.perpo.learing_rate`: unknown key; did you mean `learning_rate`?",
        ],
    ),
    "more indentation": (
        put("    learning_rate", "     learning_rate"),
        ["error: config file `my.yaml`, line 15, column 6: did not find expected key; the line begins with 5 spaces, expected 4"],
    ),
    "less indentation": (
        put("    learning_rate", "   learning_rate"),
        ["error: config file `my.yaml`, line 15, column 4: did not find expected key; the line begins with 3 spaces, expected 2 or 4"],
    ),
    "another block's indentation": (
        put("    learning_rate: 1.0e-4\n    batch_size: 2\n", "  learning_rate: 1.0e-4\n"),
        [
            ERROR,
            "  key `trainings.learning_rate`: expected keys with values, got `0.0001`; `learning_rate` is a key of a block in"
            " `trainings`, expected below the block's name",
        ],
    ),
    "data": (
        put("photos.jsonl", "photo.jsonl"),
        ["stops: key `datasets.photos.path`: `data/photo.jsonl` does not exist; did you mean `data/photos.jsonl`?"],
    ),
    "model": (
        put("models/llava", "models/lava"),
        [
            "stops: key `models.tiny.path`: `models/lava` does not exist; did you mean `models/llava`?",
            "not checked: prompts of model `tiny`, whose folder cannot be used",
        ],
    ),
    "family": (
        put("models/llava, family: llava", "models/qwen, family: qwen2_vl"),
        [
            ERROR,
            "  key `models.tiny.family`: `qwen2_vl`, but `model_type` is `qwen2_5_vl` in `models/qwen/config.json`;"
            " did you mean `qwen2_5_vl`?",
        ],
    ),
    "unknown family": (
        put("family: llava", "family: llava15"),
        [
            ERROR,
            "  key `models.tiny.family`: `llava15` is not defined, expected one of 'auto', 'internvl', 'llava', 'llava_next',"
            " 'llava_onevision', 'qwen2_5_vl', 'qwen2_vl', 'qwen3_vl'; did you mean `llava`?"
            " `plugins` names folders with your own (docs/plugins.md)",
        ],
    ),
    "width and height": (
        boxes((0, 1, 2, 3), size=True),
        [
            FAILED.format(8),
            *(
                f"  photos.jsonl, line {n + 1}: `box` [{5 + n}.0, {3 + n}.0, 35.0, 15.0] has no area, expected [x1, y1, x2, y2] with"
                " x1 < x2 and y1 < y2"
                for n in range(12, 17)
            ),
            "  and 3 more",
            "  hint: `boxes: xywh` ([x, y, width, height]) fits 20 of 20 boxes, `xyxy` 12",
        ],
    ),
    "corners exchanged": (
        rows(lambda row: {**row, "box": [40, 18, 5, 3]} if row["image"] == "0.png" else row),
        [
            FAILED.format(1),
            "  photos.jsonl, line 1: `box` [40.0, 18.0, 5.0, 3.0] has no area, expected [x1, y1, x2, y2] with x1 < x2 and y1 < y2",
            "  hint: `max_failed_share` and `max_failed_rows` of its block set this limit",
        ],
    ),
    "y before x": (
        boxes((1, 0, 3, 2)),
        [
            FAILED.format(8),
            *(
                f"  photos.jsonl, line {n + 1}: `box` [{3 + n}.0, {5 + n}.0, {18 + n}.0, {40 + n}.0] exceeds the image of 74 x 50 pixels"
                for n in range(12, 17)
            ),
            "  and 3 more",
            "  hint: `boxes: yxyx` ([y1, x1, y2, x2]) fits 20 of 20 boxes, `xyxy` 12",
        ],
    ),
    "folder of images": (
        put("images: data/photos", "images: data/fotos"),
        ["stops: key `datasets.photos.images`: `data/fotos` does not exist; did you mean `data/photos`?"],
    ),
    "no folder of images": (
        put(", images: data/photos", ""),
        [
            FAILED.format(20),
            *(
                f"  photos.jsonl, line {n + 1}: image `{n}.png`: the file does not exist, looked in `data`"
                for n in range(5)
            ),
            "  and 15 more",
            "  hint: key `images` of the dataset block sets the folder that image names are relative to",
        ],
    ),
    "length": (
        put("max_model_len: 512", "max_model_len: 60"),
        [
            f"stops: `{block}`, dataset `photos`, model `tiny`: no question can be sampled: {n} of {n} questions: prompt and"
            f" `max_tokens` exceed `max_model_len`, such as example `line-{line}`; raise `models.tiny.max_model_len` (99 tokens are"
            " needed) or lower `max_tokens`"
            for block, n, line in (("samplings.n8", 14, 1), ("benchmarks.photos-test", 6, 15))
        ],
    ),
    "split": (
        put("{dataset: photos, reward", "{dataset: photos, split: testing, reward"),
        [
            "stops: `benchmarks.photos-test`: dataset `photos` has no examples of split `testing`; it has test/grounding,"
            " train/grounding; did you mean `test`?"
        ],
    ),
    "name twice": (
        lambda: Path("my.yaml").write_text(CONFIG + CONFIG[CONFIG.index("  perpo:\n    model") :]),
        ["error: config file `my.yaml`", "  key `experiments.perpo` is defined more than once, in lines 20 and 28"],
    ),
    "number": (
        put("1.0e-4", "1,0e-6"),
        [
            ERROR,
            "  key `trainings.perpo.learning_rate`: input should be a valid number, unable to parse string as a number,"
            " got `1,0e-6`; write a decimal point instead of the comma",
        ],
    ),
    "parameter": (
        put("gamma: 0.5", "gama: 0.5"),
        [
            ERROR,
            "  key `trainings.perpo.parameters.gama`: unknown key; did you mean `gamma`?",
        ],
    ),
    "reward": (
        put("grounding: iou", "grounding: giou"),
        [
            ERROR,
            f"  key `rewards.overlap.tasks.grounding`: `giou` is not defined, expected one of {', '.join(map(repr, names('reward')))};"
            " did you mean `iou`? `plugins` names folders with your own (docs/plugins.md)",
        ],
    ),
    "prompt of a benchmark": (
        put("{dataset: photos, reward", "{dataset: photos, prompt: '{qestion}', reward"),
        [ERROR, "  key `benchmarks.photos-test.prompt`: got `{qestion}`, expected text that contains `{question}`"],
    ),
    "prompt of a sampling": (
        put("{n: 8", "{prompt: '{qestion}', n: 8"),
        [ERROR, "  key `samplings.n8.prompt`: expected text that contains `{question}`, got `{qestion}`"],
    ),
    "column": (
        rows(lambda row: {**without("box")(row), "bbox": row["box"]}),
        [FAILED.format(20), "  photos.jsonl, line 1: key `box` is missing; is it `bbox`, misspelled? (20 times)"],
    ),
    "unknown task": (
        rows(lambda row: {**row, "task": "groundin"}),
        [
            FAILED.format(20),
            f"  photos.jsonl, line 1: `task` is 'groundin', expected one of {TASKS}; did you mean `grounding`? (20 times)",
        ],
    ),
    "list of answers": (
        rows(lambda row: {**row, "answer": ["a", "b"]}),
        [FAILED.format(20), "  photos.jsonl, line 1: `answer` is ['a', 'b'], expected text or a number (20 times)"],
    ),
    "no task": (
        rows(without("task")),
        [
            FAILED.format(20),
            f"  photos.jsonl, line 1: key `task` is missing; add it ({TASKS}), or set `task` in the dataset block,"
            " for all rows (20 times)",
        ],
    ),
    "config file": (
        lambda: Path("my.yaml").rename("mine.yaml"),
        ["error: config file `my.yaml` does not exist; did you mean `mine.yaml`?"],
    ),
    "section": (
        put("experiments:", "experiment:"),
        [
            ERROR,
            "  key `experiment`: unknown key; did you mean `experiments`?",
        ],
    ),
    "one benchmark": (
        put("[photos-test]", "photos-test"),
        [ERROR, "  key `experiments.perpo.benchmarks`: expected a list: `[photos-test]`, got `photos-test`"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_said_once(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, expected = MISTAKES[name]
    make()
    status, lines = said(capsys)
    assert lines == expected
    assert status == 1


@pytest.mark.parametrize("number", ["1e-6", "1.0E-6", "0.000001"])
def test_numbers_are_read_in_every_notation(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    put("1.0e-4", number)()
    assert said(capsys) == (0, [])


def test_a_policy_that_is_not_evaluated_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    put("[photos-test]", "[]")()
    expected = "warning: key `experiments.perpo.benchmarks`: empty, so that the policy is trained but not evaluated"
    assert said(capsys) == (0, [expected])
