"""Generated files are up to date, imports stay light, and rules hold no logic."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from perceptune.commands import schema
from perceptune.contracts import config, paths
from perceptune.contracts.config import Block, Config
from perceptune.contracts.plugins import KINDS, exists, load, names, summary
from perceptune.planning.rules import RULES

ROOT = Path(__file__).parents[2]


def test_schema_and_key_tables_are_up_to_date() -> None:
    hint = "run `make schemas`"
    assert schema.SCHEMA.read_text() == schema.schema_text(), hint
    assert schema.KEYS.read_text() == schema.readme_text(), hint


def test_every_block_of_the_config_has_its_table_of_keys() -> None:
    explained = {model for models in schema.SECTIONS.values() for model in models}
    blocks = {getattr(config, name) for name in Config.model_json_schema()["$defs"]}
    assert explained == {block for block in blocks if issubclass(block, Block)}
    assert schema.SECTIONS.keys() | {"rehearse", "plugins", "leakage"} == Config.model_fields.keys()


def test_editors_suggest_plugins_and_accept_others() -> None:
    """User plug-ins are valid in an editor."""
    blocks = json.loads(schema.schema_text())["$defs"]
    for (block, key), kind in schema.PLUGIN_KEYS.items():
        field = blocks[block]["properties"][key]
        field = field.get("additionalProperties", field)
        if block == "TrainingBlock":  # may be swept
            field = field["anyOf"][0]
        assert {"enum": names(kind)} in field["anyOf"], (block, key)
        assert {"type": "string"} in field["anyOf"], (block, key)


@pytest.mark.parametrize("kind", ["method", "view", "exporter", "family", "importer"])
def test_a_plugin_has_a_one_line_summary(kind: str) -> None:
    for name in names(kind):
        if not exists("benchmark", name):
            assert summary(kind, name).endswith("."), name


@pytest.mark.parametrize("kind", ["method", "view"])
def test_parameters_of_plugins_have_descriptions(kind: str) -> None:
    for name in names(kind):
        for parameter, field in load(kind, name).Parameters.model_fields.items():
            assert field.description, (name, parameter)


def test_the_snakefile_imports_nothing_heavy() -> None:
    """Every job parses it again."""
    heavy = (
        "torch transformers vllm peft polars scipy matplotlib datasets PIL openai nltk spacy rapidfuzz mathruler sympy"
    )
    code = f"import sys, perceptune.planning.rules; print([m for m in '{heavy}'.split() if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_core_and_contracts_import_no_engine() -> None:
    modules = [
        p.relative_to(ROOT / "workflow").with_suffix("").as_posix().replace("/", ".")
        for layer in ("core", "contracts")
        for p in (ROOT / "workflow/perceptune" / layer).rglob("*.py")
        if p.stem not in ("__init__", "policy_gradient")  # losses, which need torch
    ]
    heavy = "torch transformers vllm peft snakemake"
    code = f"import sys, {', '.join(modules)}; print([m for m in '{heavy}'.split() if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("file", sorted((ROOT / "workflow/rules").glob("*.smk")), ids=lambda f: f.name)
def test_rules_hold_no_logic(file: Path) -> None:
    text = file.read_text()
    if file.name != "setup.smk":
        assert re.search(r"^\s*(run|shell|message):|\blambda\b|^\s*(def|if|for) ", text, re.MULTILINE) is None
    for name, body in re.findall(r"^rule (\w+):\n((?:    .*\n|\n)+)", text, re.MULTILINE):
        assert body.lstrip().startswith('"""'), f"rule {name} has no docstring"
        assert name in RULES
        asked = re.findall(r"\b(inputs|code|parameters|cores|gpus|memory|minutes)\(\"(\w+)\"\)", body)
        assert {"code", "parameters"} <= {what for what, _ in asked}, (
            f"rule {name} does not track its code and settings"
        )
        assert {of for _, of in asked} == {name}, f"rule {name} uses the job of another rule"


def test_rules_files_and_planning_declare_the_same_outputs() -> None:
    """The rules files declare them for Snakemake, `planning.rules` for the graph."""
    written: dict[str, set[str]] = {}
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        for name, body in re.findall(r"^rule (\w+):\n((?:    .*\n|\n)+)", file.read_text(), re.MULTILINE):
            output = re.search(r"^    output:\n((?:        .*\n)+)", body, re.MULTILINE)
            assert output, name
            written[name] = set(re.findall(r"paths\.([A-Z_]+)", output[1])) - {"FIGURES"}
    constants = {name: value for name, value in vars(paths).items() if name.isupper() and isinstance(value, str)}
    for name, rule in RULES.items():
        figures = {"FIGURE"} if name == "write_report" else set()
        declared = {c for c, value in constants.items() if value in rule.outputs and c != "REQUESTS"} | figures
        declared |= {"REQUESTS"} & written[name]
        assert {constants[c] for c in declared} == {constants[c] for c in written[name]}, name
    assert written.keys() == RULES.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_every_plugin_loads_and_has_the_name_of_its_file(kind: str) -> None:
    """Every plug-in is found, loads, and is named like its file."""
    for name in names(kind):
        assert load(kind, name).name == name


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in ("method", "view") for name in names(kind)])
def test_methods_and_views_explain_themselves(kind: str, name: str) -> None:
    """They have a one-line summary, and every parameter has a description."""
    assert re.fullmatch(r".{10,120}\.", summary(kind, name))
    for key, field in load(kind, name).Parameters.model_fields.items():
        assert field.description, key


def test_the_readme_names_things_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE)) <= set(targets)
    for name in re.findall(r"`((?:config|docs|workflow|benchmarks|envs)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name
