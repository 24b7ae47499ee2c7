"""A judge's verdicts on a policy's answers to one benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import polars as pl

from perceptune.contracts.config import BenchmarkBlock, JudgeBlock, ModelBlock
from perceptune.contracts.plugins import module_of
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import table_writer
from perceptune.contracts.tables.verdicts import VERDICTS
from perceptune.core.answers.reasoning import UNFINISHED, Reasoning
from perceptune.core.benchmarks.benchmark import Answered, Judged, filled, protocol_of
from perceptune.engines.judging import Case, Said
from perceptune.stages.evaluation.asking import Judge, own_prompt, verdicts_on
from perceptune.stages.evaluation.judged_answers import READ, RESPONSE, Questions, answered, with_verdicts
from perceptune.stages.evaluation.metric_rows import MEASURED, answers_of

PART = 10_000
"""Answers in memory at once as objects."""


def run(
    *,
    name: str,
    judge: JudgeBlock,
    benchmark: str,
    block: BenchmarkBlock,
    rewards: Path,
    examples: Path,
    verdicts: Path,
    kept: Path,
    model: ModelBlock | None = None,
    weights: str | None = None,
    halvings: int = 0,
) -> None:
    """Writes the table `verdicts`: a row for every scored answer, ordered by request and sample.

    The judge's own reasoning is taken off in the table; the folder `kept` has the whole replies.

    `name` is the judge's name. Each verdict is stored in the folder `kept` as soon as it arrives,
    keyed by everything that was sent, and is never requested again by any policy, table or process.
    `model` and the digest `weights` of its files belong to a judge without `url`, which runs in
    this process. Raises `UserError` if the judge cannot be reached, refuses, or keeps failing.
    """
    protocol = protocol_of(block)
    if protocol is None or protocol.judged is None:
        raise ValueError(f"benchmark `{block.protocol}` does not use a judge")
    asked, asking = protocol.judged, Judge(name, judge, model, weights, halvings)
    whole = (RESPONSE,) if asked.reads_reasoning else ()
    rows = answers_of(rewards, benchmark, (*MEASURED, *READ, *whole))
    questions = Questions(examples)
    messages = asked.messages if block.judge_prompt is None else _own_messages(Path(block.judge_prompt), asked)

    def cases() -> Iterator[Case | None]:
        for part in with_verdicts(rows, None).iter_slices(PART):
            yield from _cases(answered(part, questions), asked, messages, asking)

    judged = verdicts_on(cases, asking, kept)
    inputs = {"rewards": rewards, "examples": examples}
    inputs |= {"prompt": Path(block.judge_prompt)} if block.judge_prompt else {}
    parameters = {
        "name": name,
        "judge": judge.model_dump(mode="json"),
        "benchmark": benchmark,
        "block": block.model_dump(mode="json"),
        "model": model and model.model_dump(mode="json"),
        "weights": weights,
    }
    plugins = [module_of("benchmark", str(block.protocol)), *([module_of("family", model.family)] if model else [])]
    with table_writer(verdicts, VERDICTS) as table:
        for part in rows.iter_slices(PART):
            table.write(_table(part, list(islice(judged, part.height)), asking.reasoning))
        table.lineage = lineage("evaluation.judge_answers", parameters, inputs, plugins)


def _cases(
    answers: Sequence[Answered], judged: Judged, messages: Callable[[Answered], list[dict[str, str]]], judge: Judge
) -> Iterator[Case | None]:
    """The request about each answer; None if the answer is not judged."""
    for answer in answers:
        if judged.asked(answer):
            about = f"example `{answer.example_id}`"
            yield judge.case(about, messages(answer), judged.max_tokens, may_end_early=judged.may_end_early)
        else:
            yield None


def _own_messages(file: Path, judged: Judged) -> Callable[[Answered], list[dict[str, str]]]:
    """Builds messages from the user's own prompt.

    Raises `UserError` for a field that the prompt does not contain.
    """
    fields = judged.fields
    if fields is None:
        raise ValueError(f"`{file}` is set for a benchmark that does not take a prompt")
    prompts: list[str] = []

    def messages(answer: Answered) -> list[dict[str, str]]:
        texts = fields(answer)
        if not prompts:
            prompts.append(own_prompt(file, list(texts)))
        return [{"role": "user", "content": filled(prompts[0], texts)}]

    return messages


def _table(rows: pl.DataFrame, judged: Sequence[tuple[str | None, Said | None]], reasoning: Reasoning) -> pl.DataFrame:
    """The table of verdicts on the scored answers `rows`: key and verdict of each."""
    found = pl.DataFrame(
        {
            "key": [key or "" for key, _ in judged],
            "text": [said and reasoning.answer(said.text) for _, said in judged],
            "model": [said and said.model for _, said in judged],
        },
        schema={"key": pl.String, "text": pl.String, "model": pl.String},
    )
    without = pl.when(pl.col("answer").is_null()).then(pl.lit("no answer text")).otherwise(pl.lit("no judge needed"))
    unfinished = pl.when(pl.col("text").is_null()).then(pl.lit(UNFINISHED))
    shared = ("request_id", "sample_index", "example_id", "view", "condition")
    return (
        rows.select(*shared, "answer")
        .hstack(found)
        .with_columns(reason=pl.when(pl.col("model").is_null()).then(without).otherwise(unfinished))
        .drop("answer")
    )
