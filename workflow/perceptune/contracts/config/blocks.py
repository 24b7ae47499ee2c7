"""The base of all blocks, and types that several of them share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Task = Literal["grounding", "ocr", "existence", "counting", "open"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Prompt = Annotated[str, Field(pattern=r"\{question\}")]
PLAIN_VIEWS = ("original", "blank")
"""Views that are always defined."""
UNTRACKED = {
    "threads", "engine", "watch_images", "micro_batch_size", "devices", "gradient_checkpointing", "save_steps",
    "key", "concurrency", "retries", "timeout",
}  # fmt: skip
"""Keys that decide where and how fast something is computed, not what. Changing them reruns
nothing."""


class Block(BaseModel):
    """A closed, frozen part of the config. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
