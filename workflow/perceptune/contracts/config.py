"""The config: named blocks, typed and closed. A block holds the parameters of one stage.

Editing a block reruns that stage and what follows from it. Defaults live here and nowhere else; the JSON schema in
`workflow/schemas` and the key table in `config/README.md` are generated from this file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Coordinates = Literal["pixels", "normalised", "thousand"]
Task = Literal["grounding", "ocr", "existence", "counting", "open"]
View = Literal["original", "blank"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Block(BaseModel):
    """A closed, frozen part of the config: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class EngineBlock(Block):
    """How vLLM serves the model. Nothing here changes what an answer means, only where it is computed."""

    tensor_parallel_size: Positive = 1
    """GPUs that share the model's weights."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of a GPU's memory that vLLM may take."""
    enforce_eager: bool = False
    """Skip compilation and CUDA graphs: faster start, slower generation."""
    max_num_seqs: Positive = 256
    """Sequences that advance together."""
    max_lora_rank: Positive = 128
    """Largest adapter rank when `adapters` is `request`."""
    answers_per_part: Positive = 2048
    """Answers asked and committed together: what a killed run has to ask again. Shards share out whole parts."""
    batch_invariant: bool = False
    """vLLM's batch-invariant kernels (NVIDIA GPUs only): slower, and no answer depends on what it was batched with."""
    adapters: Literal["merge", "request"] = "merge"
    """Serve an adapter merged into the weights, or by LoRA request (no second copy of the weights)."""


class ModelBlock(Block):
    """A base model, as a folder in Hugging Face format. Its name is the name of its policy."""

    path: str
    """Folder with the weights, relative to the working directory."""
    family: Literal["llava", "qwen2_5_vl"]
    """Chat prompt, coordinate frame and LoRA targets: a module of `perceptune.models`."""
    coordinates: Literal["padded_square", "original", "resized_pixels", "thousand"] | None = None
    """What the numbers of a box answer mean; null takes the family's own convention."""
    max_model_len: Positive = 2048
    """Longest prompt plus answer, in tokens; longer ones are quarantined."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Number format of the weights when sampling, and of the forward passes when training."""
    trust_remote_code: bool = False
    """Run Python code that comes with the weights."""
    engine: EngineBlock = EngineBlock()
    """vLLM settings."""


class ShapesDataset(Block):
    """The generated demo data: coloured shapes and short words."""

    kind: Literal["shapes"]
    """Generate the data."""
    seed: int = 0
    """Seed of the scenes."""
    train: dict[Task, Positive] = {}
    """Questions per task in the training split."""
    validation: dict[Task, Positive] = {}
    """Questions per task in the validation split."""
    test: dict[Task, Positive] = {}
    """Questions per task in the test split."""


class FileDataset(Block):
    """The user's own images with questions."""

    kind: Literal["jsonl", "parquet", "hf"]
    """JSON lines, Parquet, or a folder written by `datasets.save_to_disk`."""
    path: str
    """The file or folder."""
    images: str | None = None
    """Folder that image paths are relative to; null: the folder of `path`."""
    coordinates: Coordinates = "pixels"
    """What the numbers of a `box` mean: pixels, or shares (0 to 1) or thousandths of width and height."""
    watch_images: bool = True
    """Notice images that change under the same name, by size and date at every start; false for very many images."""
    task: Task | None = None
    """Task of rows that name none."""
    split: str = "train"
    """Split of rows that name none."""
    max_failed: Share = 0.0
    """Share of unusable rows up to which the import goes on without them."""
    max_failed_rows: Annotated[int, Field(ge=0)] | None = None
    """The same as a number of rows; null: the share alone decides."""


DatasetBlock = Annotated[ShapesDataset | FileDataset, Field(discriminator="kind")]


class Decoding(Block):
    """How answers are drawn."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Softmax temperature; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus share."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Keep only the k likeliest tokens; 0: all."""
    max_tokens: Positive = 64
    """Longest answer, in tokens."""
    seed: int = 0
    """Seed of the draws."""


class SamplingBlock(Decoding):
    """Which training questions to ask, and how often."""

    n: Positive = 20
    """Answers per question."""
    split: str = "train"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to ask; empty: all."""
    limit: Positive | None = None
    """At most so many questions per task, the first ones; null: all."""
    view: View = "original"
    """How the image is shown."""
    prompt: str = "{question}"
    """The user's turn after the image; `{question}` stands for the question."""


class RewardBlock(Block):
    """Reward per task: names of modules in `perceptune.core.rewards`."""

    tasks: dict[Task, str]
    """Task to reward."""
    max_failed: Share = 0.02
    """Share of requests without a response above which scoring stops."""
    max_failed_rows: Annotated[int, Field(ge=0)] | None = None
    """The same as a number of responses; null: the share alone decides."""


