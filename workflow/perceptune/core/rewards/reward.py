"""The interface of rewards: their input, output and declaration."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from perceptune.contracts.errors import listed
from perceptune.core.answers.boxes import Frame
from perceptune.core.rewards.metrics import DeclaredMetric, mean

if TYPE_CHECKING:
    import polars as pl  # not at runtime: the Snakefile also loads rewards


Truth = Literal["answer", "box"]
"""A ground truth, by its key in a user's rows."""


@dataclass(frozen=True)
class Answers:
    """n responses of one task with their ground truth, as columns.

    A table is scored in batches, so a reward must not compare answers with each other: those to one
    question may come in two batches.
    """

    texts: Sequence[str]
    """The model's responses without their reasoning, unless the reward `reads_reasoning`."""
    targets: Sequence[str | None]
    """Ground truth as text."""
    boxes: np.ndarray
    """Ground-truth boxes in pixels of the image, shape (n, 4); NaN if there is none."""
    sizes: np.ndarray
    """Width and height of the image in pixels, shape (n, 2)."""
    frame: Frame | None
    """Coordinate format of the model's boxes; None if its family knows none and the config names none."""
    resized: np.ndarray | None = None
    """Width and height after the processor's resize, shape (n, 2), for the format `resized_pixels`."""
    sources: Sequence[Mapping[str, Any]] = ()
    """The examples' source columns, from their importer. They are read when first used."""
    resources: Path | None = None
    """Folder with language resources, for rewards that need them."""

    def each_source(self) -> Sequence[Mapping[str, Any]]:
        """The source columns, one mapping per response; empty mappings if there are none."""
        return self.sources or [{}] * len(self.texts)


@dataclass(frozen=True)
class Scores:
    """Scores of n responses, as columns."""

    rewards: np.ndarray
    """Rewards in [0, 1], shape (n,); 0 for a response that cannot be parsed."""
    parsed: Sequence[Any] | pl.Series
    """Parsed answers as JSON values, or as structs of a polars Series (`parsed_columns`), which takes
    a tenth of the time; None for a response that cannot be parsed."""
    components: dict[str, np.ndarray]
    """Named numbers from which metrics are computed, shape (n,) each."""
    reasons: Sequence[str | None]
    """Why a response could not be parsed; None if it could."""

    def was_parsed(self) -> np.ndarray:
        """Whether each response could be parsed, shape (n,)."""
        import polars as pl

        if isinstance(self.parsed, pl.Series):
            return self.parsed.is_not_null().to_numpy()
        return np.array([one is not None for one in self.parsed], dtype=bool)

    def parsed_json(self) -> pl.Series:
        """`parsed` as JSON text, as stored in tables."""
        import polars as pl

        if isinstance(self.parsed, pl.Series):
            return self.parsed.struct.json_encode().set(self.parsed.is_null(), None)
        texts = [None if one is None else _json(one) for one in self.parsed]
        return pl.Series(texts, dtype=pl.String)


_json = json.JSONEncoder(separators=(",", ":")).encode


def parsed_columns(
    columns: Mapping[str, Any], read: Sequence[bool] | np.ndarray | None = None
) -> pl.Series | list[Any]:
    """For `Scores.parsed`: structs of the columns, each of length n; None where `read` is false.

    Numbers that are not finite become null in JSON.
    """
    import polars as pl

    good = [True] * len(next(iter(columns.values()))) if read is None else read
    try:
        structs = pl.DataFrame(columns).to_struct()
    except UnicodeEncodeError:  # half a surrogate pair, which only rewards called from Python can get
        rows = zip(good, *columns.values(), strict=True)
        return [dict(zip(columns, values, strict=True)) if one else None for one, *values in rows]
    return pl.select(pl.when(pl.Series(good, dtype=pl.Boolean)).then(structs)).to_series()


@dataclass(frozen=True)
class RewardMetric(DeclaredMetric):
    """A metric computed from a reward's components; shares are in [0, 1]."""

    component: str | None = None
    """Component that `of_one` maps to the metric of single responses, for the mean and the best of
    k; None if the metric is undefined for a single response."""
    of_one: Callable[[np.ndarray], np.ndarray] = np.asarray
    """Elementwise function of an array of any shape."""
    only_with: str | None = None
    """One of the reward's `optional` components; the metric is left out without it."""


