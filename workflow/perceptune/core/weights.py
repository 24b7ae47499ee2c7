"""Headers of weights in safetensors format: names, dtypes and shapes, without the weights.

Format: https://huggingface.co/docs/safetensors (8 bytes for the header's length, the header as JSON,
the tensors' bytes without gaps).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LARGEST_HEADER = 100_000_000
"""Bytes, by safetensors' own limit."""


@dataclass(frozen=True)
class Stored:
    """One tensor of a file."""

    dtype: str
    """In safetensors' words: `BF16`, `F32`."""
    shape: tuple[int, ...]
    start: int
    """Of its bytes, counted from the end of the header."""
    end: int

    @property
    def bytes(self) -> int:
        """Number of bytes in the file."""
        return self.end - self.start

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """The header of a file."""

    tensors: Mapping[str, Stored]
    """By name, in the order of the file."""
    metadata: Mapping[str, str]
    length: int
    """Bytes in front of the tensors."""


def read_header(file: Path) -> Header:
    """The header of a file of weights.

    Raises `ValueError` that says what is wrong with the file, also if its size does not fit its header.
    """
    size = file.stat().st_size
    if size < 8:
        raise ValueError(f"{size} bytes, expected weights in safetensors format")
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > LARGEST_HEADER:
            raise ValueError("not in safetensors format")
        if length > size - 8:
            raise ValueError(f"{size} bytes, expected a header of {length} bytes and weights after it")
        text = opened.read(length)
    try:
        tensors, metadata = _parsed(text)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise ValueError("not in safetensors format") from None
    expected = 8 + length + max((tensor.end for tensor in tensors.values()), default=0)
    if size != expected:
        raise ValueError(f"{size} bytes, expected {expected} by its header")
    return Header(tensors, metadata, 8 + length)


def header_bytes(tensors: Mapping[str, Stored], metadata: Mapping[str, str]) -> bytes:
    """The header of a file with these tensors, padded as safetensors does it."""
    described = {
        name: {"dtype": one.dtype, "shape": one.shape, "data_offsets": [one.start, one.end]}
        for name, one in tensors.items()
    }
    text = json.dumps({**({"__metadata__": dict(metadata)} if metadata else {}), **described}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def short_name(layer: str) -> str:
    """The last part of a layer's name, or the last two if it is a number: `q_proj`, `mlp.0`."""
    parts = layer.split(".")
    return ".".join(parts[-2:] if parts[-1].isdecimal() else parts[-1:])


def _parsed(text: bytes) -> tuple[dict[str, Stored], dict[str, str]]:
    found = json.loads(text)
    metadata = found.pop("__metadata__", {})
    tensors = {
        name: Stored(one["dtype"], tuple(one["shape"]), int(one["data_offsets"][0]), int(one["data_offsets"][1]))
        for name, one in found.items()
    }
    return dict(sorted(tensors.items(), key=lambda item: item[1].start)), metadata
