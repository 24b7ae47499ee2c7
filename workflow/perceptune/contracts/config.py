"""The config: named blocks, typed and closed. A block holds the parameters of one stage.

Editing a block reruns that stage and what follows from it. Defaults live here and nowhere else; the JSON schema in
`workflow/schemas` and the key table in `config/README.md` are generated from this file.
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
"""Views that need no block."""
LOCATE = "Your task is to answer the question by first locating the relevant region in the image. Question: {question}"
"""P2-DPO's prompt for attention maps."""
UNTRACKED = {
    "threads", "engine", "watch_images", "micro_batch_size", "devices", "gradient_checkpointing", "save_steps",
    "key", "concurrency", "retries", "timeout",
}  # fmt: skip
"""Settings that say where and how fast something is computed, not what: changing them reruns nothing."""


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
    answers_per_part: Positive = 2048
    """Answers asked and committed together: what a killed run has to ask again. Shards share out whole parts."""
    batch_invariant: bool = False
    """vLLM's batch-invariant kernels (NVIDIA GPUs only): slower, and no answer depends on what it was batched with."""


class ModelBlock(Block):
    """A base model, as a folder in Hugging Face format. Its name is the name of its policy."""

    path: str
    """Folder with the weights, relative to the working directory."""
    family: str
    """The family of models that it belongs to: chat prompt, coordinate frame and LoRA targets."""
    coordinates: Literal["padded_square", "original", "resized_pixels", "thousand"] | None = None
    """What the numbers of a box answer mean; null takes the family's own convention."""
    image_fit: Literal["pad", "crop"] = "pad"
    """Reproduction only: LLaVA pads images that are not squares, as it was trained; `crop` cuts out their middle instead, as
    P2-DPO's code does when it generates answers."""
    pixels: tuple[Positive, Positive] | None = None
    """Qwen-VL: an image is resized to so many pixels at least and at most, wherever the model sees it; null: as its folder says."""
    max_model_len: Positive = 2048
    """Longest prompt plus answer, in tokens; longer ones are quarantined."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Number format of the weights when sampling, and of the forward passes when training."""
    trust_remote_code: bool = False
    """Run Python code that comes with the weights."""
    threads: Positive = 16
    """CPU cores of a job with this model, where there are as many; with fewer, more such jobs run at once."""
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
    """The user's own images with questions, or a published data set."""

    kind: str
    """The format: `jsonl`, `parquet` or `hf` (a folder written by `datasets.save_to_disk`) with the columns of
    [your own data](#your-own-data), or a published one (docs/data.md)."""
    path: Annotated[str, Field(min_length=1)]
    """The file or folder."""
    images: str | None = None
    """Folder that image paths are relative to; null: the folder of `path`."""
    coordinates: Coordinates | None = None
    """What the numbers of a `box` mean: pixels, or shares (0 to 1) or thousandths of width and height, of the padded square
    with `padded_`; null: what the format declares, or else pixels."""
    watch_images: bool = True
    """Notice images that change under the same name, by size and date at every start; false for very many images."""
    task: Task | None = None
    """Task of rows that name none."""
    split: Annotated[str, Field(min_length=1)] | None = None
    """Split of rows that name none; null: what the name of their Parquet file says (docs/data.md), or else `train`."""
    max_images: Positive | None = None
    """Reproduction only: rows with more images are left out and counted in the log, as in CPPO's code; null: none are."""
    max_failed_share: Share = 0.0
    """Share of unusable rows up to which the import goes on without them."""
    max_failed_rows: Annotated[int, Field(ge=0)] | None = None
    """The same as a number of rows, besides the share, or alone where that is 0; null: the share alone decides."""


def _kind_of_dataset(block: Any) -> str:
    kind = block.get("kind") if isinstance(block, Mapping) else getattr(block, "kind", None)
    return "shapes" if kind == "shapes" else "file"


