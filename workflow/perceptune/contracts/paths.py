"""All paths of the workflow.

A placeholder is a wildcard and a config section in the singular, except `policy` (a model, an
experiment, or one round of an experiment as `<experiment>@<round>`), `plan`, `groups` and `stored`.
`<results>` and `<logs>` are Snakemake path variables: the folders `results` and `logs`, or those of a
rehearsal. Paths without them are shared with rehearsals.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

ROUND_MARK = "@"
"""Separates the name of an experiment from the number of a round, or of an epoch whose adapter is kept."""

REHEARSAL = {"results": "rehearsal", "logs": "rehearsal/logs"}
"""The path variables of a rehearsal, which keep it apart from full runs."""

DATA = "results/data/{dataset}/data.jsonl"
EXAMPLES = "results/examples/{dataset}.parquet"
LEAKAGE = "<results>/leakage/{dataset}/{source}.parquet"
"""`source` is the block that selects the questions of an experiment: a sampling, pair generation,
rollout, or dataset preferences."""

PROBE = "<results>/probes/{policy}.parquet"

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
"""`policy` is the base model, whose tokenizer encodes the responses."""

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
"""`policy` is the one that answers in round k: the policy of round k - 1, or the base model."""

TERMS = "<results>/logprobs/{policy}/{dataset}/{groups}/{stored}.parquet"
"""`groups` is `<sampling>/<reward>/<selection>` for ranked lists, `<dataset_preference>` for
dataset preferences, `<rollout>/<reward>/<batch_selection>` for a round, or `<pair_generation>` for
pairs, whose log-probs are computed before they are filtered. `stored` names the contents, see
`stored_name`."""

ADAPTER_FOLDER = "<results>/adapters/{experiment}"
ADAPTER = f"{ADAPTER_FOLDER}/adapter_model.safetensors"
ADAPTER_CONFIG = f"{ADAPTER_FOLDER}/adapter_config.json"
EPOCH_FOLDER = f"{ADAPTER_FOLDER}/epochs/{{epoch}}"
"""The adapter after an epoch before the last, if the training keeps them. The training writes them in
the folder of its own adapter, so that both appear together."""
ROUND = f"{ADAPTER_FOLDER}/round.json"
"""Status of a round: its number and, if the experiment was stopped, when and why."""
SELECTED = "<results>/selected_tokens/{experiment}.parquet"
SELECTED_LINES = "<results>/selected_tokens/{experiment}.jsonl"
"""The tokens that the method of a round selects, as a table and as JSON lines."""
FEATURES = "results/.features"
"""Features of images of models with `feature_cache`, by content. No output of a job: it can be deleted at
any time."""
CHECKPOINTS = "<results>/.partial/adapters/{experiment}"
TRAINING = "<results>/training/{experiment}.parquet"
DIAGNOSTICS = "<results>/diagnostics/{experiment}.parquet"
DIAGNOSTICS_JOURNAL = "<results>/.partial/diagnostics/{experiment}"
TRACKERS = "<logs>/trackers"
"""What the trackers of `report_to` write; no job reads it."""

VERDICTS = "<results>/verdicts/{policy}/{benchmark}.parquet"
SECOND_VERDICTS = "<results>/verdicts/{policy}/{benchmark}/{judge}.parquet"
"""Verdicts of a second judge on the same answers."""
COMPARED = "<results>/comparisons/{comparison}/{judge}.parquet"
COMPARISON = "<results>/comparisons/{comparison}.parquet"
AGREEMENT = "<results>/agreements/{agreement}.parquet"
LABELLED_TOKENS = "<results>/labelled_tokens/{agreement}.parquet"
JUDGED = "results/.judged/{judge}"
"""All verdicts of a judge, by request. They outlive the verdict tables and are shared by
policies."""

MODEL_FOLDER = "<results>/models/{policy}"
MODEL_PARITY = f"{MODEL_FOLDER}/parity.json"
MODEL_LINEAGE = f"{MODEL_FOLDER}/lineage.json"
"""The merged weights lie next to it. They are not listed, because transformers decides on their
files."""
MODEL_CARD = f"{MODEL_FOLDER}/README.md"

EXPORT_FOLDER = "<results>/exports/{export}"
EXPORT = f"{EXPORT_FOLDER}/README.md"
EXPORT_LINEAGE = f"{EXPORT_FOLDER}/lineage.json"
"""The data and images lie next to it; the format decides on their names."""

METRICS = "<results>/metrics/{policy}.parquet"
CONTROLS = "<results>/controls/{policy}.parquet"
ALL_METRICS = "<results>/metrics.parquet"
REPORT = "<results>/report.html"
RESULT_TABLE = "<results>/result.txt"
FIGURE = "<results>/figures/{figure}.svg"
FIGURES = ("result", "best_of_n", "training", "rewards")


def stored_name(stored: Iterable[tuple[str, str]], quantisation: str = "none") -> str:
    """The name of a table of stored log-probs by its contents, (term, view) pairs, and by how the
    model's weights are quantised."""
    name = "+".join(sorted({f"{term}@{view}" for term, view in stored}))
    return name if quantisation == "none" else f"{name}~{quantisation}"


def stored_of_name(name: str) -> tuple[list[tuple[str, str]], str]:
    """The inverse of `stored_name`."""
    contents, _, quantisation = name.partition("~")
    parts = [part.partition("@") for part in contents.split("+")]
    return [(term, view) for term, _, view in parts], quantisation or "none"


FINAL = ".final"
"""Suffix of a file next to a job's log: the failure is permanent.

Not in the log itself, which Snakemake empties before a retry.
"""


def log(path: str) -> str:
    """The log file of the job that writes `path`."""
    return _logs(path) + ".log"


def benchmark(path: str) -> str:
    """Snakemake's benchmark file (time and memory) of the job that writes `path`."""
    return _logs(path, "benchmarks/") + ".tsv"


def at(path: str, **wildcards: str) -> Path:
    """A path of a full run with its variables filled in, for use outside Snakemake."""
    return Path(path.replace("<results>", "results").replace("<logs>", "logs").format(**wildcards))


def _logs(path: str, folder: str = "") -> str:
    """`path` under the matching folder of logs."""
    shared = "results/"
    if path.startswith(shared):
        return f"logs/{folder}{path.removeprefix(shared)}"
    return f"<logs>/{folder}{path.removeprefix('<results>/')}"
