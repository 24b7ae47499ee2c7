"""The config: typed, closed blocks with names. A block holds the parameters of one stage.

Editing a block reruns that stage and everything that depends on it. Defaults are defined only here.
The JSON schema in `workflow/schemas` and the key tables in `config/README.md` are generated from
this file.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Coordinates = Literal["pixels", "normalised", "thousand", "padded_normalised", "padded_thousand"]
Task = Literal["grounding", "ocr", "existence", "counting", "open"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Prompt = Annotated[str, Field(pattern=r"\{question\}")]
PLAIN_VIEWS = ("original", "blank")
"""Views that are always defined."""
LOCATE = "Your task is to answer the question by first locating the relevant region in the image. Question: {question}"
"""Prompt for attention maps (P2-DPO)."""
UNTRACKED = {
    "threads", "engine", "watch_images", "micro_batch_size", "devices", "gradient_checkpointing", "save_steps",
    "key", "concurrency", "retries", "timeout",
}  # fmt: skip
"""Keys that decide where and how fast something is computed, not what. Changing them reruns
nothing."""


class Block(BaseModel):
    """A closed, frozen part of the config. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


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
    """Responses sampled and committed together; a killed run loses at most one such part. Shards
    consist of whole parts."""
    batch_invariant: bool = False
    """Use vLLM's batch-invariant kernels (NVIDIA GPUs only): slower, but no response depends on the
    rest of its batch."""


class ModelBlock(Block):
    """A base model: a folder in Hugging Face format. The block's name is also the policy's name."""

    path: str
    """Folder with the weights, relative to the working directory."""
    family: str
    """Model family: chat template, coordinate frame and LoRA targets."""
    coordinates: Literal["padded_square", "original", "resized_pixels", "thousand"] | None = None
    """Coordinate frame of box answers; null: the family's."""
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
    engine: EngineBlock = EngineBlock()
    """vLLM settings."""


class ShapesDataset(Block):
    """Generated demo data: coloured shapes and short words."""

    kind: Literal["shapes"]
    """Generates the data."""
    seed: int = 0
    """Seed of the scenes."""
    train: dict[Task, Positive] = {}
    """Questions per task in the training split."""
    validation: dict[Task, Positive] = {}
    """Questions per task in the validation split."""
    test: dict[Task, Positive] = {}
    """Questions per task in the test split."""


class FileDataset(Block):
    """Your own images with questions, or a published dataset."""

    kind: str
    """Format: `jsonl`, `parquet` or `hf` (a folder written by `datasets.save_to_disk`) with the
    columns of [your own data](#your-own-data), or that of a published dataset (docs/data.md)."""
    path: Annotated[str, Field(min_length=1)]
    """File or folder."""
    images: str | None = None
    """Folder that image paths are relative to; null: the folder of `path`."""
    coordinates: Coordinates | None = None
    """Unit of `box` values: pixels, fractions (0 to 1) or thousandths of width and height;
    `padded_`: of the image padded to a square. null: the format's unit, or pixels if it declares
    none."""
    watch_images: bool = True
    """Check at every start, by size and modification time, whether image files have changed. Turn
    this off for very large datasets."""
    task: Task | None = None
    """Task of rows without one."""
    split: Annotated[str, Field(min_length=1)] | None = None
    """Split of rows without one; null: the split in the name of their Parquet file (docs/data.md),
    or `train`."""
    max_images: Positive | None = None
    """Reproduction only: skip rows with more images and count them in the log, as in CPPO's code;
    null: no limit."""
    max_failed_share: Share = 0.0
    """Maximum share of unusable rows; the import stops above it."""
    max_failed_rows: Annotated[int, Field(ge=0)] | None = None
    """Maximum number of unusable rows. If `max_failed_share` is above 0, both apply; null: only
    `max_failed_share` applies."""


def _kind_of_dataset(block: Any) -> str:
    kind = block.get("kind") if isinstance(block, Mapping) else getattr(block, "kind", None)
    return "shapes" if kind == "shapes" else "file"


