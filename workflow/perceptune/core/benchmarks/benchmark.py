"""What a published benchmark declares: its prompt, its answer reader, its judge and its metrics."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np

from perceptune.contracts.config import BenchmarkBlock, Task
from perceptune.contracts.errors import UserError, listed, near
from perceptune.contracts.plugins import load
from perceptune.core.rewards.metrics import Columns, DeclaredMetric, Metric, known_ratio, ratio


@dataclass(frozen=True)
class Answered:
    """One answer to one question, with everything known about both."""

    example_id: str
    task: str
    question: str
    text: str | None
    """The answer without reasoning; None if it is missing or its reasoning never ends, which counts as
    unparsable.
    """
    target: str | None
    parsed: Mapping[str, Any] | None
    """What the reward parsed from the answer."""
    components: Mapping[str, float]
    """The reward's components; empty if the answer is missing."""
    reason: str | None
    """Why the answer could not be parsed; None if it was."""
    source: Mapping[str, Any]
    """The example's source columns, as its importer wrote them."""
    response: str | None = None
    """The whole response with its reasoning, for a judge that reads it; None elsewhere."""
    verdict: str | None = None
    """The judge's reply; None without a judge, or for answers that do not need one."""


def always(answered: Answered) -> bool:
    """True: selects every answer."""
    return True


def given(answered: Answered) -> bool:
    """Whether there is an answer."""
    return answered.text is not None


def unread(answered: Answered) -> bool:
    """Whether an answer is missing or could not be parsed."""
    return answered.text is None or answered.reason is not None


@dataclass(frozen=True)
class Measured(DeclaredMetric):
    """One official metric, computed from the benchmark's columns.

    It may use only their sums over the last axis, because intervals are computed from resampled
    sums. Shares are in [0, 1]. NaN means that it could not be measured, see `needs`.
    """

    of: Callable[[Answered], bool] = always
    """Selects the answers that the metric covers; `n` counts them."""
    failed: Callable[[Answered], bool] = unread
    """Selects the covered answers that could not be read; `n_failed` counts them."""
    needs: str = ""
    """What is missing when the metric is NaN, such as a resource that the user must provide."""
    of_some_runs: bool = False
    """Whether the mean over runs of sampled answers skips runs whose value is NaN (for example,
    runs that solve nothing). Otherwise one such run makes the mean NaN.
    """


@dataclass(frozen=True)
class Judged:
    """How a language model judges an answer."""

    messages: Callable[[Answered], list[dict[str, str]]]
    """A chat of `role` and `content`, text only."""
    max_tokens: int = 256
    asked: Callable[[Answered], bool] = always
    """Selects the answers that need a judge."""
    fields: Callable[[Answered], dict[str, str]] | None = None
    """Placeholders that a custom prompt (`judge_prompt`) must contain, each with its text; None: no
    custom prompt is possible.
    """
    may_end_early: bool = False
    """Whether a verdict cut off at `max_tokens` still counts, because the part that is read comes
    first.
    """
    reads_reasoning: bool = False
    """Whether `messages` uses the whole response, `Answered.response`."""
    labels: tuple[str, ...] = ()
    """The labels by which verdicts sort answers, for agreement with others; empty: verdicts are no labels."""
    label: Callable[[str | None], str | None] | None = None
    """Reads the label from a verdict; None if it cannot be read."""

    @classmethod
    def by_prompt(
        cls, prompt: str, fields: Callable[[Answered], dict[str, str]], max_tokens: int, **more: Any
    ) -> Judged:
        """A judge that is sent one message, the prompt with these fields."""

        def messages(answered: Answered) -> list[dict[str, str]]:
            return [{"role": "user", "content": filled(prompt, fields(answered))}]

        return cls(messages, max_tokens, fields=fields, **more)


