"""MMMU-Pro, vision: the question and its options are in the image. Asked with the official prompt for step-by-step answers.

The official script answers at random where it can read no option; here such an answer is wrong, and counted among the unread.
"""

from __future__ import annotations

from perceptune.core.benchmarks.by_group import Group, accuracy_by_group

PROMPT = (
    "Write out the multiple-choice question in the image and then solve it. The last line of your response should be of the"
    " following format: 'Answer: $LETTER' (without quotes) where LETTER is one of options. Think step by step before"
    " answering."
)
GROUPS = {"accuracy": Group("accuracy")}


BENCHMARK = accuracy_by_group("mmmu_pro", GROUPS, prompt=PROMPT, reads=("choices",))