DatasetBlock = Annotated[
    Annotated[ShapesDataset, Tag("shapes")] | Annotated[FileDataset, Tag("file")], Discriminator(_kind_of_dataset)
]


class Decoding(Block):
    """How responses are sampled."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Softmax temperature; 0: greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling probability."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Sample from the k most likely tokens; 0: from all."""
    max_tokens: Positive = 64
    """Maximum length of a response, in tokens."""
    seed: int = 0
    """Sampling seed."""


class SamplingBlock(Decoding):
    """Which training questions to sample responses for, and how many."""

    n: Positive = 20
    """Responses per question."""
    split: str = "train"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to use; empty: all."""
    limit: Positive | None = None
    """Maximum number of questions per task, in dataset order; null: all."""
    view: str = "original"
    """View of the image: `original`, `blank`, or a view of this config."""
    prompt: Prompt = "{question}"
    """The user's turn after the image; `{question}` stands for the question."""


class RolloutBlock(Decoding):
    """Questions of a round, answered by the latest policy. They are drawn without replacement until
    all have been used."""

    questions: Positive = 128
    """Questions per round."""
    n: Annotated[int, Field(ge=2)] = 8
    """Responses per question (G)."""
    split: str = "train"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to use; empty: all."""
    view: str = "original"
    """View of the image, in sampling and in training."""
    prompt: Prompt = "{question}"
    """The user's turn after the image; `{question}` stands for the question."""

    @model_validator(mode="after")
    def _check_temperature(self) -> RolloutBlock:
        if self.temperature != 1:
            raise ValueError(
                f"temperature {self.temperature:g}, expected 1: probability ratios assume the sampling distribution"
            )
        return self


class BatchBlock(Block):
    """Which groups of a round to train on."""

    questions: Positive | None = None
    """Maximum number of groups: the first kept ones in the order they were drawn; null: all kept
    ones."""
    keep: str | None = None
    """Dynamic sampling (DAPO): keep a group if its mean of this value lies between `above` and
    `below`. The value is `reward` or a component of the reward such as `accuracy`; null: keep all
    groups."""
    above: float = 0.01
    """Lower limit of that mean, exclusive."""
    below: float = 0.99
    """Upper limit of that mean, exclusive."""


class ViewBlock(Block):
    """A named transformation of the image."""

    type: str | None = None
    """Type of view; null with `choice`."""
    choice: tuple[str, ...] = ()
    """Instead of `type`: views of this config, one of which is drawn by seed for each image."""
    parameters: dict[str, float | int | str | bool | None] = {}
    """[Parameters](#parameters-of-views) of this type of view."""
    crop: str | None = None
    """A crop block of this config, for views that need a crop; null for all others."""
    saliency_map: str | None = None
    """A `saliency_maps` block of this config, for views that need a saliency map; null for all
    others."""
    seed: int = 0
    """Seed of the view's random draws."""

    @model_validator(mode="after")
    def _check_type_or_choice(self) -> ViewBlock:
        if (self.type is None) == (not self.choice):
            raise ValueError("expected either `type` or `choice`")
        if self.choice and (self.parameters or self.crop or self.saliency_map):
            raise ValueError("`parameters`, `crop` and `saliency_map` cannot be combined with `choice`")
        return self


