"""Benchmarks, judges, controls and the report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from perceptune.contracts.config.blocks import Block, Positive, Prompt, Seed, Task
from perceptune.contracts.config.pairs import ContrastBlock

Leakage = Literal["refuse", "warn", "allow"]


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
    contrast: ContrastBlock | None = None
    """Contrastive decoding of all answers (VCD), greedy and sampled; null: plain decoding."""
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
    seed: Seed = 0
    """Seed of sampling and bootstrap."""
    resamples: Positive = 9999
    """Bootstrap resamples for the 95 % intervals."""


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


class ReportBlock(Block):
    """The HTML report."""

    title: str = "perceptune"
    """Heading."""
    caption: str = ""
    """Text below the heading."""
    gallery: Annotated[int, Field(ge=0)] = 12
    """Number of examples shown before and after training."""
    tokens: Annotated[int, Field(ge=0)] = 0
    """Number of answers shown with the tokens that the method selects (CPPO), per experiment, from its last
    round; 0: none. Each experiment then needs another pass over that round's answers."""
