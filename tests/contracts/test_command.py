"""The command itself: how fast it starts, wrong usage, errors, and shell completion."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import perceptune.__main__ as command
import pytest
from perceptune.__main__ import app, main
from perceptune.contracts import plugins
from perceptune.contracts.config import Task
from perceptune.contracts.errors import UserError
from typer.testing import CliRunner

COMMANDS = ("init", "check", "explain", "list", "describe", "ask", "inspect", "schema")
SLOW = {"numpy", "polars", "pyarrow", "torch", "transformers", "snakemake", "vllm", "PIL", "starlette", "uvicorn"}


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)])
def test_every_command_has_help(words: list[str]) -> None:
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage:")
    assert all(name in result.stdout for name in COMMANDS) or words


def test_help_imports_nothing_slow() -> None:
    code = "import sys; from perceptune.__main__ import main; main(['ask', '--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Ask a model" in done.stdout
    assert SLOW.isdisjoint(done.stderr.split())


@pytest.mark.parametrize("words", [["nonsense"], ["ask"], ["list", "--nonsense"], ["describe", "a", "b", "c"]])
def test_wrong_usage_ends_with_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Error: " in printed.err


def test_a_mistake_of_the_user_is_one_message_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise UserError("row \x1b[31m 3", "a hint")

    monkeypatch.setattr("perceptune.commands.list.run", fail)
    assert main(["list"]) == 1
    assert capsys.readouterr().err == "error: row \\x1b[31m 3\nhint: a hint\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("perceptune.commands.list.run", fail)
    with pytest.raises(ZeroDivisionError):
        main(["list"])


def completed(words: list[str], folder: Path) -> list[str]:
    """What bash would offer for the last of the words."""
    environment = {
        **os.environ,
        "_PERCEPTUNE_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["perceptune", *words]),
        "COMP_CWORD": str(len(words)),
        "PYTHONPATH": str(Path(command.__file__).parents[1]),
    }
    code = "from perceptune.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_the_shell_completes_commands_kinds_plugins_and_policies(tmp_path: Path) -> None:
    (tmp_path / "mine/rewards").mkdir(parents=True)
    (tmp_path / "mine/rewards/closest.py").write_text("REWARD = None\n")
    (tmp_path / "my.yaml").write_text("plugins: [mine]\nmodels: {tiny: {}}\nexperiments: {perpo: {}, grpo: {}}\n")
    (tmp_path / "results/adapters/grpo@2").mkdir(parents=True)
    (tmp_path / "results/adapters/grpo@2/adapter_config.json").touch()
    assert completed(["e"], tmp_path) == ["explain"]
    assert completed(["list", "me"], tmp_path) == ["method"]
    assert completed(["describe", "method", "p"], tmp_path) == [
        name for name in plugins.names("method") if name.startswith("p")
    ]
    assert completed(["describe", "--config", "my.yaml", "reward", "clo"], tmp_path) == ["closest"]
    assert completed(["ask", "--config", "my.yaml", ""], tmp_path) == ["grpo", "grpo@2", "perpo", "tiny"]
    assert completed(["ask", "--config", "absent.yaml", "p"], tmp_path) == []
    assert completed(["ask", "tiny", "a.png", "what?", "--task", ""], tmp_path) == [*get_args(Task)]