class AttentionBlock(Block):
    """Attention of a policy on the image before it answers."""

    method: Literal["mean", "gradient"] = "mean"
    """`mean`: attention averaged over heads and layers; `gradient`: attention of one layer weighted
    by its gradient (ViCrop's code)."""
    layers: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] | None = None
    """First and last layer, from 0, both included; null: all. `gradient` needs a single layer."""
    prompt: Prompt = LOCATE
    """The user's turn after the image; `{question}` stands for the question."""
    split: str = "train"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to use; empty: all."""
    limit: Positive | None = None
    """Maximum number of questions per task, in dataset order; null: all."""


class SaliencyBlock(Block):
    """Saliency of image patches: the attention they receive in a DINOv2 (PAPO's semantic-aware
    mask)."""

    path: str
    """Folder with a DINOv2 model in Hugging Face format, relative to the working directory."""
    layers: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = (6, 9)
    """First and last layer whose attention is averaged, from 0, both included. The paper gives 6 to
    9 without saying how it counts."""
    size: Positive = 224
    """Side in pixels of the square that images are resized to; a multiple of the patch size
    (usually 14)."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Dtype of the weights."""
    split: str = "train"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to use; empty: all."""
    limit: Positive | None = None
    """Maximum number of questions per task, in dataset order; null: all."""


class CropBlock(Block):
    """The salient crop of every example (P2-DPO, algorithm 1)."""

    attention_map: str
    """The `attention_maps` block that determines the crop."""
    base: tuple[Positive, Positive] = (336, 336)
    """Width and height of the smallest crop, in pixels."""
    ratios: tuple[Annotated[float, Field(gt=0)], ...] = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
    """Candidate sizes, as multiples of `base`."""
    neighbours: Literal[4, 8] = 4
    """Reproduction only: number of neighbouring windows the best one is compared with. P2-DPO's
    paper gives no number; its code uses 4."""
    variant: Literal["paper", "code"] = "paper"
    """Reproduction only: follow P2-DPO's paper or its code where they differ (crop centre, ties,
    rounding)."""


class ContrastBlock(Block):
    """Contrastive decoding: amplifies what the answer's own view (expert) makes more likely than
    this view (amateur)."""

    view: str
    """View of the amateur."""
    strength: Annotated[float, Field(ge=0)] = 0.1
    """lambda: logits are (1 + lambda) expert - lambda amateur."""
    plausibility: Share = 0.1
    """Sample only tokens whose expert probability is at least this fraction of the most likely
    token's; 0: all."""


class AnswerBlock(Decoding):
    """How one response of a pair is generated."""

    view: str = "original"
    """View of the image."""
    prompt: Prompt = "{question}"
    """The user's turn after the image; `{question}` stands for the question."""
    contrast: ContrastBlock | None = None
    """Contrastive decoding; null: plain decoding."""


class PairBlock(Block):
    """A preference pair: one response generated under good conditions, one under bad conditions."""

    chosen: AnswerBlock
    """The preferred response."""
    rejected: AnswerBlock
    """The rejected response."""


class PairingBlock(Block):
    """Preference pairs that the model generates itself (P2-DPO)."""

    focus: PairBlock | None = None
    """Responses to images with the salient crop enhanced (chosen) and erased (rejected); null:
    none."""
    robust: PairBlock | None = None
    """A contrastively decoded response (chosen) and a response to a noisy image (rejected); null:
    none."""
    loss_prompt: Literal["question", "enhanced"] = "question"
    """Prompt of the calibration loss on image and crop: the plain question, or the prompt of the
    chosen focus response."""
    split: str = "train"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to use; empty: all."""
    limit: Positive | None = None
    """Maximum number of questions per task, in dataset order; null: all."""
    seed: int = 0
    """Seed of all other draws; responses have their own seeds."""


class FilterBlock(Block):
    """Which pairs to train on (P2-DPO, stage 6). Focus and robust pairs are filtered separately."""

    context: Literal["own", "original"] = "own"
    """What log-probs are conditioned on: `own`, the image and prompt each response was generated
    from; `original`, the original image and the plain question."""
    max_ppl: Annotated[float, Field(gt=0)] | None = 2.5
    """Upper limit of the perplexity of both responses, exclusive; null: no limit."""
    margin: tuple[float, float] | None = (-0.174, 0.208)
    """Minimum and maximum difference of the mean log-prob per token, chosen minus rejected,
    inclusive; null: no limit."""
    central_quantile: Annotated[float, Field(gt=0, le=1)] | None = None
    """Instead of `margin`: keep this central share of the margins of each kind of pair; null: use
    `margin`."""
    applies_to: Literal["each", "focus"] = "each"
    """Reproduction only: `each`, limits apply to every pair; `focus`, limits apply to the focus
    pair and its outcome to the whole record, as in P2-DPO's code."""
    clip_score: str | None = None
    """A `clip_scores` block of this config whose scores are stored with the pairs; null: none."""
    max_groups: Positive | None = None
    """Maximum number of records, drawn by seed; null: all."""
    seed: int = 0
    """Seed of that draw."""


