"""What a published benchmark declares: how it asks, how an answer is read, and its official metrics."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from perceptune.contracts.config import BenchmarkBlock, Task
from perceptune.contracts.errors import UserError, near
from perceptune.contracts.plugins import load
from perceptune.core.rewards.metrics import Columns, DeclaredMetric, Metric, ratio


@dataclass(frozen=True)
class Answered:
    """One answer to one question, with all that is known of both."""

    example_id: str
    task: str
    question: str
    text: str | None
    """The answer; None where there is none, which counts as one that cannot be parsed."""
    target: str | None
    parsed: Mapping[str, Any] | None
    """What the reward read from it."""
    components: Mapping[str, float]
    """The reward's numbers; empty where there is no answer."""
    reason: str | None
    """Why it could not be parsed."""
    source: Mapping[str, Any]
    """The example's other columns, as its importer gave them."""
    verdict: str | None = None
    """What the judge said; None without a judge, or where the judge was not asked."""


def always(answered: Answered) -> bool:
    return True


def unread(answered: Answered) -> bool:
    return answered.text is None or answered.reason is not None


@dataclass(frozen=True)
class Measured(DeclaredMetric):
    """One official metric, of the columns that the benchmark makes.

    It looks at their sums over the last axis and at nothing else, since intervals are made of
    resampled sums; shares are in [0, 1]. NaN: it could not be measured, see `needs`.
    """

    of: Callable[[Answered], bool] = always
    """The answers that it is about: their number is `n`."""
    failed: Callable[[Answered], bool] = unread
    """Those of them that could not be read: their number is `n_failed`."""
    needs: str = ""
    """What is missing where it is NaN, such as a resource that has to be brought."""
    of_some_runs: bool = False
    """Whether runs of answers where it is NaN, such as those that solve nothing, are left out of the mean over runs; else the mean
    is NaN, too."""


@dataclass(frozen=True)
class Judged:
    """How a language model judges an answer."""

    messages: Callable[[Answered], list[dict[str, str]]]
    """A chat of `role` and `content`, text only."""
    max_tokens: int = 256
    asked: Callable[[Answered], bool] = always
    """Answers that need a judge."""
    fields: Callable[[Answered], dict[str, str]] | None = None
    """What a prompt that the user brings (`judge_prompt`) must name in braces, each with its text; None: it takes none."""
    may_end_early: bool = False
    """Whether a verdict that is cut off after `max_tokens` counts, because what matters stands at its beginning."""


@dataclass(frozen=True)
class Benchmark:
    """A published benchmark, under the name that `protocol` of a benchmark block gives."""

    name: str
    rewards: Mapping[Task, str]
    """Task to the reward that reads its answers."""
    columns: Callable[[Sequence[Answered]], Columns]
    """Columns of shape (units,) that metrics are made of, of the greedy answers, or of the i-th sampled answers, to all
    questions. Intervals resample units: what belongs together, such as all questions about an image, makes one unit."""
    metrics: Mapping[str, Measured]
    """By name, the primary one first. A name means the same in every benchmark that has it."""
    quoted: Sequence[str] = ()
    """Of many metrics those that papers quote, the primary one first: the report folds the others away. Empty: the first few."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keys of a benchmark block with their official values, such as `prompt`; the block's own keys go before."""
    components: Mapping[Task, Sequence[str]] = field(default_factory=dict)
    """Task to the components that the reward of its answers must give, also where it is another one than in `rewards`."""
    reads: Mapping[Task, Sequence[str]] = field(default_factory=dict)
    """Task to the columns of the source that its questions must bring: without them there is no number, or another one."""
    judged: Judged | None = None
    """How a judge is asked, where the metrics need one or can use one."""
    judge_required: bool = False
    """Whether there is no score without a judge."""
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What `variant` of a benchmark block may be, to the fields that differ from those here."""
    variant_required: bool = False
    """Whether there is no default: a block has to name one of the variants."""

    def __post_init__(self) -> None:
        list(self.every_variant())  # an unknown field is found now

    def variant(self, name: str | None) -> Benchmark:
        """This benchmark as a variant, called `<benchmark>_<variant>`; itself without a name.

        Raises `UserError` for an unknown variant, and for none where one is needed.
        """
        allowed = ", ".join(f"`{one}`" for one in self.variants) or "none"
        if name is None and not self.variant_required:
            return self
        if name is None:
            raise UserError(f"`{self.name}` has several variants, expected one of {allowed}")
        if name not in self.variants:
            raise UserError(f"`{self.name}` has no variant `{name}`, expected {allowed}", near(name, self.variants))
        return self._varied(name)

    def every_variant(self) -> Iterator[Benchmark]:
        """All that `variant` can give."""
        if not self.variant_required:
            yield self
        yield from map(self._varied, self.variants)

    def _varied(self, name: str) -> Benchmark:
        fields = {"name": f"{self.name}_{name}", "variants": {}, "variant_required": False, **self.variants[name]}
        return replace(self, **fields)


def protocol_of(block: BenchmarkBlock) -> Benchmark | None:
    """The published benchmark that a block names, in its variant; None where it names none."""
    return None if block.protocol is None else load("benchmark", block.protocol).variant(block.variant)


def filled(prompt: str, fields: Mapping[str, str]) -> str:
    """The prompt with each `{name}` of a field replaced by its text; other braces, also in the texts, stay as they are."""
    names = "|".join(map(re.escape, fields))
    return re.sub(rf"\{{({names})\}}", lambda found: fields[found[1]], prompt)


def summed(units: Sequence[str], columns: Mapping[str, Sequence[float]]) -> dict[str, np.ndarray]:
    """The columns summed by unit, in the order of the units' first appearance: shape (number of units,), float64."""
    order = {unit: index for index, unit in enumerate(dict.fromkeys(units))}
    index = np.array([order[unit] for unit in units], dtype=int)
    return {
        name: np.bincount(index, weights=np.asarray(values, dtype=float), minlength=len(order))
        for name, values in columns.items()
    }


def share(above: str, below: str) -> Metric:
    """The sum of one column over the sum of another; 0 where the latter is 0."""
    return lambda columns: ratio(columns[above].sum(axis=-1), columns[below].sum(axis=-1))


def f1(hits: str, predicted: str, true: str) -> Metric:
    """Twice the hits over predicted and true positives together: the harmonic mean of precision and recall."""
    return lambda columns: ratio(
        2 * columns[hits].sum(axis=-1), columns[predicted].sum(axis=-1) + columns[true].sum(axis=-1)
    )


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """The mean over the first axis of what is not NaN; NaN where nothing is known."""
    known = ~np.isnan(values)
    mean = np.where(known, values, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known.any(axis=0), mean, np.nan)


def mean_of(metrics: Sequence[Metric]) -> Metric:
    """The unweighted mean of several metrics."""
    return lambda columns: np.mean([metric(columns) for metric in metrics], axis=0)


def right(answered: Answered) -> float:
    """1 where the rules find the answer right, else 0."""
    return answered.components.get("accuracy", 0.0)


def known_share(above: str, below: str) -> Metric:
    """The sum of one column over the sum of another; NaN where the latter is 0, since there is nothing to be right about."""

    def metric(columns: Columns) -> np.ndarray:
        total = columns[below].sum(axis=-1)
        return np.where(total > 0, ratio(columns[above].sum(axis=-1), total), np.nan)

    return metric
