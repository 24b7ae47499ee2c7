"""Dense OCR of whole pages: edit distance, token overlap, BLEU and METEOR, averaged over pages
(Fox, GOT, PerPO).

The scripts of Fox and GOT swap reference and hypothesis: their precision is recall, and their BLEU
and METEOR score the ground truth against the answer, without a penalty for answers that stop early.
Here, precision refers to the answer, and BLEU and METEOR are computed both ways; `bleu_fox` and
`meteor_fox` are comparable with published tables. Edit distance and F1 are symmetric. Which order
PerPO's columns use is unknown. Pages without an answer have distance 1; GOT's script leaves them
out.
"""

from __future__ import annotations

from collections.abc import Sequence

from perceptune.core.benchmarks.benchmark import Answered, Benchmark, Measured, known_share, summed
from perceptune.core.rewards.metrics import Columns

WORST = {"ned": 1.0}
"""The values of a page without an answer; all others are 0."""
LABELS = {
    "token_f1": "token F1",
    "token_precision": "token precision",
    "token_recall": "token recall",
    "bleu": "BLEU",
    "meteor": "METEOR",
    "bleu_fox": "BLEU, ground truth and answer swapped as in Fox's script",
    "meteor_fox": "METEOR, ground truth and answer swapped as in Fox's script",
}
ENGLISH = "pages in English (Chinese text is not segmented into words)"
WORDNET = f"NLTK's wordnet (docs/benchmarks.md), and {ENGLISH}"


def columns(answers: Sequence[Answered]) -> Columns:
    """Values per page."""
    found = {"pages": [1.0] * len(answers)}
    for name in ("ned", *LABELS):
        found[name] = [a.components.get(name, WORST.get(name, 0.0)) for a in answers]
    return summed([a.example_id for a in answers], found)


BENCHMARK = Benchmark(
    name="page_ocr",
    rewards={"ocr": "page_text"},
    components={"ocr": ("ned", *LABELS)},
    columns=columns,
    metrics={
        "ned": Measured(
            known_share("ned", "pages"), "edit distance (NED)", percent=False, lower_is_better=True, needs="pages"
        ),
        **{
            name: Measured(
                known_share(name, "pages"),
                label,
                percent=name.startswith("token"),
                needs=WORDNET if name.startswith("meteor") else ENGLISH,
            )
            for name, label in LABELS.items()
        },
    },
    settings={"prompt": "{question}", "max_tokens": 2048},
    by_density=True,
)
