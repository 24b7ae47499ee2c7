"""The gallery of examples: images with boxes, questions, and the answers of several policies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from perceptune.contracts.config import BenchmarkBlock
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.report import gallery
from perceptune.report.read import SHOWN_COLUMNS, rows_of
from perceptune.report.results import Result
from perceptune.report.sections import results as result_sections
from perceptune.stages.data.example_images import IllustratedExamples
from perceptune.stages.data.scans import scan
from perceptune.stages.evaluation.protocol_metrics import SEVERAL

COMPARED = 3
"""Number of trained policies whose answers the gallery shows, in addition to the base model's."""
ANSWER_COLUMNS = ["example_id", "text", "target", "reward", "parsed", "reason"]


def galleries(
    found: Sequence[Result],
    predictions: Mapping[str, Mapping[str, Path]],
    examples: Mapping[str, Path],
    benchmarks: Mapping[str, BenchmarkBlock],
    base: Mapping[str, str],
    styles: Mapping[str, str],
    count: int,
) -> Iterator[dict[str, Any]]:
    """One gallery per benchmark, task and base model, `count` examples in total, split evenly."""
    wanted = [
        (result, model)
        for result in found
        for model in dict.fromkeys(base.values())
        if result.benchmark in benchmarks and result.benchmark in predictions.get(model, {})
    ]
    for i, (result, model) in enumerate(wanted):
        share = count // len(wanted) + (i < count % len(wanted))
        if not share:
            continue
        trained = [p for p in base if base[p] == model and p != model and result.benchmark in predictions.get(p, {})]
        ranked = result_sections.ranked_by_gain(trained, [result])[:COMPARED]
        leader = ranked[0] if ranked else None
        compared = [model, *(p for p in trained if p in ranked)]
        answers = {p: _greedy_answers(predictions[p][result.benchmark], result) for p in compared}
        scores = {p: answers[p].select("example_id", "reward").collect() for p in (model, *ranked[:1])}
        after = scores[leader] if leader else None
        choices = gallery.chosen(scores[model], after, share, result.benchmark, result.task, model)
        ids = [choice.example_id for choice in choices]
        dataset = benchmarks[result.benchmark].dataset
        known = IllustratedExamples(examples[dataset])
        rows = known.rows(ids, SHOWN_COLUMNS)
        by_id = {p: rows_of(table, ids, columns=ANSWER_COLUMNS) for p, table in answers.items()}
        cards: dict[str, list[dict[str, Any]]] = {}
        for choice in choices:
            of_example = {p: by_id[p].get(choice.example_id) for p in answers}
            cards.setdefault(choice.group, []).append(
                _card(choice.example_id, known, rows.get(choice.example_id), of_example, styles)
            )
        if cards:
            yield {
                "result": result,
                "base": model,
                "leader": leader,
                "compared": len(ranked),
                "left_out": len(trained) - len(ranked),
                "groups": cards,
            }


def _card(
    example_id: str,
    known: IllustratedExamples,
    example: Mapping[str, Any] | None,
    rows: Mapping[str, Mapping[str, Any] | None],
    styles: Mapping[str, str],
) -> dict[str, Any]:
    """One example of the gallery: image with boxes, question, ground truth and answers.

    `rows` maps policies to their row of the rewards table.
    """
    answers, outlines = [], []
    truth = next((row["target"] for row in rows.values() if row is not None), None)
    if example and example["box"]:
        outlines.append(gallery.Outline(tuple(example["box"]), "truth", "ground truth"))
    for policy, row in rows.items():
        box = gallery.pixel_box(row["parsed"]) if row else None
        style = styles.get(policy, "rest")
        if box:
            outlines.append(gallery.Outline(box, style, policy))
        answers.append(
            {
                "policy": policy,
                "style": style,
                "text": gallery.visible(row["text"]) if row else "",
                "silent": row is None or row["text"] is None,
                "reward": None if row is None or row["reward"] is None else f"{row['reward']:.2f}",
                "reason": gallery.visible(row["reason"], 200) if row and row["reason"] else None,
            }
        )
    drawing, problem = _drawing(known, example, outlines)
    return {
        "id": gallery.visible(example_id, 80),
        "question": gallery.visible(example["question"], 400) if example else "",
        "truth": gallery.visible(gallery.ground_truth(example, truth), 400),
        "has_box": bool(example and example["box"]),
        "answers": answers,
        "drawing": drawing,
        "problem": problem,
    }


def _drawing(
    known: IllustratedExamples, example: Mapping[str, Any] | None, outlines: Sequence[gallery.Outline]
) -> tuple[Markup | None, str | None]:
    """(image with boxes, None), or (None, reason) if there is no image."""
    if example is None or not example["image_sha256"]:
        return None, "no image in the table"
    try:
        image = known.image(example["example_id"], 0)
    except ValueError as error:
        return None, gallery.visible(str(error), 200)
    boxes = "; ".join(f"{o.label} {gallery.edges(o.box)}" for o in outlines)
    name = f"image of {gallery.visible(example['example_id'], 80)}"
    description = f"{name}, boxes in pixels: {boxes}" if boxes else f"{name}, no boxes"
    return Markup(gallery.annotated_image(image, outlines, description)), None


def _greedy_answers(path: Path, result: Result) -> pl.LazyFrame:
    """A policy's greedy answers to the questions behind `result`."""
    return scan(path, REWARDS).filter(
        pl.col("benchmark") == result.benchmark,
        pl.lit(result.task == SEVERAL) | (pl.col("task") == result.task),
        pl.col("view") == result.view,
        pl.col("condition") == "greedy",
    )
