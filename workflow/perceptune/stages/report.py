"""What a person reads at the end: one self-contained page, a plain-text table, and figures for `snakemake --report`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import polars as pl
from markupsafe import Markup

from perceptune.contracts.config import BenchmarkBlock, ReportBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables import read_lineage, read_table
from perceptune.core import charts, gallery, pair_sections, sections, summary
from perceptune.core.images import open_image
from perceptune.core.showing import shown
from perceptune.core.summary import Result
from perceptune.core.views.view import Recipe

TEMPLATE = "report_template.html.jinja"
COMPARED = 3
"""Trained policies whose answers stand beside the base model's in the gallery."""
CAPTIONS = {
    "enhanced": "the crop, share of the area",
    "degraded": "erased, share of the area",
    "noise": "noisy, r.m.s.",
}
NUMBERS = {"clip_image": "image", "clip_crop": "crop", "clip_inverse": "inverse crop"}
"""CLIP's scores of a group, the cosine of the question and the whole image, its crop, the inverse crop."""
PAIR_KEYS = {"groups", "kept", "limits", "context", "kinds", "strength"}
ANSWER_COLUMNS = ["example_id", "text", "target", "reward", "parsed", "reason"]


def run(
    *,
    metrics: Path,
    training: dict[str, Path],
    statistics: dict[str, Path],
    pairs: dict[str, dict[str, Path]],
    noise: dict[str, float],
    predictions: dict[str, dict[str, Path]],
    examples: dict[str, Path],
    benchmarks: dict[str, BenchmarkBlock],
    base: dict[str, str],
    report: Path,
    result_table: Path,
    figures: dict[str, Path],
    config: ReportBlock,
) -> None:
    """Writes the page `report` (HTML), `result_table` (plain text) and `figures` (SVG by name).

    `pairs` maps labels to the tables behind pairs, `noise` the views of a noise sweep to their sigma; both may be empty.
    """
    measured = _frame(metrics, "metrics")
    found = summary.results(measured, {name: block.views[0] for name, block in benchmarks.items() if block.views})
    styles = sections.policy_styles(found, base)
    logs = pl.concat([_frame(path, "training") for path in training.values()]) if training else None
    counts = {label: _statistics(path) for label, path in statistics.items()}

    pair_counts = {label: _pair_statistics(tables["statistics"]) for label, tables in pairs.items()}

    _write(result_table, result_text(measured, noise))
    for name, path in figures.items():
        _write(path, _figure(name, measured, found, styles, logs, counts))
    sources = {"metrics": metrics, **{f"training of {e}": path for e, path in training.items()}}
    sources |= {f"answers of {p}": path for p, tables in predictions.items() for path in tables.values()}
    sources |= {
        f"{n} of {label}": path for label, tables in pairs.items() for n, path in tables.items() if n != "statistics"
    }
    sources |= {f"examples of {d}": path for d, path in examples.items()}
    made = _provenance(sources)
    page = (
        _environment()
        .get_template(TEMPLATE)
        .render(
            config=config,
            base=base,
            style=Markup(charts.STYLE),
            styles=styles,
            more=any(style == "rest" for style in styles.values()),
            headline=[(r, summary.verdict_sentences(r)) for r in found],
            results=[sections.result_section(r, styles) for r in found],
            curves=[(r, panels) for r in found if (panels := sections.curve_panels(measured, r, styles))],
            blanks=[section for r in found if (section := sections.blank_section(measured, r, styles))],
            training=sections.training_panels(logs, styles) if logs is not None and not logs.is_empty() else None,
            selections=sections.selection_section(counts) if counts else None,
            sweeps=[part for r in found if (part := pair_sections.noise_section(measured, r, noise, styles))],
            looks=[part for r in found if (part := pair_sections.attention_section(measured, r, styles))],
            pairs=pair_sections.pairs_section(pair_counts),
            pair_galleries=dict(_pair_galleries(pairs, config.gallery)),
            galleries=list(_galleries(found, predictions, examples, benchmarks, base, styles, config.gallery)),
            lineage=made,
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )
    _write(report, page)


def result_text(metrics: pl.DataFrame, noise: Mapping[str, float]) -> str:
    """The plain-text result table that a run ends with; at most 100 columns wide."""
    more = pair_sections.sweep_lines(metrics, summary.results(metrics), noise, summary.TEXT_WIDTH)
    return summary.result_text(metrics, more)


def _figure(
    name: str,
    metrics: pl.DataFrame,
    found: Sequence[Result],
    styles: Mapping[str, str],
    training: pl.DataFrame | None,
    statistics: Mapping[str, Mapping[str, Any]],
) -> str:
    """The figure of that name as a stand-alone SVG file."""
    legend = {policy: style for policy, style in styles.items() if style != "rest"}
    match name:
        case "result":
            return charts.figure(sections.gain_figure(found, styles), {}, columns=1)
        case "best_of_n":
            panels = [panel for result in found for panel in sections.curve_panels(metrics, result, styles)]
            return charts.figure(panels, legend, columns=2)
        case "training":
            empty = training is None or training.is_empty()
            trained = {p: s for p, s in legend.items() if not empty and p in set(training["experiment"])}  # type: ignore[index]
            return charts.figure([] if empty else sections.training_panels(training, styles)[0], trained)  # type: ignore[arg-type]
        case "rewards":
            panels = [d for p in sections.selection_section(statistics)["panels"] for d in p["drawings"]]
            return charts.figure(panels, {}, columns=2)
    raise UserError(f"figure `{name}`: expected one of `result`, `best_of_n`, `training`, `rewards`")


def _galleries(
    found: Sequence[Result],
    predictions: Mapping[str, Mapping[str, Path]],
    examples: Mapping[str, Path],
    benchmarks: Mapping[str, BenchmarkBlock],
    base: Mapping[str, str],
    styles: Mapping[str, str],
    count: int,
) -> Iterator[dict[str, Any]]:
    """One gallery per benchmark, task and base model; `count` examples in all, shared evenly."""
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
        ranked = sections.ranked_by_gain(trained, [result])[:COMPARED]
        compared = [model, *(p for p in trained if p in ranked)]
        answers = {p: _greedy_answers(predictions[p][result.benchmark], result) for p in compared}
        after = answers[ranked[0]] if ranked else None
        choices = gallery.chosen(answers[model], after, share, result.benchmark, result.task, model)
        dataset = benchmarks[result.benchmark].dataset
        rows = _example_rows(examples[dataset], [choice.example_id for choice in choices])
        by_id = {p: {row["example_id"]: row for row in frame.iter_rows(named=True)} for p, frame in answers.items()}
        cards: dict[str, list[dict[str, Any]]] = {}
        for choice in choices:
            given = {p: by_id[p].get(choice.example_id) for p in answers}
            cards.setdefault(choice.group, []).append(
                _card(choice.example_id, rows.get(choice.example_id), given, styles)
            )
        yield {
            "result": result,
            "base": model,
            "leader": ranked[0] if ranked else None,
            "left_out": len(trained) - len(ranked),
            "groups": cards,
        }


def _pair_galleries(
    pairs: Mapping[str, Mapping[str, Path]], count: int
) -> Iterator[tuple[str, dict[str, list[dict[str, Any]]]]]:
    """Per label the cards `random` and `margin`: some groups with every picture that the model was shown, and its answers."""
    for i, (label, tables) in enumerate(pairs.items()):
        share = count // len(pairs) + (i < count % len(pairs))
        groups = gallery.chosen_pairs(_frame(tables["preferences"], "preferences").to_dicts(), share, label)
        ids = [group["example_id"] for group in groups]
        examples = _example_rows(tables["examples"], ids)
        attention = _rows_of(tables.get("attention"), "attention", ids)
        crops = _rows_of(tables.get("crops"), "crops", ids)
        cards = [
            _pair_card(g, examples.get(e), attention.get(e), crops.get(e)) for g, e in zip(groups, ids, strict=True)
        ]
        drawn = (share + 1) // 2  # what `chosen_pairs` draws comes first
        yield label, {name: part for name, part in (("random", cards[:drawn]), ("margin", cards[drawn:])) if part}


def _rows_of(path: Path | None, name: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    if path is None:
        return {}
    rows = _frame(path, name).filter(pl.col("example_id").is_in(list(ids)))
    return {row["example_id"]: row for row in rows.to_dicts()}


def _pair_card(
    group: Mapping[str, Any],
    example: Mapping[str, Any] | None,
    attention: Mapping[str, Any] | None,
    crop: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """One group: the pictures with their captions, and each pair's answers with their numbers."""
    said = {response["role"]: response["text"] for response in group["responses"]}
    pictures, problem = _pair_pictures(group, example, attention, crop)
    scores = {n["name"]: n["value"] for n in group["numbers"] if n["value"] is not None}
    return {
        "id": gallery.visible(group["example_id"], 80),
        "question": gallery.visible(example["question"], 400) if example else "",
        "truth": gallery.visible(example["target"], 200) if example else "",
        "pictures": pictures,
        "problem": problem,
        "pairs": [_pair_of(pair, said) for pair in group["pairs"]],
        "scores": ", ".join(f"{NUMBERS.get(name, name)} {_three(value)}" for name, value in scores.items()),
    }


def _pair_of(pair: Mapping[str, Any], said: Mapping[str, str | None]) -> dict[str, Any]:
    """One pair: its two answers with their perplexities, margin and IPS, and whether it is kept."""
    answers = [
        {
            "role": role,
            "text": gallery.visible(said.get(f"{pair['kind']}_{role}"), 300),
            "perplexity": _three(pair[f"ppl_{role}"]),
        }
        for role in ("chosen", "rejected")
    ]
    numbers = [f"{title} {_three(pair[name])}" for name, title in (("margin", "margin"), ("ips", "IPS"))]
    verdict = "kept" if pair["kept"] else f"dropped: {gallery.visible(pair['reason'], 120) or 'no reason given'}"
    return {"kind": pair["kind"], "verdict": verdict, "kept": pair["kept"], "answers": answers, "numbers": numbers}


def _three(value: float | None) -> str:
    """A number with three decimals and a true minus; a pair of identical answers has no IPS."""
    return "none" if value is None else f"{value:.3f}".replace("-", "\u2212")


def _pair_pictures(
    group: Mapping[str, Any],
    example: Mapping[str, Any] | None,
    attention: Mapping[str, Any] | None,
    crop: Mapping[str, Any] | None,
) -> tuple[list[tuple[Markup, str]], str | None]:
    """(drawings with captions, why there is none)."""
    if example is None or not example["images"]:
        return [], "no image in the table"
    truth = [gallery.Outline(tuple(example["box"]), "truth", "ground truth")] if example["box"] else []
    crops = _crop_outlines(crop)
    try:
        images = [open_image(image) for image in example["images"]]
        found = [(images[0], truth + crops, "the image")]
        if attention is not None and attention["attention"] is not None:
            grid = np.array(attention["attention"], dtype=float).reshape(attention["grid"])
            caption = f"attention, up to {grid.max():.3f} a cell"
            if attention["afr"] is not None:
                caption += f"; focus ratio {attention['afr']:.2f}"
            found.append((gallery.heat_map(images[0], grid), truth + crops[:1], caption))
        for view in group["views"]:
            picture = shown(Recipe.read(view["recipe"]), images)[-1 if view["view"] == "enhanced" else 0]
            found.append((picture, [], f"{CAPTIONS.get(view['view'], view['view'])} {view['strength']:.3f}"))
    except ValueError as error:
        return [], gallery.visible(str(error), 200)
    return [(Markup(gallery.annotated_image(p, o, c)), c) for p, o, c in found], None


def _crop_outlines(crop: Mapping[str, Any] | None) -> list[gallery.Outline]:
    """The crop, then its control, as far as there are."""
    drawn = (("box", "s1", "crop"), ("inverse", "s2", "inverse crop"))
    return [
        gallery.Outline(tuple(crop[name]), style, label)
        for name, style, label in drawn
        if crop is not None and crop[name] is not None
    ]


def _card(
    example_id: str,
    example: Mapping[str, Any] | None,
    given: Mapping[str, Mapping[str, Any] | None],
    styles: Mapping[str, str],
) -> dict[str, Any]:
    """One example of the gallery: the drawn image, the question, the truth and every policy's answer."""
    answers, outlines = [], []
    truth = next((row["target"] for row in given.values() if row is not None), None)
    if example and example["box"]:
        outlines.append(gallery.Outline(tuple(example["box"]), "truth", "ground truth"))
    for policy, row in given.items():
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
    drawing, problem = _drawing(example, outlines)
    return {
        "id": gallery.visible(example_id, 80),
        "question": gallery.visible(example["question"], 400) if example else "",
        "truth": gallery.visible(truth if truth is not None else (example or {}).get("target"), 400),
        "has_box": bool(example and example["box"]),
        "answers": answers,
        "drawing": drawing,
        "problem": problem,
    }


def _drawing(
    example: Mapping[str, Any] | None, outlines: Sequence[gallery.Outline]
) -> tuple[Markup | None, str | None]:
    """The image with its boxes, or why there is none."""
    if example is None or not example["images"]:
        return None, "no image in the table"
    try:
        image = open_image(example["images"][0])
    except ValueError as error:
        return None, gallery.visible(str(error), 200)
    description = "; ".join(f"{o.label}: {', '.join(f'{v:.0f}' for v in o.box)}" for o in outlines) or "no boxes"
    return Markup(gallery.annotated_image(image, outlines, description)), None


def _greedy_answers(path: Path, result: Result) -> pl.DataFrame:
    """A policy's greedy answers to the questions behind `result`."""
    return (
        _frame(path, "rewards")
        .filter(
            pl.col("benchmark") == result.benchmark,
            pl.col("task") == result.task,
            pl.col("view") == result.view,
            pl.col("condition") == "greedy",
        )
        .select(ANSWER_COLUMNS)
    )


def _example_rows(path: Path, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The chosen rows of an `examples` table, without reading the other images."""
    columns = ["example_id", "question", "images", "target", "box"]
    rows = pl.scan_parquet(path).filter(pl.col("example_id").is_in(list(ids))).select(columns).collect()
    return {row["example_id"]: row for row in rows.iter_rows(named=True)}


def _provenance(sources: Mapping[str, Path]) -> dict[str, Any]:
    """Which tables the page shows and which versions made them."""
    tables: list[dict[str, str]] = []
    versions: dict[str, set[str]] = {}
    for name, path in sources.items():
        record = read_lineage(path)
        tables.append(
            {
                "name": name,
                "path": path.as_posix(),
                "stage": record.get("stage", ""),
                "code": record.get("code", "")[:12],
            }
        )
        for package, version in record.get("versions", {}).items():
            versions.setdefault(package, set()).add(version)
    return {"tables": tables, "versions": {package: " and ".join(sorted(found)) for package, found in versions.items()}}


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = lambda drawing: Markup(charts.text(drawing))
    return environment


def _frame(path: Path, name: str) -> pl.DataFrame:
    frame = pl.from_arrow(read_table(path, name))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _statistics(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as invalid:
        raise UserError(f"`{path}` holds no statistics of a selection: {invalid}", "delete it and run again") from None


def _pair_statistics(path: Path) -> dict[str, Any]:
    """What the filter counted; a `UserError` names a file that holds something else."""
    found = _statistics(path)
    if missing := PAIR_KEYS - set(found):
        raise UserError(f"`{path}` holds no statistics of pairs: no {sorted(missing)}", "delete it and run again")
    return found


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
