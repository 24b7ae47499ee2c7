"""MathVerse, testmini: accuracy overall, and for each of the five versions of its problems,
including vision-only.

`accuracy` uses rules alone; `accuracy_judged` calls a judge for answers that the rules do not
accept. The published scorer calls a language model twice, to extract and to compare, with few-shot
prompts; this one calls it once, with our own prompt.
"""

from __future__ import annotations

import re

from perceptune.core.benchmarks.benchmark import Answered, Judged, given_but_wrong
from perceptune.core.benchmarks.by_group import Group, JudgedRule, accuracy_by_group, has
from perceptune.core.benchmarks.mathverse.data import VERSIONS

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
ACCEPTED = re.compile(r"\s*(?:Judge?ment\s*:\s*)?1(?!\d)", re.IGNORECASE)
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
    """The fields of the comparison prompt."""
    question = str(answered.source.get("question_for_eval", answered.question))
    return {"question": question, "answer": answered.target or "", "response": answered.text or ""}


def accepts(answered: Answered) -> bool:
    """Whether the judge replied 1, or `Judgement: 1` as the official prompt suggests."""
    return ACCEPTED.match(answered.verdict or "") is not None


BENCHMARK = accuracy_by_group(
    "mathverse",
    GROUPS,
    unit=lambda answered: str(answered.source["problem"]),  # one unit
    reads=("question_type", "question_for_eval", "problem", "problem_version"),
    judged=Judged.by_prompt(COMPARE, fields, max_tokens=8, asked=given_but_wrong, may_end_early=True),
    judged_by={"accuracy_judged": JudgedRule("accuracy (compared by a judge, our prompt)", accepts)},
)
