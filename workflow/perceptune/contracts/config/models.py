"""Models and how vLLM serves them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from perceptune.contracts.config.blocks import Block, Positive

MOST_WORKERS = 8
"""Processes that load and preprocess images for one process, unless the config says otherwise."""
Marker = Annotated[str, Field(pattern=r"\S")]
UNCOMPUTED = {"path", "engine", "threads", "workers", "feature_cache", "reasoning"}
"""Keys of a model block that change neither responses nor log-probs. The digest of the weights stands
for `path`."""


class EngineBlock(Block):
    """How vLLM serves the model: where and how fast responses are computed, not what is sampled."""

    tensor_parallel_size: Positive = 1
    """GPUs that the model's weights are split over."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of a GPU's memory that vLLM may use."""
    enforce_eager: bool = False
    """Skip compilation and CUDA graphs: faster startup, slower generation."""
    max_num_seqs: Positive = 256
    """Maximum number of sequences per decoding step."""
    answers_per_part: Positive = 2048
    """Finished responses are committed once there are this many, and at least every 30 seconds. A
    killed run loses only the uncommitted ones. Shards consist of whole parts of about this size."""
    batch_invariant: bool = False
    """Use vLLM's batch-invariant kernels (NVIDIA GPUs only): slower, but no response depends on the
    rest of its batch."""


class ModelBlock(Block):
    """A base model: a folder in Hugging Face format. The block's name is also the policy's name."""

    path: str
    """Folder with the weights, relative to the working directory."""
    family: str
    """Model family: chat template, coordinate frame and LoRA targets. `auto` takes what it can from the
    model's own files, for models without a family of their own (docs/families.md)."""
    coordinates: Literal["padded_square", "original", "resized_pixels", "thousand"] | None = None
    """Coordinate frame of box answers; null: the family's. `auto` has none."""
    reasoning: tuple[Marker, Marker] | None = None
    """Texts that open and close the model's reasoning, which rewards, metrics and judges do not see;
    null: those that the model's chat template mentions, or `<think>` and `</think>`."""
    image_fit: Literal["pad", "crop"] = "pad"
    """Reproduction only: LLaVA pads non-square images, as in its training; `crop` takes the centre
    crop instead, as P2-DPO's code does when it generates responses."""
    pixels: tuple[Positive, Positive] | None = None
    """Qwen-VL only: minimum and maximum number of pixels after resizing, in sampling and training;
    null: the values in the model's processor config."""
    max_model_len: Positive = 2048
    """Maximum length of prompt plus response, in tokens; longer ones are quarantined."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Dtype of the weights in sampling, and of the forward passes in training."""
    trust_remote_code: bool = False
    """Run Python code from the model folder."""
    threads: Positive = 16
    """CPU cores per job with this model, capped by what is available. Lower values let more such
    jobs run in parallel."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Number of processes that load and preprocess images ahead of vLLM's engine, or of each training
    process (PyTorch's data-loader workers); 0: the job's own process does it in between. Null: the
    share of `threads` minus one, at most 8, with a GPU, and 0 without one, where the model uses all
    cores."""
    feature_cache: bool = False
    """Store what the frozen vision tower and projector make of each image, for further epochs, trainings,
    rounds and log-probs. Trainings of these parts do without. See
    [docs/gpus.md](../docs/gpus.md#features-of-images)."""
    engine: EngineBlock = EngineBlock()
    """vLLM settings."""

    def workers_beside(self, cores: int) -> int:
        """The number of `workers` for a process with a GPU and so many cores."""
        return max(min(MOST_WORKERS, cores - 1), 0) if self.workers is None else self.workers
