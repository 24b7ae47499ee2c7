"""All missing files that a config names are reported at once."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from perceptune.contracts.errors import UserError
from perceptune.planning import policies as plan
from perceptune.planning.missing import check_default, from_the_future, missing

RELATIVE = " (paths are relative to the working directory)"
PAPER = Path(__file__).parents[2] / "config/papers/p2dpo.yaml"


def _lacking(environment: dict[str, str], **changed: dict[str, Any]) -> list[str]:
    raw = yaml.safe_load(PAPER.read_text())
    for section, blocks in changed.items():
        for name, block in blocks.items():
            raw[section][name] = {**raw[section].get(name, {}), **block}
    return missing(plan.load(raw).config, environment)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_data_images_models_and_keys_are_looked_for() -> None:
    lacking = _lacking({})
    assert "datasets.pope.path: `data/pope` does not exist" + RELATIVE in lacking
    assert "datasets.pope.images: `data/coco/val2014` does not exist" + RELATIVE in lacking
    assert "models.llava-1.5-7b.path: `models/llava-1.5-7b-hf` does not exist" in lacking
    assert "clip_scores.vit-l-14-336.path: `models/clip-vit-large-patch14-336` does not exist" in lacking
    assert "judges.gpt-4.key: `OPENAI_API_KEY` is not set in the environment" in lacking


def test_configs_in_the_working_directory_are_named_if_the_default_does_not_exist() -> None:
    default = Path("config/config.yaml")
    Path("other.yaml").write_text("a: 1\n")
    with pytest.raises(UserError, match=r"config.yaml` does not exist; `--config FILE` names another$"):
        check_default(default, "--config")
    Path("my.yaml").write_text("# photos\nmodels:\n  tiny: {}\n")
    with pytest.raises(UserError, match=r"not exist; did you mean `my.yaml`\? \(`--config my.yaml`\)$"):
        check_default(default, "--config")
    Path("your.yml").write_text("experiments: {}\n")
    with pytest.raises(UserError, match=r"; found `my.yaml`, `your.yml`; `--configfile FILE` names another$"):
        check_default(default, "--configfile")
    default.parent.mkdir()
    default.touch()
    check_default(default, "--config")


def test_existing_files_are_not_reported() -> None:
    before = set(_lacking({}))
    Path("data/pope").mkdir(parents=True)
    Path("models/llava-1.5-7b-hf").mkdir(parents=True)
    Path("models/llava-1.5-7b-hf/config.json").touch()
    assert before - set(_lacking({"OPENAI_API_KEY": "secret"})) == {
        "datasets.pope.path: `data/pope` does not exist" + RELATIVE,
        "models.llava-1.5-7b.path: `models/llava-1.5-7b-hf` does not exist",
        "judges.gpt-4.key: `OPENAI_API_KEY` is not set in the environment",
    }


def test_the_most_similar_path_is_suggested() -> None:
    Path("data/poope").mkdir(parents=True)
    Path("model/llava-1.5-7b-hf").mkdir(parents=True)
    Path("file").touch()
    lacking = _lacking({}, datasets={"pope": {"path": "data/poope", "images": "file/inside"}})
    assert "datasets.pope.images: `file/inside` does not exist" + RELATIVE in lacking
    lacking = _lacking({}, datasets={"pope": {"path": "data/popes"}})
    assert "datasets.pope.path: `data/popes` does not exist; did you mean `data/poope`?" in lacking
    assert (
        "models.llava-1.5-7b.path: `models/llava-1.5-7b-hf` does not exist; did you mean `model/llava-1.5-7b-hf`?"
        in lacking
    )
    assert "clip_scores.vit-l-14-336.path: `models/clip-vit-large-patch14-336` does not exist" in lacking


def test_what_nothing_uses_is_not_missed() -> None:
    unused = {"models": {"other": {"path": "models/other", "family": "llava"}}}
    judge = {"judges": {"other": {"model": "other", "url": "https://example.org/v1", "key": "OTHER_KEY"}}}
    assert set(_lacking({}, **unused, **judge)) == set(_lacking({}))
    raw = yaml.safe_load(PAPER.read_text())
    fewer = [
        name for name in raw["experiments"]["p2dpo"]["benchmarks"] if name not in ("pope", "mmhal", "hallusionbench")
    ]
    less = {"experiments": {name: {"benchmarks": fewer} for name in raw["experiments"]}}
    assert set(_lacking({})) - set(_lacking({}, **less)) == {
        *(
            f"datasets.{name}"
            for name in (
                "pope.path: `data/pope` does not exist" + RELATIVE,
                "pope.images: `data/coco/val2014` does not exist" + RELATIVE,
            )
        ),
        *(
            f"datasets.mmhal.{key}"
            for key in (
                "path: `data/mmhal/response_template.json` does not exist" + RELATIVE,
                "images: `data/mmhal/images` does not exist" + RELATIVE,
            )
        ),
        "datasets.hallusionbench.path: `data/hallusionbench/HallusionBench.json` does not exist" + RELATIVE,
        "datasets.hallusionbench.images: `data/hallusionbench/images` does not exist" + RELATIVE,
        "judges.gpt-4.key: `OPENAI_API_KEY` is not set in the environment",
    }
    judging = {"judges": {"gpt-4": {"model": "other", "url": None, "key": None}}}
    assert "models.other.path: `models/other` does not exist" in _lacking({}, **unused, **judging)


def test_data_from_the_future_is_named_with_its_date() -> None:
    config = plan.load(yaml.safe_load(PAPER.read_text())).config
    block = config.datasets["pope"]
    Path(block.path).mkdir(parents=True)
    moment = time.mktime((2100, 1, 2, 3, 4, 5, 0, 0, -1))
    for date, expected in [
        (moment, ["key `datasets.pope.path`: `data/pope` is dated in the future (2100-01-02 03:04:05); `touch` it before its import"]),
        (time.time() + 1, []),  # clocks of file servers differ
        (time.time(), []),
    ]:  # fmt: skip
        os.utime(block.path, (date, date))
        assert list(from_the_future(config)) == expected
