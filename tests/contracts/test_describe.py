"""`perceptune describe`: everything that a plug-in declares, and blocks that are valid in a config."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from perceptune.__main__ import main
from perceptune.commands.describe import example
from perceptune.commands.kinds import KINDS
from perceptune.contracts import config, plugins
from pydantic import BaseModel

PLUGINS = [(kind, name) for kind in KINDS for name in plugins.names(kind)]
BLOCKS: dict[str, type[BaseModel]] = {
    "trainings": config.TrainingBlock,
    "views": config.ViewBlock,
    "rewards": config.RewardBlock,
    "datasets": config.FileDataset,
    "exports": config.ExportBlock,
    "models": config.ModelBlock,
}


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_every_plugin_is_described(kind: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", kind, name]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{kind} {name}  {KINDS[kind]}\n")
    plugin = plugins.load(kind, name)
    for line in plugins.docstring(kind, name).splitlines():
        assert line in text
    for parameter, field in getattr(plugin, "Parameters", BaseModel).model_fields.items():
        if "Set by perceptune" in str(field.description):
            assert f"  {parameter}: " not in text
            continue
        assert f"  {parameter}: " in text
        assert " ".join(str(field.description).split()) in text
    for metric, declared in getattr(plugin, "metrics", {}).items() if kind in ("reward", "benchmark") else ():
        direction = "lower" if declared.lower_is_better else "higher"
        shown = f"{declared.label}, {'percent' if declared.percent else 'number'}, {direction} is better"
        assert f"{metric} {shown}" in [" ".join(line.split()) for line in text.splitlines()]
    printed = yaml.safe_load(text[text.rindex("in a config") :].partition("\n")[2])
    assert printed == example(kind, plugin)


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_the_lines_for_a_config_are_valid(kind: str, name: str) -> None:
    plugin = plugins.load(kind, name)
    ((section, blocks),) = example(kind, plugin).items()
    (block,) = blocks.values()
    if section == "benchmarks":  # the protocol sets `reward`
        assert set(block) <= set(config.BenchmarkBlock.model_fields)
        assert plugin.variant(block.get("variant")).metrics
    else:
        valid: Any = BLOCKS[section].model_validate(block)
        if kind in ("method", "view"):
            plugin.Parameters.model_validate(valid.parameters)


def test_what_a_method_needs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["describe", "mdpo"])
    text = capsys.readouterr().out
    needed = plugins.load("method", "mdpo").stored(plugins.load("method", "mdpo").Parameters(), "original")
    assert len(needed) > 1
    for one in needed:
        assert f"\n  {one.term} log-probs under view `{one.view}`\n" in text
    assert "\n  beta: number > 0; default 0.1\n      Scale of the implicit reward.\n" in text


def test_a_name_of_several_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "mathvista"]) == 0
    text = capsys.readouterr().out
    for kind in ("reward", "benchmark", "importer"):
        assert f"{kind} mathvista  " in text
    assert main(["describe", "importer", "mathvista"]) == 0
    assert "reward mathvista" not in capsys.readouterr().out


def test_own_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(plugins.ENVIRONMENT, "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine/views").mkdir(parents=True)
    (tmp_path / "mine/views/upside_down.py").write_text(
        '"""Upside down: tests whether up matters."""\n\n'
        "from perceptune.core.views.view import View\n\n\n"
        "class UpsideDown(View):\n"
        '    name = "upside_down"\n\n'
        "    def apply(self, images, parameters, seed, box):\n"
        '        """Rotates every image by 180 degrees."""\n'
        "        return [image.rotate(180) for image in images]\n\n\n"
        "VIEW = UpsideDown()\n"
    )
    (tmp_path / "my.yaml").write_text("plugins: [mine]\n")
    assert main(["describe", "upside_down"]) == 1
    assert capsys.readouterr().err == "error: nothing is named `upside_down`, see `perceptune list`\n"
    assert main(["describe", "upside_down", "--config", "my.yaml"]) == 0
    text = capsys.readouterr().out
    assert "Upside down: tests whether up matters.\n\nRotates every image by 180 degrees.\n" in text
    assert "mine/views/upside_down.py" in text
    assert main(["list", "view", "--config", "my.yaml"]) == 0
    assert ["upside_down", "Upside", "down:"] in [line.split()[:3] for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["perpi"], "error: nothing is named `perpi`, see `perceptune list`\nhint: did you mean `perpo`?\n"),
        (["methd", "perpo"], "error: kind `methd` does not exist, expected one of `method`, `view`, "),
        (["view", "perpo"], "error: view `perpo` does not exist, expected one of `blank`, "),
        (["exporter"], "error: `exporter` is a kind, expected a name after it: one of `easyr1`, "),
        (["perpo", "--config", "absent.yaml"], "error: config file `absent.yaml` does not exist\n"),
    ],
)
def test_unknown_names(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", *words]) == 1
    assert capsys.readouterr().err.startswith(expected)
