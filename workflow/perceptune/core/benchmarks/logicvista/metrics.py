"""LogicVista: accuracy overall, and by the skill that a question requires.

`accuracy` uses rules alone: the set of capital letters in the final answer. `accuracy_judged`
extracts the letters of every answer with a judge, as the published scorer does. Our prompt keeps
its output format: the letters alone, or Z.
"""

from __future__ import annotations

from perceptune.core.answers.extraction import BLANKED, letter_set
from perceptune.core.benchmarks.benchmark import Answered, Judged, given, question_and_response
from perceptune.core.benchmarks.by_group import Group, JudgedRule, accuracy_by_group, has
from perceptune.core.benchmarks.logicvista.data import SKILLS

GROUPS = {
    "accuracy": Group("accuracy (rules)"),
    **{f"accuracy_{skill}": Group(f"accuracy (rules), {skill}", has("skills", skill)) for skill in SKILLS},
}
EXTRACT = """Here are a multiple-choice question about an image and an answer to it. Which option or options does the answer choose?
Reply with nothing but their labels (letters or numbers), without blanks between them. If it names none, infer the option from \
the choices in \
the question. Reply with Z if it fits none.

Question:
{question}

Answer:
{response}"""


def accepts(answered: Answered) -> bool:
    """Whether the letters found by the judge are those of the ground truth, ignoring punctuation."""
    found = letter_set((answered.verdict or "").translate(BLANKED))
    return found is not None and found == letter_set(answered.target or "")


BENCHMARK = accuracy_by_group(
    "logicvista",
    GROUPS,
    reads=("skills",),
    judged=Judged.by_prompt(EXTRACT, question_and_response, max_tokens=32, asked=given),
    judged_by={"accuracy_judged": JudgedRule("accuracy (letters found by a judge, our prompt)", accepts)},
)
