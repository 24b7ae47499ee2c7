"""Runs the jobs of a config in this process, with the same stages and arguments as Snakemake does.

Importing torch and vLLM takes most of the time of a small job; here, all jobs share one import. What
Snakemake itself does is tested with `Workflow.run`.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import chdir
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from perceptune.contracts import paths
from perceptune.planning import policies
from perceptune.planning.graph import TARGETS, Key, Node, graph
from perceptune.planning.rules import RULES
from perceptune.runtime.arguments import arguments_of, bound

ROOT = Path(__file__).parents[2]
RESULTS = {"results": "results", "logs": "logs"}
"""The path variables of a full run."""


def run_jobs(folder: Path, targets: Iterable[str] = TARGETS, **config: Any) -> None:
    """Run all jobs that the targets need, inputs first. The config is `config.yaml` in `folder`, with
    the keys in `config` as with `--config`.
    """
    with chdir(folder):
        plan = policies.load({**yaml.safe_load(Path("config.yaml").read_text()), **config})
        nodes = graph(plan, targets)
        variables = paths.REHEARSAL if plan.config.rehearse else RESULTS
        done: set[Key] = set()
        while ready := sorted(key for key, node in nodes.items() if key not in done and node.needs <= done):
            for key in ready:
                _run(key, nodes[key], variables)
            done.update(ready)
        assert done == nodes.keys()


def _run(key: Key, node: Node, variables: Mapping[str, str]) -> None:
    job = snakemake_object(key, node, variables)
    for files in job.output.values():
        for file in [files] if isinstance(files, str) else files:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
    rule = RULES[key[0]]
    stage = getattr(import_module(rule.module), rule.function)
    stage(**bound(stage, {**arguments_of(job), "halvings": 0}))


def snakemake_object(key: Key, node: Node, variables: Mapping[str, str] = RESULTS) -> Any:
    """The object that Snakemake gives to the script of this job."""
    rule, wildcards = key[0], dict(key[1])
    inputs = dict[str, Any](node.job.files())
    if rule == "gather_responses":
        sampled = sorted(dict(need[1])["scatteritem"] for need in node.needs if need[0] == "sample_responses")
        inputs["shards"] = [paths.RESPONSE_SHARD.format(**wildcards, scatteritem=item) for item in sampled]
    names, outputs = output_names(rule), [path.format(**wildcards) for path in RULES[rule].outputs]
    if len(names) < len(outputs):  # the last name stands for the other files: the report's figures
        outputs[len(names) - 1 :] = [outputs[len(names) - 1 :]]
    params = {"settings": dict(node.job.settings), "details": {**node.job.details, "names": node.job.names()}}
    return SimpleNamespace(
        wildcards=wildcards,
        input=_placed(inputs, variables),
        output=_placed(dict(zip(names, outputs, strict=True)), variables),
        params=SimpleNamespace(**_placed(params, variables)),
    )


@cache
def output_names(rule: str) -> list[str]:
    """The names of a rule's outputs, as the rules file has them."""
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        if found := re.search(rf"^rule {rule}:\n(?: .*\n|\n)*?    output:\n((?: {{8}}.*\n)+)", file.read_text(), re.M):
            return re.findall(r"^        (\w+)=", found[1], re.M)
    raise AssertionError(rule)


def _placed(value: Any, variables: Mapping[str, str]) -> Any:
    """Values with the path variables filled in."""
    if isinstance(value, dict):
        return {key: _placed(one, variables) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_placed(one, variables) for one in value]
    return re.sub("^<(results|logs)>", lambda match: variables[match[1]], value) if isinstance(value, str) else value
