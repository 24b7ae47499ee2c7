"""Mathematical equivalence of two answers, by rules that may hang and so run in worker processes.

sympy spends hours on an answer such as `9**9**9**9`, in C code that no exception interrupts: only
killing its process helps. MathRuler, math-verify and sympy are imported only in these processes.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import re
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
"""Time limit in seconds for one rule on one pair."""
WORKERS = 2
"""Concurrent processes: the number of threads of the Snakemake rule that scores responses."""
MEMORY = 2**30
"""Bytes that a process may allocate after its start, so that a tower of powers fails there and does
not exhaust the job's memory."""
GRACE = 5.0
"""Seconds after the limit until a process ends itself, in case its parent was killed."""

Pair = tuple[str, str]
"""Answer and target."""
Rule = Callable[[str, str], bool | None]
"""Takes answer and target; returns None if undecided. A module-level function, since it is pickled;
tables show its name."""


@dataclass(frozen=True)
class Verdict:
    """The result of the rules for one pair."""

    right: bool
    """Whether a rule found the pair equivalent."""
    rule: str | None
    """Name of the rule that decided; None if all were undecided."""
    reason: str | None = None
    """Why no rule decided: one was stopped or failed, or all were undecided."""


@dataclass(frozen=True)
class _Opinion:
    same: bool | None
    failure: str | None = None


def verdicts(
    pairs: Sequence[Pair], rules: Sequence[Rule], *, limit: float = LIMIT, workers: int = WORKERS
) -> list[Verdict]:
    """One verdict per pair, in order.

    Each distinct pair is compared once, and each rule sees only pairs that no earlier rule
    accepted. The first rule that accepts decides; otherwise the last that rejects. A rule's result
    for a pair depends neither on the other pairs nor on `workers`, except that a rule that needs
    about `limit` seconds may time out on a busy machine. Raises errors of the processes themselves,
    such as a missing package.
    """
    opinions: dict[Pair, list[tuple[str, _Opinion]]] = {pair: [] for pair in pairs}
    if not opinions:
        return []
    from pebble import ProcessPool  # here, since the Snakefile also loads rewards

    # Not forked: a fork would copy the locks of the parent's threads (polars). Spawned processes
    # import the main file again.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPool(
        max_workers=min(workers, len(opinions)), initializer=_prepare, initargs=(tuple(rules),), context=spawn
    )
    try:
        for rule in rules:
            undecided = [p for p, found in opinions.items() if not any(opinion.same for _, opinion in found)]
            futures = [pool.schedule(_opinion, args=(rule, *p, limit), timeout=limit) for p in undecided]
            for pair, future in zip(undecided, futures, strict=True):
                opinions[pair].append((rule.__name__, _result(future, rule.__name__, limit)))
    finally:
        pool.stop()
        pool.join()
    verdict = {pair: _verdict(found) for pair, found in opinions.items()}
    return [verdict[pair] for pair in pairs]


def _verdict(found: Iterable[tuple[str, _Opinion]]) -> Verdict:
    rule, reason = None, "no rule could compare the answer with the ground truth"
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
    """Warm up a process before the time limit applies: imports take longer than most pairs."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # pebble's handler waits for the C code to return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    warnings.simplefilter("ignore")  # Python warns about the source code that sympy builds from answers
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that its own limits are off
    for rule in rules:
        with suppress(Exception):  # the first pair raises a missing package again, and the parent sees it
            rule("1", "2")
    import psutil

    most = psutil.Process().memory_info().vms + MEMORY
    with suppress(ValueError, OSError):  # not supported on every system
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _opinion(rule: Rule, answer: str, target: str, limit: float) -> _Opinion:
    signal.setitimer(signal.ITIMER_REAL, limit + GRACE)
    try:
        return _Opinion(rule(answer, target))
    except ImportError:
        raise
    except Exception as error:  # third-party parsers of arbitrary text raise anything
        return _Opinion(None, f"`{rule.__name__}` failed ({type(error).__name__})")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def mathruler(answer: str, target: str) -> bool:
    """MathRuler's `grade_answer`: equal if normalised, or a difference that sympy finds 0.

    No numeric tolerance and no unreduced fractions; an integer equals only an integer.
    """
    from mathruler.grader import grade_answer

    return bool(grade_answer(answer, target))


def math_verify(answer: str, target: str) -> bool | None:
    """math-verify's `verify` on LaTeX, decimals rounded to 6 places; None if unparsable.

    Only LaTeX: by default, math-verify also extracts the last number anywhere, so that `9**9`
    equals 9 and a list of guesses, one per line, equals its last one. It still compares `2,1` with
    `1,2` as sets and takes the right-hand side of `1=5`.
    """
    from math_verify import LatexExtractionConfig, parse, verify

    latex = [LatexExtractionConfig(boxed_match_priority=0)]
    parsed = [parse(f"\\boxed{{{text}}}", latex, parsing_timeout=None) for text in (target, answer)]
    if any(all(isinstance(value, str) for value in values) for values in parsed):
        return None
    return bool(verify(*parsed, timeout_seconds=None))


BRACKETS = re.compile(r"[()\[\]{}]")
DROPPED = re.compile(r"\\(?:displaystyle|q?quad(?![a-z])|,)|[$~]")
"""LaTeX that latex2sympy2 1.9 drops before it parses."""
NUMERIC = re.compile(r"[0-9]|\\pi(?![a-z])")
VARIABLE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]|\\(?:circ|degree)\b")
"""A letter that is not part of a command, or degrees, which latex2sympy2 1.9 takes for a variable."""


def same_rounded_latex(answer: str, target: str) -> bool | None:
    """Whether two LaTeX expressions have the same value, rounded to two decimals, or are tuples of
    such values; None if either has no value.

    Follows `is_equal` of MATH-Vision's script, which evaluates what latex2sympy2 1.9 makes of them;
    this function uses its successor, the parser of math-verify, without normalisation. As there,
    variables and degrees have no value, and parsing stops at an unpaired closing bracket.
    """
    values = [_rounded(text) for text in (answer, target)]
    return None if None in values else values[0] == values[1]


def may_have_value(latex: str) -> bool:
    """False if `same_rounded_latex` finds no value in an expression: it has a variable, or neither a
    digit nor pi. Needs no processes.
    """
    text = _expression(latex)
    return NUMERIC.search(text) is not None and (_is_tuple(text) or VARIABLE.search(text) is None)


def _rounded(text: str) -> str | float | None:
    if not _is_tuple(text):
        return _value(text)
    parts = text[1:-1].split(",")
    found = [part if "infty" in part or part in ("a", "-a") else _value(part) for part in parts]
    return None if None in found else f"{text[0]}{','.join(map(str, found))}{text[-1]}"


def _is_tuple(text: str) -> bool:
    return text[:1] + text[-1:] in ("()", "[]") and "," in text


def _value(latex: str) -> float | None:
    """The value rounded to two decimals, an int for whole numbers; None for anything else."""
    from latex2sympy2_extended import latex2sympy

    text = _expression(latex)
    if VARIABLE.search(text):
        return None
    found = latex2sympy(text, normalization_config=None)
    if getattr(found, "is_Integer", False):
        return int(found)
    value = float(found)  # raises TypeError for anything but a real number
    return round(value, 2) if math.isfinite(value) else None


def _expression(latex: str) -> str:
    """The text up to the first unpaired closing bracket, without commands for layout."""
    text = DROPPED.sub(" ", latex).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    depth = 0
    for bracket in BRACKETS.finditer(text):
        depth += 1 if bracket[0] in "([{" else -1
        if depth < 0:
            return text[: bracket.start()]
    return text