@dataclass(frozen=True)
class Benchmark:
    """A published benchmark, selected by `protocol` of a benchmark block."""

    name: str
    rewards: Mapping[Task, str]
    """Maps a task to the reward that reads its answers."""
    columns: Callable[[Sequence[Answered]], Columns]
    """Computes the columns, float64 of shape (units,), that the metrics use. Called with the greedy
    answers, or with the i-th sampled answers, to all questions. Intervals resample units; answers
    that are not independent, such as those about one image, form one unit.
    """
    metrics: Mapping[str, Measured]
    """Metrics by name, primary first. A name has the same meaning in every benchmark."""
    quoted: Sequence[str] = ()
    """The metrics that papers quote, primary first; the report folds the others away. Empty: the
    first few.
    """
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Official values of keys of a benchmark block, such as `prompt`; the block's own keys override
    them.
    """
    components: Mapping[Task, Sequence[str]] = field(default_factory=dict)
    """Maps a task to the components that its reward must return, even if the block overrides
    `rewards`.
    """
    reads: Mapping[Task, Sequence[str]] = field(default_factory=dict)
    """Maps a task to the source columns that its questions must have. Without them, metrics would
    be missing or wrong.
    """
    judged: Judged | None = None
    """How to judge answers; None if no metric uses a judge."""
    described: Callable[[Answered], str] | None = None
    """What the image shows, in words, for a judge of two answers, which does not see it; None: unknown."""
    judge_required: bool = False
    """Whether every score requires a judge."""
    by_density: bool = False
    """Whether the metrics are also computed for each quarter of the questions by the length of their
    true text, under the first view (core/benchmarks/density.py).
    """
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Maps each allowed value of the block's `variant` to the fields that it overrides."""
    variant_required: bool = False
    """Whether a block must name a variant, because there is no default."""

    def __post_init__(self) -> None:
        """Raises `ValueError` for a declaration that contradicts itself."""
        if not self.rewards or not self.metrics:
            raise ValueError(f"`{'metrics' if self.rewards else 'rewards'}` is empty, expected at least one")
        for what, named, allowed in (
            ("quoted", self.quoted, self.metrics),
            ("components", self.components, get_args(Task)),
            ("reads", self.reads, get_args(Task)),
        ):
            if unknown := [name for name in named if name not in allowed]:
                raise ValueError(f"`{what}` has unknown `{unknown[0]}`, expected one of {listed(allowed)}")
        for what, named in (("components", self.components), ("reads", self.reads)):
            if text := next((one for one in named.values() if isinstance(one, str)), None):
                raise ValueError(f"`{what}` has text for a task, expected a tuple: `({text!r},)`")
        if wrong := [name for name, one in self.metrics.items() if not isinstance(one, Measured)]:
            raise ValueError(
                f"metric `{wrong[0]}` is a `{type(self.metrics[wrong[0]]).__name__}`, expected a `Measured`"
            )
        list(self.every_variant())  # fail on an unknown field at import

    def variant(self, name: str | None) -> Benchmark:
        """The variant `name`, called `<benchmark>_<variant>`; the benchmark itself for None.

        Raises `UserError` for an unknown variant, or for None if a variant is required.
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
        """Every benchmark that `variant` can return."""
        if not self.variant_required:
            yield self
        yield from map(self._varied, self.variants)

    def _varied(self, name: str) -> Benchmark:
        fields = {"name": f"{self.name}_{name}", "variants": {}, "variant_required": False, **self.variants[name]}
        return replace(self, **fields)


def unit_columns(benchmark: Benchmark, answers: Sequence[Answered]) -> Columns:
    """The benchmark's columns of these answers, as float64.

    Raises `UserError` if they are not numbers, one per unit, or if a metric reads a column that is not
    among them or is not a function of their sums.
    """
    returned, about = benchmark.columns(answers), f"benchmark `{benchmark.name}`"
    if not isinstance(returned, Mapping):
        raise UserError(f"{about}: `columns` returns a `{type(returned).__name__}`, expected a dictionary of arrays")
    try:
        columns = {name: np.asarray(values, dtype=float) for name, values in returned.items()}
    except (TypeError, ValueError) as error:
        raise UserError(f"{about}: `columns` returns values that are not numbers: {error}") from None
    shapes = {name: values.shape for name, values in columns.items()}
    if wrong := [name for name, shape in shapes.items() if len(shape) != 1 or shape != next(iter(shapes.values()))]:
        raise UserError(
            f"{about}: column `{wrong[0]}` has shape {shapes[wrong[0]]}, expected one number per unit",
            f"the shapes are {', '.join(f'{shape} of `{name}`' for name, shape in shapes.items())}",
        )
    for name, measured in benchmark.metrics.items():
        try:
            mistake = _not_of_sums(measured.metric, columns)
        except KeyError as missing:
            raise UserError(
                f"{about}: metric `{name}` reads unknown column {missing}, expected one of {listed(columns)}"
            ) from None
        if mistake:
            raise UserError(
                f"{about}: metric `{name}` {mistake}",
                "intervals come from sums over resampled units: use only `columns[name].sum(axis=-1)`, as `share` does",
            )
    return columns


def _not_of_sums(metric: Metric, columns: Columns) -> str | None:
    """How two resamples, each the sums of all units, show that a metric uses more than sums."""
    value = np.asarray(metric(columns))
    sums = {name: np.tile(values.sum(), (2, 1)) for name, values in columns.items()}
    of_sums = np.asarray(metric(sums))
    if of_sums.shape != (2,) or value.shape != ():
        found, of, expected = (of_sums, "(2, 1)", "(2,)") if value.shape == () else (value, "(units,)", "()")
        return f"returns shape {found.shape} for columns of shape {of}, expected {expected}"
    if np.allclose(of_sums, value, equal_nan=True):
        return None
    return f"is {value:g} for columns and {of_sums[0]:g} for their sums, expected the same"


def protocol_of(block: BenchmarkBlock) -> Benchmark | None:
    """The published benchmark of a block, in its variant; None if the block has no `protocol`."""
    return None if block.protocol is None else load("benchmark", block.protocol).variant(block.variant)


def question_and_response(answered: Answered) -> dict[str, str]:
    """The fields of a judge's prompt that extracts the answer from a response."""
    return {"question": answered.question, "response": answered.text or ""}


