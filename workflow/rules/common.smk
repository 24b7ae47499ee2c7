"""What the rules need to read the config; the substance is in `perceptune.stages.plan`."""

import re
import sys
from pathlib import Path

from perceptune.contracts import paths
from perceptune.contracts.errors import UserError
from perceptune.contracts.code import code_digests, digest_of_source
from perceptune.stages import plan as planning
from perceptune.stages.absent import absent
from perceptune.stages.checks import plural
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# Snakemake follows dependencies by recursion, and a round depends on the one before: 200 rounds are deeper than Python's limit.
sys.setrecursionlimit(100_000)

try:
    plan = planning.load(config)
except UserError as error:
    raise WorkflowError(str(error)) from None

if plan.config.slice:

    pathvars:
        **paths.REHEARSAL,


# Not an error: a target may need none of it.
if workflow.is_main_process and (lacking := absent(plan.config)):
    logger.warning("not there yet:\n  " + "\n  ".join(lacking))


def one_of(names):
    """A wildcard that stands for the names of one section, so that rules with the same pattern stay apart."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    dataset="[^/]+",
    policy="[^/]+",
    experiment="[^/]+",
    sampling=one_of(plan.config.samplings),
    rollout=one_of(plan.config.rollouts),
    pairing=one_of(plan.config.pairings),
    given=one_of(plan.config.givens),
    export=one_of(plan.config.exports),
    attention=one_of(plan.config.attentions),
    crop=one_of(plan.config.crops),
    saliency=one_of(plan.config.saliencies),
    clip=one_of(plan.config.clips),
    filter=one_of(plan.config.filters),
    benchmark=one_of(plan.config.benchmarks),
    groups=f"[^/]+/[^/]+/[^/]+|{one_of([*plan.config.pairings, *plan.config.givens])}",
    reward="[^/]+",
    selection="[^/]+",
    batch="[^/]+",
    stored="[^/]+",
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


ONE_SHOT = one_of(e for e in plan.config.experiments if not plan.rounds(e))
ROUND = f"({one_of(e for e in plan.config.experiments if plan.rounds(e))}){paths.ROUND_MARK}[1-9][0-9]*"


def plugins_of_sampling(wildcards):
    return module_lines(*plan.sampling_plugins(wildcards.policy, wildcards.plan))


def plugins_of_terms(wildcards):
    return module_lines(
        *plan.terms_plugins(wildcards.policy, wildcards.groups, views_stored(wildcards))
    )


def plugins_of_training(wildcards):
    return module_lines(*plan.training_plugins(wildcards.experiment))


def plugins_of_family(wildcards):
    family = plan.config.models[plan.base(wildcards.policy)].family
    return module_lines(planning.plugin("family", family))


def plugins_of_export(wildcards):
    return module_lines(*plan.sampling_plugins(wildcards.policy, "benchmarks"))


def plugins_of_pairs(wildcards):
    return module_lines(*plan.pair_plugins(wildcards.pairing))


def plugins_of_import(wildcards):
    return module_lines(*plan.import_plugins(wildcards.dataset))


def plugins_of_evaluation(wildcards):
    return module_lines(*plan.evaluation_plugins(wildcards.policy))


def plugins_of_judging(wildcards):
    return module_lines(*plan.judging_plugins(wildcards.benchmark))


def plugins_of_scoring(wildcards):
    return module_lines(*plan.reward_plugins(wildcards.reward))


def block(section):
    """The settings of the block that a rule's wildcard names."""
    return lambda wildcards: planning.tracked(
        getattr(plan.config, plural(section))[wildcards[section]]
    )


def of(function, key="policy"):
    """A function of the plan, asked for the policy or experiment of the job; a user's mistake shows no traceback."""

    def asked(wildcards):
        try:
            return function(wildcards[key])
        except UserError as error:
            raise WorkflowError(str(error)) from None

    return asked


def preferences_of(wildcards):
    return plan.preferences(wildcards.experiment)


def examples_of_experiment(wildcards):
    return paths.EXAMPLES.format(dataset=plan.block(wildcards.experiment).dataset)


def terms_of(wildcards):
    return list(dict.fromkeys(plan.terms(wildcards.experiment).values()))


def terms_of_round(wildcards):
    (table,) = set(plan.terms(wildcards.experiment).values())
    return table


def views_of_terms(wildcards, threads):
    return [stored.view for stored in plan.terms(wildcards.experiment)]


