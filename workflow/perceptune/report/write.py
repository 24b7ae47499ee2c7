"""The report: a self-contained HTML page, a plain-text table, and SVG figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup

from perceptune.contracts.config import BenchmarkBlock, Leakage, ReportBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.files import write_text
from perceptune.contracts.tables.io import read_lineage
from perceptune.contracts.tables.metrics import METRICS
from perceptune.contracts.tables.training import TRAINING
from perceptune.report import answer_cards, charts, gallery, results, svg
from perceptune.report.pair_cards import pair_galleries
from perceptune.report.read import (
    RoundsOf,
    controlled_of,
    frame,
    implicit_preferences,
    pair_statistics,
    rounds_of,
    selection_statistics,
)
from perceptune.report.result_text import TEXT_WIDTH, results_as_text, text_lines
from perceptune.report.results import Result
from perceptune.report.sections import attention as attention_sections
from perceptune.report.sections import controls as control_sections
from perceptune.report.sections import density as density_sections
from perceptune.report.sections import epochs as epoch_sections
from perceptune.report.sections import overview as overview_sections
from perceptune.report.sections import pairs as pair_sections
from perceptune.report.sections import results as result_sections
from perceptune.report.sections import rounds as round_sections
from perceptune.report.sections import verdicts as verdict_sections
from perceptune.report.sections import warnings as warning_sections
from perceptune.report.sections.comparisons import (
    agreement_rows,
    comparison_lines,
    comparison_sections,
    token_rows,
)
from perceptune.report.sections.diagnostics import diagnostics_section
from perceptune.report.sections.leakage import leakage_section
from perceptune.report.sections.rounds import Rounds
from perceptune.report.sections.tokens import tokens_sections
from perceptune.report.sections.verdicts import Controlled
from perceptune.stages.data.leaked import leak_warnings

TEMPLATE = "template.html.jinja"
UNFOLDED = 2
"""With more results than this, those below the matrix are folded."""


def run(
    *,
    metrics: Path,
    training: dict[str, Path],
    statistics: dict[str, Path],
    pairs: dict[str, dict[str, Path]],
    rounds: dict[str, RoundsOf],
    noise: dict[str, float],
    predictions: dict[str, dict[str, Path]],
    examples: dict[str, Path],
    benchmarks: dict[str, BenchmarkBlock],
    base: dict[str, str],
    report: Path,
    result_table: Path,
    figures: dict[str, Path],
    config: ReportBlock,
    controls: Mapping[str, Path] = MappingProxyType({}),
    twinless: Mapping[str, str] = MappingProxyType({}),
    leakage: Mapping[str, Path] = MappingProxyType({}),
    leakage_mode: Leakage = "warn",
    given: Mapping[str, Path] = MappingProxyType({}),
    epochs: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    tokens: Mapping[str, Path] = MappingProxyType({}),
    diagnostics: Mapping[str, Path] = MappingProxyType({}),
    comparisons: Mapping[str, Path] = MappingProxyType({}),
    agreements: Mapping[str, Path] = MappingProxyType({}),
    notices: Sequence[str] = (),
) -> None:
    """Writes the page `report` (HTML), `result_table` (plain text) and `figures` (SVG by name).

    Args:
        metrics: The metrics table of all policies.
        training: Policy to the log of its training.
        statistics: Label to the statistics of a selection (JSON).
        pairs: Label to the tables behind generated pairs; may be empty.
        rounds: Experiment that trains in rounds to its evaluated policies; may be empty. Only the
            last policy of such an experiment is shown outside the section on rounds.
        noise: View of the noise sweep to its sigma; may be empty.
        predictions: Policy to benchmark to rewards table.
        examples: Dataset to examples table.
        benchmarks: The config blocks of the evaluated benchmarks.
        base: Policy to base model.
        controls: Policy to its table of control comparisons; may be empty.
        twinless: Policy without an SFT counterpart to the reason for that.
        leakage: Name of training data to the table of what they share with benchmarks.
        leakage_mode: What to do if they share something.
        given: Label of dataset preferences to the base model's log-probs of their answers.
        epochs: Experiment that keeps the adapters of epochs to its policies, each with its epoch. Only
            the last one is shown outside the section on epochs.
        tokens: Experiment to the tokens that its method selects in the last round.
        diagnostics: Experiment to the table of its gradients; may be empty.
        comparisons: Name to the table of a comparison.
        agreements: Name to the table of an agreement.
        notices: What is said before the warnings.

    Raises:
        UserError: An input file is broken, or something is shared and `leakage_mode` is `refuse`.
    """
    experiments = rounds_of(rounds)
    earlier = round_sections.earlier_policies(experiments)
    complete = results.reliable(frame(metrics, METRICS))
    views = {n: b.views[0] for n, b in benchmarks.items() if b.views}
    kept = {policy for one, policies in epochs.items() for policy in policies if policy != one}
    everything = complete.filter(~pl.col("policy").is_in(list(kept)))
    base = {policy: model for policy, model in base.items() if policy not in kept}
    measured = everything.filter(~pl.col("policy").is_in(list(earlier)))
    found, all_found = results.results(measured, views), results.results(everything, views)
    all_bases, base = base, {policy: model for policy, model in base.items() if policy not in earlier}
    styles = result_sections.policy_styles(found, base)
    styles |= {r.experiment: styles.get(r.last, "rest") for r in experiments}
    logs = pl.concat([frame(path, TRAINING) for path in training.values()]) if training else None
    counts = {label: selection_statistics(path) for label, path in statistics.items()}
    pair_counts = {label: pair_statistics(tables["statistics"]) for label, tables in pairs.items()}
    controlled = controlled_of(controls, benchmarks, twinless)

    warnings = [*notices, *leak_warnings(leakage, leakage_mode)]
    warnings += warning_sections.warnings(logs, counts, experiments, found, pair_counts)
    compared, agreed = comparison_sections(comparisons), agreement_rows(agreements)
    labelled = token_rows(agreements)
    lines = comparison_lines(compared, agreed, labelled)
    table = result_text(everything, noise, experiments, all_bases, controlled, warnings, lines, views)
    write_text(result_table, table)
    for name, path in figures.items():
        write_text(path, _figure(name, measured, found, styles, logs, counts, experiments))
    sources = {"metrics": metrics, **{f"training of {e}": path for e, path in training.items()}}
    sources |= {
        f"answers of {p}, scored by {path.stem}": path for p, tables in predictions.items() for path in tables.values()
    }
    sources |= {
        f"{n} of {label}": path for label, tables in pairs.items() for n, path in tables.items() if n != "statistics"
    }
    sources |= {f"examples of {d}": path for d, path in examples.items()}
    sources |= {f"controls of {p}": path for p, path in controls.items()}
    sources |= {f"leakage of {name}": path for name, path in leakage.items()}
    sources |= {f"selected tokens of {e}": path for e, path in tokens.items()}
    sources |= {f"log-probs of {label}": path for label, path in given.items()}
    sources |= {f"gradients of {e}": path for e, path in diagnostics.items()}
    sources |= {f"comparison {name}": path for name, path in comparisons.items()}
    sources |= {f"agreement {name}": path for name, path in agreements.items()}
    once = None if logs is None else round_sections.trained_once(logs, experiments)
    handed_on = round_sections.handed_on(experiments)
    page = (
        _environment()
        .get_template(TEMPLATE)
        .render(
            config=config,
            warnings=warnings,
            base=base,
            style=Markup(svg.STYLE + gallery.STYLE),
            styles=styles,
            more=any(style == "rest" for style in styles.values()),
            overview=overview_sections.overview(found, styles),
            few=results.FEW_QUESTIONS,
            unfolded=UNFOLDED,
            headline=[(r, sentence) for r in found for sentence in _control_headline(r, controlled)],
            controls=[
                part
                for r in found
                if controlled and (part := control_sections.control_section(measured, r, noise, controlled, styles))
            ],
            prompts=dict(controlled.prompts) if controlled else {},
            results=[result_sections.result_section(measured, r, styles, handed_on) for r in found],
            overall=results.overall_sentence(measured, found),
            rounds=[
                part
                for r in all_found
                if (part := round_sections.rounds_section(everything, r, experiments, all_bases, styles))
            ],
            epochs=[
                part
                for r in (results.results(complete, views) if epochs else ())
                if (part := epoch_sections.epochs_section(complete, r, epochs, base, styles))
            ],
            tokens=tokens_sections(tokens, config.tokens),
            stops=[r.stop_sentence for r in experiments if r.stopped],
            curves=[(r, panels) for r in found if (panels := result_sections.curve_panels(measured, r, styles))],
            blanks=[section for r in found if (section := result_sections.blank_section(measured, r, styles))],
            training=result_sections.training_panels(once, styles)
            if once is not None and not once.is_empty()
            else None,
            trained=list(once["experiment"].unique(maintain_order=True)) if once is not None else [],
            learning=round_sections.training_section(logs, experiments, styles) if logs is not None else None,
            selections=result_sections.selection_section(counts) if counts else None,
            sweeps=[part for r in found if (part := attention_sections.noise_section(measured, r, noise, styles))],
            density=[part for r in found if (part := density_sections.density_section(measured, r, styles))],
            attention=[part for r in found if (part := attention_sections.attention_section(measured, r, styles))],
            pairs=pair_sections.pairs_section(pair_counts),
            given=pair_sections.given_section({label: implicit_preferences(path) for label, path in given.items()}),
            pair_galleries=dict(pair_galleries(pairs, config.gallery)),
            galleries=list(
                answer_cards.galleries(found, predictions, examples, benchmarks, base, styles, config.gallery)
            ),
            leakage=leakage_section(leakage),
            diagnostics=diagnostics_section(diagnostics),
            comparisons=compared,
            agreements=agreed,
            labelled=labelled,
            lineage=_provenance(sources),
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )
    write_text(report, page)


def result_text(
    metrics: pl.DataFrame,
    noise: Mapping[str, float],
    rounds: Sequence[Rounds] = (),
    base: Mapping[str, str] | None = None,
    controlled: Controlled | None = None,
    warnings: Sequence[str] = (),
    compared: Sequence[str] = (),
    views: Mapping[str, str] | None = None,
) -> str:
    """The plain-text result table, at most 100 columns wide, after the `warnings` and before the lines
    `compared`. `views` as in `results.results`."""
    shown = metrics.filter(~pl.col("policy").is_in(list(round_sections.earlier_policies(rounds))))
    found = results.results(shown, views)
    more = round_sections.round_lines(metrics, results.results(metrics, views), rounds, base or {})
    more += attention_sections.sweep_lines(shown, found, noise, TEXT_WIDTH)
    if controlled:
        more += control_sections.control_lines(shown, found, noise, controlled)
    more += [*([""] if more and compared else []), *compared]
    above = "\n".join(line for warning in warnings for line in text_lines(f"warning: {warning}"))
    return (f"{above}\n\n" if above else "") + results_as_text(shown, more, views)


def _control_headline(result: Result, controlled: Controlled | None) -> list[str]:
    """One sentence on the gains that controls explain; empty without controls."""
    return [sentence] if controlled and (sentence := verdict_sections.headline(result, controlled)) else []


def _figure(
    name: str,
    metrics: pl.DataFrame,
    found: Sequence[Result],
    styles: Mapping[str, str],
    training: pl.DataFrame | None,
    statistics: Mapping[str, Mapping[str, Any]],
    rounds: Sequence[Rounds],
) -> str:
    """The figure `name` as the text of a stand-alone SVG file."""
    legend = {policy: style for policy, style in styles.items() if style != "rest"}
    match name:
        case "result":
            return charts.figure(result_sections.gain_figure(found, styles), {}, columns=1)
        case "best_of_n":
            panels = [panel for result in found for panel in result_sections.curve_panels(metrics, result, styles)]
            return charts.figure(panels, {p: s for p, s in legend.items() if p in set(metrics["policy"])}, columns=2)
        case "training":
            if training is None or training.is_empty():
                return charts.figure([], {})
            once = round_sections.trained_once(training, rounds)
            learning = round_sections.training_section(training, rounds, styles)
            names = {*once["experiment"], *(learning["names"] if learning else [])}
            panels = [] if once.is_empty() else result_sections.training_panels(once, styles)[0]
            panels += learning["panels"] if learning else []
            return charts.figure(panels, {p: s for p, s in legend.items() if p in names})
        case "rewards":
            panels = [d for p in result_sections.selection_section(statistics)["panels"] for d in p["drawings"]]
            return charts.figure(panels, {}, columns=2)
    raise UserError(f"figure `{name}`: expected one of `result`, `best_of_n`, `training`, `rewards`")


def _provenance(sources: Mapping[str, Path]) -> dict[str, Any]:
    """The tables shown on the page, and the package versions that they were made with."""
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
