"""Mistakes in the text of a config, which are lost once it is read."""

from pathlib import Path

import pytest
from perceptune.__main__ import main
from perceptune.contracts.errors import UserError
from perceptune.planning.config_text import check_files, check_syntax

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "my.yaml"


def said(config: Path, text: str | bytes) -> str:
    """What is wrong with a text, without the path of its file; empty if nothing is."""
    config.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        check_files([config])
    except UserError as error:
        return str(error).replace(str(config), "my.yaml")
    return ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "key `a` is defined more than once, in lines 1 and 3"),
        ("e:\n  x: {n: 1}\n  y: {n: 1}\n  x: {n: 2}\n", "key `e.x` is defined more than once, in lines 2 and 4"),
        ("e:\n  x:\n    n: 1\n    n: 1\n    n: 1\n", "key `e.x.n` is defined more than once, in lines 3, 4 and 5"),
        ("e: {x: 1, 'x': 2}\n", "key `e.x` is defined more than once, in lines 1 and 1"),
        ("e:\n- {x: 1}\n- {x: 1,\n   x: 2}\n", "key `e.x` is defined more than once, in lines 3 and 4"),
        ('{"e": {"x": 1,\n "x": 2}}\n', "key `e.x` is defined more than once, in lines 1 and 2"),
    ],
)
def test_a_repeated_key_is_named_with_its_lines(config: Path, text: str, expected: str) -> None:
    assert said(config, text) == f"error: config file `my.yaml`\n  {expected}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "a: {x: 1}\nb: {x: 1}\n",
        "a: &same {x: 1}\nb: *same\nc: [*same, *same]\n",
        "a: &one {x: 1}\nb: &two {x: 2}\nc: {<<: *one, x: 3}\nd: {<<: *one, <<: *two}\n",
        "a: &self [*self]\n",
        '{\n\t"a": 1\n}\n',  # JSON
        "\ufeffa: 1\n",
    ],
)
def test_what_is_no_mistake(config: Path, text: str) -> None:
    assert said(config, text) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\n\tb: 2\n", "error: config file `my.yaml`, line 2, column 1: found a tab; YAML is indented with spaces"),
        ("a: 1\n  b: 2\n", "error: config file `my.yaml`, line 2, column 4: mapping values are not allowed in this context"),
        ("a:\n  b: [1, 2\nc: 3\n", "error: config file `my.yaml`, line 3, column 2: "),
        ("a: *b\n", "error: config file `my.yaml`, line 1, column 4: found undefined alias"),
        ("a: 'x\n", "error: config file `my.yaml`, line 2, column 1: found unexpected end of stream"),
        ("a: 1\x00\n", "error: config file `my.yaml`"),
        (b"a: \xff\n", "error: config file `my.yaml`: not UTF-8 text (byte 3)"),
    ],
)  # fmt: skip
def test_a_syntax_error_has_line_and_column(config: Path, text: str | bytes, expected: str) -> None:
    assert said(config, text).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: {\n\tb: 2}\n", "my.yaml`, line 2, column 1: found a tab; YAML is indented with spaces"),
        ("a: !!python/object:os.system {}\n", "my.yaml`, line 1, column 4: could not determine a constructor"),
        ("a:\n  <<: 3\n", "my.yaml`, line 2, column 7: expected a mapping or list of mappings for merging"),
        ("a: 2024-13-45\n", "my.yaml`: month must be in 1..12"),
        ("? [a]\n: 1\n", "my.yaml`, line 1, column 3: found unhashable key"),
    ],
)
def test_what_only_snakemake_refuses_is_found_by_check(
    config: Path, text: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(text)
    assert main(["check", str(config)]) == 1
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("text", ['{\n\t"a": 1\n}\n', "\ufeffa: 1\n", "a: 2024-12-31\n"])
def test_what_snakemake_reads_is_no_mistake(config: Path, text: str) -> None:
    config.write_text(text)
    check_syntax(config)


@pytest.mark.parametrize("file", sorted((ROOT / "config").rglob("*.yaml")), ids=lambda f: f.name)
def test_shipped_configs_have_no_such_mistakes(file: Path) -> None:
    check_files([file])


def test_the_check_command_merges_files_and_says_what_is_wrong(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    Path("resources").symlink_to(ROOT / "resources")
    demo = str(ROOT / "config/config.yaml")
    assert main(["check", demo]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("not checked: dataset `shapes` is not imported yet: run `snakemake --cores all data`")
    assert last == (
        "the config is valid: 2 experiments; nothing found that would stop the run, but not everything could be checked"
    )
    for text, expected in [
        ("samplings: {n20: {split: test}}", ""),
        ("samplings: {n20: {n: 1}}", "key `samplings.n20.n`: got `1`, expected at least the 2"),
        ("models: {tiny: {family: qwen2_vl}}", "key `models.tiny.family`: `qwen2_vl`, but `model_type` is `llava`"),
        ("a: [", ", line 2, column 1: "),
        ("- a", "must be given as JSON or YAML with keys at top level"),
    ]:
        config.write_text(text)
        assert main(["check", demo, str(config)]) == (1 if expected else 0)
        printed = capsys.readouterr()
        assert expected in printed.err
        assert ("warning: key `samplings.n20.split`" in printed.out) == (not expected)
    assert main(["check", str(config.with_name("none.yaml"))]) == 1
    assert "does not exist" in capsys.readouterr().err
