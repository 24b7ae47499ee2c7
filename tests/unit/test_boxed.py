r"""Answers in \boxed{}, and rules that hang, crash, fail or are killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perceptune.core.answers.boxed_answers import has_format, last_box, without_blanks
from perceptune.core.answers.math_equivalence import Verdict, math_verify, mathruler, verdicts
from perceptune.core.rewards.reward import Answers, Scores
from perceptune.stages.evaluation.metric_rows import per_answer

from tests.plugins import REWARD_METRICS, REWARDS

REWARDED = ("boxed_exact", "boxed_math")
TOWER = "9**9**9**9"
"""Hangs MathRuler: sympy's integer power. As LaTeX, `9^{9^{9^9}}`, it hangs math-verify."""

EQUAL = {  # answer, target: correct by boxed_exact, by boxed_math, and the rule that decides in the latter
    ("3.14", "3.14"): (1, 1, "mathruler"),
    ("3.14", "3.142"): (0, 0, "math_verify"),
    ("4/2", "2"): (0, 1, "math_verify"),
    (r"\frac{4}{2}", "2"): (0, 1, "math_verify"),
    ("2/4", "1/2"): (0, 1, "math_verify"),
    (r"\frac{2}{4}", r"\frac{1}{2}"): (0, 1, "math_verify"),
    ("1/2", r"\frac{1}{2}"): (1, 1, "mathruler"),
    (r"\dfrac12", r"\frac{1}{2}"): (1, 1, "mathruler"),
    ("1/3", "1/2"): (0, 0, "math_verify"),
    ("0.333333", "1/3"): (0, 1, "math_verify"),
    ("1,000", "1000"): (1, 1, "mathruler"),
    ("12 cm", "12"): (1, 1, "mathruler"),
    (r"12\text{ meters}", "12"): (1, 1, "mathruler"),
    (r"30^\circ", "30"): (1, 1, "mathruler"),
    (r"50\%", "50"): (1, 1, "mathruler"),
    (r"\$5", "5"): (1, 1, "mathruler"),
    (r"2\sqrt{2}", r"\sqrt{8}"): (1, 1, "mathruler"),
    ("x^{2}+2x+1", "(x+1)^{2}"): (1, 1, "mathruler"),  # it drops braces before it searches for `^{`
    ("x^(2)", "x*x"): (0, 1, "math_verify"),
    ("2a+b+c", "a+a+b+c"): (0, 1, "math_verify"),
    ("(1, 2)", "(1,2)"): (1, 1, "mathruler"),
    ("Triangle", "triangle"): (1, 1, "mathruler"),
    ("square", "triangle"): (0, 0, "mathruler"),  # math-verify cannot parse a triangle
    ("A", "A"): (1, 1, "letter"),
    ("B", "A"): (0, 0, "letter"),
    ("a", "A"): (1, 1, "letter"),
    ("A. 12", "A"): (0, 1, "letter"),
    ("(A) 12", "A"): (0, 1, "letter"),
    ("A: B", "A"): (0, 1, "letter"),
    (r"\text{A}", "A"): (1, 1, "letter"),
    (r"\mathbf{(A)}\ 12", "A"): (0, 1, "letter"),
    (r"\textbf{(A)}\ 12", "A"): (0, 1, "letter"),
    ("B. 12", "A"): (0, 0, "letter"),
    ("12", "A"): (0, 0, "math_verify"),
    ("Apple", "A"): (0, 0, "math_verify"),
    ("12", r"\boxed{12}"): (1, 1, "mathruler"),
    ("None", "None"): (1, 1, "mathruler"),
    ("1\n2\n3", "3"): (0, 0, "math_verify"),
    ("1, 2, 3", "3"): (0, 0, "math_verify"),
    ("9**9", "9"): (0, 0, "mathruler"),
    ("the answer is 5", "5"): (0, 0, "math_verify"),
    ("90°", "90"): (0, 1, "mathruler"),
    (r"90^{\circ}", "90°"): (0, 1, "mathruler"),
    ("√2", r"\sqrt{2}"): (0, 1, "mathruler"),
    ("x²", "x^2"): (0, 1, "mathruler"),
    ("2√3 cm", r"\sqrt{12}"): (0, 1, "mathruler"),
    ("½", "1/2"): (0, 1, "mathruler"),
    ("50 cm²", "50"): (0, 1, "mathruler"),
    ("50 cm²", r"50\text{ cm}^2"): (0, 1, "mathruler"),
    ("5cm", "5m"): (0, 0, "unit"),
    (r"5\text{ cm}", r"5\text{ m}"): (1, 0, "unit"),
    ("5 km", "5 mm"): (0, 0, "unit"),
    ("50 mm", "5 cm"): (0, 0, "unit"),
    ("10 m/s", "10 m"): (0, 0, "unit"),
    ("5 hours", "5 minutes"): (1, 0, "unit"),
    (r"37^\circ C", r"37^\circ F"): (0, 0, "unit"),
    (r"\$5", r"5\%"): (1, 0, "unit"),
    (r"\$5", "5 dollars"): (0, 1, "mathruler"),
    (r"5\%", "0.05"): (0, 1, "math_verify"),
    ("3m", "5m"): (0, 0, "math_verify"),
    ("3a", "3b"): (0, 0, "math_verify"),
    ("1 2", "12"): (1, 0, "math_verify"),
    ("12 000", "12000"): (1, 1, "mathruler"),
    ("7 3/4", "31/4"): (1, 1, "mathruler"),
}


