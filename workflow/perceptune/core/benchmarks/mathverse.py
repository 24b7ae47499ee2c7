"""MathVerse, testmini: overall, and for each of the five versions of its problems, vision-only among them.

`accuracy` is by rules alone; `accuracy_judged` asks a judge where the rules do not find an answer right. The published scorer
asks a language model twice, to extract and to compare, with few-shot prompts; ours asks once, with a prompt of our own.
"""

from __future__ import annotations

from collections.abc import Sequence

from perceptune.core.benchmarks.benchmark import (
    Answered,
    Benchmark,
    Group,
    Judged,
    filled,
    group_columns,
    group_metrics,
    has,
    judged_columns,
    judged_metric,
    right,
)
from perceptune.core.importers.mathverse import VERSIONS
from perceptune.core.rewards.metrics import Columns

GROUPS = {
    "accuracy": Group("accuracy (rules)"),
    "accuracy_multiple_choice": Group("accuracy (rules), multiple choice", has("question_type", "multi-choice")),
    **{
        f"accuracy_{version.lower().replace(' ', '_')}": Group(
            f"accuracy (rules), {version.lower()}", has("problem_version", version)
        )
        for version in VERSIONS
    },
}
COMPARE = """Here are a mathematical question, its standard answer, and a model's response. Decide whether the response's \
final answer is the \
standard answer.
It must match completely. For a question that is not multiple choice, another way of writing the same counts, such as 0.5m and \
50cm. A \
response without a final answer does not match.
Reply with 1 if it matches and with 0 if it does not, and with nothing else.

Question:
{question}

Standard answer:
{answer}

Response:
{response}"""


def fields(answered: Answered) -> dict[str, str]:
    """What the prompt of the comparison names."""
    question = str(answered.source.get("question_for_eval", answered.question))
    return {"question": question, "answer": answered.target or "", "response": answered.text or ""}


def messages(answered: Answered) -> list[dict[str, str]]:
    """The prompt of the comparison."""
    return [{"role": "user", "content": filled(COMPARE, fields(answered))}]


def asked(answered: Answered) -> bool:
    """Answers that the rules do not find right."""
    return answered.text is not None and not right(answered)


def accepts(answered: Answered) -> bool:
    """Whether the judge says 1."""
    return (answered.verdict or "").strip().startswith("1")


def columns(answers: Sequence[Answered]) -> Columns:
    """By problem, since its five versions belong together."""
    units = [str(a.source["problem"]) for a in answers]
    return {**group_columns(answers, GROUPS, units), **judged_columns(answers, units, asked, accepts)}


_METRICS = group_metrics(GROUPS)

BENCHMARK = Benchmark(
    name="mathverse",
    rewards={"open": "mathverse"},
    components={"open": ("accuracy",)},
    columns=columns,
    metrics={
        "accuracy": _METRICS.pop("accuracy"),
        "accuracy_judged": judged_metric("accuracy (compared by a judge, our prompt)"),
        **_METRICS,
    },
    settings={"prompt": "{question}", "max_tokens": 2048},
    reads={"open": ("question_type", "question_for_eval", "problem", "problem_version")},
    judged=Judged(messages, max_tokens=8, asked=asked, fields=fields, may_end_early=True),
)
