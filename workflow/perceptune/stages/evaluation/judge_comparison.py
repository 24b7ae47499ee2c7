"""A judge's verdicts on two answers to each question: of two policies, or chosen and rejected."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from perceptune.contracts.config import BenchmarkBlock, ComparisonBlock, JudgeBlock, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import module_of
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables.compared import COMPARED
from perceptune.contracts.tables.io import read_batches, write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.core.benchmarks.benchmark import Answered, protocol_of
from perceptune.core.comparisons.rubrics import (
    FIELDS,
    RUBRICS,
    Pair,
    messages,
    one_comes_first,
    reading_of,
)
from perceptune.engines.judging import Case, Said
from perceptune.stages.data.examples import Examples
from perceptune.stages.evaluation.asking import Judge, own_prompt, verdicts_on
from perceptune.stages.evaluation.judged_answers import READ, Questions, answered, with_verdicts
from perceptune.stages.evaluation.metric_rows import MEASURED, answers_of

ANSWERS, LIST = "answers", "list"
"""Kinds of pairs besides `focus` and `robust`: answers of two policies, and the ends of a list."""
UNREADABLE = "the verdict cannot be read"
GROUPS = 1024
"""Groups of preferences in memory at once."""


@dataclass(frozen=True)
class Shown:
    """A pair in one order."""

    pair: Pair
    example_id: str
    kind: str
    one_first: bool
    dropped: bool
    outcome: str | None
    """Known without a judge."""
    reason: str | None = None
    """Why it is known."""


def run(
    *,
    name: str,
    judge: JudgeBlock,
    config: ComparisonBlock,
    examples: Path,
    compared: Path,
    kept: Path,
    block: BenchmarkBlock | None = None,
    rewards: tuple[Path, Path] | None = None,
    preferences: Path | None = None,
    given: bool = False,
    model: ModelBlock | None = None,
    weights: str | None = None,
    halvings: int = 0,
) -> None:
    """Writes the table `compared`: a row per pair and order.

    Either `rewards`, the scored answers of both policies to the benchmark `block`, or `preferences`.
    `given`: whether these are answers of the dataset, which the judge is then not shown as facts.
    The judge's arguments and the folder `kept` are those of `judge_answers`. A policy without an
    answer loses, and equal answers are a tie if the judge gives no grades; neither is sent to the
    judge. Raises `UserError` if the judge cannot be reached, refuses, or keeps failing, or if there
    is no pair.
    """
    asking = Judge(name, judge, model, weights, halvings)
    if rewards is not None and block is not None:
        pairs = list(_of_policies(rewards, str(config.benchmark), block, examples))
    else:
        assert preferences is not None
        pairs = list(_of_preferences(preferences, examples, given=given))
    if not pairs:
        source = f"benchmark `{config.benchmark}`" if config.benchmark else f"experiment `{config.experiment}`"
        raise UserError(f"{source} has no two different answers to compare")
    drawn = _drawn([example_id for _, example_id, *_ in pairs], config)
    shown = [one for pair in pairs if pair[1] in drawn for one in _orders(*pair, config)]
    prompt = own_prompt(Path(config.prompt), FIELDS) if config.prompt else None
    tokens = RUBRICS[config.rubric].max_tokens

    def cases() -> Iterator[Case | None]:
        for one in shown:
            if one.outcome is not None:
                yield None
                continue
            chat = messages(config.rubric, prompt, one.pair, one_first=one.one_first)
            yield asking.case(f"example `{one.example_id}`", chat, tokens, may_end_early=True)

    keys, said = verdicts_on(cases, asking, kept)
    rows = [_row(one, key, verdict, asking, config) for one, key, verdict in zip(shown, keys, said, strict=True)]
    inputs = {"examples": examples, **({"preferences": preferences} if preferences else {})}
    inputs |= {f"rewards {i}": path for i, path in enumerate(rewards or (), 1)}
    inputs |= {"prompt": Path(config.prompt)} if config.prompt else {}
    parameters = {
        "name": name,
        "judge": judge.model_dump(mode="json"),
        "config": config.model_dump(mode="json"),
        "block": block and block.model_dump(mode="json"),
        "model": model and model.model_dump(mode="json"),
        "weights": weights,
    }
    plugins = [module_of("benchmark", block.protocol)] if block and block.protocol else []
    plugins += [module_of("family", model.family)] if model else []
    write_table(compared, COMPARED, rows, lineage("evaluation.judge_comparison", parameters, inputs, plugins))


def _of_policies(
    rewards: tuple[Path, Path], benchmark: str, block: BenchmarkBlock, examples: Path
) -> Iterator[tuple[Pair, str, str, bool]]:
    """Pair, example, kind, and whether it is dropped, for every question of the benchmark."""
    one, other = (_greedy(path, benchmark, block, Questions(examples)) for path in rewards)
    if one.keys() != other.keys():
        raise ValueError(f"the policies answer different questions of benchmark `{benchmark}`")
    protocol = protocol_of(block)
    for example_id, answer in one.items():
        facts = {
            "What the image shows": protocol.described(answer) if protocol and protocol.described else "",
            "A reference answer": answer.target or "",
        }
        texts = (answer.text or "", other[example_id].text or "")
        yield Pair(example_id, answer.question, *texts, facts), example_id, ANSWERS, False


def _greedy(path: Path, benchmark: str, block: BenchmarkBlock, questions: Questions) -> dict[str, Answered]:
    """Example to its greedy answer under the benchmark's first view."""
    rows = answers_of(path, benchmark, (*MEASURED, *READ))
    rows = rows.filter(pl.col("condition") == "greedy", pl.col("view") == block.views[0])
    return {answer.example_id: answer for answer in answered(with_verdicts(rows, None), questions)}


