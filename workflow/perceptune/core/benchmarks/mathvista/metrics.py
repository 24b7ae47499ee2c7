"""MathVista, testmini: overall, and by task.

`accuracy` is by rules alone: the option that is named, or the final number or last list. Numbers are compared as MathVista's own
script does, after cutting integers and rounding floats; so are lists, which VLMEvalKit can never find right.
`accuracy_judged` lets a judge extract the answer where the rules name no option or find it wrong; the prompt for it is ours,
not the published few-shot one.
"""

from __future__ import annotations

from perceptune.core.answers.extraction import lettered, precision_of, same_typed, typed_answer
from perceptune.core.benchmarks.benchmark import Answered, Judged, filled, right
from perceptune.core.benchmarks.by_group import Group, accuracy_by_group, has

TASKS = {
    "figure question answering": "figures",
    "geometry problem solving": "geometry",
    "math word problem": "word_problems",
    "textbook question answering": "textbooks",
    "visual question answering": "visual",
}
GROUPS = {
    "accuracy": Group("accuracy (rules)"),
    **{f"accuracy_{short}": Group(f"accuracy (rules), {task}", has("subtask", task)) for task, short in TASKS.items()},
}
EXTRACT = """Here are a question and a model's response to it. Extract the response's final answer.
Reply with nothing but the answer: the letter of the option for a question with choices, otherwise the number, the list in \
brackets or \
the words that are asked for. Reply `none` if the response gives no answer.

Question:
{question}

Response:
{response}"""


def fields(answered: Answered) -> dict[str, str]:
    """What the extraction prompt names."""
    return {"question": answered.question, "response": answered.text or ""}


def messages(answered: Answered) -> list[dict[str, str]]:
    """The extraction prompt."""
    return [{"role": "user", "content": filled(EXTRACT, fields(answered))}]


def asked(answered: Answered) -> bool:
    """Where the rules name no option, or find no right value."""
    named = bool(answered.source.get("choices")) and answered.parsed is not None
    return answered.text is not None and not named and not right(answered)


def accepts(answered: Answered) -> bool:
    """Whether what the judge extracted is the truth."""
    kind, options = str(answered.source.get("answer_type", "text")), lettered(answered.source.get("choices") or ())
    found = typed_answer(answered.verdict or "", kind, options)
    return same_typed(found, answered.target or "", kind, precision_of(answered.source))


BENCHMARK = accuracy_by_group(
    "mathvista",
    GROUPS,
    reads=("answer_type", "choices", "precision", "subtask"),
    judged=Judged(messages, max_tokens=128, asked=asked, fields=fields),
    judged_label="accuracy (answers extracted by a judge, our prompt)",
    accepts=accepts,
)
