"""Scores responses: one reward per response, with the parsed answer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.core.answers.reasoning import UNFINISHED
from perceptune.core.data.coordinate_frames import overlap_lines, overlaps
from perceptune.core.data.source_columns import Columns
from perceptune.core.rewards.reward import Answers, Reward, Scores
from perceptune.models.coordinates import coordinate_frame, resized_sizes
from perceptune.models.reasoning import reasoning_of
from perceptune.stages.data.examples import Examples


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
    column `answer`.

    `resources` is the digest of the folder of that name, for the record. Raises `UserError` if a
    task has no reward, or if more than `max_failed_share` of the responses are missing.
    """
    reasoning = reasoning_of(model)
    table = joined(requests, responses, examples)
    table = table.with_columns(answer=pl.Series([t and reasoning.answer(t) for t in table["text"]], dtype=pl.String))
    if benchmarks is not None:
        table = table.filter(pl.col("benchmark").is_in(benchmarks))
    unrewarded = sorted(set(table["task"]) - set(config.tasks))
    if unrewarded:
        raise UserError(
            f"no reward for task `{unrewarded[0]}`, expected one under `tasks` of the reward block",
            f"it has rewards for {', '.join(config.tasks)}",
        )
    _check_failures(table, config)
    reward_of = {str(task): reward for task, reward in config.tasks.items()}
    by_task = table.group_by("task", maintain_order=True)
    parts = [_scored(part, reward_of[str(task)], model, config) for (task,), part in by_task]
    scored = pl.concat(parts).sort("row").select(REWARDS.schema.names) if parts else REWARDS.schema.empty_table()
    inputs = {"requests": requests, "responses": responses, **{f"examples {k}": v for k, v in examples.items()}}
    plugins = [module_of("family", model.family)]
    plugins += [module_of("reward", name) for name in sorted(set(config.tasks.values()))]
    parameters = {
        "reward": config.model_dump(mode="json"),
        "resources": resources,
        "model": model.model_dump(mode="json"),
        "reasoning": {"markers": list(reasoning.markers), "opened_by_prompt": reasoning.opened},
    }
    write_table(rewards, REWARDS, scored, lineage("preferences.score", parameters, inputs, plugins))


def joined(requests: Path, responses: Path, examples: dict[str, Path]) -> pl.DataFrame:
    """Responses in order with their requests and ground truth; `row` numbers them."""
    requested = pl.from_arrow(
        read_table(requests, REQUESTS).select(["request_id", "dataset", "benchmark", "condition"])
    )
    answered = pl.from_arrow(read_table(responses, RESPONSES))
    columns = ["example_id", "task", "target", "box", "image_sizes", "source"]
    truth = pl.concat(
        pl.from_arrow(Examples(path).table(columns)).with_columns(dataset=pl.lit(name))  # type: ignore[union-attr]
        for name, path in examples.items()
    )
    return (
        answered.with_row_index("row")  # type: ignore[union-attr]
        .join(requested, "request_id", "left", validate="m:1", maintain_order="left")  # type: ignore[arg-type]
        .join(truth, ["dataset", "example_id"], "left", validate="m:1", maintain_order="left")
    )


def _check_failures(table: pl.DataFrame, config: RewardBlock) -> None:
    failed = table.filter(pl.col("text").is_null())
    rows = failed.select("request_id", "reason").unique(maintain_order=True).iter_rows()
    named = [f"request `{request}`: {reason}" for request, reason in rows]
    check_ceiling(
        named,
        table.height,
        "responses are missing",
        config.max_failed_share,
        config.max_failed_rows,
        count=failed.height,
    )


def _scored(part: pl.DataFrame, reward: str, model: ModelBlock, config: RewardBlock) -> pl.DataFrame:
    """The scored rows of one task.

    Rows without a response or with a reward that is not finite have a null reward and a reason.
    """
    declared: Reward = load("reward", reward)
    texts = part["text" if declared.reads_reasoning else "answer"]
    answers = _answers(part, texts.fill_null("").to_list(), model, config)
    scores = _without_answer(_scores(declared, answers), texts.is_null().to_numpy())
    for line in _frame_lines(part, answers, scores, model):
        (tell if line.startswith("warning: ") else print)(line)
    missing = pl.col("text").is_null()
    values = np.asarray(scores.rewards, dtype=float)
    finite = np.isfinite(values)
    reasons = [
        reason if good else f"the reward is {value}, expected a finite number"
        for value, reason, good in zip(values, scores.reasons, finite, strict=True)
    ]
    rewards = pl.Series(np.where(finite, values, np.nan), dtype=pl.Float64).fill_nan(None)
    return part.with_columns(
        reward=pl.when(missing).then(None).otherwise(rewards),
        parsed=pl.Series(scores.parsed_json(), dtype=pl.String),
        components=pl.Series(_components(scores, part.height), dtype=COMPONENTS),
        reason=pl.when(missing).then(pl.col("reason")).otherwise(pl.Series(reasons, dtype=pl.String)),
    ).select("row", *REWARDS.schema.names)


