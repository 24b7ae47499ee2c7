"""The command `perceptune list`."""

from pathlib import Path

import pytest
from perceptune.__main__ import main
from perceptune.commands.kinds import KINDS
from perceptune.contracts import plugins


def test_it_lists_every_plugin_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if not line.startswith(" ")] == [[*one] for one in KINDS.items()]
    listed = [line.split(maxsplit=1) for line in lines if line.startswith(" ")]
    expected = [(name, plugins.summary(kind, name)) for kind in KINDS for name in plugins.names(kind)]
    assert listed == [[name, *([text] if text else [])] for name, text in expected]


def test_it_lists_one_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "exporter"]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.split() == ["exporter", "exports.<name>.format"]
    assert [line.split()[0] for line in others] == plugins.names("exporter")


def test_every_kind_is_listed() -> None:
    assert set(KINDS) == set(plugins.KINDS)


def test_an_unknown_kind_is_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methd"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: kind `methd` does not exist, expected one of `method`, `view`, `reward`, ")
    assert error.endswith("hint: did you mean `method`?\n")


def test_a_file_with_a_slip_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(plugins.ENVIRONMENT, "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own/views").mkdir(parents=True)
    (tmp_path / "own/views/slip.py").write_text('"""Mine."""\n\nVIEW = Slip(\n')
    (tmp_path / "my.yaml").write_text("plugins: [own]\n")
    assert main(["list", "view", "--config", "my.yaml"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.split()[0] == "slip")
    assert line.split(maxsplit=1)[1] == "cannot be loaded, line 3: '(' was never closed"