DatasetBlock = Annotated[
    Annotated[ShapesDataset, Tag("shapes")] | Annotated[FileDataset, Tag("file")], Discriminator(_kind_of_dataset)
]


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
    view: str = "original"
    """How the image is shown: `original`, `blank`, or a view of this config."""
    prompt: Prompt = "{question}"
    """The user's turn after the image; `{question}` stands for the question."""


class RolloutBlock(Decoding):
    """What a round asks: questions drawn anew, without repetition until all have been asked, answered by the newest policy."""

    questions: Positive = 128
    """Questions per round."""
    n: Annotated[int, Field(ge=2)] = 8
    """Answers per question (G)."""
    split: str = "train"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to ask; empty: all."""
    view: str = "original"
    """How the image is shown, here and while training."""
    prompt: Prompt = "{question}"
    """The user's turn after the image; `{question}` stands for the question."""

    @model_validator(mode="after")
    def _draws_from_the_policy_itself(self) -> RolloutBlock:
        if self.temperature != 1:
            raise ValueError(
                f"temperature {self.temperature:g}, expected 1: ratios are of the distribution that answers were drawn from"
            )
        return self


class BatchBlock(Block):
    """Which groups of a round to learn from."""

    questions: Positive | None = None
    """Learn from so many groups, the first that are kept in the order of their draw; null: all that are kept."""
    keep: str | None = None
    """Dynamic sampling (DAPO): keep a group if the mean of this lies between `above` and `below`: `reward`, or a component of
    the reward such as `accuracy`; null: keep all."""
    above: float = 0.01
    """Exclusive lower limit of that mean."""
    below: float = 0.99
    """Exclusive upper limit of that mean."""


