"""Every job of every shipped config gives its stage the arguments that it takes."""

import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from perceptune.planning import policies
from perceptune.planning.graph import Key, Node, graph
from perceptune.planning.rules import RULES
from perceptune.runtime.arguments import arguments_of, bound

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "config").glob("*.yaml"))


def outputs_of(rule: str) -> list[str]:
    """The names of a rule's outputs, as the rules file has them."""
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        if found := re.search(rf"^rule {rule}:.*?^    output:\n((?:        .*\n)+)", file.read_text(), re.M | re.S):
            return re.findall(r"^        (\w+)=", found[1], re.M)
    raise AssertionError(rule)


def as_snakemake_has_it(key: Key, node: Node) -> Any:
    """The object that a script gets for this job."""
    extra = {"shards": ["shard"]} if key[0] == "gather_responses" else {}
    details = {**node.job.details, "names": node.job.names()}
    return SimpleNamespace(
        wildcards=dict(key[1]),
        input={**node.job.files(), **extra},
        output=dict.fromkeys(outputs_of(key[0]), "out"),
        params=SimpleNamespace(settings=dict(node.job.settings), details=details),
    )


@pytest.mark.slow  # stages import vLLM and torch
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_jobs_fit_their_stages(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    nodes = graph(policies.load(yaml.safe_load(config.read_text())))
    one_each = {key[0]: (key, node) for key, node in nodes.items()}
    for rule, (key, node) in one_each.items():
        run = getattr(import_module(RULES[rule].module), RULES[rule].function)
        arguments = bound(run, {**arguments_of(as_snakemake_has_it(key, node)), "halvings": 0})
        for name, files in node.job.inputs.items():
            if files and name in run.__annotations__ and name not in node.job.details:
                assert arguments[name], f"{rule}: `{name}` is lost"
