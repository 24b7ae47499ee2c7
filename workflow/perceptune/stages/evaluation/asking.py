"""Asks a judge, and stores every verdict as soon as it arrives."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from perceptune.contracts.config import UNCOMPUTED, JudgeBlock, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.files import write_text
from perceptune.contracts.progress import Progress
from perceptune.contracts.provenance.digests import sha256_of_json
from perceptune.core.answers.reasoning import Reasoning
from perceptune.core.data.disk_dict import DiskDict
from perceptune.engines.judging import ANY_MODEL, SEED, Case, Endpoint, Said, complaint, help_with
from perceptune.engines.vllm.requests import Question
from perceptune.models.reasoning import reasoning_of
from perceptune.stages.sampling.responses import start

if TYPE_CHECKING:
    from perceptune.engines.vllm.preparation import Prepared

GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0}


@dataclass(frozen=True)
class Judge:
    """A judge: an endpoint, or a model of the config, which runs in this process."""

    name: str
    """Its name in the config."""
    block: JudgeBlock
    model: ModelBlock | None = None
    """The block of a judge without `url`."""
    weights: str | None = None
    """Digest of the files of that model."""
    halvings: int = 0

    @property
    def reasoning(self) -> Reasoning:
        """How it writes its reasoning."""
        return ANY_MODEL if self.model is None else reasoning_of(self.model)

    def case(self, about: str, messages: list[dict[str, str]], max_tokens: int, *, may_end_early: bool) -> Case:
        """A request. Its key is a digest of everything that is sent and of the judge, without its
        address. `max_tokens` is what the judge's own setting overrides.
        """
        longest = self.block.max_tokens or max_tokens
        block = None if self.model is None else self.model.model_dump(mode="json", exclude=UNCOMPUTED)
        identity: Any = self.block.model if block is None else [self.weights, block]
        key = sha256_of_json([identity, messages, {"temperature": 0, "max_tokens": longest, "seed": SEED}])
        return Case(key, about, messages, longest, may_end_early)


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


def verdicts_on(
    cases: Callable[[], Iterator[Case | None]], judge: Judge, kept: Path
) -> Iterator[tuple[str | None, Said | None]]:
    """Key and verdict of each case, in order; None where there is no case.

    `cases` is called several times and must return the same cases each time. Neither they nor the
    verdicts are ever all in memory. A verdict that is in the folder `kept` is not requested again.
    Raises `UserError` if the judge cannot be reached, refuses, or keeps failing; the verdicts received
    so far are stored.
    """
    store = VerdictStore(kept)
    _ask_open(cases, judge, store)
    return ((None, None) if case is None else (case.key, store.find(case.key)) for case in cases())


def _ask_open(cases: Callable[[], Iterator[Case | None]], judge: Judge, store: VerdictStore) -> None:
    """Asks about all cases without a verdict."""
    unknown, total, missing = DiskDict(), 0, 0
    for case in _first_of_each(cases()):
        total += 1
        if store.find(case.key) is None:
            missing += 1
            unknown.add(case.key)
    if not missing:
        return
    waiting = (case for case in _first_of_each(cases()) if case.key in unknown)
    try:
        with Progress("judging answers", total, "verdicts", done=total - missing) as progress:
            if judge.model is None:
                _ask_endpoint(judge, waiting, store, progress)
            else:
                _ask_here(judge, judge.model, waiting, store, progress)
    except UserError as error:
        stored = sum(store.find(case.key) is not None for case in _first_of_each(cases()))
        hint = f"{stored} of {total} verdicts are stored; rerun to request only the others"
        raise UserError(error.args[0], f"{error.hint}; {hint}" if error.hint else hint) from None


def own_prompt(file: Path, fields: Sequence[str]) -> str:
    """The text of the user's own prompt. Raises `UserError` if it lacks one of the fields."""
    try:
        prompt = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"judge's prompt `{file}` cannot be read: {error}") from None
    for field in fields:
        if f"{{{field}}}" not in prompt:
            expected = ", ".join(f"`{{{name}}}`" for name in fields)
            raise UserError(f"judge's prompt `{file}` has no `{{{field}}}`, expected {expected}")
    return prompt


def _first_of_each(cases: Iterable[Case | None]) -> Iterator[Case]:
    """The first case with each key."""
    seen = DiskDict()
    for case in cases:
        if case and seen.add(case.key):
            yield case


def _open(waiting: Iterable[Case], store: VerdictStore, progress: Progress) -> Iterator[Case]:
    """The cases without a verdict when their turn comes: another process may have stored one."""
    for case in waiting:
        if store.find(case.key) is None:
            yield case
        else:
            progress.advance()


def _ask_endpoint(judge: Judge, waiting: Iterable[Case], store: VerdictStore, progress: Progress) -> None:
    block = judge.block
    secret = None if block.key is None else os.environ.get(block.key)
    if block.key is not None and secret is None:
        raise UserError(
            f"judge `{judge.name}`: environment variable `{block.key}` is not set, expected the key of `{block.url}`",
            "export it in the shell that starts Snakemake; it is never written to a file",
        )

    def keep(case: Case, verdict: Said) -> None:
        store.keep(case, verdict)
        progress.advance()

    Endpoint(judge.name, block, secret).verdicts(_open(waiting, store, progress), keep)


def _ask_here(
    judge: Judge, model: ModelBlock, waiting: Iterator[Case], store: VerdictStore, progress: Progress
) -> None:
    """Runs a model of the config in this process, with vLLM."""
    name, called = judge.name, judge.block.model
    asked: dict[str, Case] = {}
    wrong: list[UserError] = []  # the verdicts that are under way when one is wrong are kept
    with start(model, None, 1, store.folder / "merged", judge.halvings) as sampler:

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
            if found := complaint(answer.text, answer.finish_reason, case, judge.reasoning):
                about = f"judge `{name}`, {case.about}: `{called}` {found}"
                wrong.append(UserError(about, help_with(answer.finish_reason, name)))
            else:
                store.keep(case, Said(answer.text, f"{called} {str(judge.weights)[:12]}"))
    if wrong:
        raise wrong[0]


def _question(case: Case) -> Question:
    """The case as a question to the sampling engine: text only, greedy. An answer in it must not end
    the judge's turn, so its special tokens are escaped."""
    messages = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in case.messages]
    return Question(messages, [], n=1, max_tokens=case.max_tokens, seed=SEED, escaped=True, **GREEDY)  # type: ignore[arg-type]
