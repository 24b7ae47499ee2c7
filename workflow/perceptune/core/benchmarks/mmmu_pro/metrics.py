"""MMMU-Pro, vision: the question and its options are in the image; the prompt is the official one
for step-by-step answers.

If no option can be read, the official script picks one at random; here, the answer is wrong and
counted as failed.
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