def views_stored(wildcards):
    return [view for _, view in paths.stored_of_name(wildcards.stored)]


def adapter_of_terms(wildcards):
    stored = paths.stored_of_name(wildcards.stored)
    return adapter_of(wildcards) if any(term == "old" for term, _ in stored) else []


def terms_are_of_a_round(wildcards):
    return wildcards.groups.split("/")[0] in plan.config.rollouts


def before_answers(wildcards):
    """Where it is said whether there are answers to be asked for: by the round that made the policy."""
    return (
        paths.ROUND.format(experiment=wildcards.policy)
        if plan.experiment(wildcards.policy)
        else []
    )


def round_asked(wildcards):
    return plan.round_asked(wildcards.policy)


def rollout_views(wildcards):
    return plan.view_blocks(*planning.views_of(plan.config.rollouts[wildcards.rollout]))


def responses_of_round(wildcards):
    return plan.round_responses(wildcards.experiment)


def before_round(wildcards):
    sampled = plan.sampled(wildcards.experiment)
    return paths.ROUND.format(experiment=sampled) if plan.experiment(sampled) else []


def adapter_before_round(wildcards):
    sampled = plan.sampled(wildcards.experiment)
    return paths.ADAPTER.format(experiment=sampled) if plan.experiment(sampled) else []


def number_of_round(wildcards):
    return int(wildcards.experiment.rpartition(paths.ROUND_MARK)[2])


def round_settings(wildcards):
    training = plan.training(wildcards.experiment)
    rollout = plan.config.rollouts[plan.block(wildcards.experiment).rollout]
    return {
        **planning.tracked(training),
        "views": plan.view_blocks(*plan.views_trained(wildcards.experiment)),
        "longest": rollout.max_tokens,
    }


def groups_of(wildcards):
    return plan.groups(wildcards.policy, wildcards.dataset, wildcards.groups)


def blocks_of_views_stored(wildcards):
    return plan.view_blocks(*views_stored(wildcards))


def asked_of_pairing(wildcards):
    settings = planning.tracked(plan.config.pairings[wildcards.pairing])
    return {key: value for key, value in settings.items() if key != "loss_prompt"}


def losses_of_pairing(wildcards):
    """What says how pairs are seen by the losses; what was asked is in the requests."""
    return {"loss_prompt": plan.config.pairings[wildcards.pairing].loss_prompt}


def sampling_views(wildcards):
    return plan.view_blocks(
        *planning.views_of(plan.config.samplings[wildcards.sampling])
    )


def pairing_views(wildcards):
    return plan.view_blocks(*planning.views_of(plan.config.pairings[wildcards.pairing]))


def crops_of_sampling(wildcards):
    views = planning.views_of(plan.config.samplings[wildcards.sampling])
    return list(plan.crops(wildcards.policy, wildcards.dataset, views).values())


def crops_of_pairing(wildcards):
    views = planning.views_of(plan.config.pairings[wildcards.pairing])
    return list(plan.crops(wildcards.policy, wildcards.dataset, views).values())


def crops_of_benchmarks(wildcards):
    """Dataset by dataset, the crops that the benchmarks' views need."""
    views = plan.views_asked(wildcards.policy, "benchmarks")
    found = [
        plan.crops(wildcards.policy, dataset, views).values()
        for dataset in datasets_of_benchmarks(wildcards)
    ]
    return [table for tables in found for table in tables]


def saliencies_of_sampling(wildcards):
    views = planning.views_of(plan.config.samplings[wildcards.sampling])
    return plan.saliencies(wildcards.dataset, views)


def saliencies_of_benchmarks(wildcards):
    return plan.benchmark_saliencies(wildcards.policy)


def saliencies_of_terms(wildcards):
    return plan.saliencies(wildcards.dataset, views_stored(wildcards))


def saliencies_of_training(wildcards):
    dataset = plan.block(wildcards.experiment).dataset
    return plan.saliencies(dataset, plan.views_trained(wildcards.experiment))


def attention_of_crop(wildcards):
    return paths.ATTENTION.format(
        policy=wildcards.policy,
        dataset=wildcards.dataset,
        attention=plan.config.crops[wildcards.crop].attention,
    )


def crop_settings(wildcards):
    settings = planning.tracked(plan.config.crops[wildcards.crop])
    return {key: value for key, value in settings.items() if key != "attention"}


