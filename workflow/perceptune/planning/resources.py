"""What jobs request of a machine: memory and time, from the sizes of models, data and settings.

One function per kind of job, each an upper limit for common cases. Everything here is arithmetic;
`planning.sizes` reads the sizes. docs/cluster.md has the formulas and a table for common models.

Memory is that of the machine, not of a GPU. A job loads weights there first, and jobs without a GPU
keep them there. Sizes of processes are those of Python with the libraries that a job imports, CUDA's
included. Time assumes an older data-centre GPU and answers of `max_tokens`, so it is usually several
times too long. A job that takes longer still resumes in its next attempt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MB, GB = 10**6, 10**9
SNAKEMAKE = 0.4 * GB
"""The process in which Snakemake runs a job."""
TRANSFORMERS = 3 * GB
"""A process with torch and transformers."""
ENGINE = 5 * GB
"""A process of vLLM; it starts one per GPU."""
IMAGES = 2 * GB
"""Images that are opened and processed ahead."""
PREPARING = 0.4 * GB
"""A process that prepares images for an engine, without what it shares with the others."""
BATCHING = 0.8 * GB
"""A process that makes batches, which have several images, without what it shares with the others."""
IMPORTED, SCORED, EVALUATED = 0.5 * GB, 1.5 * GB, 1.5 * GB
"""What the streaming stages need for any number of rows."""
DECODED = 2 * GB
"""Large images that an import decodes at the same time in all its threads."""
REPORT = 3.5 * GB
PYTHON = 1 * GB
"""A process with pyarrow and Polars."""
OBJECTS = 40
"""Bytes in memory per byte of a table (without compression and images) as Python objects: 20 for
responses of 200 tokens, 40 for responses of 8 tokens."""
ADAPTER_COPIES = 4
"""An adapter's weights, gradients and two moments."""
FLOAT = 4
"""Bytes of a float32."""

GENERATION, FORWARD = 20e12, 50e12
"""FLOPs per second and GPU, in the generation of answers and in passes over known tokens."""
DISK = 100 * MB
"""Bytes per second from a network file system."""
ROWS_SCORED = 500
"""Per second, with a reward that compares formulas."""
ROWS_READ = 2000
"""Per second, for stages that read tables row by row."""
IMAGES_DECODED, BYTES_DECODED = 20, 4 * MB
"""Images, and their bytes, that an import checks per second."""
MAPS = 2.0
"""Attention maps, saliency maps or CLIP scores per second, for models of up to 10 TFLOPs per map."""
LONGEST = 1440
"""Minutes that a first attempt requests at most."""


@dataclass(frozen=True)
class Needs:
    """What a job's first attempt requests. Each retry requests as much again."""

    mem_mb: int
    runtime: int
    """Minutes."""


@dataclass(frozen=True)
class Weights:
    """Sizes of a model."""

    parameters: int
    bytes: int
    """In the dtype in which they are computed with."""
    files: int
    """Bytes on disk."""


UNKNOWN_WEIGHTS = Weights(8 * 10**9, 16 * 10**9, 16 * 10**9)
"""Stands for a model folder that does not exist yet."""


@dataclass(frozen=True)
class Table:
    """Sizes of a table, or of several."""

    rows: int
    bytes: int
    """Without compression, and without the bytes of images."""


UNKNOWN_TABLE = Table(20_000, 10 * MB)
"""Stands for a table that does not exist yet. When a job is submitted, its tables exist, except
within a group of jobs."""


def sampling(
    weights: Weights, gpus: int, prompt_tokens: float, new_tokens: float, *, merged: bool = False, workers: int = 0
) -> Needs:
    """Sampling with vLLM, with `workers` processes that prepare images; also for a local judge.

    Memory: a process per GPU, images, their processes, and the weights. Merging an adapter before
    that needs less. Time: 20 min to start, the weights' files read once (with an adapter also
    written and read again), 2 FLOPs per parameter and token.
    """
    memory = IMAGES + workers * PREPARING + gpus * ENGINE + weights.bytes
    work = 2 * weights.parameters * (prompt_tokens / FORWARD + new_tokens / GENERATION) / gpus
    return _needs(memory, 20 * 60 + _reading(weights, 3 if merged else 1) + work, 60)


def logprobs(weights: Weights, tokens: float, adapter: float = 0, workers: int = 0) -> Needs:
    """Stored log-probs of `tokens` tokens, on one GPU, with an adapter of `adapter` parameters.

    Memory: a process, its workers, images, and the weights. Time: 10 min to start, and 2 FLOPs per
    parameter and token.
    """
    memory = TRANSFORMERS + workers * BATCHING + IMAGES + weights.bytes + FLOAT * adapter
    return _needs(memory, 10 * 60 + _reading(weights) + 2 * weights.parameters * tokens / FORWARD, 60)


