"""Geometry3K, 601 test questions: acc@8 in two protocols, of which a block has to name one.

* `papo`, as in PAPO's table: MathRuler on the last box, see `papo_eval`.
* `cppo`: the text in the last box, or the whole text, handed to a scorer of VLMEvalKit. CPPO's own
  table has no Geometry3K, and VLMEvalKit no scorer for it; this is its scorer for free answers to
  mathematical questions (MATH-Vision's), which accepts equal numbers and LaTeX where PAPO's
  protocol wants MathRuler's match.
"""

from __future__ import annotations

from dataclasses import replace

from perceptune.core.benchmarks.papo_eval.metrics import ACCURACY
from perceptune.core.benchmarks.papo_eval.metrics import BENCHMARK as PAPO_EVAL
from perceptune.core.benchmarks.papo_sampling import CPPO

BENCHMARK = replace(
    PAPO_EVAL,
    name="geometry3k",
    variants={
        "papo": {},
        "cppo": {
            "rewards": {"open": "mathvision"},
            "components": {"open": ("accuracy",)},
            "metrics": ACCURACY,
            "settings": CPPO,
        },
    },
    variant_required=True,
)