def _of_preferences(preferences: Path, examples: Path, *, given: bool) -> Iterator[tuple[Pair, str, str, bool]]:
    """Pair, example, kind, and whether the filter drops it, for every pair of different answers."""
    columns = ["group_id", "example_id", "responses", "pairs", "kept"]
    known = Examples(examples)
    for part in read_batches(preferences, PREFERENCES, columns, GROUPS):
        rows = part.to_pylist()
        asked = known.rows({row["example_id"] for row in rows}, ("example_id", "question", "target", "source"))
        for row in rows:
            example = asked[row["example_id"]]
            facts = {} if given else _known(example)
            for kind, one, other, dropped in _texts(row):
                item = f"{row['group_id']} {kind}"
                yield Pair(item, example["question"], one, other, facts), row["example_id"], kind, dropped


def _texts(row: Mapping[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """Kind, chosen and rejected text, and whether the pair is dropped."""
    texts = [response["text"] for response in row["responses"]]
    if row["pairs"]:
        ends = [(p["kind"], p["chosen"], p["rejected"], not p["kept"]) for p in row["pairs"] if p["margin"] is not None]
    else:
        ends = [(LIST, 0, len(texts) - 1, False)] if row["kept"] else []
    for kind, chosen, rejected, dropped in ends:
        if texts[chosen].strip() != texts[rejected].strip():
            yield kind, texts[chosen], texts[rejected], dropped


def _known(example: Mapping[str, Any]) -> dict[str, str]:
    """The best and the worst answer that the dataset gives, or its ground truth."""
    given = json.loads(example["source"] or "{}").get("answers_given")
    if isinstance(given, list) and len(given) > 1 and all(_text(answer) for answer in given):
        ranked = _best_first(given)
        return {"A good answer": _text(ranked[0]), "A bad answer": _text(ranked[-1])}
    return {"A reference answer": example["target"] or ""}


def _text(answer: Any) -> str:
    """The text of a given answer; empty if it has none."""
    return str((answer.get("text") if isinstance(answer, Mapping) else answer) or "")


def _best_first(given: Sequence[Any]) -> Sequence[Any]:
    """Given answers by reward if all have one, otherwise in the order of the dataset, best first."""
    rewards = [answer.get("reward") if isinstance(answer, Mapping) else None for answer in given]
    numbers = [float(reward) for reward in rewards if isinstance(reward, int | float)]
    if len(numbers) < len(given):
        return given
    return [given[i] for i in sorted(range(len(given)), key=lambda i: -numbers[i])]


def _drawn(examples: Sequence[str], config: ComparisonBlock) -> set[str]:
    """The questions to ask about: all, or `limit` of them, by a hash of seed and question."""
    ranked = sorted(set(examples), key=lambda example_id: derived_seed("questions", config.seed, example_id))
    return set(ranked[: config.limit])


def _orders(pair: Pair, example_id: str, kind: str, dropped: bool, config: ComparisonBlock) -> Iterator[Shown]:
    """The pair in one random order, or in both."""
    outcome, reason = _without_judge(pair, config)
    first = one_comes_first(config.seed, pair.item)
    both = (True, False) if config.orders == "both" else (first,)
    yield from (Shown(pair, example_id, kind, one_first, dropped, outcome, reason) for one_first in both)


def _without_judge(pair: Pair, config: ComparisonBlock) -> tuple[str | None, str | None]:
    """Outcome and reason of a pair that needs no judge."""
    one, other = pair.one.strip(), pair.other.strip()
    if not one and not other:
        return "tie", "no answers"
    if not one or not other:
        return ("lose" if not one else "win"), "one answer is missing"
    if one == other and config.rubric == "preference":
        return "tie", "equal answers"
    return None, None


def _row(shown: Shown, key: str | None, said: Said | None, judge: Judge, config: ComparisonBlock) -> dict[str, Any]:
    text = None if said is None else judge.reasoning.answer(said.text)
    reading = reading_of(config.rubric, text, one_first=shown.one_first) if said else None
    grades: Sequence[int | None] = reading.grades if reading and reading.grades else (None, None)
    return {
        "item": shown.pair.item,
        "example_id": shown.example_id,
        "kind": shown.kind,
        "one_first": shown.one_first,
        "dropped": shown.dropped,
        "key": key or "",
        "text": text,
        "model": said and said.model,
        "outcome": reading.outcome if reading else shown.outcome,
        "grade": grades[0],
        "other_grade": grades[1],
        "reason": shown.reason if said is None else (None if reading else UNREADABLE),
    }
