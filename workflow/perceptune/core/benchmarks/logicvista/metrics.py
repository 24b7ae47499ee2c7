"""LogicVista: overall, and by the skill that a question needs.

`accuracy` is by rules alone: the capital letters of the final answer, as a set. `accuracy_judged` lets a judge find the
letters, as the published scorer does for every answer; the prompt is ours, with its contract: the letters alone, or Z.
"""

from __future__ import annotations

from perceptune.core.answers.extraction import BLANKED, letter_set
from perceptune.core.benchmarks.benchmark import Answered, Judged, filled
from perceptune.core.benchmarks.by_group import Group, accuracy_by_group, has
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


def fields(answered: Answered) -> dict[str, str]:
    """What the extraction prompt names."""
    return {"question": answered.question, "response": answered.text or ""}


def messages(answered: Answered) -> list[dict[str, str]]:
    """The extraction prompt."""
    return [{"role": "user", "content": filled(EXTRACT, fields(answered))}]


def asked(answered: Answered) -> bool:
    """Every answer, as officially."""
    return answered.text is not None


def accepts(answered: Answered) -> bool:
    """Whether the letters that the judge found are those of the truth; punctuation around them does not count."""
    found = letter_set((answered.verdict or "").translate(BLANKED))
    return found is not None and found == letter_set(answered.target or "")


BENCHMARK = accuracy_by_group(
    "logicvista",
    GROUPS,
    reads=("skills",),
    judged=Judged(messages, max_tokens=32, asked=asked, fields=fields),
    judged_label="accuracy (letters found by a judge, our prompt)",
    accepts=accepts,
)