def training(
    weights: Weights, adapter: float, devices: int, tokens: float, *, nodes: int = 1, workers: int = 0
) -> Needs:
    """Training of `adapter` parameters on `tokens` tokens, over all epochs and devices.

    Memory, on each node: per device a process, its workers, images, the weights, and the adapter with
    its gradients and moments in float32. Sharded or quantised weights save memory of GPUs only: every
    process loads them as they are stored. Time: 10 min to start, and 8 FLOPs per parameter and token
    (forward pass, activations again, gradients of activations, and the method's other passes).
    """
    process = TRANSFORMERS + workers * BATCHING + IMAGES
    memory = devices * (process + weights.bytes + ADAPTER_COPIES * FLOAT * adapter)
    work = 8 * weights.parameters * tokens / FORWARD / (devices * nodes)
    return _needs(memory, 10 * 60 + _reading(weights) + work, 120)


def maps(weights: Weights, examples: int) -> Needs:
    """Attention maps, saliency maps or CLIP scores of `examples` images, on one GPU.

    Memory: as for log-probs. Time: 10 min to start, and a forward and a backward pass over 1,500
    tokens per image, but at least half a second.
    """
    memory = TRANSFORMERS + IMAGES + weights.bytes
    each = max(6 * weights.parameters * 1500 / FORWARD, 1 / MAPS)
    return _needs(memory, 10 * 60 + _reading(weights) + each * examples, 60)


def exporting(weights: Weights, adapter: float, gpus: int) -> Needs:
    """Merging an adapter into the weights, and comparing the result with vLLM and transformers.

    Memory: the larger of vLLM's (as in sampling) and the model in float32 with its adapter. Time:
    60 min for the starts of engine and models, and nine readings of the files.
    """
    served = IMAGES + gpus * ENGINE + weights.bytes
    compared = TRANSFORMERS + IMAGES + FLOAT * (weights.parameters + adapter)
    return _needs(max(served, compared), 60 * 60 + _reading(weights, 9), 60)


def probing(weights: Weights, gpus: int) -> Needs:
    """Comparing a model's layouts of training and vLLM with its generation.

    Memory: the larger of vLLM's (as in sampling) and the model in float32. Time: 40 min for the
    starts of engine and models, and three readings of the files.
    """
    served = IMAGES + gpus * ENGINE + weights.bytes
    compared = TRANSFORMERS + IMAGES + FLOAT * weights.parameters
    return _needs(max(served, compared), 40 * 60 + _reading(weights, 3), 60)


def importing(data: int, images: int) -> Needs:
    """The import of `data` bytes with images inside, and of `images` files.

    Memory: the same for any data. Time: 30 min, and the decoding of all images.
    """
    seconds = data / BYTES_DECODED + images / IMAGES_DECODED
    return _needs(IMPORTED + DECODED, 30 * 60 + seconds, 30)


def scoring(rows: int) -> Needs:
    """The scores of `rows` answers, or a selection from them. Memory: the same for any number."""
    return _needs(SCORED + PYTHON / 2, 20 * 60 + rows / ROWS_SCORED, 30)


def evaluation(rows: int) -> Needs:
    """The metrics of `rows` scored answers. Memory: the same for any number."""
    return _needs(EVALUATED + PYTHON / 2, 20 * 60 + rows / ROWS_READ, 30)


def asking(rows: int) -> Needs:
    """Asking an endpoint about `rows` answers. Memory: the same for any number. Time: two answers per
    second."""
    return _needs(EVALUATED + PYTHON / 2, 10 * 60 + rows / 2, 60)


def report(rows: int) -> Needs:
    """The report on `rows` scored answers. Memory: the same for any number."""
    return _needs(REPORT, 10 * 60 + rows / ROWS_READ, 20)


def tables(read: Table, tokenizer: bool = False) -> Needs:
    """Stages that read tables as a whole, some of them with a model's tokenizer.

    Memory: a process, and the tables as Python objects. Time: 10 min, and the reading row by row.
    """
    process = TRANSFORMERS if tokenizer else PYTHON
    return _needs(process + OBJECTS * read.bytes, 10 * 60 + read.rows / ROWS_READ, 10)


def _reading(weights: Weights, times: int = 1) -> float:
    """Seconds to read a model's files so many times."""
    return times * weights.files / DISK


def _needs(memory: float, seconds: float, shortest: int) -> Needs:
    """Memory rounded up to 100 MB, with Snakemake's own; time to ten minutes, within limits."""
    minutes = max(10 * math.ceil(seconds / 600), shortest)
    return Needs(100 * math.ceil((SNAKEMAKE + memory) / (100 * MB)), min(minutes, LONGEST))
