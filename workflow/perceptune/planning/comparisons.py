"""Comparisons and agreements of a config: which policies they mean, and whether they are possible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from perceptune.contracts.config import AgreementBlock, ComparisonBlock, Config
from perceptune.contracts.errors import UserError, lookup
from perceptune.contracts.paths import ROUND_MARK
from perceptune.contracts.plugins import load, names
from perceptune.core.benchmarks.benchmark import protocol_of


def policy_named(config: Config, name: str) -> str:
    """The policy that a name stands for: an experiment in rounds stands for its last round."""
    rounds = config.experiments[name].rounds if name in config.experiments else None
    return f"{name}{ROUND_MARK}{rounds}" if rounds else name


def policies_of(config: Config, block: ComparisonBlock) -> list[str]:
    """The two policies of a comparison, or the one whose pairs are compared."""
    return [policy_named(config, name) for name in block.policies or (str(block.experiment),)]


def labelled_policies(config: Config, block: AgreementBlock) -> list[str]:
    """The policies whose answers count for the agreement on a benchmark."""
    if block.policies:
        return [policy_named(config, name) for name in block.policies]
    return [policy for policy, benchmarks in evaluated(config).items() if block.benchmark in benchmarks]


def selects_by(config: Config, experiment: str) -> str | None:
    """The view by which an experiment's method selects tokens, see `RolloutMethod`; None if it selects
    none."""
    block = config.experiments[experiment]
    training = config.trainings[block.training]
    method = load("method", training.method)
    return method.selects_by(method.Parameters.model_validate(training.parameters)) if block.rounds else None


def evaluated(config: Config) -> dict[str, set[str]]:
    """Every evaluated policy with its benchmarks: base models, experiments, and rounds."""
    found: dict[str, set[str]] = {}
    for name, experiment in config.experiments.items():
        own = set(experiment.benchmarks)
        found[experiment.model] = found.get(experiment.model, set()) | own
        count, every = experiment.rounds or 0, experiment.evaluate_every
        tested = [f"{name}{ROUND_MARK}{n}" for n in range(1, count + 1) if n % every == 0 or n == count]
        found |= dict.fromkeys(tested or [name], own)
    return found


def unknown_comparisons(config: Config) -> Iterator[str]:
    """A line per reference that does not exist."""
    for name, block in config.comparisons.items():
        key = f"comparisons.{name}"
        yield from _unknown(f"{key}.benchmark", block.benchmark, config.benchmarks)
        yield from _unknown(f"{key}.experiment", block.experiment, config.experiments)
        yield from _unknown(f"{key}.judge", block.judge, config.judges)
        for policy in block.policies or ():
            yield from _unknown_policy(f"{key}.policies", policy, config)
    for name, agreement in config.agreements.items():
        key = f"agreements.{name}"
        yield from _unknown(f"{key}.benchmark", agreement.benchmark, config.benchmarks)
        yield from _unknown(f"{key}.comparison", agreement.comparison, config.comparisons)
        yield from _unknown(f"{key}.judge", agreement.judge, config.judges)
        if agreement.tokens:
            yield from _unknown_policy(f"{key}.tokens", agreement.tokens, config, models=False)
        for policy in agreement.policies:
            yield from _unknown_policy(f"{key}.policies", policy, config)


def impossible_comparisons(config: Config) -> Iterator[str]:
    """A line per comparison or agreement of blocks that do not fit together."""
    known = evaluated(config)
    for name, block in config.comparisons.items():
        key = f"comparisons.{name}"
        if block.policies and len(same := set(policies_of(config, block))) == 1:
            yield f"key `{key}.policies`: both names stand for `{same.pop()}`, expected two policies"
        for policy in block.policies or ():
            yield from _not_evaluated(f"{key}.policies", policy, str(block.benchmark), known, config)
        if block.experiment and config.experiments[block.experiment].rollout:
            yield f"key `{key}.experiment`: `{block.experiment}` learns from rollouts, expected pairs or dataset preferences"
        elif block.experiment and config.experiments[block.experiment].sampling:
            yield f"key `{key}.experiment`: `{block.experiment}` learns from ranked lists, expected pairs or dataset preferences"
    for name, agreement in config.agreements.items():
        yield from _impossible_agreement(f"agreements.{name}", agreement, known, config)


def _impossible_agreement(key: str, block: AgreementBlock, known: dict[str, set[str]], config: Config) -> Iterator[str]:
    if block.tokens:
        experiment = block.tokens.partition(ROUND_MARK)[0]
        if selects_by(config, experiment) is None:
            having = ", ".join(f"`{name}`" for name in config.experiments if selects_by(config, name))
            expected = f"expected {having}" if having else "expected an experiment with method `cppo`"
            yield f"key `{key}.tokens`: `{experiment}` selects no tokens, {expected}"
        return
    if block.comparison:
        first = config.comparisons[block.comparison].judge
        if first is None:
            yield f"key `{key}.comparison`: `{block.comparison}` has no judge"
    else:
        benchmark = config.benchmarks[str(block.benchmark)]
        first, protocol = benchmark.judge, protocol_of(benchmark)
        if first is None:
            yield f"key `{key}.benchmark`: `{block.benchmark}` has no judge"
        elif protocol is None or protocol.judged is None or protocol.judged.label is None:
            sorting = ", ".join(_sorting())
            yield f"key `{key}.benchmark`: verdicts on `{block.benchmark}` are no labels, expected protocol {sorting}"
        if not labelled_policies(config, block):
            yield f"key `{key}.benchmark`: no policy is evaluated on `{block.benchmark}`"
        for policy in block.policies:
            yield from _not_evaluated(f"{key}.policies", policy, str(block.benchmark), known, config)
    if block.judge is not None and block.judge == first:
        yield f"key `{key}.judge`: `{block.judge}` is the first judge as well, expected another"


def _sorting() -> list[str]:
    """The protocols whose verdicts are labels."""
    found = [one for name in names("benchmark") for one in load("benchmark", name).every_variant()]
    return [f"`{one.name}`" for one in found if one.judged and one.judged.label]


def _not_evaluated(key: str, name: str, benchmark: str, known: dict[str, set[str]], config: Config) -> Iterator[str]:
    policy = policy_named(config, name)
    if benchmark not in known.get(policy, ()):
        on = ", ".join(f"`{one}`" for one, benchmarks in known.items() if benchmark in benchmarks) or "no policy"
        yield f"key `{key}`: `{policy}` is not evaluated on benchmark `{benchmark}`, which has answers of {on}"


def _unknown_policy(key: str, name: str, config: Config, *, models: bool = True) -> Iterator[str]:
    """Rounds are allowed; the message does not list them. `models`: whether base models are allowed."""
    experiment, mark, number = name.rpartition(ROUND_MARK)
    rounds = config.experiments[experiment].rounds if experiment in config.experiments else None
    if not (mark and rounds and number.isdecimal() and 1 <= int(number) <= rounds):
        yield from _unknown(key, name, {**(config.models if models else {}), **config.experiments})


def _unknown(key: str, name: str | None, allowed: Mapping[str, object]) -> Iterator[str]:
    if name is None:
        return
    try:
        lookup(dict(allowed), name, f"key `{key}`:")
    except UserError as error:
        yield error.args[0] + (f"; {error.hint}" if error.hint else "")