def scored(reward: str, texts: list[str], targets: list[str | None]) -> Scores:
    nowhere = np.full((len(texts), 4), np.nan)
    return REWARDS[reward](Answers(texts, targets, nowhere, np.ones((len(texts), 2)), "original"))


def response(answer: str) -> str:
    return f"<think>hm</think> \\boxed{{{answer}}}"


@pytest.fixture(scope="module", params=REWARDED)
def table(request: pytest.FixtureRequest) -> tuple[str, Scores]:
    """All pairs at once: starting processes takes longer than comparing."""
    return request.param, scored(request.param, [response(a) for a, _ in EQUAL], [t for _, t in EQUAL])


@pytest.mark.parametrize("row", range(len(EQUAL)), ids=[f"{a!r}, {t!r}" for a, t in EQUAL])
def test_what_counts_as_equal(table: tuple[str, Scores], row: int) -> None:
    (answer, _), (exact, equivalent, rule) = list(EQUAL.items())[row]
    reward, scores = table
    right = exact if reward == "boxed_exact" else equivalent
    assert scores.components["accuracy"][row] == right
    assert scores.rewards[row] == pytest.approx(0.9 * right + 0.1)
    assert scores.parsed[row] == {"answer": answer, "rule": "mathruler" if reward == "boxed_exact" else rule}
    assert scores.reasons[row] is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{ 3 } and {more}", "3"),
        (r"\boxed{\boxed{4}}", "4"),
        (r"\boxed{}", ""),
        (r"\boxed{None}", "None"),
        (r"\boxed{\frac{1}{2}", None),
        (r"\boxed{1} then \boxed{2", None),  # the last one counts, closed or not
        (r"\boxed 5", None),
        (r"boxed{5}", None),
        ("5", None),
        ("", None),
    ],
)
def test_the_last_balanced_box(text: str, expected: str | None) -> None:
    assert last_box(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"<think>a</think>\boxed{1}", True),
        ("<think>\na\n</think>\n so \\boxed{1}.\n", True),
        (r"<think></think>\boxed{}", True),
        (r"<think>a</think>\boxed{\frac{1}{2}", True),  # the expression requires some closing brace
        (r"so <think>a</think>\boxed{1}", False),
        (r" <think>a</think>\boxed{1}", True),  # whitespace around `<` is removed first
        (r"<think>a \boxed{1}</think>", False),
        (r"<think>a \boxed{1}</think> \boxed{2", False),
        (r"<think>a\boxed{1}", False),
        (r"a</think>\boxed{1}", False),
        (r"<Think>a</Think>\boxed{1}", False),
        (r"\boxed{1}", False),
    ],
)
def test_the_format(text: str, expected: bool) -> None:
    assert has_format(without_blanks(text)) == expected


@given(st.lists(st.sampled_from(["<think>", "</think>", "\\boxed{", "}", "a", " ", "\n", "<", "/"]), max_size=12))
def test_format_and_blanks_are_those_of_the_regular_expressions(parts: list[str]) -> None:
    text = "".join(parts)
    normal = re.sub(r"\s*(<|>|/)\s*", r"\1", text)
    assert without_blanks(text) == normal
    assert has_format(normal) == bool(re.fullmatch(r"<think>.*</think>.*\\boxed\{.*\}.*", normal, re.DOTALL))


def test_blanks_around_slashes_do_not_count() -> None:
    assert without_blanks("< think >1 / 2 </ think >") == "<think>1/2</think>"
    scores = scored("boxed_exact", ["<think> a < / think > \\boxed{1 / 2}"], ["1/2"])
    assert scores.rewards.tolist() == [1.0]
    assert scores.parsed == [{"answer": "1/2", "rule": "mathruler"}]


