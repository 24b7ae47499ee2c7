"""Which questions are answered, and how."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from perceptune.contracts.config.blocks import Block, Positive, Prompt, Seed, Task


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
    seed: Seed = 0
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
