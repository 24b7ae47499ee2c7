"""Whether two answers are mathematically the same, by rules that may hang, in processes that are then stopped.

sympy spends hours on an answer such as `9**9**9**9`, in C code that no exception interrupts: only the end of its process does.
MathRuler, math-verify and sympy are imported in these processes alone.
"""

from __future__ import annotations

import logging
import multiprocessing
import resource
import signal
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import TimeoutError as OutOfTime
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pebble import ProcessFuture

LIMIT = 5.0
"""Seconds for one rule and one pair."""
WORKERS = 2
"""Processes at once: the threads of the rule that scores responses."""
MEMORY = 2**30
"""Bytes that a process may add to what it has at its start: towers of powers end here, not in the memory of the job."""
GRACE = 5.0
"""Seconds after the limit until a process ends itself, for when its parent was killed and does not end it."""

Pair = tuple[str, str]
"""Answer and target."""
Rule = Callable[[str, str], bool | None]
"""Takes answer and target; None: it cannot tell. A function of a module, named as in tables: it is called in a process."""


@dataclass(frozen=True)
class Verdict:
    """What the rules say about one pair."""

    right: bool
    """Whether a rule says that they are the same."""
    rule: str | None
    """Name of the rule that decided; None where none could tell."""
    reason: str | None = None
    """Why the last word is missing: a rule was stopped, has failed, or none could tell."""


@dataclass(frozen=True)
class _Opinion:
    same: bool | None
    failure: str | None = None


def verdicts(
    pairs: Sequence[Pair], rules: Sequence[Rule], *, limit: float = LIMIT, workers: int = WORKERS
) -> list[Verdict]:
    """One verdict per pair, in order. Each distinct pair is asked once, and a rule only about pairs that no earlier one accepts.

    The first rule that says yes decides; otherwise the last that says no. What a rule says of a pair depends on neither the
    other pairs nor on `workers`, except that a rule needing about `limit` seconds may or may not make it on a busy machine.
    Raises what breaks the processes themselves, such as a package that is missing.
    """
    opinions: dict[Pair, list[tuple[str, _Opinion]]] = {pair: [] for pair in pairs}
    if not opinions:
        return []
    from pebble import ProcessPool  # here, since the Snakefile loads rewards, too

    # Not forked: the parent runs threads (polars), whose locks a fork would copy. The main file is imported again.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPool(
        max_workers=min(workers, len(opinions)), initializer=_prepare, initargs=(tuple(rules),), context=spawn
    )
    try:
        for rule in rules:
            undecided = [p for p, found in opinions.items() if not any(opinion.same for _, opinion in found)]
            asked = [pool.schedule(_opinion, args=(rule, *p, limit), timeout=limit) for p in undecided]
            for pair, future in zip(undecided, asked, strict=True):
                opinions[pair].append((rule.__name__, _result(future, rule.__name__, limit)))
    finally:
        pool.stop()
        pool.join()
    verdict = {pair: _verdict(found) for pair, found in opinions.items()}
    return [verdict[pair] for pair in pairs]


def _verdict(found: Iterable[tuple[str, _Opinion]]) -> Verdict:
    rule, reason = None, "no rule could compare the answer with the truth"
    for name, opinion in found:
        if opinion.same is not None:
            rule, reason = name, ""
        elif opinion.failure:
            reason = opinion.failure
        if opinion.same:
            return Verdict(True, name)
    return Verdict(False, rule, reason or None)


def _result(future: ProcessFuture[_Opinion], rule: str, limit: float) -> _Opinion:
    from pebble import ProcessExpired

    try:
        return future.result()
    except OutOfTime:
        return _Opinion(None, f"`{rule}` was stopped after {limit:g} s")
    except ProcessExpired as error:
        return _Opinion(None, f"`{rule}` crashed (exit code {error.exitcode})")


def _prepare(rules: Iterable[Rule]) -> None:
    """Runs at the start of every process, outside the limit: imports take longer than most pairs."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # pebble's handler waits for the C code to return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    warnings.simplefilter("ignore")  # of Python, about the source code that sympy makes of answers
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that its own limits are off
    for rule in rules:
        with suppress(Exception):  # a missing package is raised by the first pair, where the parent sees it
            rule("1", "2")
    import psutil

    most = psutil.Process().memory_info().vms + MEMORY
    with suppress(ValueError, OSError):  # not on every system
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _opinion(rule: Rule, answer: str, target: str, limit: float) -> _Opinion:
    signal.setitimer(signal.ITIMER_REAL, limit + GRACE)
    try:
        return _Opinion(rule(answer, target))
    except ImportError:
        raise
    except Exception as error:  # rules are other people's parsers of arbitrary text
        return _Opinion(None, f"`{rule.__name__}` failed ({type(error).__name__})")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def mathruler(answer: str, target: str) -> bool:
    """MathRuler's `grade_answer`: equal after its normalisation, or with a difference that sympy simplifies to 0.

    No numeric tolerance, no unreduced fractions, and an integer only equals an integer.
    """
    from mathruler.grader import grade_answer

    return bool(grade_answer(answer, target))


def math_verify(answer: str, target: str) -> bool | None:
    """math-verify's `verify` on both as LaTeX, rounding decimals to 6 places; None where it cannot parse one of them.

    Only LaTeX: its default also looks for the last number anywhere, so that `9**9` equals 9 and a list of guesses, one per
    line, its last one. It still compares `2,1` with `1,2` as sets and of `1=5` takes the right-hand side.
    """
    from math_verify import LatexExtractionConfig, parse, verify

    latex = [LatexExtractionConfig(boxed_match_priority=0)]
    parsed = [parse(f"\\boxed{{{text}}}", latex, parsing_timeout=None) for text in (target, answer)]
    if any(all(isinstance(value, str) for value in values) for values in parsed):
        return None
    return bool(verify(*parsed, timeout_seconds=None))
