"""Geometry3K, 601 test questions: acc@8 in two variants; a block must name one.

* `papo`, as in PAPO's table: MathRuler on the last box, see `papo_eval`.
* `cppo`: a VLMEvalKit scorer on the content of the last box, or on the whole text. CPPO's table has
  no Geometry3K, and VLMEvalKit has no scorer for it; this is its scorer for free-form mathematical
  answers (MATH-Vision's), which also accepts equal numbers and LaTeX.
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
            "rewards": {"open": "mathvision_vlmevalkit"},
            "components": {"open": ("accuracy",)},
            "metrics": ACCURACY,
            "settings": CPPO,
        },
    },
    variant_required=True,
)
