"""MathVista, testmini: accuracy overall and by task.

The official metric is `accuracy_judged`: a language model extracts the answer wherever the authors'
script asks one, and their rules compare it; the extraction prompt is ours, not the published
few-shot prompt. `accuracy` compares by the same rules, but extracts by ours: the named option, the
final number or the last list. `_vlmevalkit` marks both under VLMEvalKit's rules.
"""

from __future__ import annotations

from perceptune.core.benchmarks.benchmark import Answered, Judged, question_and_response
from perceptune.core.benchmarks.by_group import BY_VLMEVALKIT, Group, JudgedRule, accuracy_by_group, has
from perceptune.core.benchmarks.mathvista.answers import same_as_published, without_extraction
from perceptune.core.benchmarks.mathvista.mathvista_vlmevalkit import accepts_extraction, settled_by_rules
from perceptune.core.rewards.reward import VLMEVALKIT, VLMEVALKIT_COMPONENTS

TASKS = {
    "figure question answering": "figures",
    "geometry problem solving": "geometry",
    "math word problem": "word_problems",
    "textbook question answering": "textbooks",
    "visual question answering": "visual",
}
GROUPS = {
    "accuracy": Group("accuracy (rules)"),
    "accuracy_vlmevalkit": BY_VLMEVALKIT,
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


def needs_judge(answered: Answered) -> bool:
    """Answers about which the authors' script asks a language model."""
    return answered.text is not None and without_extraction(answered.text, answered.source) is None


def extraction(answered: Answered) -> str | None:
    """The judge's reply, or the answer that needs none; None if the answer is missing."""
    if answered.text is None:
        return None
    return answered.verdict if needs_judge(answered) else without_extraction(answered.text, answered.source)


def accepts(answered: Answered) -> bool:
    """Whether the extracted answer is the ground truth by the rules of the authors' script."""
    found = extraction(answered)
    return found is not None and same_as_published(found, answered.target or "", answered.source)


def vlmevalkit_accepts(answered: Answered) -> bool:
    """Whether the answer is right by VLMEvalKit's rules, or else the extracted answer is."""
    found, target = extraction(answered), answered.target or ""
    if answered.text is None or found is None:
        return False
    settled = settled_by_rules(answered.text, target, answered.source)
    return accepts_extraction(found, target, answered.source) if settled is None else settled


BENCHMARK = accuracy_by_group(
    "mathvista",
    GROUPS,
    reads=("answer_type", "choices", "precision", "subtask"),
    judged=Judged.by_prompt(EXTRACT, question_and_response, max_tokens=128, asked=needs_judge),
    judged_by={
        "accuracy_judged": JudgedRule("accuracy (answers extracted by a judge, our prompt)", accepts, accepts),
        "accuracy_judged_vlmevalkit": JudgedRule(
            f"accuracy ({VLMEVALKIT}, and a judge)", vlmevalkit_accepts, vlmevalkit_accepts
        ),
    },
    components=VLMEVALKIT_COMPONENTS,
)