@pytest.mark.parametrize("reward", REWARDED)
def test_without_a_box_there_is_no_answer(reward: str) -> None:
    texts = ["5", "<think>a</think> None", r"<think>a</think> \boxed{\frac{1}{2}", r"<think>a</think> \boxed{ }"]
    scores = scored(reward, texts, ["5", "None", "1/2", ""])
    assert scores.components["accuracy"].tolist() == [0, 0, 0, 0]
    assert scores.rewards.tolist() == pytest.approx([0, 0, 0.1, 0.1])
    assert scores.parsed_json().to_list() == [None] * 4
    assert scores.reasons == [*[r"no closed \boxed{}"] * 3, r"the \boxed{} is empty"]


@pytest.mark.parametrize("reward", REWARDED)
def test_without_a_truth_nothing_is_right(reward: str) -> None:
    scores = scored(reward, [response("5")] * 2, [None, " "])
    assert scores.rewards.tolist() == pytest.approx([0.1, 0.1])
    assert scores.reasons == ["there is no ground truth to compare with"] * 2


@pytest.mark.parametrize("reward", REWARDED)
def test_no_answers_no_rewards(reward: str) -> None:
    scores = scored(reward, [], [])
    assert scores.rewards.shape == scores.components["accuracy"].shape == (0,)


@pytest.mark.parametrize("reward", REWARDED)
def test_order_and_company_change_no_reward(reward: str) -> None:
    answers, targets = ["4/2", "3", "A. 1", "2x", "4/2", "none"], ["2", "3", "A", "x+x", "3", "2"]
    together = scored(reward, [response(a) for a in answers], targets)
    order = np.random.default_rng(0).permutation(len(answers))
    shuffled = scored(reward, [response(answers[i]) for i in order], [targets[i] for i in order])
    assert shuffled.rewards.tolist() == together.rewards[order].tolist()
    assert list(shuffled.parsed_json()) == [together.parsed_json().to_list()[i] for i in order]


WEIRD = {
    "NUL": "a\x00b",
    "controls": "".join(map(chr, range(1, 32))),
    "half a character": "\ud800",
    "emoji": "👩‍👩‍👧‍👦" * 20,
    "right to left": "\u202e5\u2066",
    "other digits": "٥",
    "full-width": "５",
    "code": "__import__('os').getpid()",
    "comment": "5 % 6 \\\\",
    "dollars": "$$5$ $",
    "unknown command": r"\foo{\bar}[",
    "no operand": r"\frac{}{}",
    "division by zero": "1/0",
    "parentheses": "(" * 300 + "1" + ")" * 300,
    "long number": "9" * 5000,
    "infinite": "1e999",
    "not a number": "nan",
}


@pytest.mark.parametrize("reward", REWARDED)
def test_weird_answers_are_wrong_and_harm_no_other(reward: str) -> None:
    texts = [response(answer) for answer in (*WEIRD.values(), "1,000")]
    scores = scored(reward, texts, ["1000"] * len(texts))
    assert scores.components["accuracy"].tolist() == [0] * len(WEIRD) + [1]
    assert all(isinstance(json.loads(text or ""), dict) for text in scores.parsed_json())


@pytest.mark.parametrize(
    "text",
    [
        "x" * 10**6,
        " " * 10**6,
        "<think>" + "</think>" * 10**5,
        r"<think></think>\boxed{" * 40_000,
        "<think></think>" + "\\boxed{" + "{" * 10**6,
        " <" * 500_000,
        response("1" * 10**6),
    ],
    ids=["text", "blanks", "thoughts", "boxes", "braces", "brackets", "number"],
)
@pytest.mark.timeout(60)  # quadratic parsing takes minutes
def test_a_million_characters_are_read_at_once(text: str) -> None:
    last_box(without_blanks(text)), has_format(without_blanks(text))


def sleeps(answer: str, target: str) -> bool:
    if answer == "sleep":
        time.sleep(1000)
    if answer == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if answer == "fill":
        return len(bytearray(3 << 30)) > 0
    if answer == "raise":
        raise RecursionError
    return answer == target


def cannot_tell(answer: str, target: str) -> None:
    return None


def lacks_a_package(answer: str, target: str) -> bool:
    raise ModuleNotFoundError("No module named `verifier`")