@dataclass(frozen=True)
class Reward:
    """A reward; tasks of a reward block select it by name.

    Raises `ValueError` if the declaration is invalid.
    """

    name: str
    summary: str
    """One line: what is rewarded."""
    score: Callable[[Answers], Scores]
    components: Sequence[str]
    """The components that `score` always returns."""
    metrics: Mapping[str, RewardMetric]
    """Name to metric, the primary one first. A name has the same meaning in all rewards."""
    optional: Sequence[str] = ()
    """Further components that `score` returns only under some settings."""
    reads_reasoning: bool = False
    """Whether `score` gets whole responses, because it rewards the format of the reasoning itself.
    Other rewards get the answer alone."""
    needs: Truth | None = None
    """The ground truth that every question must have; those without it are refused before anything is
    sampled. None: the reward reads none, or says itself what questions without it are worth."""

    def __post_init__(self) -> None:
        if not self.summary.strip() or "\n" in self.summary:
            raise ValueError("`summary` is empty or has several lines, expected one line")
        if self.needs not in (None, *get_args(Truth)):
            raise ValueError(f"`needs` is {self.needs!r}, expected {' or '.join(map(repr, get_args(Truth)))} or None")
        if isinstance(self.components, str):
            raise ValueError(f"`components` is text, expected a tuple: `({self.components!r},)`")
        if not self.components:
            raise ValueError("`components` is empty, expected the names of the components that `score` returns")
        if not self.metrics:
            raise ValueError("`metrics` is empty, expected at least one metric, the primary one first")
        for name, declared in self.metrics.items():
            self._check(name, declared)

    def _check(self, name: str, declared: RewardMetric) -> None:
        """Apply a metric to columns of zeros to check its columns and the shape it returns."""
        if not isinstance(declared, RewardMetric) or not callable(declared.metric):
            raise ValueError(f"metric `{name}`: expected a `RewardMetric` with a function of columns")
        known = (*self.components, *self.optional)
        used = [name for name in (declared.component, declared.only_with) if name is not None]
        if unknown := [component for component in used if component not in known]:
            raise ValueError(f"metric `{name}` has unknown component `{unknown[0]}`, expected one of {listed(known)}")
        if declared.only_with in self.components:
            raise ValueError(f"metric `{name}`: `only_with` is `{declared.only_with}`, expected one of `optional`")
        if declared.component is not None and (shape := np.shape(declared.of_one(np.zeros((2, 3))))) != (2, 3):
            raise ValueError(
                f"`of_one` of metric `{name}` returns shape {shape} for an array of shape (2, 3), expected (2, 3)"
            )
        try:
            shape = np.shape(declared.metric({component: np.zeros((2, 3)) for component in known}))
        except KeyError as missing:
            raise ValueError(
                f"metric `{name}` reads unknown component {missing}, expected one of {listed(known)}"
            ) from None
        if shape != (2,):
            raise ValueError(f"metric `{name}` returns shape {shape} for columns of shape (2, 3), expected (2,)")


ACCURACY_METRICS: dict[str, RewardMetric] = {
    "accuracy": RewardMetric(mean("accuracy"), "accuracy", component="accuracy")
}
"""The metrics of `right_or_wrong`."""


def right_or_wrong(found: Sequence[Any], right: Sequence[bool], unread: str) -> Scores:
    """Scores with rewards 1 and 0, also as component `accuracy`; parsed: `answer`.

    `unread` is the reason for responses in which no answer was found (None in `found`).
    """
    rewards = np.array(right, dtype=float)
    parsed = [None if answer is None else {"answer": answer} for answer in found]
    return Scores(rewards, parsed, {"accuracy": rewards}, [unread if p is None else None for p in parsed])


VLMEVALKIT = "VLMEvalKit's rules, July 2025"
"""The version of VLMEvalKit whose rules rewards apply, as metrics name it: those since its pull
request 1175."""
VLMEVALKIT_COMPONENTS = ("accuracy", "vlmevalkit", "vlmevalkit_read")
"""The components of `with_vlmevalkit`."""


def with_vlmevalkit(official: Scores, vlmevalkit: Scores) -> Scores:
    """The scores of a benchmark's own rule, with VLMEvalKit's verdicts as component `vlmevalkit`.

    Component `vlmevalkit_read` is 1 if VLMEvalKit's rules found an answer.
    """
    read = np.array([reason is None for reason in vlmevalkit.reasons], dtype=float)
    components = {"vlmevalkit": vlmevalkit.components["accuracy"], "vlmevalkit_read": read}
    return replace(official, components={**official.components, **components})
