"""Dense OCR of whole pages: edit distance, overlap of words, BLEU and METEOR, each the mean over pages (Fox, GOT, PerPO).

Fox's and GOT's tools hand truth and answer to their scorer in exchanged places: what they print as precision is recall, and
their BLEU and METEOR are those of the truth against the answer, without a penalty for answers that stop early. Here precision
is of the answer; BLEU and METEOR are there both ways, the tools' as `bleu_fox` and `meteor_fox`, to be compared with
published tables. Edit distance and F1 are the same both ways. Which way PerPO's columns are is not known. Pages without an
answer have distance 1; GOT's tool leaves them out.
"""

from __future__ import annotations

from collections.abc import Sequence

from perceptune.core.benchmarks.benchmark import Answered, Benchmark, Measured, known_share, summed
from perceptune.core.rewards.metrics import Columns

WORST = {"ned": 1.0}
"""Of a page without an answer; anything else is 0."""
LABELS = {
    "token_f1": "token F1",
    "token_precision": "token precision",
    "token_recall": "token recall",
    "bleu": "BLEU",
    "meteor": "METEOR",
    "bleu_fox": "BLEU, truth and answer exchanged as in Fox's tool",
    "meteor_fox": "METEOR, truth and answer exchanged as in Fox's tool",
}
ENGLISH = "pages in English, Chinese ones are not cut into words"
WORDNET = f"NLTK's wordnet (docs/benchmarks.md), and {ENGLISH}"


def columns(answers: Sequence[Answered]) -> Columns:
    """By page."""
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
)