class ViewBlock(Block):
    """A way of showing the image, under a name of its own."""

    type: str | None = None
    """The kind of view; null with `choice`."""
    choice: tuple[str, ...] = ()
    """In place of `type`: views of this config, of which each image is shown under one, drawn by the seed."""
    parameters: dict[str, float | int | str | bool | None] = {}
    """The [parameters](#parameters-of-views) of this kind of view."""
    crop: str | None = None
    """A crop block of this config, for views that need a crop; null for the others."""
    saliency_map: str | None = None
    """A saliency block of this config, for views that need to know what stands out; null for the others."""
    seed: int = 0
    """Seed of what the view draws."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> ViewBlock:
        if (self.type is None) == (not self.choice):
            raise ValueError("expected either `type` or `choice`")
        if self.choice and (self.parameters or self.crop or self.saliency_map):
            raise ValueError("`choice` has no `parameters`, no `crop` and no `saliency_map` of its own")
        return self


class AttentionBlock(Block):
    """Where a policy looks before it answers."""

    method: Literal["mean", "gradient"] = "mean"
    """Mean attention over heads and layers, or one layer's attention weighted by its gradient (ViCrop, the paper's code)."""
    layers: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] | None = None
    """First and last layer of the map, from 0; null: all. `gradient` takes one layer."""
    prompt: Prompt = LOCATE
    """The user's turn after the image; `{question}` stands for the question."""
    split: str = "train"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to look at; empty: all."""
    limit: Positive | None = None
    """At most so many questions per task, the first ones; null: all."""


class SaliencyBlock(Block):
    """What stands out in an image: the attention that its patches receive in a DINOv2 (PAPO's semantic-aware mask)."""

    path: str
    """Folder with a DINOv2 model in Hugging Face format, relative to the working directory."""
    layers: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = (6, 9)
    """First and last layer whose attention is averaged, both included, from 0; the paper does not say whether its 6 to 9 are."""
    size: Positive = 224
    """Side in pixels of the square that every image is scaled to; a multiple of the model's patch, mostly 14."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the weights."""
    split: str = "train"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to look at; empty: all."""
    limit: Positive | None = None
    """At most so many questions per task, the first ones; null: all."""


class CropBlock(Block):
    """The salient crop of every example (P2-DPO, algorithm 1)."""

    attention_map: str
    """The attention block that it is cut by."""
    base: tuple[Positive, Positive] = (336, 336)
    """Width and height in pixels of the smallest crop."""
    ratios: tuple[Annotated[float, Field(gt=0)], ...] = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
    """Sizes that are tried, as multiples of `base`."""
    neighbours: Literal[4, 8] = 4
    """Reproduction only: windows that the best one is compared with; P2-DPO's paper gives no number, its code compares 4."""
    variant: Literal["paper", "code"] = "paper"
    """Reproduction only: whether P2-DPO's paper or its code is followed where they differ: the middle of the crop, the
    order of equal sums, rounding."""


class ContrastBlock(Block):
    """Contrastive amplification: the answer is drawn from what the view makes likelier than the `view` named here."""

    view: str
    """What the amateur is shown."""
    strength: Annotated[float, Field(ge=0)] = 0.1
    """lambda: logits are (1 + lambda) expert - lambda amateur."""
    plausibility: Share = 0.1
    """Only tokens that the expert gives at least this share of its likeliest token's probability; 0: all."""


class AnswerBlock(Decoding):
    """How one answer of a pair is made."""

    view: str = "original"
    """What the model is shown."""
    prompt: Prompt = "{question}"
    """The user's turn after the image; `{question}` stands for the question."""
    contrast: ContrastBlock | None = None
    """Contrastive amplification; null: plain decoding."""


class PairBlock(Block):
    """A pair: an answer under good conditions, and one under bad ones."""

    chosen: AnswerBlock
    """The preferred answer."""
    rejected: AnswerBlock
    """The other one."""


class PairingBlock(Block):
    """Pairs that the model makes by itself (P2-DPO)."""

    focus: PairBlock | None = None
    """Answers with the salient crop enhanced and erased; null: none."""
    robust: PairBlock | None = None
    """An amplified answer and one to a noisy image; null: none."""
    loss_prompt: Literal["question", "enhanced"] = "question"
    """The calibration loss asks the plain question about image and crop, or with the prompt of the chosen focus answer."""
    split: str = "train"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to ask; empty: all."""
    limit: Positive | None = None
    """At most so many questions per task, the first ones; null: all."""
    seed: int = 0
    """Seed of the draws, beside those of the answers."""


class FilterBlock(Block):
    """Which pairs to learn from (P2-DPO stage 6), each kind by itself."""

    context: Literal["own", "original"] = "own"
    """What the log-probabilities are conditioned on: what made each answer, or the original image and the plain question."""
    max_ppl: Annotated[float, Field(gt=0)] | None = 2.5
    """Both answers must have a smaller perplexity; null: no limit."""
    margin: tuple[float, float] | None = (-0.174, 0.208)
    """Smallest and largest difference of mean log-probability per token, chosen minus rejected, inclusive; null: no limit."""
    central_quantile: Annotated[float, Field(gt=0, le=1)] | None = None
    """The margin's limits as the central share of each kind's own margins, in place of `margin`; null: `margin`."""
    applies_to: Literal["each", "focus"] = "each"
    """Reproduction only: limits apply to each pair, or as in P2-DPO's code to the focus pair and so to the whole record."""
    clip_score: str | None = None
    """A CLIP block of this config whose scores go with the pairs; null: none."""
    max_groups: Positive | None = None
    """Keep at most so many records, chosen by seed; null: all."""
    seed: int = 0
    """Seed of the choice."""


class ClipBlock(Block):
    """CLIP scores of question and image, and of question and crop."""

    path: str
    """Folder with a CLIP model in Hugging Face format, relative to the working directory."""
    prompt: Prompt = "{question}"
    """The text; `{question}` stands for the question. What is too long for CLIP is cut off."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the weights."""


class RewardBlock(Block):
    """How answers are scored, task by task."""

    tasks: dict[Task, str]
    """The reward of each task."""
    max_failed_share: Share = 0.02
    """Share of requests without a response above which scoring stops."""
    max_failed_rows: Annotated[int, Field(ge=0)] | None = None
    """The same as a number of responses; null: the share alone decides."""
    resources: str | None = None
    """Folder with language resources for rewards that need them (docs/benchmarks.md); null: what needs them is not measured."""


class JudgeBlock(Block):
    """A language model that judges answers, at temperature 0. What it said is kept, and not asked again."""

    model: str
    """Its name at the endpoint; without `url`, a model of this config, which vLLM runs here."""
    url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """Address of an OpenAI-compatible endpoint, such as `http://localhost:8000/v1`; null: a model of this config."""
    max_tokens: Positive | None = None
    """Longest verdict, in tokens; null: as the benchmark says."""
    key: str | None = None
    """Environment variable that holds the endpoint's key; null: none is needed."""
    concurrency: Positive = 8
    """Questions that the endpoint is asked at once."""
    retries: Annotated[int, Field(ge=0)] = 6
    """Times that a question is asked again after a failure of the endpoint, before the stage stops."""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds to wait for an answer."""


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


class GivenBlock(SelectionBlock):
    """Answers that come with the data, to learn from as they are ranked there, in place of sampled ones."""

    min_margin: Annotated[float, Field(ge=0)] = 0.0
    """Smallest best-minus-worst reward of a kept list, inclusive; rewards are as given, or 1 to 0 by rank where none are."""
    split: str = "train"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to learn from; empty: all."""
    limit: Positive | None = None
    """At most so many questions per task, the first ones; null: all."""
    prompt: Prompt = "{question}"
    """The user's turn after the image; `{question}` stands for the question."""


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
    """The training method."""
    parameters: dict[str, float | int | str | bool | None] = {}
    """The [parameters](#parameters-of-methods) of this method."""
    view: str = "original"
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
    optimizer: Literal["carry", "reset"] = "carry"
    """In rounds: every round goes on with the optimiser's state of the round before, or starts it anew."""
    limits: dict[str, tuple[float | None, float | None]] = {}
    """In rounds: the smallest and largest value that a metric of training may have (null: any), or else the round is undone
    and the experiment ends with the adapter before it. Also `<metric>_growth`, as a multiple of its first value in the round,
    and `<metric>_at_start`, in the first step only."""


class BenchmarkBlock(Block):
    """Held-out questions with their metrics, asked greedily and `n` times."""

    dataset: str
    """A dataset of this config."""
    protocol: str | None = None
    """A published benchmark (docs/benchmarks.md): it fills in the keys that are not given here, `reward` too, and brings its
    official metrics; null: the metrics of the reward."""
    variant: str | None = None
    """One of the variants of a protocol that has several (docs/benchmarks.md); null: its default."""
    reward: str
    """A reward block of this config: it parses the answers and gives the components that metrics are made of."""
    judge: str | None = None
    """A judge of this config, for protocols that need one or can use one; null: none."""
    judge_prompt: str | None = None
    """File with a prompt for the judge in place of the protocol's (docs/benchmarks.md); null: the protocol's."""
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
    top_k: Annotated[int, Field(ge=0)] = 0
    """Keep only the k likeliest tokens of the sampled answers; 0: all."""
    max_tokens: Positive = 64
    """Longest answer, in tokens."""
    views: Annotated[tuple[str, ...], Field(min_length=1)] = ("original", "blank")
    """Views asked greedily; `blank` is the no-image test. Sampled answers see the first."""
    attention_map: str | None = None
    """An attention block of this config: where each policy looks on these questions; null: not measured."""
    prompt: str = "{question}"
    """The user's turn after the image; `{question}` stands for the question. Only where the questions are in the images, as in
    `mmmu_pro`, may it be missing."""
    prompts: tuple[Prompt, ...] = ()
    """Other prompts that base models are asked with, too, greedily under the first view; `{format}` stands for words that ask
    for the format of the task's answers. Trained policies are not asked."""
    seed: int = 0
    """Seed of the draws and of the bootstrap."""
    resamples: Positive = 9999
    """Bootstrap resamples of the 95 % intervals."""


LISTS = ("sampling", "reward", "selection")
SOURCES: dict[str, tuple[tuple[str, ...], ...]] = {
    "lists": (LISTS, ("dataset_preference",)),
    "pairs": (("pair_generation", "filter"),),
    "rollouts": (("rollout", "reward", "batch_selection"),),
}
"""What a method learns from to the keys of an experiment that say how it is made; lists can be made in two ways."""
WAYS = tuple(way for ways in SOURCES.values() for way in ways)


def named_keys(*ways: tuple[str, ...]) -> str:
    """As a sentence has them."""
    listed = [[f"`{key}`" for key in keys] for keys in ways]
    return ", or ".join(" and ".join(filter(None, [", ".join(keys[:-1]), keys[-1]])) for keys in listed)


class ExperimentBlock(Block):
    """One trained policy: names of blocks. Its own name is the name of its policy."""

    model: str
    """Base model."""
    dataset: str
    """Training data."""
    sampling: str | None = None
    """How its answers are drawn; for methods that learn from ranked lists."""
    reward: str | None = None
    """How they are scored; for methods that learn from ranked lists or in rounds."""
    selection: str | None = None
    """How they become lists; likewise."""
    dataset_preference: str | None = None
    """Which answers of its data become lists, in place of these three."""
    pair_generation: str | None = None
    """How pairs are made; for methods that learn from pairs."""
    filter: str | None = None
    """Which of them are kept; likewise."""
    rollout: str | None = None
    """What a round asks; for methods that learn in rounds."""
    batch_selection: str | None = None
    """Which of its groups are learnt from; likewise."""
    rounds: Positive | None = None
    """How many rounds; likewise. Round k makes the policy `<experiment>@<k>`. More of them later go on from the last."""
    evaluate_every: Positive = 1
    """Rounds between policies that are tested; the last one always is."""
    training: str
    """How the adapter is trained."""
    benchmarks: tuple[str, ...]
    """What the policy and its base model are tested on."""

    @property
    def made_of(self) -> tuple[str, ...]:
        """The keys that say where its groups come from."""
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
    """What may explain a gain without better seeing, asked and trained for every result (docs/controls.md)."""

    prompts: tuple[Prompt, ...] = (
        "{question}",
        "{question}\n{format}",
        "{question}\nAnswer with the final answer only.",
        "Look closely at the image before you answer. {question}",
    )
    """Prompts that base models are asked with besides the benchmark's own; the best is chosen on the test questions themselves,
    which favours the base. A benchmark with `prompts` keeps its own. Empty: none."""
    blank: bool = True
    """Ask every benchmark with a blank image, too."""
    sigmas: tuple[Annotated[float, Field(gt=0)], ...] = (0.1, 0.2, 0.4)
    """Gaussian noise on every pixel, of 1 (white), that every benchmark is asked under, too; empty: none."""
    n: Annotated[int, Field(ge=0)] = 8
    """Sampled answers per question for best-of-N and mean-of-N, where a benchmark has fewer."""
    sft_on_best: bool = True
    """For every experiment that learns from ranked lists, train another on the best answer of each list: with supervised
    fine-tuning, the rest of the training block unchanged."""


class ExportBlock(Block):
    """Preferences of an experiment in the format of another trainer (docs/exchange.md): `snakemake exports`."""

    experiment: str
    """An experiment, of one with rounds the last, or a round as `<experiment>@<round>`."""
    format: str
    """The trainer that is to read them."""
    pairs: Literal["extremes", "all"] = "extremes"
    """Of a ranked list the best answer and the worst, or every two of which one has the higher reward; for formats of pairs."""


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

    plugins: tuple[str, ...] = ()
    """Folders with plug-ins of your own, relative to the working directory: a sub-folder per kind,
    a file per plug-in."""
    models: dict[Name, ModelBlock]
    """Base models by name."""
    datasets: dict[Name, DatasetBlock]
    """Datasets by name."""
    views: dict[Name, ViewBlock] = {}
    """Views by name, besides `original` and `blank`."""
    attention_maps: dict[Name, AttentionBlock] = {}
    """Attention measurements by name."""
    crops: dict[Name, CropBlock] = {}
    """Crops by name."""
    saliency_maps: dict[Name, SaliencyBlock] = {}
    """Saliencies by name."""
    samplings: dict[Name, SamplingBlock] = {}
    """Samplings by name."""
    pair_generations: dict[Name, PairingBlock] = {}
    """Pairings by name."""
    filters: dict[Name, FilterBlock] = {}
    """Filters of pairs by name."""
    clip_scores: dict[Name, ClipBlock] = {}
    """CLIP models by name."""
    rollouts: dict[Name, RolloutBlock] = {}
    """What rounds ask, by name."""
    batch_selections: dict[Name, BatchBlock] = {}
    """What rounds learn from, by name."""
    rewards: dict[Name, RewardBlock] = {}
    """Rewards by name."""
    judges: dict[Name, JudgeBlock] = {}
    """Judges by name."""
    selections: dict[Name, SelectionBlock] = {}
    """Selections by name."""
    dataset_preferences: dict[Name, GivenBlock] = {}
    """Given answers by name."""
    trainings: dict[Name, TrainingBlock] = {}
    """Trainings by name."""
    benchmarks: dict[Name, BenchmarkBlock] = {}
    """Benchmarks by name."""
    experiments: dict[Name, ExperimentBlock]
    """What to run."""
    exports: dict[Name, ExportBlock] = {}
    """Exported preferences by name."""
    rehearse: Annotated[int, Field(ge=1, strict=True)] | None = None
    """A rehearsal: so many examples per task of everything, two rounds, no filter; into the folder `rehearsal`. null: all."""
    controls: ControlsBlock | None = None
    """What else may explain a gain: `{}` asks and trains all of it; null: nothing."""
    report: ReportBlock = ReportBlock()
    """The HTML page."""

    @model_validator(mode="after")
    def _names_are_unambiguous(self) -> Config:
        shared = sorted(self.models.keys() & self.experiments.keys())
        if shared:
            raise ValueError(f"`{shared[0]}` is both a model and an experiment, expected different names")
        askers: dict[str, dict[Name, Any]] = {
            "sampling": self.samplings,
            "pair_generation": self.pair_generations,
            "rollout": self.rollouts,
            "dataset_preference": self.dataset_preferences,
        }
        for (one, ours), (other, theirs) in itertools.combinations(askers.items(), 2):
            if both := sorted(ours.keys() & theirs.keys()):
                raise ValueError(f"`{both[0]}` is both a {one} and a {other}, expected different names")
        plain = sorted(set(PLAIN_VIEWS) & self.views.keys())
        if plain:
            raise ValueError(f"view `{plain[0]}` exists already, expected another name")
        return self

    def used_benchmarks(self) -> list[str]:
        """Those that an experiment is tested on, in the order of the config."""
        named = {benchmark for experiment in self.experiments.values() for benchmark in experiment.benchmarks}
        return [name for name in self.benchmarks if name in named]

    def used_datasets(self) -> list[str]:
        """Those that an experiment learns from or is tested on, in the order of the config; all, where there is no experiment."""
        learnt = {experiment.dataset for experiment in self.experiments.values()}
        used = learnt | {self.benchmarks[name].dataset for name in self.used_benchmarks()}
        return [name for name in self.datasets if name in used or not self.experiments]