def original_terms_of(wildcards):
    return paths.TERMS.format(
        policy=wildcards.policy,
        dataset=wildcards.dataset,
        groups=wildcards.pairing,
        stored=paths.stored_name([("reference", "original")]),
    )


def clips_of_filter(wildcards):
    return plan.clips(
        wildcards.policy, wildcards.dataset, wildcards.pairing, wildcards.filter
    )


def judge_of_filter(wildcards):
    return plan.judge(wildcards.filter)


def attentions_of(wildcards):
    return list(plan.attentions(wildcards.policy).values())


def base_attentions_of(wildcards):
    if not plan.experiment(wildcards.policy):
        return []
    measured = plan.attentions(plan.base(wildcards.policy))
    return [measured[name] for name in plan.attentions(wildcards.policy)]


def attention_benchmarks(wildcards, threads):
    return list(plan.attentions(wildcards.policy))


def scored_of_benchmark(wildcards):
    return plan.benchmark_rewards(wildcards.policy)[wildcards.benchmark]


def examples_of_benchmark(wildcards):
    dataset = plan.config.benchmarks[wildcards.benchmark].dataset
    return paths.EXAMPLES.format(dataset=dataset)


def judge_of_benchmark(wildcards, threads):
    """The whole judge and benchmark blocks and the judge's model, not tracked for the same reason; its model may be none."""
    benchmark = plan.config.benchmarks[wildcards.benchmark]
    model = plan.judged_model(wildcards.benchmark)
    return {
        "judge": plan.config.judges[benchmark.judge].model_dump(mode="json"),
        "block": benchmark.model_dump(mode="json"),
        "model": model and plan.config.models[model].model_dump(mode="json"),
        "kept": paths.JUDGED.format(judge=benchmark.judge),
    }


def threads_of_judge(wildcards):
    model = plan.judged_model(wildcards.benchmark)
    return plan.config.models[model].threads if model else 1


def gpus_of_judge(wildcards):
    model = plan.judged_model(wildcards.benchmark)
    return plan.config.models[model].engine.tensor_parallel_size if model else 0


def verdicts_of(wildcards):
    return list(plan.verdicts(wildcards.policy).values())


def base_verdicts_of(wildcards):
    if not plan.experiment(wildcards.policy):
        return []
    base = plan.base(wildcards.policy)
    return list(plan.verdicts(base, wildcards.policy).values())


def twin_verdicts_of(wildcards):
    twin = plan.twin(wildcards.policy)
    return list(plan.verdicts(twin, wildcards.policy).values()) if twin else []


def benchmarks_judged(wildcards, threads):
    return list(plan.verdicts(wildcards.policy))


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


def whole_block(section):
    """A whole block, not tracked for the same reason."""
    return lambda wildcards, threads: getattr(plan.config, plural(section))[
        wildcards[section]
    ].model_dump(mode="json")


def training_settings(wildcards):
    training = plan.training(wildcards.experiment)
    views = plan.view_blocks(*plan.views_trained(wildcards.experiment))
    return {**planning.tracked(training), "views": views}


def placed(path, **wildcards):
    """A path that Snakemake does not see as one, with its path variables filled in."""
    return workflow.pathvars.apply(path.format(**wildcards))


