"""How to ask a model family, by task: the wording of its documentation, or perceptune's own.

Sources: LLaVA's and InternVL's instructions for evaluation on RefCOCO, and the cookbooks for 2D
grounding in the repositories of Qwen2.5-VL and Qwen3-VL.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from perceptune.core.benchmarks.refcoco.metrics import PROMPT as LLAVA

PLAIN = "{question}"
FORMATTED = "{question}\n{format}"
"""The question and perceptune's instruction on the answer format of the task."""
EXPRESSIONS = {
    "llava": LLAVA,
    "llava_next": LLAVA,
    "llava_onevision": LLAVA,
    "internvl": "Please provide the bounding box coordinates of the region this sentence describes: <ref>{question}</ref>",
    "qwen2_5_vl": "Locate {question}, output its bbox coordinates using JSON format.",
    "qwen3_vl": "Locate {question}. Report bbox coordinates in JSON format.",
}
"""Prompts for questions that only describe an object: `the red cup`."""
REQUESTS = {
    "qwen2_5_vl": "{question} Output its bbox coordinates using JSON format.",
    "qwen3_vl": "{question} Report bbox coordinates in JSON format.",
}
"""Prompts for questions that ask to locate it: `Locate the red cup.`"""
ASKS = re.compile(
    r"\b(?:locate|find|detect|point|where|show|mark|outline|draw|box|which|give|provide)\b", re.IGNORECASE
)
SAYS_FORMAT = {
    "grounding": re.compile(r"\[x|bbox|bounding box|coordinate", re.IGNORECASE),
    "existence": re.compile(r"\byes (?:or|/) ?no\b|yes/no", re.IGNORECASE),
    "counting": re.compile(r"\b(?:a|one|single) (?:number|integer|digit)", re.IGNORECASE),
    "ocr": re.compile(r"\bonly (?:with )?the text\b|exactly", re.IGNORECASE),
    "open": re.compile(r"\b(?:single word|short answer|one word|boxed|option's letter)", re.IGNORECASE),
}
"""What a question contains that says itself how to answer."""


def prompt_for(family: str, tasks: Sequence[str], questions: Sequence[str]) -> tuple[str, str]:
    """The prompt for questions of these tasks, and the reason for it."""
    if tasks and all(_most(SAYS_FORMAT[task], questions) for task in tasks):
        return PLAIN, "the questions say themselves how to answer"
    if [*tasks] == ["grounding"]:
        bare = not _most(ASKS, questions)
        worded = (EXPRESSIONS if bare else REQUESTS).get(family)
        if worded:
            return worded, f"how the documentation of `{family}` asks for boxes"
    return FORMATTED, "`{format}` stands for an instruction on the answer format of the task"


def _most(pattern: re.Pattern[str], texts: Sequence[str]) -> bool:
    return 2 * sum(pattern.search(text) is not None for text in texts) > len(texts)
