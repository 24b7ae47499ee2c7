"""What a judge says of a policy's answers to one benchmark."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from perceptune.contracts.config import BenchmarkBlock, JudgeBlock, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.files import write_text
from perceptune.contracts.progress import Progress
from perceptune.contracts.provenance.code import plugin
from perceptune.contracts.provenance.digests import sha256_of_json
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.verdicts import VERDICTS
from perceptune.core.benchmarks.benchmark import Answered, Judged, filled, protocol_of
from perceptune.engines.judging import SEED, Case, Endpoint, Said, complaint, help_with
from perceptune.engines.vllm.requests import Question
from perceptune.stages.evaluation.judged_answers import answered
from perceptune.stages.evaluation.metric_rows import answers_of
from perceptune.stages.sampling.responses import SPEED_ONLY, start

GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0}


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
    """Writes the table `verdicts`: a row for every scored answer to `benchmark`, in the order of requests and samples.

    `name` is the judge's. Each verdict is kept in the folder `kept` as soon as it is there, by all that was asked, and is not
    asked for again, by whatever policy, table or process. `model` and the digest `weights` of its files are those of a judge
    without `url`, which runs here. Raises `UserError` when the judge cannot be asked, refuses or keeps failing.
    """
    protocol = protocol_of(block)
    if protocol is None or protocol.judged is None:
        raise ValueError(f"benchmark `{block.protocol}` asks no judge")
    rows = answers_of(rewards, benchmark)
    answers = answered(rows, examples, None)
    identity = judge.model if model is None else [weights, model.model_dump(mode="json", exclude=SPEED_ONLY)]
    cases = _cases(answers, protocol.judged, judge, block.judge_prompt, identity)
    book = Kept(kept)
    waiting = list({case.key: case for case in cases if case and book.said(case.key) is None}.values())
    if waiting:
        total = len({case.key for case in cases if case})
        try:
            with Progress("judging answers", total, "verdicts", done=total - len(waiting)) as progress:
                if model is None:
                    _ask_endpoint(name, judge, waiting, book, progress)
                else:
                    _ask_here(name, judge, model, str(weights), waiting, book, progress, halvings)
        except UserError as error:
            there = sum(book.said(key) is not None for key in {case.key for case in cases if case})
            hint = f"{there} of {total} verdicts are kept; run again and only the others are asked for"
            raise UserError(error.args[0], f"{error.hint}; {hint}" if error.hint else hint) from None
    table = [_row(*row, book) for row in zip(rows.iter_rows(named=True), answers, cases, strict=True)]
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
    plugins = [plugin("benchmark", str(block.protocol)), *([plugin("family", model.family)] if model else [])]
    write_table(verdicts, VERDICTS, table, lineage("evaluation.judge_answers", parameters, inputs, plugins))


class Kept:
    """All that a judge has ever said, a file per verdict.

    Files appear whole under names made of all that was asked: any number of processes may write at once, on network file
    systems too, and a killed one loses only what it was just being told.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def said(self, key: str) -> Said | None:
        """The verdict on what has this key; None where there is none that can be read."""
        try:
            kept = json.loads(self._file(key).read_text())
            return Said(str(kept["text"]), str(kept["model"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def keep(self, case: Case, said: Said) -> None:
        """When this returns the verdict survives the end of the process and of the machine.

        The first one counts: whoever asked the same at the same time may have been told something else.
        """
        asked = {"messages": list(case.messages), "max_tokens": case.max_tokens}
        record = {"text": said.text, "model": said.model, "asked": asked}
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            if self.said(case.key) is None:
                write_text(self._file(case.key), json.dumps(record, ensure_ascii=False, indent=1) + "\n")

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def _cases(
    answers: Sequence[Answered], judged: Judged, judge: JudgeBlock, prompt: str | None, identity: Any
) -> list[Case | None]:
    """What the judge is asked about each answer; None where it is not asked."""
    messages = judged.messages if prompt is None else _own_messages(Path(prompt), judged)
    longest = judge.max_tokens or judged.max_tokens
    found: list[Case | None] = []
    for answer in answers:
        if not judged.asked(answer):
            found.append(None)
            continue
        asked = messages(answer)
        key = sha256_of_json([identity, asked, {"temperature": 0, "max_tokens": longest, "seed": SEED}])
        found.append(Case(key, f"example `{answer.example_id}`", asked, longest, judged.may_end_early))
    return found


def _own_messages(file: Path, judged: Judged) -> Callable[[Answered], list[dict[str, str]]]:
    """Messages made with a prompt that the user brings; a `UserError` names a field that it leaves out."""
    fields = judged.fields
    if fields is None:
        raise ValueError(f"`{file}` is given to a benchmark that takes no prompt")
    try:
        prompt = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"judge's prompt `{file}` cannot be read: {error}") from None

    def messages(answer: Answered) -> list[dict[str, str]]:
        texts = fields(answer)
        for field in texts:
            if f"{{{field}}}" not in prompt:
                expected = ", ".join(f"`{{{name}}}`" for name in texts)
                raise UserError(f"judge's prompt `{file}` has no `{{{field}}}`, expected {expected} in it")
        return [{"role": "user", "content": filled(prompt, texts)}]

    return messages


def _open(waiting: Sequence[Case], book: Kept, progress: Progress) -> Iterator[Case]:
    """The cases that still have no verdict when their turn comes: another process may be asking the same."""
    for case in waiting:
        if book.said(case.key) is None:
            yield case
        else:
            progress.advance()


def _ask_endpoint(name: str, judge: JudgeBlock, waiting: Sequence[Case], book: Kept, progress: Progress) -> None:
    secret = None if judge.key is None else os.environ.get(judge.key)
    if judge.key is not None and secret is None:
        raise UserError(
            f"judge `{name}`: environment variable `{judge.key}` is not set, expected the key of `{judge.url}`",
            "export it where Snakemake is started; it is written nowhere",
        )

    def keep(case: Case, said: Said) -> None:
        book.keep(case, said)
        progress.advance()

    Endpoint(name, judge, secret).verdicts(_open(waiting, book, progress), keep)


def _ask_here(
    name: str,
    judge: JudgeBlock,
    model: ModelBlock,
    weights: str,
    waiting: Sequence[Case],
    book: Kept,
    progress: Progress,
    halvings: int,
) -> None:
    """Asks a model of the config, which vLLM runs in this process."""
    room = model.engine.answers_per_part
    with start(model, None, 1, book.folder / "merged", halvings) as sampler:
        for first in range(0, len(waiting), room):
            part = {case.key: case for case in _open(waiting[first : first + room], book, progress)}
            asked = []
            for case in part.values():
                try:
                    asked.append((case.key, sampler.prepared(_question(case))))
                except ValueError as error:
                    raise UserError(f"judge `{name}`, {case.about}: {error}") from None
            wrong = None
            for key, (answer,) in sampler.answers(asked, progress.advance).items():
                if found := complaint(answer.text, answer.finish_reason, part[key]):
                    wrong = UserError(
                        f"judge `{name}`, {part[key].about}: `{judge.model}` {found}",
                        help_with(answer.finish_reason, name),
                    )
                else:
                    book.keep(part[key], Said(answer.text, f"{judge.model} {weights[:12]}"))
            if wrong:
                raise wrong


def _question(case: Case) -> Question:
    """The case as the sampling engine takes it: text only, greedy."""
    messages = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in case.messages]
    return Question(messages, [], n=1, max_tokens=case.max_tokens, seed=SEED, **GREEDY)  # type: ignore[arg-type]


def _row(scored: dict[str, Any], answer: Answered, case: Case | None, book: Kept) -> dict[str, Any]:
    said = book.said(case.key) if case else None
    reason = None if said else "it has no text" if answer.text is None else "it needs no judge"
    shared = ("request_id", "sample_index", "example_id", "view", "condition")
    return {
        **{column: scored[column] for column in shared},
        "key": case.key if case else "",
        "text": said and said.text,
        "model": said and said.model,
        "reason": reason,
    }
