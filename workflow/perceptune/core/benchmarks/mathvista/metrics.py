"""MathVista, testmini: accuracy overall and by task.

`accuracy` uses rules alone: the named option, the final number or the last list. Numbers are
compared as in MathVista's script, after truncating integers and rounding floats; so are lists,
which VLMEvalKit never counts as right. `accuracy_judged` extracts the answer with a judge if the
rules find no option or no right value; the prompt is ours, not the published few-shot prompt.
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
    """The fields of the extraction prompt."""
    return {"question": answered.question, "response": answered.text or ""}


def messages(answered: Answered) -> list[dict[str, str]]:
    """The extraction prompt."""
    return [{"role": "user", "content": filled(EXTRACT, fields(answered))}]


def needs_judge(answered: Answered) -> bool:
    """Answers in which the rules find no option and no right value."""
    named = bool(answered.source.get("choices")) and answered.parsed is not None
    return answered.text is not None and not named and not right(answered)


def accepts(answered: Answered) -> bool:
    """Whether the answer extracted by the judge is the ground truth."""
    kind, options = str(answered.source.get("answer_type", "text")), lettered(answered.source.get("choices") or ())
    found = typed_answer(answered.verdict or "", kind, options)
    return same_typed(found, answered.target or "", kind, precision_of(answered.source))


BENCHMARK = accuracy_by_group(
    "mathvista",
    GROUPS,
    reads=("answer_type", "choices", "precision", "subtask"),
    judged=Judged(messages, max_tokens=128, asked=needs_judge, fields=fields),
    judged_label="accuracy (answers extracted by a judge, our prompt)",
    accepts=accepts,
)
