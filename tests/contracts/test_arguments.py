"""Every job of every shipped config gives its stage the arguments that it takes."""

from importlib import import_module
from pathlib import Path

import pytest
import yaml
from perceptune.planning import policies
from perceptune.planning.graph import graph
from perceptune.planning.rules import RULES
from perceptune.runtime.arguments import arguments_of, bound

from tests.workflow.inline import snakemake_object

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(set((ROOT / "config").glob("*.yaml")) - {ROOT / "config/own.yaml"})  # whose model is not here


@pytest.mark.slow  # stages import vLLM and torch
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_jobs_fit_their_stages(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    nodes = graph(policies.load(yaml.safe_load(config.read_text())))
    one_each = {key[0]: (key, node) for key, node in nodes.items()}
    for rule, (key, node) in one_each.items():
        run = getattr(import_module(RULES[rule].module), RULES[rule].function)
        arguments = bound(run, {**arguments_of(snakemake_object(key, node)), "halvings": 0})
        for name, files in node.job.inputs.items():
            if files and name in run.__annotations__ and name not in node.job.details:
                assert arguments[name], f"{rule}: `{name}` is lost"
