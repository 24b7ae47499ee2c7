"""Where everything lies: the workflow's data flow as file names.

A placeholder is a wildcard and a config section in the singular, except `policy` (a model, an experiment, or one round of an
experiment as `<experiment>@<round>`), `plan`, `groups` and `stored`. `<results>` and `<logs>` are path variables of Snakemake: the
folders `results` and `logs`, or those of a rehearsal. What has no `<results>` is shared with rehearsals: it is the same there.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

ROUND_MARK = "@"
"""Between the name of an experiment and the number of a round."""

REHEARSAL = {"results": "rehearsal", "logs": "rehearsal/logs"}
"""The path variables of a rehearsal, so that it leaves alone what a full run has made."""

DATA = "results/data/{dataset}/data.jsonl"
EXAMPLES = "results/examples/{dataset}.parquet"

SAMPLE_REQUESTS = "<results>/requests/{policy}/{dataset}/{sampling}.parquet"
BENCHMARK_REQUESTS = "<results>/requests/{policy}/benchmarks.parquet"
REQUESTS = "<results>/requests/{policy}/{plan}.parquet"
RESPONSE_SHARD = "<results>/.partial/responses/{policy}/{plan}.{scatteritem}.parquet"
JOURNAL = "<results>/.partial/journal/{policy}/{plan}"
RESPONSES = "<results>/responses/{policy}/{plan}.parquet"
REWARDS = "<results>/rewards/{policy}/{plan}/{reward}.parquet"

SAMPLE_RESPONSES = "<results>/responses/{policy}/{dataset}/{sampling}.parquet"
SAMPLE_REWARDS = "<results>/rewards/{policy}/{dataset}/{sampling}/{reward}.parquet"
PREFERENCES = "<results>/preferences/{policy}/{dataset}/{sampling}/{reward}/{selection}.parquet"
PREFERENCE_STATISTICS = "<results>/preferences/{policy}/{dataset}/{sampling}/{reward}/{selection}.json"

GIVEN = "<results>/preferences/{policy}/{dataset}/{dataset_preference}.parquet"
GIVEN_STATISTICS = "<results>/preferences/{policy}/{dataset}/{dataset_preference}.json"
"""Of the base model, whose tokens the answers are written in."""

ATTENTION = "<results>/attention/{policy}/{dataset}/{attention_map}.parquet"
SALIENCY = "<results>/saliency/{dataset}/{saliency_map}.parquet"
CROPS = "<results>/crops/{policy}/{dataset}/{crop}.parquet"
CLIPS = "<results>/clip_scores/{policy}/{dataset}/{crop}/{clip_score}.parquet"
PAIR_REQUESTS = "<results>/requests/{policy}/{dataset}/{pair_generation}.parquet"
PAIR_RESPONSES = "<results>/responses/{policy}/{dataset}/{pair_generation}.parquet"
PAIRS = "<results>/pairs/{policy}/{dataset}/{pair_generation}.parquet"
FILTERED_PAIRS = "<results>/preferences/{policy}/{dataset}/{pair_generation}/{filter}.parquet"
PAIR_STATISTICS = "<results>/preferences/{policy}/{dataset}/{pair_generation}/{filter}.json"

ROUND_REQUESTS = "<results>/requests/{policy}/{dataset}/{rollout}.parquet"
ROUND_RESPONSES = "<results>/responses/{policy}/{dataset}/{rollout}.parquet"
ROUND_REWARDS = "<results>/rewards/{policy}/{dataset}/{rollout}/{reward}.parquet"
BATCH = "<results>/preferences/{policy}/{dataset}/{rollout}/{reward}/{batch_selection}.parquet"
BATCH_STATISTICS = "<results>/preferences/{policy}/{dataset}/{rollout}/{reward}/{batch_selection}.json"
"""The tables of round k are those of the policy that answers, which is round k - 1's, or the base model."""

TERMS = "<results>/logprobs/{policy}/{dataset}/{groups}/{stored}.parquet"
"""`groups` is `<sampling>/<reward>/<selection>` for ranked lists, `<dataset_preference>` for preferences that come with
the data, `<rollout>/<reward>/<batch_selection>` for a round, or `<pair_generation>`: pairs have log-probs before they are
filtered. `stored` says what is in the table, see `stored_name`."""

ADAPTER_FOLDER = "<results>/adapters/{experiment}"
ADAPTER = f"{ADAPTER_FOLDER}/adapter_model.safetensors"
ADAPTER_CONFIG = f"{ADAPTER_FOLDER}/adapter_config.json"
ROUND = f"{ADAPTER_FOLDER}/round.json"
"""How a round went: its number, and when and why the experiment was stopped, if it was."""
CHECKPOINTS = "<results>/.partial/adapters/{experiment}"
TRAINING = "<results>/training/{experiment}.parquet"

VERDICTS = "<results>/verdicts/{policy}/{benchmark}.parquet"
JUDGED = "results/.judged/{judge}"
"""All that a judge has ever said, by what it was asked: it outlives its tables, and policies share it."""

MODEL_FOLDER = "<results>/models/{policy}"
MODEL_PARITY = f"{MODEL_FOLDER}/parity.json"
MODEL_LINEAGE = f"{MODEL_FOLDER}/lineage.json"
"""Beside the merged weights, which are not listed here: how many files they are is transformers' business."""
MODEL_CARD = f"{MODEL_FOLDER}/README.md"

EXPORT_FOLDER = "<results>/exports/{export}"
EXPORT = f"{EXPORT_FOLDER}/README.md"
EXPORT_LINEAGE = f"{EXPORT_FOLDER}/lineage.json"
"""Beside the data and its images, whose names are the format's business."""

METRICS = "<results>/metrics/{policy}.parquet"
CONTROLS = "<results>/controls/{policy}.parquet"
ALL_METRICS = "<results>/metrics.parquet"
REPORT = "<results>/report.html"
RESULT_TABLE = "<results>/result.txt"
FIGURE = "<results>/figures/{figure}.svg"
FIGURES = ("result", "best_of_n", "training", "rewards")


def stored_name(stored: Iterable[tuple[str, str]]) -> str:
    """The name of a table of terms by what is in it: pairs of a term and a view."""
    return "+".join(sorted({f"{term}@{view}" for term, view in stored}))


def stored_of_name(name: str) -> list[tuple[str, str]]:
    """The inverse of `stored_name`."""
    parts = [part.partition("@") for part in name.split("+")]
    return [(term, view) for term, _, view in parts]


def log(path: str) -> str:
    """The log file of the job that makes `path`."""
    return _logs(path) + ".log"


def benchmark(path: str) -> str:
    """Where Snakemake notes the time and memory of the job that makes `path`."""
    return _logs(path, "benchmarks/") + ".tsv"


def at(path: str, **wildcards: str) -> Path:
    """Where a file of a full run lies, for whom Snakemake does not fill in the path."""
    return Path(path.replace("<results>", "results").replace("<logs>", "logs").format(**wildcards))


def _logs(path: str, folder: str = "") -> str:
    """`path` without suffix under the folder of logs that goes with its own."""
    shared = "results/"
    if path.startswith(shared):
        return f"logs/{folder}{path.removeprefix(shared)}"
    return f"<logs>/{folder}{path.removeprefix('<results>/')}"
