"""A judge's verdicts on a policy's answers to one benchmark."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from filelock import FileLock

from perceptune.contracts.config import UNCOMPUTED, BenchmarkBlock, JudgeBlock, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.files import write_text
from perceptune.contracts.plugins import module_of
from perceptune.contracts.progress import Progress
from perceptune.contracts.provenance.digests import sha256_of_json
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.verdicts import VERDICTS
from perceptune.core.answers.reasoning import UNFINISHED, Reasoning
from perceptune.core.benchmarks.benchmark import Answered, Judged, filled, protocol_of
from perceptune.engines.judging import ANY_MODEL, SEED, Case, Endpoint, Said, complaint, help_with
from perceptune.engines.vllm.requests import Question
from perceptune.models.reasoning import reasoning_of
from perceptune.stages.evaluation.judged_answers import READ, RESPONSE, Questions, answered, with_verdicts
from perceptune.stages.evaluation.metric_rows import MEASURED, answers_of
from perceptune.stages.sampling.responses import start

if TYPE_CHECKING:
    from perceptune.engines.vllm.preparation import Prepared

GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0}
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
    whole = (RESPONSE,) if protocol.judged.reads_reasoning else ()
    rows = answers_of(rewards, benchmark, (*MEASURED, *READ, *whole))
    identity = judge.model if model is None else [weights, model.model_dump(mode="json", exclude=UNCOMPUTED)]
    questions, asked = Questions(examples), protocol.judged

    def cases() -> Iterator[Case | None]:
        for part in with_verdicts(rows, None).iter_slices(PART):
            yield from _cases(answered(part, questions), asked, judge, block.judge_prompt, identity)

    store = VerdictStore(kept)
    keys = [case.key if case else None for case in cases()]
    distinct = dict.fromkeys(key for key in keys if key)
    unknown = {key for key in distinct if store.find(key) is None}
    if unknown:
        total = len(distinct)
        waiting = _first_of_each(cases(), unknown)
        try:
            with Progress("judging answers", total, "verdicts", done=total - len(unknown)) as progress:
                if model is None:
                    _ask_endpoint(name, judge, waiting, store, progress)
                else:
                    _ask_here(name, judge, model, str(weights), waiting, store, progress, halvings)
        except UserError as error:
            stored = sum(store.find(key) is not None for key in distinct)
            hint = f"{stored} of {total} verdicts are stored; rerun to request only the others"
            raise UserError(error.args[0], f"{error.hint}; {hint}" if error.hint else hint) from None
    reasoning = ANY_MODEL if model is None else reasoning_of(model)
    table = _table(rows, keys, store, reasoning)
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
    write_table(verdicts, VERDICTS, table, lineage("evaluation.judge_answers", parameters, inputs, plugins))


class VerdictStore:
    """All verdicts of a judge, one file each.

    Files are written atomically under names derived from the whole request: any number of processes
    may write at once, also on network file systems, and a killed process loses only the verdicts in
    flight.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: str) -> Said | None:
        """The stored verdict with this key; None if there is none or it is unreadable."""
        try:
            kept = json.loads(self._file(key).read_text())
            return Said(str(kept["text"]), str(kept["model"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def keep(self, case: Case, verdict: Said) -> None:
        """Stores a verdict durably: once this returns, it survives a crash of the machine.

        The first verdict wins if several processes sent the same request at the same time.
        """
        sent = {"messages": list(case.messages), "max_tokens": case.max_tokens}
        record = {"text": verdict.text, "model": verdict.model, "asked": sent}
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            if self.find(case.key) is None:
                write_text(self._file(case.key), json.dumps(record, ensure_ascii=False, indent=1) + "\n")

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def _cases(
    answers: Sequence[Answered], judged: Judged, judge: JudgeBlock, prompt: str | None, identity: Any
) -> list[Case | None]:
    """The request about each answer; None if the answer is not judged."""
    messages = judged.messages if prompt is None else _own_messages(Path(prompt), judged)
    longest = judge.max_tokens or judged.max_tokens
    found: list[Case | None] = []
    for answer in answers:
        if not judged.asked(answer):
            found.append(None)
            continue
        sent = messages(answer)
        key = sha256_of_json([identity, sent, {"temperature": 0, "max_tokens": longest, "seed": SEED}])
        found.append(Case(key, f"example `{answer.example_id}`", sent, longest, judged.may_end_early))
    return found


def _own_messages(file: Path, judged: Judged) -> Callable[[Answered], list[dict[str, str]]]:
    """Builds messages from the user's own prompt.

    Raises `UserError` for a field that the prompt does not contain.
    """
    fields = judged.fields
    if fields is None:
        raise ValueError(f"`{file}` is set for a benchmark that does not take a prompt")
    try:
        prompt = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"judge's prompt `{file}` cannot be read: {error}") from None

    def messages(answer: Answered) -> list[dict[str, str]]:
        texts = fields(answer)
        for field in texts:
            if f"{{{field}}}" not in prompt:
                expected = ", ".join(f"`{{{name}}}`" for name in texts)
                raise UserError(f"judge's prompt `{file}` has no `{{{field}}}`, expected {expected}")
        return [{"role": "user", "content": filled(prompt, texts)}]

    return messages


def _first_of_each(cases: Iterable[Case | None], keys: set[str]) -> Iterator[Case]:
    """The first case with each of these keys."""
    left = set(keys)
    for case in cases:
        if case and case.key in left:
            left.remove(case.key)
            yield case


def _open(waiting: Iterable[Case], store: VerdictStore, progress: Progress) -> Iterator[Case]:
    """The cases without a verdict when their turn comes: another process may have stored one."""
    for case in waiting:
        if store.find(case.key) is None:
            yield case
        else:
            progress.advance()


def _ask_endpoint(
    name: str, judge: JudgeBlock, waiting: Iterable[Case], store: VerdictStore, progress: Progress
) -> None:
    secret = None if judge.key is None else os.environ.get(judge.key)
    if judge.key is not None and secret is None:
        raise UserError(
            f"judge `{name}`: environment variable `{judge.key}` is not set, expected the key of `{judge.url}`",
            "export it in the shell that starts Snakemake; it is never written to a file",
        )

    def keep(case: Case, verdict: Said) -> None:
        store.keep(case, verdict)
        progress.advance()

    Endpoint(name, judge, secret).verdicts(_open(waiting, store, progress), keep)


def _ask_here(
    name: str,
    judge: JudgeBlock,
    model: ModelBlock,
    weights: str,
    waiting: Iterator[Case],
    store: VerdictStore,
    progress: Progress,
    halvings: int,
) -> None:
    """Runs a model of the config in this process, with vLLM."""
    asked: dict[str, Case] = {}
    wrong: list[UserError] = []  # the verdicts that are under way when one is wrong are kept
    with start(model, None, 1, store.folder / "merged", halvings) as sampler:

        def questions() -> Iterator[tuple[str, Prepared]]:
            for case in _open(waiting, store, progress):
                if wrong:
                    return
                try:
                    prepared = sampler.prepared(_question(case))
                except ValueError as error:
                    wrong.append(UserError(f"judge `{name}`, {case.about}: {error}"))
                    return
                asked[case.key] = case
                yield case.key, prepared

        for key, (answer,) in sampler.answers(questions()):
            progress.advance()
            case = asked.pop(key)
            if found := complaint(answer.text, answer.finish_reason, case, reasoning_of(model)):
                about = f"judge `{name}`, {case.about}: `{judge.model}` {found}"
                wrong.append(UserError(about, help_with(answer.finish_reason, name)))
            else:
                store.keep(case, Said(answer.text, f"{judge.model} {weights[:12]}"))
    if wrong:
        raise wrong[0]


def _question(case: Case) -> Question:
    """The case as a question to the sampling engine: text only, greedy. An answer in it must not end
    the judge's turn, so its special tokens are escaped."""
    messages = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in case.messages]
    return Question(messages, [], n=1, max_tokens=case.max_tokens, seed=SEED, escaped=True, **GREEDY)  # type: ignore[arg-type]


def _table(rows: pl.DataFrame, keys: Sequence[str | None], store: VerdictStore, reasoning: Reasoning) -> pl.DataFrame:
    """The table of verdicts on the scored answers `rows`, whose cases have these keys."""
    verdicts = [None if key is None else store.find(key) for key in keys]
    found = pl.DataFrame(
        {
            "key": [key or "" for key in keys],
            "text": [said and reasoning.answer(said.text) for said in verdicts],
            "model": [said and said.model for said in verdicts],
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
