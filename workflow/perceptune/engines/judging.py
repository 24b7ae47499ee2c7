"""A judge behind an OpenAI-compatible endpoint: every question gets its verdict, or the whole stops with one clear error."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import openai
from openai import AsyncOpenAI

from perceptune.contracts.config import JudgeBlock
from perceptune.contracts.errors import UserError, printable

FIRST_WAIT = 1.0
"""Seconds before a question is asked again for the first time; it doubles from time to time, by chance up to a half less."""
LONGEST_WAIT = 60.0
"""Seconds between two times, unless the endpoint asks for more."""
PATIENCE = 600.0
"""Seconds that an endpoint may ask to be left alone before the stage stops instead."""
SEED = 0
SOON = {408, 409, 425, 429, *range(500, 600)}
"""Answers of an endpoint after which the same question may go well."""
QUOTED = 300
"""Characters of a server's message that are quoted."""
CUT_OFF = "length"
"""The finish reason of what ended because it was long enough."""
NO_KEY = "none"
"""Sent where no key is configured: the client would else send what it finds in OPENAI_API_KEY to whatever endpoint."""


@dataclass(frozen=True)
class Case:
    """One question to a judge."""

    key: str
    """Identifies all that is asked."""
    about: str
    """What messages call it, such as `example 7`."""
    messages: Sequence[dict[str, str]]
    max_tokens: int
    may_end_early: bool = False
    """Whether a verdict that is cut off after `max_tokens` counts."""


@dataclass(frozen=True)
class Said:
    """One verdict."""

    text: str
    model: str
    """Who said it, as the endpoint names it."""


def complaint(text: str | None, ended: str | None, case: Case) -> str | None:
    """Why what a judge said is no verdict; None if it is one. `ended`: the reason that it finished."""
    if ended == CUT_OFF and not case.may_end_early:
        return f"cut its verdict off after {case.max_tokens} tokens"
    if ended == "content_filter":
        return "withheld its verdict by a content filter"
    return None if text and text.strip() else "gave an empty verdict"


def help_with(ended: str | None, judge: str) -> str | None:
    """What the user can do about it."""
    return f"key `judges.{judge}.max_tokens` allows longer ones" if ended == CUT_OFF else None


