"""A judge's labels of the tokens of answers that a method selects tokens in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from perceptune.contracts.config import AgreementBlock, JudgeBlock, ModelBlock
from perceptune.contracts.plugins import module_of
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables.io import Rows, write_table
from perceptune.contracts.tables.labelled_tokens import LABELLED_TOKENS, OF_ANSWER
from perceptune.contracts.tables.selected import SELECTED
from perceptune.core.comparisons.tokens import MAX_TOKENS, labels_of, messages, numbers
from perceptune.engines.judging import Case, Said
from perceptune.stages.data.scans import scan
from perceptune.stages.evaluation.asking import Judge, verdicts_on


def run(
    *,
    name: str,
    judge: JudgeBlock,
    config: AgreementBlock,
    selected: Path,
    labelled: Path,
    kept: Path,
    model: ModelBlock | None = None,
    weights: str | None = None,
    halvings: int = 0,
) -> None:
    """Writes the table `labelled`: a row per answer, at most `config.limit` of those in the table
    `selected` that have selected tokens.

    The judge's arguments and the folder `kept` are those of `judge_answers`. A verdict that cannot be
    mapped to the answer has no labels but a reason. Raises `UserError` if the judge cannot be reached,
    refuses, or keeps failing.
    """
    asking = Judge(name, judge, model, weights, halvings)
    columns = ["group_id", "example_id", "sample_index", "question", "tokens", "selected", "random"]
    answers = Rows(selected, SELECTED, columns).take(_drawn(selected, config))

    def cases() -> Iterator[Case | None]:
        for row in answers:
            chat = messages(row["question"], row["tokens"])
            about = f"answer {row['sample_index']} to example `{row['example_id']}`"
            yield asking.case(about, chat, MAX_TOKENS, may_end_early=True)

    judged = verdicts_on(cases, asking, kept)
    rows = [_row(row, str(key), said, asking) for row, (key, said) in zip(answers, judged, strict=True)]
    parameters = {
        "name": name,
        "judge": judge.model_dump(mode="json"),
        "config": config.model_dump(mode="json"),
        "model": model and model.model_dump(mode="json"),
        "weights": weights,
    }
    plugins = [module_of("family", model.family)] if model else []
    made = lineage("evaluation.label_tokens", parameters, {"selected": selected}, plugins)
    write_table(labelled, LABELLED_TOKENS, rows, made)


def _drawn(selected: Path, config: AgreementBlock) -> list[int]:
    """Row numbers of the answers to ask about, in order: those with the smallest hashes of seed and
    answer, so that a larger limit keeps what is paid for."""
    names = scan(selected, SELECTED).select("group_id", "sample_index", any=pl.col("selected").list.any()).collect()
    having = [(number, group, sample) for number, (group, sample, some) in enumerate(names.rows()) if some]
    ranked = sorted(having, key=lambda one: derived_seed("labelled answers", config.seed, *one[1:]))
    return sorted(number for number, *_ in ranked[: config.limit])


def _row(row: Mapping[str, Any], key: str, said: Said | None, judge: Judge) -> dict[str, Any]:
    text = None if said is None else judge.reasoning.answer(said.text)
    labels, reason = None, None
    try:
        labels = labels_of(text or "", row["tokens"])
    except ValueError as error:
        reason = str(error)
    found = (
        {"": numbers(labels, row["selected"]), "random_": numbers(labels, row["random"])} if labels is not None else {}
    )
    measured = {f"{kind}{name}": of[name] for kind, of in found.items() for name in OF_ANSWER}
    return {
        **dict.fromkeys(LABELLED_TOKENS.columns),
        **{name: row[name] for name in ("group_id", "example_id", "sample_index", "tokens", "selected", "random")},
        **{name: None if math.isnan(value) else value for name, value in measured.items()},
        "key": key,
        "text": text,
        "model": said and said.model,
        "labels": labels,
        "reason": reason,
    }
