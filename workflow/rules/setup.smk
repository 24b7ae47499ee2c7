"""From the config to what rules ask for; the substance is in `perceptune.planning`."""

import sys
from functools import cache

from perceptune.contracts import paths
from perceptune.contracts.errors import UserError
from perceptune.planning import policies
from perceptune.planning.missing import missing
from perceptune.planning.rules import RULES, code_lines, constraints, job_of, rule_constraints
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# Snakemake follows dependencies by recursion, and every round depends on the one before it.
sys.setrecursionlimit(100_000)

try:
    plan = policies.load(config)
except UserError as error:
    raise WorkflowError(str(error)) from None

if plan.config.rehearse:

    pathvars:
        **paths.REHEARSAL,


# Not an error: a target may need none of it.
if workflow.is_main_process and (lacking := missing(plan.config)):
    logger.warning("missing files (needed only for the targets that use them):")
    logger.warning("  " + "\n  ".join(lacking))


wildcard_constraints:
    **constraints(plan),


scattergather:
    shard=1,


single = rule_constraints(plan)


@cache
def _job(rule, wildcards):
    try:
        return job_of(plan, rule, dict(wildcards))
    except UserError as error:
        raise WorkflowError(str(error)) from None


def job(rule, wildcards):
    """The job of a rule; computed once, since Snakemake asks for its parts one by one."""
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
    """The code of a rule's stage, a line per module."""
    return code_lines(RULES[rule].module)


def parameters(rule):
    """What a change of reruns the rule, and, in functions of `threads`, which Snakemake does not track, what does not."""
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


def placed(value):
    """Values with the path variables of all paths in them filled in."""
    if isinstance(value, dict):
        return {key: placed(one) for key, one in value.items()}
    if isinstance(value, list):
        return [placed(one) for one in value]
    is_path = isinstance(value, str) and value.startswith("<results>/")
    return workflow.pathvars.apply(value) if is_path else value


def attempt_number(wildcards, attempt):
    """How often the job has been tried."""
    return attempt


def again_with_more(amount):
    """Of memory and time: every further attempt may take as much again."""
    return lambda wildcards, attempt: amount * attempt


def shards(wildcards):
    """As many as `--set-scatter shard=N` says; a finished table keeps the number that it was made of."""
    pattern = paths.RESPONSE_SHARD.format(**wildcards, scatteritem="{scatteritem}")
    made_of = policies.shards_of(placed(paths.RESPONSES.format(**wildcards)))
    return expand(pattern, scatteritem=made_of) if made_of else gather.shard(pattern)
