"""Rewards by name. A new one is a file here, a test, and a line in the dict."""

from __future__ import annotations

from collections.abc import Callable

from perceptune.core.rewards.amber import amber
from perceptune.core.rewards.amber_nouns import amber_nouns
from perceptune.core.rewards.boxed_exact import boxed_exact
from perceptune.core.rewards.boxed_math import boxed_math
from perceptune.core.rewards.dynamath import dynamath
from perceptune.core.rewards.edit_distance import edit_distance
from perceptune.core.rewards.exact_match import exact_match
from perceptune.core.rewards.free_text import free_text
from perceptune.core.rewards.iou import iou
from perceptune.core.rewards.iou_threshold import iou_threshold
from perceptune.core.rewards.logicvista import logicvista
from perceptune.core.rewards.mathverse import mathverse
from perceptune.core.rewards.mathvision import mathvision
from perceptune.core.rewards.mathvista import mathvista
from perceptune.core.rewards.mmmu_pro import mmmu_pro
from perceptune.core.rewards.page_text import page_text
from perceptune.core.rewards.pope import pope
from perceptune.core.rewards.pope_vcd import pope_vcd
from perceptune.core.rewards.reward import Answers, Scores
from perceptune.core.rewards.vlmevalkit_yes_no import vlmevalkit_yes_no
from perceptune.core.rewards.vqa_accuracy import vqa_accuracy
from perceptune.core.rewards.we_math import we_math
from perceptune.core.rewards.yes_no import yes_no

REWARDS: dict[str, Callable[[Answers], Scores]] = {
    "amber": amber,
    "amber_nouns": amber_nouns,
    "boxed_exact": boxed_exact,
    "boxed_math": boxed_math,
    "dynamath": dynamath,
    "edit_distance": edit_distance,
    "exact_match": exact_match,
    "free_text": free_text,
    "iou": iou,
    "iou_threshold": iou_threshold,
    "logicvista": logicvista,
    "mathverse": mathverse,
    "mathvision": mathvision,
    "mathvista": mathvista,
    "mmmu_pro": mmmu_pro,
    "page_text": page_text,
    "pope": pope,
    "pope_vcd": pope_vcd,
    "vlmevalkit_yes_no": vlmevalkit_yes_no,
    "vqa_accuracy": vqa_accuracy,
    "we_math": we_math,
    "yes_no": yes_no,
}
