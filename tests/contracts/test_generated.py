"""What is generated from the models equals what is committed; imports stay light; rules stay rules."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from perceptune.contracts import config, documentation
from perceptune.contracts.config import Block, Config
from perceptune.contracts.plugins import KINDS, load, names

ROOT = Path(__file__).parents[2]


def test_schema_and_key_tables_are_up_to_date() -> None:
    hint = "run `make schemas`"
    assert documentation.SCHEMA.read_text() == documentation.schema_text(), hint
    assert documentation.KEYS.read_text() == documentation.readme_text(), hint


def test_every_block_of_the_config_has_its_table_of_keys() -> None:
    explained = {model for models in documentation.SECTIONS.values() for model in models}
    blocks = {getattr(config, name) for name in Config.model_json_schema()["$defs"]}
    assert explained == {block for block in blocks if issubclass(block, Block)}
    assert documentation.SECTIONS.keys() | {"slice"} == Config.model_fields.keys()


def test_the_snakefile_imports_nothing_heavy() -> None:
    """It is parsed again in every job."""
    heavy = (
        "torch transformers vllm peft polars scipy matplotlib datasets PIL openai nltk spacy rapidfuzz mathruler sympy"
    )
    code = f"import sys, perceptune.stages.plan; print([m for m in '{heavy}'.split() if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_core_and_contracts_import_no_engine() -> None:
    modules = [
        p.relative_to(ROOT / "workflow").with_suffix("").as_posix().replace("/", ".")
        for layer in ("core", "contracts")
        for p in (ROOT / "workflow/perceptune" / layer).rglob("*.py")
        if p.stem not in ("__init__", "policy_gradient")  # losses: torch is what they are about
    ]
    heavy = "torch transformers vllm peft snakemake"
    code = f"import sys, {', '.join(modules)}; print([m for m in '{heavy}'.split() if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("file", sorted((ROOT / "workflow/rules").glob("*.smk")), ids=lambda f: f.name)
def test_rules_hold_no_logic(file: Path) -> None:
    text = file.read_text()
    if file.name != "common.smk":
        assert re.search(r"^\s*(run|shell|message):|\blambda\b|^\s*(def|if|for) ", text, re.MULTILINE) is None
    for name, body in re.findall(r"^rule (\w+):\n((?:    .*\n|\n)+)", text, re.MULTILINE):
        assert body.lstrip().startswith('"""'), f"rule {name} has no docstring"
        tracked = re.search(r'\*code_of\("\w+", "(\w+)"\)', body)
        assert tracked, f"rule {name} does not track its code"
        assert tracked[1] == name, f"rule {name} tracks another script"
        assert (ROOT / f"workflow/scripts/{name}.py").exists(), f"rule {name} and its script have different names"


@pytest.mark.parametrize("file", sorted((ROOT / "workflow/scripts").glob("*.py")), ids=lambda f: f.name)
def test_scripts_only_map_names(file: Path) -> None:
    text = file.read_text()
    assert 'if __name__ == "__main__":' in text  # vLLM and data loaders spawn processes that import it again
    assert "snakemake.config" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_in_a_plugin_package_is_a_plugin_or_known(kind: str) -> None:
    """Every plug-in is found, loads, and carries the name of its file."""
    for name in names(kind):
        assert load(kind, name).name == name
    package = ROOT / "workflow" / KINDS[kind].package.replace(".", "/")
    files = {p.stem for p in package.glob("*.py")} - {"__init__"}
    files |= {p.parent.name for p in package.glob("*/__init__.py")}
    shared = {KINDS[kind].constant.lower(), "rollout", "llava_like", "qwen_vl", "by_group"}
    assert files - shared <= set(names(kind))


def test_the_readme_names_things_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE)) <= set(targets)
    for name in re.findall(r"`((?:config|docs|workflow|benchmarks|envs)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name