class ClipBlock(Block):
    """CLIP similarity of question and image, and of question and crop."""

    path: str
    """Folder with a CLIP model in Hugging Face format, relative to the working directory."""
    prompt: Prompt = "{question}"
    """Text; `{question}` stands for the question. Text beyond CLIP's context length is
    truncated."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Dtype of the weights."""


class RewardBlock(Block):
    """How responses are scored, by task."""

    tasks: dict[Task, str]
    """Reward of each task."""
    max_failed_share: Share = 0.02
    """Maximum share of requests without a response; scoring stops above it."""
    max_failed_rows: Annotated[int, Field(ge=0)] | None = None
    """Maximum number of missing responses. If `max_failed_share` is above 0, both apply; null: only
    `max_failed_share` applies."""
    resources: str | None = None
    """Folder with language resources for rewards that need them (docs/benchmarks.md); null: metrics
    that need them are left empty."""


class JudgeBlock(Block):
    """A language model that judges answers, at temperature 0. Its verdicts are stored and
    reused."""

    model: str
    """Model name at the endpoint; without `url`, a model of this config, run locally by vLLM."""
    url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """URL of an OpenAI-compatible endpoint, such as `http://localhost:8000/v1`; null: a model of
    this config."""
    max_tokens: Positive | None = None
    """Maximum length of a verdict, in tokens; null: the benchmark's."""
    key: str | None = None
    """Environment variable that holds the endpoint's API key; null: no key needed."""
    concurrency: Positive = 8
    """Concurrent requests to the endpoint."""
    retries: Annotated[int, Field(ge=0)] = 6
    """Retries per question after endpoint failures, before the stage stops."""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Timeout per request, in seconds."""


class SelectionBlock(Block):
    """Turns scored responses into ranked lists. A list of values in a field is a sweep."""

    list_size: Annotated[int, Field(ge=2)] = 20
    """Responses per list (N), after deduplication."""
    min_margin: Share = 0.8
    """Minimum difference between best and worst reward of a kept list, inclusive."""
    min_list_size: Annotated[int, Field(ge=2)] = 2
    """Minimum number of responses in a list; shorter lists are dropped."""
    deduplicate: bool = True
    """Keep only one of several identical responses."""
    pick: Literal["spread", "first"] = "spread"
    """Which responses to keep if there are more than `list_size`: spread evenly over the ranks,
    including best and worst, or the first ones sampled."""
    max_groups: Positive | None = None
    """Maximum number of lists, drawn by seed; null: all."""
    seed: int = 0
    """Seed of that draw."""


class GivenBlock(SelectionBlock):
    """Ranked responses that come with the dataset, used instead of sampled ones."""

    min_margin: Annotated[float, Field(ge=0)] = 0.0
    """Minimum difference between best and worst reward of a kept list, inclusive. Rewards are the
    dataset's, or fall from 1 to 0 by rank if it has none."""
    split: str = "train"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to use; empty: all."""
    limit: Positive | None = None
    """Maximum number of questions per task, in dataset order; null: all."""
    prompt: Prompt = "{question}"
    """The user's turn after the image; `{question}` stands for the question."""


class LoraBlock(Block):
    """The LoRA adapter."""

    r: Positive = 128
    """Rank."""
    alpha: Positive = 256
    """Scale: the update is multiplied by alpha / r."""
    dropout: Share = 0.0
    """Dropout on the adapter's input. Above 0, the shared-prefix pass draws one mask for all
    responses of a list."""
    target_modules: tuple[str, ...] = ()
    """Names of the language model's linear layers to adapt; empty: the family's default (all of
    them, as in PerPO)."""


