"""Connects rules with the config. The logic is in `perceptune.planning`."""

import sys
from functools import cache
from pathlib import Path

from perceptune.contracts import paths
from perceptune.contracts.errors import UserError
from perceptune.planning import policies
from perceptune.planning.config_text import check_files
from perceptune.planning.machine import check_machine, without_gpu
from perceptune.planning.missing import check_default, missing
from perceptune.planning.model_folders import check_models
from perceptune.planning.origin import check_paths, use_package_of
from perceptune.planning.outcome import say_last
from perceptune.planning.preflight import warnings
from perceptune.planning.rules import (
    RULES,
    code_lines,
    constraints,
    exports,
    job_of,
    rule_constraints,
)
from perceptune.runtime.gpu_leases import visible_gpus
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# Snakemake resolves dependencies recursively, and every round depends on the previous one.
sys.setrecursionlimit(100_000)


def checked(check, *arguments):
    """What `check` returns. A mistake of the user ends Snakemake with its message."""
    try:
        return check(*arguments)
    except UserError as error:
        raise WorkflowError(str(error)) from None


rules_folder = workflow.current_basedir.get_path_or_uri(secret_free=True)
checked(use_package_of, rules_folder, "0.1.0")
checked(
    check_paths,
    workflow.modifier.path_modifier.replace_prefix,
    workflow.pathvars.apply,
)

DEMO = "config/config.yaml"
uses_demo = "models" not in config and "experiments" not in config

# Snakemake has read the files already, but keeps no lines and the last of repeated keys.
if workflow.is_main_process:
    if uses_demo and not workflow.configfiles:
        checked(check_default, Path(DEMO), "--configfile")
    checked(check_files, [*workflow.configfiles, *([DEMO] if uses_demo else [])])

if uses_demo:

    configfile: DEMO


plan = checked(policies.load, config)

if plan.config.rehearse:

    pathvars:
        **paths.REHEARSAL,


# A warning, because a target may need none of these files.
if workflow.is_main_process and (lacking := missing(plan.config)):
    logger.warning("missing files (needed only for the targets that use them):")
    logger.warning("  " + "\n  ".join(lacking))

if workflow.is_main_process:
    visible = visible_gpus()
    checked(check_machine, plan.config, visible)
    checked(check_models, plan.config)
    for line in (*without_gpu(visible), *warnings(plan)):
        logger.warning(f"warning: {line}")


wildcard_constraints:
    **constraints(plan),


scattergather:
    shard=1,


single = rule_constraints(plan)


@cache
def _job(rule, wildcards):
    return _said_last(job_of, plan, rule, dict(wildcards))


def _said_last(find, *arguments):
    """What `find` returns to Snakemake, which buries the message of a mistake in a traceback."""
    try:
        return find(*arguments)
    except UserError as error:
        say_last(str(error), sys.stderr)
        raise WorkflowError(str(error)) from None


def job(rule, wildcards):
    """The job of a rule, computed once: Snakemake calls a function for each of its parts."""
    return _job(rule, tuple(wildcards.items()))


def inputs(rule):
    """The inputs of a rule by name, for `unpack`."""

    def files(wildcards):
        found = job(rule, wildcards)
        return {
            name: ancient(path) if name in found.undated else path
            for name, path in found.files().items()
        }

    return files


def code(rule):
    """The code of a rule's stage, one line per module."""
    return code_lines(RULES[rule].module)


def parameters(rule):
    """The params of a rule.

    A change of `modules` or `settings` reruns it. `details` and `stage` do not count: Snakemake
    does not track functions of `threads`.
    """
    return {
        "modules": lambda wildcards: code_lines(*job(rule, wildcards).modules),
        "settings": lambda wildcards: dict(job(rule, wildcards).settings),
        "details": lambda wildcards, threads: placed(_details(rule, wildcards)),
        "stage": lambda wildcards, threads: f"{RULES[rule].module}:{RULES[rule].function}",
    }


def _details(rule, wildcards):
    found = job(rule, wildcards)
    return {**found.details, "names": found.names()}


def cores(rule):
    return lambda wildcards: job(rule, wildcards).threads


def gpus(rule):
    return lambda wildcards: job(rule, wildcards).gpus


def on_nodes(rule):
    """The resources by which SLURM's executor plugin runs a job on several nodes, unset on one.

    With `mpi`, the plugin runs the job once, on the first node, and leaves the others to its `srun`.
    It wants several `tasks` then, and without `tasks_per_gpu: 0` as many of them for each GPU.
    """

    def nodes(wildcards):
        return several if (several := job(rule, wildcards).nodes) > 1 else None

    return {
        "nodes": nodes,
        "tasks": nodes,
        "tasks_per_gpu": lambda wildcards: 0 if nodes(wildcards) else None,
        "mpi": lambda wildcards: "srun" if nodes(wildcards) else None,
    }


def placed(value):
    """Values with the path variables in all paths filled in."""
    if isinstance(value, dict):
        return {key: placed(one) for key, one in value.items()}
    if isinstance(value, list):
        return [placed(one) for one in value]
    is_path = isinstance(value, str) and value.startswith(("<results>/", "<logs>/"))
    return workflow.pathvars.apply(value) if is_path else value


def attempt_number(wildcards, attempt):
    """The number of the current attempt, from 1."""
    return attempt


def memory(rule):
    """Memory in MB. Each retry requests as much again."""
    return lambda wildcards, attempt: needs(rule, wildcards).mem_mb * attempt


def minutes(rule):
    """Runtime. Each retry requests as much again."""
    return lambda wildcards, attempt: needs(rule, wildcards).runtime * attempt


def needs(rule, wildcards):
    return job(rule, wildcards).requested(placed)


def exported(wildcards):
    """Every export of the config."""
    return _said_last(exports, plan)


def shards(wildcards):
    """As many shards as `--set-scatter shard=N` sets; a finished table keeps its number of shards."""
    pattern = paths.RESPONSE_SHARD.format(**wildcards, scatteritem="{scatteritem}")
    made_of = policies.shards_of(placed(paths.RESPONSES.format(**wildcards)))
    return expand(pattern, scatteritem=made_of) if made_of else gather.shard(pattern)
