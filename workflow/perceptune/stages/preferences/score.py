"""Scores responses: one reward per response, with the parsed answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from perceptune.contracts.config import ModelBlock, RewardBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load, module_of
from perceptune.contracts.progress import tell
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.quarantine import check_ceiling
from perceptune.contracts.tables.examples import TRUTH_COLUMNS
from perceptune.contracts.tables.io import read_batches, table_writer
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.contracts.tables.rewards import REWARDS, component_lists
from perceptune.core.answers.reasoning import UNFINISHED, Reasoning
from perceptune.core.data.coordinate_frames import Overlaps, overlaps
from perceptune.core.rewards.reward import Answers, Reward, Scores
from perceptune.models.coordinates import coordinate_frame, resized_sizes
from perceptune.models.reasoning import reasoning_of
from perceptune.stages.preferences.asked import Asked
from perceptune.stages.preferences.batches import write_beside

BATCH = 2**16
"""Responses in memory at once."""
COMPARED = 100_000
"""Boxes per task whose coordinate format is checked, the first ones: enough for the log."""
ROUNDING = 1e-6
"""How far a reward may lie outside of [0, 1]."""
ANSWERED = ("request_id", "example_id", "view", "sample_index", "text", "reason")


def run(
    *,
    requests: Path,
    responses: Path,
    examples: dict[str, Path],
    rewards: Path,
    config: RewardBlock,
    model: ModelBlock,
    benchmarks: list[str] | None = None,
    resources: str | None = None,
) -> None:
    """Writes the `rewards` table: `responses` in order, optionally only of `benchmarks`.

    This is the only place where the model's reasoning is taken off: judges and metrics read the
    column `answer`, except for a judge of the reasoning itself.

    `resources` is the digest of the folder of that name, for the record. Raises `UserError` if a
    task has no reward, or if more than `max_failed_share` of the responses are missing.
    """
    reasoning = reasoning_of(model)
    asked = Asked(requests, examples)
    chosen = pl.lit(True) if benchmarks is None else pl.col("benchmark").is_in(benchmarks)
    unrewarded = sorted(map(str, set(asked.table.filter(chosen)["task"]) - set(config.tasks)))
    if unrewarded:
        raise UserError(
            f"no reward for task `{unrewarded[0]}`, expected one under `tasks` of the reward block",
            f"it has rewards for {', '.join(config.tasks)}",
        )
    failures = _Failures(config)
    scoring = {str(task): _Scoring(reward, asked, model, config) for task, reward in config.tasks.items()}

    def parts() -> Iterator[pl.DataFrame]:
        for batch in read_batches(responses, RESPONSES, ANSWERED, BATCH):
            part = asked.join(pl.DataFrame(pl.from_arrow(batch))).filter(chosen)
            failures.add(part)
            part = part.with_columns(answer=_without_reasoning(part["text"], reasoning)).with_row_index("row")
            scored = [scoring[str(task)].scored(rows) for (task,), rows in part.group_by("task")]
            if scored:
                yield pl.concat(scored).sort("row").drop("row")

    with table_writer(rewards, REWARDS) as table:
        write_beside(table, parts())
        failures.check()
        for one in scoring.values():
            one.tell()
        inputs = {"requests": requests, "responses": responses, **{f"examples {k}": v for k, v in examples.items()}}
        plugins = [module_of("family", model.family)]
        plugins += [module_of("reward", name) for name in sorted(set(config.tasks.values()))]
        parameters = {
            "reward": config.model_dump(mode="json"),
            "resources": resources,
            "model": model.model_dump(mode="json"),
            "reasoning": {"markers": list(reasoning.markers), "opened_by_prompt": reasoning.opened},
        }
        table.lineage = lineage("preferences.score", parameters, inputs, plugins)


class _Failures:
    """The missing responses."""

    def __init__(self, config: RewardBlock) -> None:
        self._config = config
        self._missing = self._total = 0
        self._lines: dict[str, None] = {}
        """One per request and reason, in order."""

    def add(self, part: pl.DataFrame) -> None:
        """Counts the missing ones among these responses."""
        failed = part.filter(pl.col("text").is_null()).select("request_id", "reason")
        self._total += part.height
        self._missing += failed.height
        self._lines |= dict.fromkeys(f"request `{request}`: {reason}" for request, reason in failed.iter_rows())

    def check(self) -> None:
        """Raises `UserError` if there are too many."""
        check_ceiling(
            list(self._lines),
            self._total,
            "responses are missing",
            self._config.max_failed_share,
            self._config.max_failed_rows,
            count=self._missing,
        )


def _without_reasoning(texts: pl.Series, reasoning: Reasoning) -> pl.Series:
    """The answers in responses; null without a response, or if its reasoning never ends."""
    reasoned = (texts.str.contains_any(list(reasoning.signs)) | reasoning.opened).fill_null(value=False)
    read = [text and reasoning.answer(text) for text in texts.filter(reasoned)]
    return texts.scatter(reasoned.arg_true(), pl.Series(read, dtype=pl.String))


class _Scoring:
    """The scores of the responses to one task."""

    def __init__(self, reward: str, asked: Asked, model: ModelBlock, config: RewardBlock) -> None:
        self._reward: Reward = load("reward", reward)
        self._asked, self._model = asked, model
        self._frame = coordinate_frame(model)
        self._resources = Path(config.resources) if config.resources else None
        self._padded = False
        self._by_frame = _ByFrame(model)

    def scored(self, part: pl.DataFrame) -> pl.DataFrame:
        """Responses with their scores: the column `row` and those of `rewards`.

        Rows without a response or with a reward that is not finite have a null reward and a reason.
        """
        self._check_truth(part)
        texts = part["text" if self._reward.reads_reasoning else "answer"]
        answers = self._answers(part, texts.fill_null("").to_list())
        scores = _without_answer(scores_of(self._reward, answers), texts.is_null().to_numpy())
        self._by_frame.add(part, answers, scores)
        missing = pl.col("text").is_null()
        finite = np.isfinite(scores.rewards)
        reasons = pl.Series(scores.reasons, dtype=pl.String)
        broken = np.flatnonzero(~finite)
        wrong = [f"the reward is {value}, expected a finite number" for value in scores.rewards[broken]]
        rewards = pl.Series(np.where(finite, scores.rewards, np.nan), dtype=pl.Float64).fill_nan(None)
        return part.with_columns(
            reward=pl.when(missing).then(None).otherwise(rewards),
            parsed=parsed_json(self._reward, scores),
            components=pl.Series(component_lists(scores.components, part.height)),
            reason=pl.when(missing)
            .then(pl.col("reason"))
            .otherwise(reasons.scatter(broken, pl.Series(wrong, dtype=pl.String))),
        ).select("row", *REWARDS.schema.names)

    def tell(self) -> None:
        """Prints what the coordinates of all responses show."""
        if self._padded:
            print("boxes are interpreted relative to the padded square, the format of LLaVA-1.5", file=sys.stderr)
        for line in self._by_frame.lines():
            (tell if line.startswith("warning: ") else print)(line)

    def _check_truth(self, part: pl.DataFrame) -> None:
        """Raises `UserError` for an example without the ground truth that the reward needs. Requests that
        were planned for another reward may have one."""
        needs = self._reward.needs
        if needs is None:
            return
        lacking = part.filter(pl.col(TRUTH_COLUMNS[needs]).is_null())
        if lacking.height:
            raise UserError(
                f"the example of request `{lacking['request_id'][0]}` has no `{needs}`, which reward `{self._reward.name}` needs",
                "add it to its row, or choose a reward that does not need it",
            )

    def _answers(self, part: pl.DataFrame, texts: list[str]) -> Answers:
        sizes = _numbers(part["image_sizes"].list.first(), 2)
        boxes = _numbers(part["box"], 4)
        if self._frame == "padded_square" and (sizes[:, 0] != sizes[:, 1])[~np.isnan(boxes[:, 0])].any():
            self._padded = True
        return Answers(
            texts=texts,
            targets=part["target"].to_list(),
            boxes=boxes,
            sizes=sizes,
            frame=self._frame,
            sources=self._asked.sources(part),
            resources=self._resources,
            resized=resized_sizes(self._model, sizes) if self._frame == "resized_pixels" else None,
        )


def _numbers(lists: pl.Series, length: int) -> np.ndarray:
    """Lists of numbers as an array of shape (n, length); NaN where there is no list."""
    columns = [lists.list.get(place, null_on_oob=True).cast(pl.Float64) for place in range(length)]
    return np.column_stack([column.fill_null(np.nan).to_numpy() for column in columns])


def scores_of(reward: Reward, answers: Answers) -> Scores:
    """The reward's scores, with numbers as arrays; None is NaN.

    Raises `UserError` if they do not have one value per answer, or not the declared components, or
    rewards outside of [0, 1].
    """
    made, about = reward.score(answers), f"reward `{reward.name}`"
    if not isinstance(made, Scores):
        raise UserError(f"{about} returns a `{type(made).__name__}`, expected `Scores`")
    if not isinstance(made.components, Mapping):
        raise UserError(
            f"{about}: `components` is a `{type(made.components).__name__}`, expected a dictionary of arrays"
        )
    for name, values in (("parsed", made.parsed), ("reasons", made.reasons)):
        if not isinstance(values, Sized):
            raise UserError(
                f"{about}: `{name}` is a `{type(values).__name__}`, expected a list with a value per answer"
            )
    try:
        rewards = np.asarray(made.rewards, dtype=float)
        components = {name: np.asarray(values, dtype=float) for name, values in made.components.items()}
    except (TypeError, ValueError) as error:
        raise UserError(f"{about} returns values that are not numbers: {error}") from None
    shapes = {"rewards": rewards.shape, "parsed": (len(made.parsed),), "reasons": (len(made.reasons),)}
    shapes |= {f"component {name}": values.shape for name, values in components.items()}
    for name, shape in shapes.items():
        if shape != (len(answers.texts),):
            raise UserError(f"{about}: `{name}` has shape {shape}, expected ({len(answers.texts)},)")
    if wrong := [reason for reason in made.reasons if not isinstance(reason, str | None)]:
        raise UserError(f"{about}: a reason is {wrong[0]!r:.60}, expected text or None")
    in_structs = isinstance(made.parsed, pl.Series) and isinstance(made.parsed.dtype, pl.Struct)
    scores = Scores(rewards, made.parsed if in_structs else list(made.parsed), components, list(made.reasons))
    if missing := [name for name in reward.components if name not in scores.components]:
        raise UserError(f"{about} does not return its declared component `{missing[0]}`")
    outside = np.isfinite(rewards) & (np.abs(rewards - 0.5) > 0.5 + ROUNDING)
    if outside.any():
        first = int(outside.argmax())
        raise UserError(
            f"{about} is {rewards[first]:g} for the answer {answers.texts[first]!r:.60}, expected a number from 0 to 1"
        )
    return scores


def parsed_json(reward: Reward, scores: Scores) -> pl.Series:
    """The parsed answers as JSON text. Raises `UserError` if they are not JSON values."""
    try:
        return scores.parsed_json()
    except (TypeError, ValueError) as error:
        raise UserError(
            f"reward `{reward.name}`: `parsed` cannot be stored as JSON: {error}",
            "use text, Python's numbers, lists and dictionaries: `float(x)` and `x.tolist()` convert from NumPy",
        ) from None


def _without_answer(scores: Scores, none: np.ndarray) -> Scores:
    """Missing responses, and those whose reasoning never ends, are unparsed and have reward 0.

    Their components are those of an empty answer, such as an edit distance of 1, or 0 if the rule pays
    for an empty answer, as POPE's does.
    """
    if not none.any():
        return scores
    paid = none & (scores.rewards > 0)
    return Scores(
        np.where(none, 0.0, scores.rewards),
        _without(scores.parsed, none),
        {name: np.where(paid, 0.0, values) for name, values in scores.components.items()},
        [UNFINISHED if no else one for one, no in zip(scores.reasons, none, strict=True)],
    )


def _without(parsed: Sequence[Any] | pl.Series, none: np.ndarray) -> Sequence[Any] | pl.Series:
    """Parsed answers, None where `none`."""
    if isinstance(parsed, pl.Series):
        return pl.select(pl.when(pl.Series(~none)).then(parsed)).to_series()
    return [None if no else one for one, no in zip(parsed, none, strict=True)]


class _ByFrame:
    """The overlap of predicted and true boxes under each coordinate format, for the log.

    Uses greedy answers if there are any, and never those to a blank image. The model block
    determines which format is used.
    """

    def __init__(self, model: ModelBlock) -> None:
        self._model = model
        self._frame = frame = coordinate_frame(model)
        self._pixels = frame == "resized_pixels" or load("family", model.family).frame == "resized_pixels"
        self._seen, self._greedy = (Overlaps(frame or "original") for _ in range(2))
        self._has_greedy = False

    def add(self, part: pl.DataFrame, answers: Answers, scores: Scores) -> None:
        """Adds answers with their scores."""
        seen = (part["view"] != "blank").to_numpy()
        greedy = seen & (part["condition"] == "greedy").to_numpy()
        self._has_greedy |= bool(greedy.any())
        overlap = self._greedy if self._has_greedy else self._seen
        if self._frame is None:
            return  # a model without boxes
        compared = ~np.isnan(answers.boxes).any(axis=1) & (greedy if self._has_greedy else seen)
        if not compared.any() or overlap.count >= COMPARED:
            return
        written = _boxes(scores)
        places = np.flatnonzero(compared & ~np.isnan(written).any(axis=1))[: COMPARED - overlap.count]
        sizes = answers.sizes[places]
        resized = resized_sizes(self._model, sizes) if self._pixels else None
        overlap.add(overlaps(written[places], answers.boxes[places], sizes, resized))

    def lines(self) -> list[str]:
        """Lines for the log."""
        return (self._greedy if self._has_greedy else self._seen).lines()


def _boxes(scores: Scores) -> np.ndarray:
    """The predicted boxes as written, (n, 4); NaN where a parsed answer has no `box` of numbers."""
    parsed = scores.parsed
    if isinstance(parsed, pl.Series):
        found = parsed.struct.field("box") if "box" in parsed.struct.fields else pl.Series([None] * len(parsed))
        if not isinstance(found.dtype, pl.List | pl.Array) or not found.dtype.inner.is_numeric():
            return np.full((len(parsed), 4), np.nan)
    else:
        found = pl.Series([_box_in(one) for one in parsed], dtype=pl.List(pl.Float64))
    boxes = _numbers(found.cast(pl.List(pl.Float64)), 4)
    boxes[~scores.was_parsed()] = np.nan
    return boxes


def _box_in(parsed: Any) -> list[float] | None:
    """The box of a parsed answer; None if it has none, or one that is not made of numbers."""
    box = parsed.get("box") if isinstance(parsed, dict) else None
    if not isinstance(box, list | tuple) or not all(isinstance(number, int | float) for number in box):
        return None
    return [float(number) for number in box]