class TrainingBlock(Block):
    """One training run. A list of values in a field is a sweep."""

    method: str
    """Training method."""
    parameters: dict[str, float | int | str | bool | None] = {}
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
    batch_size: Positive = 16
    """Groups (lists, pair records or rollout groups) per optimizer step, over all devices."""
    micro_batch_size: Positive = 1
    """Groups per device and forward pass; does not change the result."""
    devices: Positive = 1
    """Data-parallel processes, one GPU each if there are GPUs."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    save_steps: Positive = 50
    """Steps between checkpoints. A killed run resumes from the latest one."""
    seed: int = 42
    """Seed of data order, adapter initialisation and dropout."""
    optimizer: Literal["carry", "reset"] = "carry"
    """Rounds only: carry the optimizer state over from the previous round, or reset it."""
    limits: dict[str, tuple[float | None, float | None]] = {}
    """Rounds only: minimum and maximum of a training metric (null: none). A round that exceeds a
    limit is discarded, and the experiment ends with the previous adapter. `<metric>_growth` limits
    the metric as a multiple of its first value in the round; `<metric>_at_start` limits only the
    first step."""


class BenchmarkBlock(Block):
    """Held-out questions with metrics. Each is answered greedily and, for the best-of-N curves,
    sampled `n` times."""

    dataset: str
    """A dataset of this config."""
    protocol: str | None = None
    """A published benchmark (docs/benchmarks.md): sets the keys left out here, including `reward`,
    and adds its official metrics; null: the reward's metrics."""
    variant: str | None = None
    """Variant of the protocol, if it has several (docs/benchmarks.md); null: its default."""
    reward: str
    """A reward block of this config: it parses answers and computes the components of the
    metrics."""
    judge: str | None = None
    """A judge of this config, for protocols that need or support one; null: none."""
    judge_prompt: str | None = None
    """File with a prompt for the judge (docs/benchmarks.md); null: the protocol's prompt."""
    split: str = "test"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to use; empty: all."""
    limit: Positive | None = None
    """Maximum number of questions per task, in dataset order; null: all."""
    n: Annotated[int, Field(ge=0)] = 20
    """Sampled responses per question for the best-of-N and mean-of-N curves; 0: none."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Temperature of the sampled responses."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling probability of the sampled responses."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Draw sampled responses from the k most likely tokens; 0: from all."""
    max_tokens: Positive = 64
    """Maximum length of a response, in tokens."""
    views: Annotated[tuple[str, ...], Field(min_length=1)] = ("original", "blank")
    """Views for greedy decoding; `blank` is the no-image test. Sampled responses use the first
    view."""
    attention_map: str | None = None
    """An `attention_maps` block of this config, to measure each policy's attention on these
    questions; null: not measured."""
    prompt: str = "{question}"
    """The user's turn after the image; `{question}` stands for the question. It may be left out
    only if the questions are part of the images, as in `mmmu_pro`."""
    prompts: tuple[Prompt, ...] = ()
    """Additional prompts on which to evaluate the base models, greedily under the first view;
    `{format}` stands for an instruction on the answer format of the task. Trained policies do not
    use them."""
    seed: int = 0
    """Seed of sampling and bootstrap."""
    resamples: Positive = 9999
    """Bootstrap resamples for the 95 % intervals."""


LISTS = ("sampling", "reward", "selection")
SOURCES: dict[str, tuple[tuple[str, ...], ...]] = {
    "lists": (LISTS, ("dataset_preference",)),
    "pairs": (("pair_generation", "filter"),),
    "rollouts": (("rollout", "reward", "batch_selection"),),
}
"""What a method learns from, to the experiment keys that define its source. Lists have two
sources."""
WAYS = tuple(way for ways in SOURCES.values() for way in ways)


def named_keys(*ways: tuple[str, ...]) -> str:
    """Keys as text for messages: "`pair_generation` and `filter`, or `rollout`"."""
    listed = [[f"`{key}`" for key in keys] for keys in ways]
    return ", or ".join(" and ".join(filter(None, [", ".join(keys[:-1]), keys[-1]])) for keys in listed)