def all_placed(settings):
    """Settings with the path variables of all paths in them filled in; other texts may hold what they like."""
    if isinstance(settings, dict):
        return {key: all_placed(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [all_placed(value) for value in settings]
    is_path = isinstance(settings, str) and settings.startswith("<results>/")
    return workflow.pathvars.apply(settings) if is_path else settings


def checkpoints_of(wildcards, threads):
    return placed(paths.CHECKPOINTS, experiment=wildcards.experiment)


def journal_of(wildcards, threads):
    return placed(paths.JOURNAL, policy=wildcards.policy, plan=wildcards.plan)


def beside_of(wildcards, threads):
    """The other tables of questions to the same policy, not tracked: who answers them does not change the answers."""
    return [
        {
            "requests": placed(paths.REQUESTS, policy=wildcards.policy, plan=other),
            "journal": placed(paths.JOURNAL, policy=wildcards.policy, plan=other),
            "responses": placed(paths.RESPONSES, policy=wildcards.policy, plan=other),
            "examples": {
                dataset: paths.EXAMPLES.format(dataset=dataset)
                for dataset in plan.datasets(wildcards.policy, other)
            },
        }
        for other in plan.asked(wildcards.policy)
        if other != wildcards.plan
    ]


def attempt_number(wildcards, attempt):
    """How often the job has been tried."""
    return attempt


def again_with_more(amount):
    """Of memory and time, every further attempt may take as much again."""
    return lambda wildcards, attempt: amount * attempt


def threads_of_model(wildcards):
    policy = wildcards.get("policy") or wildcards.experiment
    return plan.config.models[plan.base(policy)].threads


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


def training_of_policy(wildcards):
    return paths.TRAINING.format(experiment=wildcards.policy)


def metrics_of_policy(wildcards):
    """None of a round that is not tested."""
    tested = wildcards.policy in plan.policies
    return paths.METRICS.format(policy=wildcards.policy) if tested else []


def plugins_of_preference_export(wildcards):
    return module_lines(*plan.export_plugins(wildcards.export))


def preferences_exported(wildcards):
    return plan.preferences(plan.exported(wildcards.export))


def examples_exported(wildcards):
    dataset = plan.block(plan.exported(wildcards.export)).dataset
    return paths.EXAMPLES.format(dataset=dataset)


def export_settings(wildcards):
    template = Path(planning.__file__).with_name("export_readme.md.jinja")
    return {
        **plan.export_settings(wildcards.export),
        "template": planning.sha256_of_file(template),
    }


def card_settings(policy):
    template = Path(planning.__file__).with_name("model_card.md.jinja")
    return {
        "config": plan.card_settings(policy),
        "template": planning.sha256_of_file(template),
    }


def datasets_of_plan(wildcards):
    return plan.datasets(wildcards.policy, wildcards.plan)


def examples_of_plan(wildcards):
    return expand(paths.EXAMPLES, dataset=datasets_of_plan(wildcards))


def benchmarks_of(wildcards, threads):
    """The whole benchmark blocks, not tracked: what only evaluation looks at asks no question again."""
    blocks = plan.benchmark_blocks(wildcards.policy)
    return {name: block.model_dump(mode="json") for name, block in blocks.items()}


def rewards_of_benchmarks(wildcards, threads):
    """The tasks of their rewards, not tracked: what cannot be scored is not asked, and else they change no question."""
    return plan.evaluation_settings(wildcards.policy)["rewards"]


def datasets_of_benchmarks(wildcards):
    return plan.datasets(wildcards.policy, "benchmarks")


def datasets_measured(wildcards, threads=None):
    return plan.datasets_measured(wildcards.policy)


def examples_measured(wildcards):
    return expand(paths.EXAMPLES, dataset=datasets_measured(wildcards))


def scored_settings(wildcards):
    return plan.scored_settings(wildcards.policy, wildcards.plan, wildcards.reward)


def examples_of_benchmarks(wildcards):
    return expand(paths.EXAMPLES, dataset=datasets_of_benchmarks(wildcards))


def shards_of_plan(wildcards):
    """As many shards as `--set-scatter shard=N` says; a finished table keeps the number that it was made of."""
    pattern = paths.RESPONSE_SHARD.format(
        policy=wildcards.policy, plan=wildcards.plan, scatteritem="{scatteritem}"
    )
    made_of = planning.shards_of(
        placed(paths.RESPONSES, policy=wildcards.policy, plan=wildcards.plan)
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


def twin_benchmark_rewards(wildcards):
    twin = plan.twin(wildcards.policy)
    if twin is None:
        return []
    return sorted(set(plan.benchmark_rewards(twin, wildcards.policy).values()))


def report_inputs(wildcards):
    """Every table that the page shows, by role."""
    return {
        "metrics": paths.ALL_METRICS,
        "training": expand(paths.TRAINING, experiment=plan.trained),
        "rounds": [
            paths.ROUND.format(experiment=plan.rounds(e)[-1])
            for e in plan.config.experiments
            if plan.rounds(e)
        ],
        "statistics": list(plan.statistics().values()),
        "pairs": sorted({t for p in plan.pair_tables().values() for t in p.values()}),
        "predictions": sorted(
            {t for p in plan.policies for t in plan.benchmark_rewards(p).values()}
        ),
        "examples": expand(paths.EXAMPLES, dataset=plan.benchmark_datasets),
        "controls": expand(paths.CONTROLS, policy=plan.controlled),
    }


def report_settings(wildcards):
    return all_placed(plan.report_settings())
