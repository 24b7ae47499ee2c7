"""Sampling settings of the result tables in the PAPO and CPPO papers.

Neither evaluates at its training resolution: PAPO-Eval scales images to between 32^2 and 768^2
pixels, CPPO to at least 1,003,520 pixels. Here, images have the size that the model's processor
produces.
"""

from __future__ import annotations

from typing import Any

from perceptune.core.answers.boxed_answers import BOX

SAMPLED: dict[str, Any] = {"n": 8, "temperature": 1.0, "top_p": 1.0, "max_tokens": 2048}
"""acc@8 (avg@8): the mean over 8 runs at temperature 1."""

PAPO: dict[str, Any] = {
    **SAMPLED,
    "top_k": 50,  # the default of PAPO's Python script, not overridden by its shell script
    "prompt": "{question} You first think through the reasoning process as an internal monologue, enclosed within"
    f" <think> </think> tags. Then, provide your final answer enclosed within {BOX}}}.",
}

CPPO: dict[str, Any] = {
    **SAMPLED,
    "top_k": 0,
    "prompt": "{question} You FIRST think about the reasoning process as an internal monologue and then provide the final"
    " answer. The reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST BE put in"
    f" {BOX}}}.",
}