class ExperimentBlock(Block):
    """One trained policy, as names of blocks. The block's name is also the policy's name."""

    model: str
    """Base model."""
    dataset: str
    """Training data."""
    sampling: str | None = None
    """Sampling block of the training responses (list methods only)."""
    reward: str | None = None
    """Reward block that scores them (list and round methods only)."""
    selection: str | None = None
    """Selection block that turns scored responses into ranked lists (list methods only)."""
    dataset_preference: str | None = None
    """Dataset preferences to use as ranked lists, instead of `sampling`, `reward` and
    `selection`."""
    pair_generation: str | None = None
    """Block that generates pairs (pair methods only)."""
    filter: str | None = None
    """Block that filters these pairs (pair methods only)."""
    rollout: str | None = None
    """Rollout block: the questions of each round (round methods only)."""
    batch_selection: str | None = None
    """Block that selects the groups of a round to train on (round methods only)."""
    rounds: Positive | None = None
    """Number of rounds (round methods only). Round k trains the policy `<experiment>@<k>`. If the
    number is raised later, training continues from the last round."""
    evaluate_every: Positive = 1
    """Evaluate the policy of every n-th round; the last one is always evaluated."""
    training: str
    """Training block."""
    benchmarks: tuple[str, ...]
    """Benchmarks for the policy and its base model."""

    @property
    def made_of(self) -> tuple[str, ...]:
        """The keys that define the source of its groups."""
        return next((keys for keys in WAYS if getattr(self, keys[0])), LISTS)

    @model_validator(mode="after")
    def _groups_have_one_source(self) -> ExperimentBlock:
        keys = dict.fromkeys(key for way in WAYS for key in way)
        present = [key for key in keys if getattr(self, key)]
        if set(present) not in map(set, WAYS):
            found = ", ".join(f"`{key}`" for key in present) or "none of them"
            raise ValueError(f"has {found}, expected either {named_keys(*WAYS)}")
        if (self.rounds is None) == (self.rollout is not None):
            raise ValueError("`rounds` and `rollout` go together, expected both or neither")
        return self


class ControlsBlock(Block):
    """Controls: could something other than better perception explain a gain? They apply to every
    experiment (docs/controls.md)."""

    prompts: tuple[Prompt, ...] = (
        "{question}",
        "{question}\n{format}",
        "{question}\nAnswer with the final answer only.",
        "Look closely at the image before you answer. {question}",
    )
    """Additional prompts on which to evaluate the base models. The best one is chosen on the test
    questions themselves, which favours the base model. A benchmark's own `prompts` override them.
    Empty: none."""
    blank: bool = True
    """Evaluate every benchmark with a blank image as well."""
    sigmas: tuple[Annotated[float, Field(gt=0)], ...] = (0.1, 0.2, 0.4)
    """Evaluate every benchmark under Gaussian pixel noise with these standard deviations (white is
    1). Empty: none."""
    n: Annotated[int, Field(ge=0)] = 8
    """Minimum number of sampled responses per question for best-of-N and mean-of-N."""
    sft_on_best: bool = True
    """For every experiment with ranked lists, train an SFT counterpart on the best response of each
    list, with an otherwise identical training block."""


class ExportBlock(Block):
    """Preferences of an experiment in another trainer's format (docs/exchange.md), written by
    `snakemake exports`."""

    experiment: str
    """An experiment (of one with rounds, the last round), or a round as `<experiment>@<round>`."""
    format: str
    """Target format."""
    pairs: Literal["extremes", "all"] = "extremes"
    """Pairs made from a ranked list, in pair formats: best and worst response, or all pairs with
    different rewards."""


class ReportBlock(Block):
    """The HTML report."""

    title: str = "perceptune"
    """Heading."""
    caption: str = ""
    """Text below the heading."""
    gallery: Annotated[int, Field(ge=0)] = 12
    """Number of examples shown before and after training."""