@pytest.mark.timeout(600)  # `sleeps` sleeps for longer
@pytest.mark.parametrize("workers", [1, 2])
def test_rules_that_hang_crash_or_fail_do_not_touch_the_others(workers: int) -> None:
    pairs = [
        ("a", "a"),
        ("sleep", "b"),
        ("die", "b"),
        ("b", "b"),
        ("fill", "b"),
        ("raise", "b"),
        ("sleep", "c"),
        ("c", "d"),
    ]
    found = verdicts(pairs, [sleeps], limit=3, workers=workers)
    assert [v.right for v in found] == [True, False, False, True, False, False, False, False]
    assert [v.rule for v in found] == ["sleeps", None, None, "sleeps", None, None, None, "sleeps"]
    assert [v.reason for v in found] == [
        None,
        "`sleeps` was stopped after 3 s",
        "`sleeps` crashed (exit code -9)",
        None,
        "`sleeps` failed (MemoryError)",
        "`sleeps` failed (RecursionError)",
        "`sleeps` was stopped after 3 s",
        None,
    ]


def test_towers_of_powers_are_stopped_and_the_next_are_right() -> None:
    """Both hang in C code, which no signal handler interrupts."""
    pairs = [(TOWER, "x+2"), ("1,000", "1000"), ("9^{9^{9^9}}", "x+2"), ("4/2", "2")]
    found = verdicts(pairs, [mathruler, math_verify], limit=2)
    assert found[0] == Verdict(False, None, "`mathruler` was stopped after 2 s")
    assert found[1] == Verdict(True, "mathruler")
    assert found[2] == Verdict(False, "mathruler", "`math_verify` was stopped after 2 s")
    assert found[3] == Verdict(True, "math_verify")


def test_the_last_opinion_counts() -> None:
    assert verdicts([("a", "a"), ("a", "b")], [cannot_tell, sleeps]) == [
        Verdict(True, "sleeps"),
        Verdict(False, "sleeps"),
    ]
    assert verdicts([("a", "b")], [sleeps, cannot_tell]) == [Verdict(False, "sleeps")]
    assert verdicts([("a", "b")], [cannot_tell]) == [
        Verdict(False, None, "no rule could compare the answer with the ground truth")
    ]
    assert verdicts([("raise", "b")], [sleeps, cannot_tell]) == [
        Verdict(False, None, "`sleeps` failed (RecursionError)")
    ]


def test_a_missing_package_is_not_a_wrong_answer() -> None:
    with pytest.raises(ImportError, match="No module named `verifier`"):
        verdicts([("a", "b")], [lacks_a_package])


@pytest.mark.timeout(300)  # 1,500 distinct pairs take about 5 s on two idle cores, all pairs minutes
def test_thousands_of_answers_with_few_distinct_pairs() -> None:
    scores = scored(
        "boxed_math", [response(str(i % 1500)) for i in range(6000)], [str(i % 1500 + 1) for i in range(6000)]
    )
    assert not scores.components["accuracy"].any()


KILLED = """
import pathlib, time
from perceptune.core.answers.math_equivalence import verdicts

def sleeps(answer, target):
    pathlib.Path(answer).touch()
    time.sleep(1000 if answer == "sleep" else 0)

if __name__ == "__main__":
    verdicts([("sleep", ""), ("idle", "")], [sleeps], limit=3)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_their_parent(tmp_path: Path, how: signal.Signals) -> None:
    """A hanging process ends itself some seconds after its limit, an idle one immediately."""
    (tmp_path / "main.py").write_text(KILLED)
    with subprocess.Popen([sys.executable, "main.py"], cwd=tmp_path) as parent:
        while not all((tmp_path / name).exists() for name in ("sleep", "idle")):
            time.sleep(0.05)
        children = psutil.Process(parent.pid).children(recursive=True)
        parent.send_signal(how)
        parent.wait()
    assert len(children) >= 2
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_loading_rewards_imports_nothing_heavy() -> None:
    """The Snakefile loads the rewards that the config names each time it is parsed."""
    heavy = ("sympy", "mathruler", "math_verify", "pebble", "rapidfuzz", "nltk", "spacy", "polars", "pyarrow", "torch")
    code = (
        "import sys\nfrom perceptune.contracts.plugins import load, names\n"
        "for name in names('reward'): load('reward', name)\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("reward", REWARDED)
def test_metrics_are_means(reward: str) -> None:
    columns = {"accuracy": np.array([1.0, 0, 0, 1]), "format": np.array([1.0, 1, 0, 1])}
    assert {name: float(metric(columns)) for name, metric in REWARD_METRICS[reward].items()} == {
        "accuracy": 0.5,
        "format": 0.75,
    }
    assert list(per_answer(reward)) == ["accuracy"]