def filled(prompt: str, fields: Mapping[str, str]) -> str:
    """The prompt with each `{field}` replaced by its text. Other braces, including those in the
    texts, are kept.
    """
    names = "|".join(map(re.escape, fields))
    return re.sub(rf"\{{({names})\}}", lambda found: fields[found[1]], prompt)


def summed(units: Sequence[str], columns: Mapping[str, Sequence[float]]) -> dict[str, np.ndarray]:
    """Sums each column by unit, in order of first appearance: float64 of shape (units,)."""
    order = {unit: index for index, unit in enumerate(dict.fromkeys(units))}
    index = np.array([order[unit] for unit in units], dtype=int)
    return {
        name: np.bincount(index, weights=np.asarray(values, dtype=float), minlength=len(order))
        for name, values in columns.items()
    }


def share(above: str, below: str) -> Metric:
    """The sum of one column divided by the sum of another; 0 if the latter is 0."""
    return lambda columns: ratio(columns[above].sum(axis=-1), columns[below].sum(axis=-1))


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """The mean over the first axis, ignoring NaN; NaN where all values are NaN."""
    known = ~np.isnan(values)
    mean = np.where(known, values, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known.any(axis=0), mean, np.nan)


def right(answered: Answered) -> float:
    """1.0 if the reward's rules count the answer as right, else 0.0."""
    return answered.components.get("accuracy", 0.0)


def given_but_wrong(answered: Answered) -> bool:
    """Whether there is an answer that the reward's rules do not count as right."""
    return given(answered) and not right(answered)


def known_share(above: str, below: str) -> Metric:
    """The sum of one column divided by the sum of another; NaN if the latter is 0."""
    return lambda columns: known_ratio(columns[above].sum(axis=-1), columns[below].sum(axis=-1))