class SelectionBlock(Block):
    """From scored answers to ranked lists. A list of values in a field is a sweep."""

    list_size: Annotated[int, Field(ge=2)] = 20
    """Answers kept per question (N), after de-duplication."""
    min_margin: Share = 0.8
    """Smallest best-minus-worst reward of a kept list, inclusive."""
    min_list_size: Annotated[int, Field(ge=2)] = 2
    """Lists with fewer distinct answers are dropped."""
    deduplicate: bool = True
    """Keep one of identical answers."""
    pick: Literal["spread", "first"] = "spread"
    """Which answers make the list when there are more: spread over the ranks (best and worst too), or the first."""
    max_groups: Positive | None = None
    """Keep at most so many lists, chosen by seed; null: all."""
    seed: int = 0
    """Seed of the choice."""


class LoraBlock(Block):
    """The adapter."""

    r: Positive = 128
    """Rank."""
    alpha: Positive = 256
    """Scale: the update is multiplied by alpha / r."""
    dropout: Share = 0.0
    """Dropout on the adapter's input. Above 0 the shared-prefix pass draws one mask for all answers of a list."""
    target_modules: tuple[str, ...] = ()
    """Names of linear layers of the language model; empty: the family's default (all of them, PerPO's setting)."""


class TrainingBlock(Block):
    """One training run. A list of values in a field is a sweep."""

    method: str
    """A module of `perceptune.core.methods`."""
    parameters: dict[str, float | int | str | bool] = {}
    """The method's own parameters (see its module)."""
    view: View = "original"
    """The image shown while training; `blank` trains without the image."""
    lora: LoraBlock = LoraBlock()
    """Adapter."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-6
    """Peak learning rate of AdamW."""
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """Learning-rate schedule."""
    warmup_ratio: Share = 0.0
    """Share of the steps with rising learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradient clipping."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the lists."""
    batch_size: Positive = 16
    """Lists per optimiser step, over all devices."""
    micro_batch_size: Positive = 1
    """Lists per device and forward pass; does not change the result."""
    devices: Positive = 1
    """Processes that train together, one GPU each where there are GPUs."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    save_steps: Positive = 50
    """Steps between checkpoints, from which a killed run resumes."""
    seed: int = 42
    """Seed of the data order, the adapter's initial values and dropout."""


class BenchmarkBlock(Block):
    """Held-out questions with their metrics, asked greedily and `n` times."""

    dataset: str
    """A dataset of this config."""
    reward: str
    """A reward block of this config: it parses the answers and gives the components that metrics are made of."""
    split: str = "test"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to ask; empty: all."""
    limit: Positive | None = None
    """At most so many questions per task, the first ones; null: all."""
    n: Annotated[int, Field(ge=0)] = 20
    """Sampled answers per question for the best-of-N and mean-of-N curves; 0: none."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Temperature of the sampled answers."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus share of the sampled answers."""
    max_tokens: Positive = 64
    """Longest answer, in tokens."""
    views: tuple[View, ...] = ("original", "blank")
    """Views asked greedily; `blank` is the no-image test. Sampled answers see the first."""
    prompt: str = "{question}"
    """The user's turn after the image; `{question}` stands for the question."""
    seed: int = 0
    """Seed of the draws and of the bootstrap."""
    resamples: Positive = 9999
    """Bootstrap resamples of the 95 % intervals."""


class ExperimentBlock(Block):
    """One trained policy: names of blocks. Its own name is the name of its policy."""

    model: str
    """Base model."""
    dataset: str
    """Training data."""
    sampling: str
    """How its answers are drawn."""
    reward: str
    """How they are scored."""
    selection: str
    """How they become lists."""
    training: str
    """How the adapter is trained."""
    benchmarks: tuple[str, ...]
    """What the policy and its base model are tested on."""


class ReportBlock(Block):
    """The HTML page."""

    title: str = "perceptune"
    """Heading."""
    caption: str = ""
    """Text under the heading."""
    gallery: Annotated[int, Field(ge=0)] = 12
    """Examples shown before and after."""


class Config(Block):
    """The whole config file."""

    models: dict[Name, ModelBlock]
    """Base models by name."""
    datasets: dict[Name, DatasetBlock]
    """Datasets by name."""
    samplings: dict[Name, SamplingBlock] = {}
    """Samplings by name."""
    rewards: dict[Name, RewardBlock] = {}
    """Rewards by name."""
    selections: dict[Name, SelectionBlock] = {}
    """Selections by name."""
    trainings: dict[Name, TrainingBlock] = {}
    """Trainings by name."""
    benchmarks: dict[Name, BenchmarkBlock] = {}
    """Benchmarks by name."""
    experiments: dict[Name, ExperimentBlock]
    """What to run."""
    report: ReportBlock = ReportBlock()
    """The HTML page."""

    @model_validator(mode="after")
    def _policies_have_one_name(self) -> Config:
        shared = sorted(self.models.keys() & self.experiments.keys())
        if shared:
            raise ValueError(f"`{shared[0]}` is both a model and an experiment, expected different names")
        return self
