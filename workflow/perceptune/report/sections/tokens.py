"""The report's section on tokens that a method selects in a round (CPPO's perception tokens)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables.selected import SELECTED
from perceptune.report.gallery import visible
from perceptune.stages.data.scans import scan

LONGEST = 400
"""Maximum number of tokens of an answer that are shown."""


def tokens_sections(tables: Mapping[str, Path], count: int) -> list[dict[str, Any]]:
    """Per experiment how many tokens are selected, and up to `count` answers with selected tokens.

    The answers are drawn by a hash of their names, so that the same table shows the same ones.
    """
    return [_section(experiment, path, count) for experiment, path in tables.items()]


def _section(experiment: str, path: Path, count: int) -> dict[str, Any]:
    numbers = (
        scan(path, SELECTED)
        .select(
            "group_id",
            "sample_index",
            tokens=pl.col("tokens").list.len(),
            rising=pl.col("scores").list.eval(pl.element() > 0).list.sum(),
            selected=pl.col("selected").list.sum(),
        )
        .collect()
    )
    having = numbers.filter(pl.col("selected") > 0)
    names = sorted(
        having.select("group_id", "sample_index").rows(), key=lambda name: derived_seed("shown tokens", *name)
    )[:count]
    found = scan(path, SELECTED).filter(pl.col("group_id").is_in([group for group, _ in names])).collect()
    by_name = {(row["group_id"], row["sample_index"]): row for row in found.iter_rows(named=True)}
    return {
        "experiment": experiment,
        "policy": path.stem,
        "answers": numbers.height,
        "having": having.height,
        "selected": int(having["selected"].sum()),
        "rising": int(having["rising"].sum()),
        "tokens": int(having["tokens"].sum()),
        "cards": [_card(by_name[name]) for name in names],
    }


def _card(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = list(zip(row["tokens"], row["scores"], row["selected"], strict=True))
    words = [visible(text.strip(), 40) for text, _, chosen in shown if chosen]
    return {
        "question": visible(row["question"], 300),
        "reward": f"{row['reward']:.3g}",
        "pieces": [(visible(text, 80), f"{score:.3f}", chosen) for text, score, chosen in shown[:LONGEST]],
        "more": max(len(shown) - LONGEST, 0),
        "selected": sum(chosen for *_, chosen in shown),
        "tokens": len(shown),
        "words": visible(", ".join(filter(None, words)), 600),
    }
