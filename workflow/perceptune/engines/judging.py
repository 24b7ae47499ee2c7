"""Judges behind an OpenAI-compatible endpoint: one verdict per case, or one clear error."""

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
from perceptune.core.answers.reasoning import Reasoning

FIRST_WAIT = 1.0
"""Seconds before the first retry; doubled each time, minus up to a half at random (jitter)."""
LONGEST_WAIT = 60.0
"""Longest wait between two attempts, in seconds, unless the endpoint asks for more."""
PATIENCE = 600.0
"""Longest wait that an endpoint may request, in seconds; above it the stage stops."""
SEED = 0
SOON = {408, 409, 425, 429, *range(500, 600)}
"""Status codes after which the same request may succeed."""
QUOTED = 300
"""Characters of a server message that are quoted."""
CUT_OFF = "length"
"""Finish reason of an answer that reached the token limit."""
ANY_MODEL = Reasoning()
"""How a model behind an endpoint writes its reasoning, unless the server takes it off."""
NO_KEY = "none"
"""Sent if no key is configured: otherwise the client would send OPENAI_API_KEY to any endpoint."""


@dataclass(frozen=True)
class Case:
    """One request to a judge."""

    key: str
    """Digest of everything that is sent."""
    about: str
    """Name in messages, such as `example 7`."""
    messages: Sequence[dict[str, str]]
    max_tokens: int
    may_end_early: bool = False
    """Whether a verdict that was cut off after `max_tokens` counts."""


@dataclass(frozen=True)
class Said:
    """One verdict."""

    text: str
    model: str
    """The model's name as reported by the endpoint."""


def complaint(text: str | None, ended: str | None, case: Case, reasoning: Reasoning = ANY_MODEL) -> str | None:
    """Why a judge's answer is not a verdict; None if it is one. `ended` is the finish reason."""
    if ended == CUT_OFF and not case.may_end_early:
        return f"cut its verdict off after {case.max_tokens} tokens"
    if ended == "content_filter":
        return "withheld its verdict by a content filter"
    verdict = reasoning.answer(text or "")
    if verdict is None:
        return "gave no verdict: its reasoning never ends"
    return None if verdict.strip() else "gave an empty verdict"


def help_with(ended: str | None, judge: str) -> str | None:
    """A hint for the user, or None."""
    return f"key `judges.{judge}.max_tokens` allows longer ones" if ended == CUT_OFF else None


