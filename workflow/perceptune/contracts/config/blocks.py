"""The base of all blocks, and types that several of them share."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""What every generator accepts: NumPy's legacy seeds have 32 bits."""
Task = Literal["grounding", "ocr", "existence", "counting", "open"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Prompt = Annotated[str, Field(pattern=r"\{question\}")]


def _single(value: Any) -> Any:
    """Raises `ValueError` for a value that is a list or mapping, infinite, or NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("expected a finite number")
    if value is not None and not isinstance(value, int | float | str):
        raise ValueError("expected a number, text, true, false or null")
    return value


Parameter = Annotated[float | int | str | bool | None, BeforeValidator(_single)]
"""The value of a plug-in's parameter; the plug-in's own model checks the rest."""


def _in_order(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    """Raises `ValueError` if the first number exceeds the second; None does not limit."""
    if None not in pair and pair[0] > pair[1]:
        raise ValueError("expected the smaller number first")
    return pair


InOrder = AfterValidator(_in_order)
"""For two numbers that bound a range."""
PLAIN_VIEWS = ("original", "blank")
"""Views that are always defined."""
UNTRACKED = {
    "threads", "workers", "engine", "feature_cache", "watch_images", "micro_batch_size", "devices", "nodes",
    "sharding", "gradient_checkpointing", "save_steps", "report_to", "key", "concurrency", "retries", "timeout",
}  # fmt: skip
"""Keys that decide where and how fast something is computed and who may watch, not what. Changing them
reruns nothing."""


def takes_list(block: type[BaseModel], key: str) -> bool:
    """Whether the value of a key is a list itself, so that a list there is no sweep."""
    return key in block.model_fields and get_origin(block.model_fields[key].annotation) is tuple


class Block(BaseModel):
    """A closed, frozen part of the config. Unknown keys, infinite numbers and NaN are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
