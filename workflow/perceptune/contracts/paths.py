"""Where everything lies: the workflow's data flow as file names.

A placeholder is a wildcard and a config section in the singular, except `policy` (a model or an experiment) and `plan`.
"""

from __future__ import annotations

DATA = "results/data/{dataset}/data.jsonl"
EXAMPLES = "results/examples/{dataset}.parquet"

SAMPLE_REQUESTS = "results/requests/{policy}/{dataset}/{sampling}.parquet"
BENCHMARK_REQUESTS = "results/requests/{policy}/benchmarks.parquet"
REQUESTS = "results/requests/{policy}/{plan}.parquet"
RESPONSE_SHARD = "results/.partial/responses/{policy}/{plan}.{scatteritem}.parquet"
JOURNAL = "results/.partial/journal/{policy}/{plan}"
RESPONSES = "results/responses/{policy}/{plan}.parquet"
REWARDS = "results/rewards/{policy}/{plan}/{reward}.parquet"

SAMPLE_RESPONSES = "results/responses/{policy}/{dataset}/{sampling}.parquet"
SAMPLE_REWARDS = "results/rewards/{policy}/{dataset}/{sampling}/{reward}.parquet"
PREFERENCES = "results/preferences/{policy}/{dataset}/{sampling}/{reward}/{selection}.parquet"
PREFERENCE_STATISTICS = "results/preferences/{policy}/{dataset}/{sampling}/{reward}/{selection}.json"

ATTENTION = "results/attention/{policy}/{dataset}/{attention}.parquet"
CROPS = "results/crops/{policy}/{dataset}/{crop}.parquet"
CLIPS = "results/clips/{policy}/{dataset}/{crop}/{clip}.parquet"
PAIR_REQUESTS = "results/requests/{policy}/{dataset}/{pairing}.parquet"
PAIR_RESPONSES = "results/responses/{policy}/{dataset}/{pairing}.parquet"
PAIRS = "results/pairs/{policy}/{dataset}/{pairing}.parquet"
FILTERED_PAIRS = "results/preferences/{policy}/{dataset}/{pairing}/{filter}.parquet"
PAIR_STATISTICS = "results/preferences/{policy}/{dataset}/{pairing}/{filter}.json"

ORIGINAL_TERMS = "results/terms/{policy}/{dataset}/{pairing}/original.parquet"
TERMS = "results/terms/{policy}/{dataset}/{groups}/{view}.parquet"
"""`groups`: `<sampling>/<reward>/<selection>` of ranked lists, or `<pairing>`: pairs have terms before they are filtered."""

ADAPTER = "results/adapters/{experiment}/adapter_model.safetensors"
ADAPTER_CONFIG = "results/adapters/{experiment}/adapter_config.json"
CHECKPOINTS = "results/.partial/adapters/{experiment}"
TRAINING = "results/training/{experiment}.parquet"

METRICS = "results/metrics/{policy}.parquet"
ALL_METRICS = "results/metrics.parquet"
REPORT = "results/report.html"
RESULT_TABLE = "results/result.txt"
FIGURE = "results/figures/{figure}.svg"
FIGURES = ("result", "best_of_n", "training", "rewards")


def log(path: str) -> str:
    """The log file of the job that makes `path`."""
    return "logs/" + path.removeprefix("results/") + ".log"


def benchmark(path: str) -> str:
    """Where Snakemake notes the time and memory of the job that makes `path`."""
    return "logs/benchmarks/" + path.removeprefix("results/") + ".tsv"