class Config(Block):
    """The whole config file."""

    plugins: tuple[str, ...] = ()
    """Folders with your own plug-ins, relative to the working directory: one sub-folder per kind,
    one file per plug-in."""
    models: dict[Name, ModelBlock]
    """Base models by name."""
    datasets: dict[Name, DatasetBlock]
    """Datasets by name."""
    views: dict[Name, ViewBlock] = {}
    """Views by name; `original` and `blank` are always defined."""
    attention_maps: dict[Name, AttentionBlock] = {}
    """Attention maps by name."""
    crops: dict[Name, CropBlock] = {}
    """Crops by name."""
    saliency_maps: dict[Name, SaliencyBlock] = {}
    """Saliency maps by name."""
    samplings: dict[Name, SamplingBlock] = {}
    """Samplings by name."""
    pair_generations: dict[Name, PairingBlock] = {}
    """Pair generations by name."""
    filters: dict[Name, FilterBlock] = {}
    """Pair filters by name."""
    clip_scores: dict[Name, ClipBlock] = {}
    """CLIP scores by name."""
    rollouts: dict[Name, RolloutBlock] = {}
    """Rollouts of rounds by name."""
    batch_selections: dict[Name, BatchBlock] = {}
    """Batch selections of rounds by name."""
    rewards: dict[Name, RewardBlock] = {}
    """Rewards by name."""
    judges: dict[Name, JudgeBlock] = {}
    """Judges by name."""
    selections: dict[Name, SelectionBlock] = {}
    """Selections by name."""
    dataset_preferences: dict[Name, GivenBlock] = {}
    """Dataset preferences by name."""
    trainings: dict[Name, TrainingBlock] = {}
    """Trainings by name."""
    benchmarks: dict[Name, BenchmarkBlock] = {}
    """Benchmarks by name."""
    experiments: dict[Name, ExperimentBlock]
    """Experiments by name: what to run."""
    exports: dict[Name, ExportBlock] = {}
    """Exports of preferences by name."""
    rehearse: Annotated[int, Field(ge=1, strict=True)] | None = None
    """Rehearsal: run everything on this many examples per task, with two rounds and without
    filters, in the folder `rehearsal`; null: a full run."""
    controls: ControlsBlock | None = None
    """Controls for other explanations of a gain: `{}` runs all of them; null: none."""
    report: ReportBlock = ReportBlock()
    """The HTML report."""

    @model_validator(mode="after")
    def _names_are_unambiguous(self) -> Config:
        shared = sorted(self.models.keys() & self.experiments.keys())
        if shared:
            raise ValueError(f"`{shared[0]}` is both a model and an experiment, expected different names")
        # Their names are folders of the same table, so they must differ.
        sections: dict[str, dict[Name, Any]] = {
            "sampling": self.samplings,
            "pair_generation": self.pair_generations,
            "rollout": self.rollouts,
            "dataset_preference": self.dataset_preferences,
        }
        for (kind, names), (other_kind, other_names) in itertools.combinations(sections.items(), 2):
            if both := sorted(names.keys() & other_names.keys()):
                raise ValueError(f"`{both[0]}` is both a {kind} and a {other_kind}, expected different names")
        plain = sorted(set(PLAIN_VIEWS) & self.views.keys())
        if plain:
            raise ValueError(f"view `{plain[0]}` is built in, expected another name")
        return self

    def used_benchmarks(self) -> list[str]:
        """Benchmarks that any experiment uses, in config order."""
        named = {benchmark for experiment in self.experiments.values() for benchmark in experiment.benchmarks}
        return [name for name in self.benchmarks if name in named]

    def used_datasets(self) -> list[str]:
        """Datasets that any experiment uses, in config order; all if there are no experiments."""
        trained_on = {experiment.dataset for experiment in self.experiments.values()}
        used = trained_on | {self.benchmarks[name].dataset for name in self.used_benchmarks()}
        return [name for name in self.datasets if name in used or not self.experiments]