class _FailureError(Exception):
    """Why there is no verdict yet.

    `again`: a retry may succeed. `wait`: seconds requested by the endpoint.
    """

    def __init__(self, what: str, *, again: bool, wait: float | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what, self.again, self.wait, self.hint = what, again, wait, hint


class Endpoint:
    """An OpenAI-compatible endpoint (chat completions)."""

    def __init__(self, name: str, judge: JudgeBlock, secret: str | None) -> None:
        """`name` is the judge's config name, `secret` the API key, which appears in no message.

        Raises `UserError` for a key that cannot be sent: the client's own message would show it.
        """
        secret = None if secret is None else secret.strip()
        if secret is not None and not re.fullmatch(r"[\x21-\x7e]+", secret):
            raise UserError(
                f"judge `{name}`: the key in environment variable `{judge.key}` is empty or contains whitespace or "
                "non-ASCII characters, expected printable ASCII"
            )
        self._name, self._judge, self._secret = name, judge, secret
        self._seeded = True
        self._quiet_until = 0.0
        self._failure: UserError | None = None
        self._over = asyncio.Event()

    def verdicts(self, cases: Iterable[Case], keep: Callable[[Case, Said], None]) -> None:
        """Sends all cases concurrently and calls `keep` with each verdict as soon as it arrives.

        Raises `UserError` when the endpoint rejects a request, or has failed it more than `retries`
        times; the verdicts of requests in flight are still kept.
        """
        asyncio.run(self._ask_all(cases, keep))
        if self._failure is not None:
            raise self._failure

    async def _ask_all(self, cases: Iterable[Case], keep: Callable[[Case, Said], None]) -> None:
        waiting = iter(cases)
        async with AsyncOpenAI(
            api_key=self._secret or NO_KEY,
            base_url=self._judge.url,
            # own retries: they also handle malformed bodies, and pause and stop all requests
            # together
            max_retries=0,
            timeout=self._judge.timeout,
        ) as client:
            await asyncio.gather(*(self._ask(client, waiting, keep) for _ in range(self._judge.concurrency)))

    async def _ask(self, client: AsyncOpenAI, waiting: Iterator[Case], keep: Callable[[Case, Said], None]) -> None:
        for case in waiting:
            said = await self._with_retries(client, case)
            if said is None:
                return
            keep(case, said)

    async def _with_retries(self, client: AsyncOpenAI, case: Case) -> Said | None:
        """The verdict, after as many attempts as needed; None once a request failed for good."""
        tries = 0
        while self._failure is None:
            tries += 1
            try:
                await self._rest(max(0.0, self._quiet_until - time.monotonic()))
                return await self._attempt(client, case)
            except _FailureError as failure:
                if self._is_for_good(failure, tries):
                    times = f", {tries} times" if tries > 1 else ""
                    self._failure = self._failure or UserError(
                        f"judge `{self._name}`, {case.about}: `{self._judge.url}` {failure.what}{times}", failure.hint
                    )
                    self._over.set()
                    return None
                seconds = self._pause(failure, tries)
                again = f"retrying in {seconds:.1f} s ({tries} of {self._judge.retries})"
                print(f"judge, {case.about}: the endpoint {failure.what}; {again}", file=sys.stderr, flush=True)
                await self._rest(seconds)
        return None

    async def _rest(self, seconds: float) -> None:
        """Waits, unless a request has failed for good."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)

    def _is_for_good(self, failure: _FailureError, tries: int) -> bool:
        return not failure.again or tries > self._judge.retries or (failure.wait or 0) > PATIENCE

    def _pause(self, failure: _FailureError, tries: int) -> float:
        """Seconds until the next attempt; a wait set by the endpoint applies to all requests."""
        usual = min(FIRST_WAIT * 2 ** (tries - 1), LONGEST_WAIT) * random.uniform(0.5, 1)
        if failure.wait is not None:
            self._quiet_until = max(self._quiet_until, time.monotonic() + failure.wait)
        return max(usual, failure.wait or 0)

    async def _attempt(self, client: AsyncOpenAI, case: Case) -> Said:
        """One attempt."""
        seconds, seeded = self._judge.timeout, self._seeded
        question: dict[str, Any] = {
            "model": self._judge.model,
            "messages": list(case.messages),
            "temperature": 0,
            "max_tokens": case.max_tokens,
            **({"seed": SEED} if seeded else {}),
        }
        try:
            # the client's own timeout restarts with every byte
            async with asyncio.timeout(seconds):
                response = await client.chat.completions.with_raw_response.create(**question)
        except (TimeoutError, openai.APITimeoutError):
            raise _FailureError(f"gave no answer within {seconds:g} s", again=True) from None
        except openai.APIStatusError as error:
            if seeded and error.status_code in (400, 422) and re.search(r"\bseed\b", error.response.text):
                self._seeded = False
            else:
                raise self._refused(error) from None
        except Exception as error:
            # any network library: its message may show what was sent, including the key
            cause = error.__cause__ or error
            what = f"could not be reached: {type(cause).__name__}: {self._shown(cause)}"
            raise _FailureError(what, again=True) from None
        else:
            return self._verdict(response.http_response.text, case)
        print("judge: the endpoint does not support `seed`; retrying without it", file=sys.stderr, flush=True)
        return await self._attempt(client, case)

    def _verdict(self, body: str, case: Case) -> Said:
        """The verdict in a response of the endpoint."""
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
            # temperature 0: a cut-off or filtered answer would be so again
            again = ended not in (CUT_OFF, "content_filter")
            raise _FailureError(wrong, again=again, hint=help_with(ended, self._name))
        return Said(self._without_secret(str(text)), self._without_secret(model))

    def _refused(self, error: openai.APIStatusError) -> _FailureError:
        """The failure that a response with an error status stands for."""
        status, body = error.status_code, error.response.text
        code, message = _reported(body)
        what = f"answered {status}: `{self._shown(message)}`"
        wait = _retry_after(error.response.headers)
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
        """`text` as quoted in a message."""
        line = printable(self._without_secret(" ".join(str(text).split()) or "nothing"))
        return line if len(line) <= QUOTED else f"{line[:QUOTED]}..."

    def _without_secret(self, text: str) -> str:
        """Removes the key: servers repeat it when they reject it."""
        if not self._secret:
            return text
        plain = self._secret
        for form in (plain, base64.b64encode(plain.encode()).decode(), quote(plain, safe=""), json.dumps(plain)[1:-1]):
            text = text.replace(form, "<key>")
        return text


def _reported(body: str) -> tuple[str, str]:
    """Code and message of an error response; ("", body) if it has none."""
    try:
        error = json.loads(body)
        error = error.get("error", error)
        message = error if isinstance(error, str) else error.get("message") or error.get("detail") or body
        code = "" if isinstance(error, str) else error.get("code") or ""
    except (ValueError, AttributeError, RecursionError):
        return "", body
    return str(code), str(message)


def _retry_after(headers: Any) -> float | None:
    """Seconds of a Retry-After header (a number or a date); None if absent or unreadable."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