def _scores(reward: Reward, answers: Answers) -> Scores:
    """The reward's scores, with numbers as arrays; None is NaN.

    Raises `UserError` if they do not have one value per answer, or not the declared components.
    """
    made = reward.score(answers)
    lengths = {"parsed": len(made.parsed), "reasons": len(made.reasons)}
    try:
        rewards = np.asarray(made.rewards, dtype=float)
        components = {name: np.asarray(values, dtype=float) for name, values in made.components.items()}
    except (TypeError, ValueError) as error:
        raise UserError(f"reward `{reward.name}` returns values that are not numbers: {error}") from None
    shapes = {"rewards": rewards.shape, **{name: (length,) for name, length in lengths.items()}}
    shapes |= {f"component {name}": values.shape for name, values in components.items()}
    for name, shape in shapes.items():
        if shape != (len(answers.texts),):
            raise UserError(f"reward `{reward.name}`: `{name}` has shape {shape}, expected ({len(answers.texts)},)")
    scores = Scores(rewards, made.parsed, components, made.reasons)
    if missing := [name for name in reward.components if name not in scores.components]:
        raise UserError(f"reward `{reward.name}` does not return its declared component `{missing[0]}`")
    return scores


def _without_answer(scores: Scores, none: np.ndarray) -> Scores:
    """Missing responses, and those whose reasoning never ends, are unparsed and have reward 0.

    Their components are those of an empty answer, such as an edit distance of 1, or 0 if the rule pays
    for an empty answer, as POPE's does.
    """
    paid = none & (scores.rewards > 0)
    return Scores(
        np.where(none, 0.0, scores.rewards),
        [None if no else one for one, no in zip(scores.parsed, none, strict=True)],
        {name: np.where(paid, 0.0, values) for name, values in scores.components.items()},
        [UNFINISHED if no else one for one, no in zip(scores.reasons, none, strict=True)],
    )


COMPONENTS = pl.List(pl.Struct({"name": pl.String, "value": pl.Float64}))


def _components(scores: Scores, count: int) -> list[list[dict[str, Any]]]:
    names = list(scores.components)
    columns = [scores.components[name].tolist() for name in names]
    return [[{"name": n, "value": c[i]} for n, c in zip(names, columns, strict=True)] for i in range(count)]


def _frame_lines(part: pl.DataFrame, answers: Answers, scores: Scores, model: ModelBlock) -> list[str]:
    """For the log: the overlap of predicted and true boxes under each coordinate format.

    Uses greedy answers if there are any, and never those to a blank image. The model block
    determines which format is used.
    """
    seen = part["view"].to_numpy() != "blank"
    greedy = seen & (part["condition"].to_numpy() == "greedy")
    kept = greedy if greedy.any() else seen
    boxed = np.array([isinstance(found, dict) and "box" in found for found in scores.parsed], dtype=bool)
    kept = kept & boxed & ~np.isnan(answers.boxes).any(axis=1) if len(boxed) else kept
    if not kept.any():
        return []
    written = np.array([scores.parsed[place]["box"] for place in np.flatnonzero(kept)], dtype=float)
    truths, sizes = answers.boxes[kept], answers.sizes[kept]
    pixels = answers.frame == "resized_pixels" or load("family", model.family).frame == "resized_pixels"
    ious = overlaps(written, truths, sizes, resized_sizes(model, sizes) if pixels else None)
    return overlap_lines(ious, answers.frame)


def _answers(part: pl.DataFrame, texts: Sequence[str], model: ModelBlock, config: RewardBlock) -> Answers:
    sizes = np.array([(s or [[np.nan] * 2])[0] for s in part["image_sizes"].to_list()], dtype=float).reshape(-1, 2)
    boxes = np.array([b or [np.nan] * 4 for b in part["box"].to_list()], dtype=float).reshape(-1, 4)
    frame = coordinate_frame(model)
    if frame == "padded_square" and (sizes[:, 0] != sizes[:, 1])[~np.isnan(boxes[:, 0])].any():
        print("boxes are interpreted relative to the padded square, the format of LLaVA-1.5", file=sys.stderr)
    return Answers(
        texts=texts,
        targets=part["target"].to_list(),
        boxes=boxes,
        sizes=sizes,
        frame=frame,
        sources=[Columns(*row) for row in part.select("example_id", "source").iter_rows()],
        resources=Path(config.resources) if config.resources else None,
        resized=resized_sizes(model, sizes) if frame == "resized_pixels" else None,
    )
