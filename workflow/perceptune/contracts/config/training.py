"""Training runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from perceptune.contracts.config.blocks import Block, InOrder, Parameter, Positive, Seed, Share

Part = Literal["language", "projector", "vision"]
Tracker = Literal["tensorboard", "wandb", "trackio"]


class LoraBlock(Block):
    """The adapter: what is trained. Names are those of PEFT's `LoraConfig`."""

    r: Positive = 128
    """Rank."""
    alpha: Positive = 256
    """Scale: the update is multiplied by alpha / r, or alpha / sqrt(r) with `use_rslora`."""
    dropout: Share = 0.0
    """Dropout on the adapter's input. Above 0, the shared-prefix pass draws one mask for all
    responses of a list."""
    parts: Annotated[tuple[Part, ...], Field(min_length=1)] = ("language",)
    """Parts of the model whose linear layers are trained; everything else stays frozen."""
    full: tuple[Literal["projector"], ...] = ()
    """Those of `parts` whose linear layers are trained in full, weights and biases, instead of by LoRA
    (PEFT's `modules_to_save`)."""
    target_modules: tuple[str, ...] = ()
    """Names of linear layers in the other `parts` to adapt; empty: all of them, as in PerPO."""
    use_rslora: bool = False
    """Rank-stabilised scale (arXiv:2312.03732)."""
    use_dora: bool = False
    """DoRA (arXiv:2402.09353): also trains the norm of each row of the weights. Slower, and needs more
    memory."""


class TrainingBlock(Block):
    """One training run. A list of values in a field is a sweep."""

    method: str
    """Training method."""
    parameters: dict[str, Parameter] = {}
    """[Parameters](#parameters-of-methods) of this method."""
    view: str = "original"
    """View of the image in training; `blank` trains without the image."""
    lora: LoraBlock = LoraBlock()
    """Adapter."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-6
    """Peak learning rate of AdamW."""
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """Learning-rate schedule."""
    warmup_ratio: Share = 0.0
    """Share of the steps spent on warm-up."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of AdamW."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradient norm at which gradients are clipped."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the groups."""
    keep_epochs: bool = False
    """Also keep the adapter after each epoch before the last, and evaluate it: after epoch k, it is the policy
    `<experiment>@<k>`. Not for rounds."""
    batch_size: Positive = 16
    """Groups (lists, pair records or rollout groups) per optimizer step, over all devices."""
    micro_batch_size: Positive = 1
    """Groups per device and forward pass; does not change the result."""
    devices: Positive = 1
    """Data-parallel processes per node, one GPU each if there are GPUs."""
    nodes: Positive = 1
    """Nodes of a SLURM job, with `devices` processes each."""
    sharding: Literal["none", "fsdp"] = "none"
    """`fsdp`: split the weights over all processes, for models that do not fit on one GPU; does not change
    the result."""
    quantisation: Literal["none", "nf4"] = "none"
    """`nf4`: keep the language model's frozen weights in 4 bits, in training and for its stored log-probs
    (NVIDIA GPUs only, with the package bitsandbytes)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    save_steps: Positive = 50
    """Steps between checkpoints. A killed run resumes from the latest one."""
    seed: Seed = 42
    """Seed of data order, adapter initialisation and dropout."""
    report_to: tuple[Tracker, ...] = ()
    """Trackers that show the metrics of every step while the training runs; each must be installed.
    See [docs/running.md](../docs/running.md#live-metrics)."""
    optimizer: Literal["carry", "reset"] = "carry"
    """Rounds only: carry the optimizer state over from the previous round, or reset it."""
    limits: dict[str, Annotated[tuple[float | None, float | None], InOrder]] = {}
    """Rounds only: minimum and maximum of a training metric (null: none). A round that exceeds a
    limit is discarded, and the experiment ends with the previous adapter. `<metric>_growth` limits
    the metric as a multiple of its first value in the round; `<metric>_at_start` limits only the
    first step."""

    @model_validator(mode="after")
    def _several_epochs_to_keep(self) -> TrainingBlock:
        if self.keep_epochs and self.epochs <= 1:
            expected = "expected more than 1 in `epochs`"
            raise ValueError(f"`keep_epochs` keeps those before the last, {expected}, got {self.epochs:g}")
        return self
