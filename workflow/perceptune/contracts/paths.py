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
TERMS = "results/terms/{policy}/{dataset}/{sampling}/{reward}/{selection}/{view}.parquet"

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
