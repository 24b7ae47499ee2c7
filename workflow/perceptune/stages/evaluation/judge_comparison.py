"""A judge's verdicts on two answers to each question: of two policies, or chosen and rejected."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappush, heapreplace
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from perceptune.contracts.config import BenchmarkBlock, ComparisonBlock, JudgeBlock, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import module_of
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables.compared import COMPARED
from perceptune.contracts.tables.io import Rows, read_batches, table_writer
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.rewards import REWARDS
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
from perceptune.stages.data.scans import collected, numbered
from perceptune.stages.evaluation.asking import Judge, own_prompt, verdicts_on
from perceptune.stages.evaluation.judged_answers import READ, Questions, answered, with_verdicts
from perceptune.stages.evaluation.metric_rows import MEASURED, components_of

ANSWERS, LIST = "answers", "list"
"""Kinds of pairs besides `focus` and `robust`: answers of two policies, and the ends of a list."""
UNREADABLE = "the verdict cannot be read"
AT_ONCE = 1024
"""Questions or groups of preferences in memory at once."""
Asked = tuple[Pair, str, str, bool]
"""Pair, example, kind, and whether the filter drops it."""


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
    source: _Policies | _Preferences
    if rewards is not None and block is not None:
        source = _Policies(rewards, str(config.benchmark), block, examples)
    else:
        assert preferences is not None
        source = _Preferences(preferences, examples, given=given)
    drawn = _drawn(source.examples(), config)
    if not drawn and next(source.examples(), None) is None:
        of = f"benchmark `{config.benchmark}`" if config.benchmark else f"experiment `{config.experiment}`"
        raise UserError(f"{of} has no two different answers to compare")
    prompt = own_prompt(Path(config.prompt), FIELDS) if config.prompt else None
    tokens = RUBRICS[config.rubric].max_tokens

    def shown() -> Iterator[Shown]:
        for pair in source.pairs(drawn):
            yield from _orders(*pair, config)

    def cases() -> Iterator[Case | None]:
        for one in shown():
            if one.outcome is not None:
                yield None
                continue
            chat = messages(config.rubric, prompt, one.pair, one_first=one.one_first)
            yield asking.case(f"example `{one.example_id}`", chat, tokens, may_end_early=True)

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
    judged = verdicts_on(cases, asking, kept)
    rows = (_row(one, *said, asking, config) for one, said in zip(shown(), judged, strict=True))
    with table_writer(compared, COMPARED) as table:
        while part := list(islice(rows, AT_ONCE)):
            table.write(part)
        table.lineage = lineage("evaluation.judge_comparison", parameters, inputs, plugins)


class _Policies:
    """The greedy answers of two policies to a benchmark, under its first view."""

    def __init__(self, rewards: tuple[Path, Path], benchmark: str, block: BenchmarkBlock, examples: Path) -> None:
        """Raises `ValueError` if the policies answer different questions."""
        self._rewards, self._examples = rewards, examples
        self._protocol = protocol_of(block)
        one, other = (_greedy(path, benchmark, block) for path in rewards)
        if set(one["example_id"]) != set(other["example_id"]):
            raise ValueError(f"the policies answer different questions of benchmark `{benchmark}`")
        self._rows = one.join(other, "example_id", "left", suffix="_of_other", maintain_order="left", validate="1:1")

    def examples(self) -> Iterator[str]:
        """The questions."""
        yield from self._rows["example_id"]

    def pairs(self, drawn: set[str] | None) -> Iterator[Asked]:
        """The pairs about these questions (None: all), in the order of their requests."""
        rows = self._rows if drawn is None else self._rows.filter(pl.col("example_id").is_in(list(drawn)))
        columns = [*MEASURED, *READ]
        schema = pa.schema([REWARDS.schema.field(name) for name in columns])
        own, others = Rows(self._rewards[0], REWARDS, columns), Rows(self._rewards[1], REWARDS, ["answer"])
        for part in rows.iter_slices(AT_ONCE):
            taken = pl.DataFrame(pl.from_arrow(pa.Table.from_pylist(own.take(part["row"].to_list()), schema)))
            taken = taken.with_columns(components_of(taken["components"]))
            said = others.take(part["row_of_other"].to_list())
            answers = answered(with_verdicts(taken, None), Questions(self._examples))
            for answer, other in zip(answers, said, strict=True):
                yield self._pair(answer, other["answer"]), answer.example_id, ANSWERS, False

    def _pair(self, answer: Answered, other: str | None) -> Pair:
        described = self._protocol.described if self._protocol else None
        facts = {
            "What the image shows": described(answer) if described else "",
            "A reference answer": answer.target or "",
        }
        return Pair(answer.example_id, answer.question, answer.text or "", other or "", facts)


def _greedy(path: Path, benchmark: str, block: BenchmarkBlock) -> pl.DataFrame:
    """Row and example of the greedy answers under the benchmark's first view, ordered by request."""
    of = pl.col("benchmark") == benchmark, pl.col("condition") == "greedy", pl.col("view") == block.views[0]
    found = collected(numbered(path, REWARDS).filter(*of).select("row", "request_id", "example_id"), path)
    return found.sort("request_id").drop("request_id")


class _Preferences:
    """The pairs that an experiment learns from. `given`: whether they are answers of the dataset."""

    def __init__(self, preferences: Path, examples: Path, *, given: bool) -> None:
        self._preferences, self._examples, self._given = preferences, Examples(examples), given

    def examples(self) -> Iterator[str]:
        """The examples with a pair of different answers, once per group."""
        yield from (row["example_id"] for rows in self._batches() for row in rows if any(_texts(row)))

    def pairs(self, drawn: set[str] | None) -> Iterator[Asked]:
        """The pairs of different answers about these examples (None: all), in the order of the table."""
        for batch in self._batches():
            rows = [row for row in batch if drawn is None or row["example_id"] in drawn]
            ids = {row["example_id"] for row in rows}
            asked = self._examples.rows(ids, ("example_id", "question", "target", "source")) if ids else {}
            for row in rows:
                example = asked[row["example_id"]]
                facts = {} if self._given else _known(example)
                for kind, one, other, dropped in _texts(row):
                    pair = Pair(f"{row['group_id']} {kind}", example["question"], one, other, facts)
                    yield pair, row["example_id"], kind, dropped

    def _batches(self) -> Iterator[list[dict[str, Any]]]:
        columns = ["group_id", "example_id", "responses", "pairs", "kept"]
        yield from (part.to_pylist() for part in read_batches(self._preferences, PREFERENCES, columns, AT_ONCE))


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


def _drawn(examples: Iterable[str], config: ComparisonBlock) -> set[str] | None:
    """The questions to ask about: `limit` of them, those with the smallest hashes of seed and question,
    so that a larger limit keeps what is paid for; None for all."""
    if config.limit is None:
        return None
    largest_first: list[tuple[int, str]] = []
    drawn: set[str] = set()
    for example_id in examples:
        if example_id in drawn:
            continue
        one = -derived_seed("questions", config.seed, example_id), example_id
        if len(drawn) < config.limit:
            heappush(largest_first, one)
            drawn.add(example_id)
        elif one > largest_first[0]:
            _, out = heapreplace(largest_first, one)
            drawn.remove(out)
            drawn.add(example_id)
    return drawn


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