class _FailureError(Exception):
    """Why there is no verdict yet; `again`: the next try may go better; `wait`: the seconds that the endpoint asks for."""

    def __init__(self, what: str, *, again: bool, wait: float | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what, self.again, self.wait, self.hint = what, again, wait, hint


class Endpoint:
    """An OpenAI-compatible endpoint (chat completions)."""

    def __init__(self, name: str, judge: JudgeBlock, secret: str | None) -> None:
        """`name` is the judge's in the config, `secret` the key itself; it is in no message of what is raised or printed.

        Raises `UserError` for a key that cannot be sent: the client's own message would show it.
        """
        secret = None if secret is None else secret.strip()
        if secret is not None and not re.fullmatch(r"[\x21-\x7e]+", secret):
            raise UserError(
                f"judge `{name}`: the key in environment variable `{judge.key}` is empty or has blanks or characters "
                "beyond ASCII, expected one that can be sent"
            )
        self._name, self._judge, self._secret = name, judge, secret
        self._seeded = True
        self._quiet_until = 0.0
        self._failure: UserError | None = None
        self._over = asyncio.Event()

    def verdicts(self, cases: Iterable[Case], keep: Callable[[Case, Said], None]) -> None:
        """Asks about every case, several at once, and calls `keep` with each verdict as soon as it is there.

        Raises `UserError` when the endpoint refuses a question, or has failed it once more than `retries` times; what is
        under way then is still kept.
        """
        asyncio.run(self._ask_all(cases, keep))
        if self._failure is not None:
            raise self._failure

    async def _ask_all(self, cases: Iterable[Case], keep: Callable[[Case, Said], None]) -> None:
        waiting = iter(cases)
        async with AsyncOpenAI(
            api_key=self._secret or NO_KEY,
            base_url=self._judge.url,
            max_retries=0,  # ours know more: bodies that are no verdict, all that is asked at once, when to stop
            timeout=self._judge.timeout,
        ) as client:
            await asyncio.gather(*(self._ask(client, waiting, keep) for _ in range(self._judge.concurrency)))

    async def _ask(self, client: AsyncOpenAI, waiting: Iterator[Case], keep: Callable[[Case, Said], None]) -> None:
        for case in waiting:
            said = await self._insisted(client, case)
            if said is None:
                return
            keep(case, said)

    async def _insisted(self, client: AsyncOpenAI, case: Case) -> Said | None:
        """The verdict after as many tries as it takes; None once anything has failed for good."""
        tries = 0
        while self._failure is None:
            tries += 1
            try:
                await self._rest(max(0.0, self._quiet_until - time.monotonic()))
                return await self._asked(client, case)
            except _FailureError as failure:
                if self._is_for_good(failure, tries):
                    times = f", {tries} times" if tries > 1 else ""
                    self._failure = self._failure or UserError(
                        f"judge `{self._name}`, {case.about}: `{self._judge.url}` {failure.what}{times}", failure.hint
                    )
                    self._over.set()
                    return None
                seconds = self._pause(failure, tries)
                again = f"asking again in {seconds:.1f} s ({tries} of {self._judge.retries})"
                print(f"judge, {case.about}: the endpoint {failure.what}; {again}", file=sys.stderr, flush=True)
                await self._rest(seconds)
        return None

    async def _rest(self, seconds: float) -> None:
        """Waits, unless there is nothing to wait for any more."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)

    def _is_for_good(self, failure: _FailureError, tries: int) -> bool:
        return not failure.again or tries > self._judge.retries or (failure.wait or 0) > PATIENCE

    def _pause(self, failure: _FailureError, tries: int) -> float:
        """Seconds until the next try; an endpoint that asks to be left alone is left alone by all questions."""
        usual = min(FIRST_WAIT * 2 ** (tries - 1), LONGEST_WAIT) * random.uniform(0.5, 1)
        if failure.wait is not None:
            self._quiet_until = max(self._quiet_until, time.monotonic() + failure.wait)
        return max(usual, failure.wait or 0)

    async def _asked(self, client: AsyncOpenAI, case: Case) -> Said:
        """One try."""
        seconds, seeded = self._judge.timeout, self._seeded
        question: dict[str, Any] = {
            "model": self._judge.model,
            "messages": list(case.messages),
            "temperature": 0,
            "max_tokens": case.max_tokens,
            **({"seed": SEED} if seeded else {}),
        }
        try:
            async with asyncio.timeout(seconds):  # the client's own limit begins anew with every byte
                response = await client.chat.completions.with_raw_response.create(**question)
        except (TimeoutError, openai.APITimeoutError):
            raise _FailureError(f"gave no answer within {seconds:g} s", again=True) from None
        except openai.APIStatusError as error:
            if seeded and error.status_code in (400, 422) and re.search(r"\bseed\b", error.response.text):
                self._seeded = False
            else:
                raise self._refused(error) from None
        except Exception as error:
            # of whichever network library: its messages may show what was sent, the key included
            cause = error.__cause__ or error
            what = f"could not be reached: {type(cause).__name__}: {self._shown(cause)}"
            raise _FailureError(what, again=True) from None
        else:
            return self._said(response.http_response.text, case)
        print("judge: the endpoint takes no seed; asking without", file=sys.stderr, flush=True)
        return await self._asked(client, case)

    def _said(self, body: str, case: Case) -> Said:
        """The verdict in an answer of the endpoint."""
        try:
            answer = json.loads(body)
            choice = answer["choices"][0]
            text = choice["message"].get("content") or choice["message"].get("refusal")
            ended, model = choice.get("finish_reason"), answer.get("model") or self._judge.model
            if not isinstance(text, str | None) or not isinstance(model, str):
                raise TypeError
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise _FailureError(
                f"answered with no chat completion: `{self._shown(body)}`",
                again=True,
                hint=f"key `judges.{self._name}.url` is the address before `/chat/completions`",
            ) from None
        if wrong := complaint(text, ended, case):
            # temperature 0: what was cut off or filtered would be so again
            again = ended not in (CUT_OFF, "content_filter")
            raise _FailureError(wrong, again=again, hint=help_with(ended, self._name))
        return Said(self._without_secret(str(text)), self._without_secret(model))

    def _refused(self, error: openai.APIStatusError) -> _FailureError:
        """What an answer with an error status means."""
        status, body = error.status_code, error.response.text
        code, message = _reported(body)
        what = f"answered {status}: `{self._shown(message)}`"
        wait = _wait_asked_for(error.response.headers)
        if wait is not None and wait > PATIENCE:
            what += f" and asks to wait for {wait:.0f} s"
        key = f"key `judges.{self._name}"
        hints = {
            401: f"environment variable `{self._judge.key}` holds the key that was sent"
            if self._judge.key
            else f"{key}.key` names the environment variable with the endpoint's key",
            404: f"{key}.url` is the address before `/chat/completions`, `model` a name that the endpoint knows",
        }
        again = status in SOON and code != "insufficient_quota"
        return _FailureError(what, again=again, wait=wait, hint=hints.get(status))

    def _shown(self, text: object) -> str:
        """As a message quotes it."""
        line = printable(self._without_secret(" ".join(str(text).split()) or "nothing"))
        return line if len(line) <= QUOTED else f"{line[:QUOTED]}..."

    def _without_secret(self, text: str) -> str:
        """Servers say the key back when they refuse it."""
        if not self._secret:
            return text
        plain = self._secret
        for form in (plain, base64.b64encode(plain.encode()).decode(), quote(plain, safe=""), json.dumps(plain)[1:-1]):
            text = text.replace(form, "<key>")
        return text


def _reported(body: str) -> tuple[str, str]:
    """Code and message of an error as endpoints report it, or the whole body."""
    try:
        error = json.loads(body)
        error = error.get("error", error)
        message = error if isinstance(error, str) else error.get("message") or error.get("detail") or body
        code = "" if isinstance(error, str) else error.get("code") or ""
    except (ValueError, AttributeError, RecursionError):
        return "", body
    return str(code), str(message)


def _wait_asked_for(headers: Any) -> float | None:
    """The seconds of a Retry-After header, which are a number or a date; None where there is none that can be read."""
    asked = headers.get("retry-after")
    if asked is None:
        return None
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
