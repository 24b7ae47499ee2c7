"""What the rules need to read the config; the substance is in `perceptune.stages.plan`."""

from pathlib import Path

from perceptune.contracts import paths
from perceptune.contracts.errors import UserError
from perceptune.contracts.lineage import code_digests, digest_of_source
from perceptune.stages import plan as planning
from snakemake.exceptions import WorkflowError

try:
    plan = planning.load(config)
except UserError as error:
    raise WorkflowError(str(error)) from None


wildcard_constraints:
    dataset="[^/]+",
    policy="[^/]+",
    experiment="[^/]+",
    sampling="[^/]+",
    reward="[^/]+",
    selection="[^/]+",
    view="[^/]+",
    plan="[^/]+/[^/]+|benchmarks",


scattergather:
    shard=1,


def code_of(stage, script):
    """The code of a rule, a line per module, so that `snakemake -n` says which edit reruns it; comments do not count."""
    path = Path(workflow.current_basedir) / f"../scripts/{script}.py"
    modules = module_lines(f"perceptune.stages.{stage}")
    return [*modules, f"script {script} {digest_of_source(path)[:12]}"]


def module_lines(*modules):
    """A line per module and everything of ours that it needs."""
    return [
        f"module {name} {found[:12]}" for name, found in code_digests(*modules).items()
    ]


def plugins_of_sampling(wildcards):
    return module_lines(*plan.sampling_plugins(wildcards.policy, wildcards.plan))


def plugins_of_terms(wildcards):
    return module_lines(*plan.terms_plugins(wildcards.policy, wildcards.view))


def plugins_of_training(wildcards):
    return module_lines(*plan.training_plugins(wildcards.experiment))


def plugins_of_scoring(wildcards):
    return module_lines(*plan.reward_plugins(wildcards.reward))


def block(section):
    """The settings of the block that a rule's wildcard names."""
    return lambda wildcards: planning.tracked(
        getattr(plan.config, f"{section}s")[wildcards[section]]
    )


def of(function, key="policy"):
    """A function of the plan, asked for the policy or experiment of the job; a user's mistake shows no traceback."""

    def asked(wildcards):
        try:
            return function(wildcards[key])
        except UserError as error:
            raise WorkflowError(str(error)) from None

    return asked


def of_experiment(pattern):
    """The table that an experiment trains on."""
    return lambda wildcards: expand(pattern, **plan.samples(wildcards.experiment))


def data_of(wildcards):
    """The user's own data counts by its content, which is among the settings, not by its date."""
    data = plan.data_file(wildcards.dataset)
    return data if plan.is_generated(wildcards.dataset) else ancient(data)


def import_block(wildcards, threads):
    return plan.import_block(wildcards.dataset).model_dump(mode="json")


def model_of(wildcards, threads):
    """The whole model block. Not tracked, since it takes `threads`: where and how fast is no part of the result."""
    return plan.config.models[plan.base(wildcards.policy)].model_dump(mode="json")


def training_of(wildcards, threads):
    """The whole model and training blocks, not tracked for the same reason."""
    model = plan.config.models[plan.base(wildcards.experiment)]
    blocks = {"model": model, "training": plan.training(wildcards.experiment)}
    return {name: value.model_dump(mode="json") for name, value in blocks.items()}


def training_settings(wildcards):
    return planning.tracked(plan.training(wildcards.experiment))


def checkpoints_of(wildcards, threads):
    return paths.CHECKPOINTS.format(experiment=wildcards.experiment)


def journal_of(wildcards, threads):
    return paths.JOURNAL.format(policy=wildcards.policy, plan=wildcards.plan)


def attempt_number(wildcards, attempt):
    """How often the job has been tried."""
    return attempt


def again_with_more(amount):
    """Of memory and time, every further attempt may take as much again."""
    return lambda wildcards, attempt: amount * attempt


def gpus_of_engine(wildcards):
    return plan.config.models[plan.base(wildcards.policy)].engine.tensor_parallel_size


def gpus_of_training(wildcards):
    return plan.training(wildcards.experiment).devices


def adapter_of(wildcards):
    return (
        paths.ADAPTER.format(experiment=wildcards.policy)
        if plan.experiment(wildcards.policy)
        else []
    )


def datasets_of_plan(wildcards):
    return plan.datasets(wildcards.policy, wildcards.plan)


def examples_of_plan(wildcards):
    return expand(paths.EXAMPLES, dataset=datasets_of_plan(wildcards))


def benchmarks_of(wildcards, threads):
    """The whole benchmark blocks, not tracked: what only evaluation looks at asks no question again."""
    names = plan.benchmarks(wildcards.policy)
    return {
        name: plan.config.benchmarks[name].model_dump(mode="json") for name in names
    }


def datasets_of_benchmarks(wildcards):
    return plan.datasets(wildcards.policy, "benchmarks")


def examples_of_benchmarks(wildcards):
    return expand(paths.EXAMPLES, dataset=datasets_of_benchmarks(wildcards))


def shards_of_plan(wildcards):
    """As many shards as `--set-scatter shard=N` says; a finished table keeps the number that it was made of."""
    pattern = paths.RESPONSE_SHARD.format(
        policy=wildcards.policy, plan=wildcards.plan, scatteritem="{scatteritem}"
    )
    made_of = planning.shards_of(
        paths.RESPONSES.format(policy=wildcards.policy, plan=wildcards.plan)
    )
    return expand(pattern, scatteritem=made_of) if made_of else gather.shard(pattern)


def benchmark_rewards(wildcards):
    return sorted(set(plan.benchmark_rewards(wildcards.policy).values()))


def base_benchmark_rewards(wildcards):
    if not plan.experiment(wildcards.policy):
        return []
    return sorted(
        set(
            plan.benchmark_rewards(
                plan.base(wildcards.policy), wildcards.policy
            ).values()
        )
    )


def report_inputs(wildcards):
    """Every table that the page shows, by role."""
    return {
        "metrics": paths.ALL_METRICS,
        "training": expand(paths.TRAINING, experiment=plan.config.experiments),
        "statistics": list(plan.statistics().values()),
        "predictions": sorted(
            {t for p in plan.policies for t in plan.benchmark_rewards(p).values()}
        ),
        "examples": expand(paths.EXAMPLES, dataset=plan.benchmark_datasets),
    }


def report_settings(wildcards):
    return plan.report_settings()
