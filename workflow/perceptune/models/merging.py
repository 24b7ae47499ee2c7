"""Merges LoRA adapters into the weights of a model folder, tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear, LoraLayer
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

from perceptune.contracts.errors import UserError, joined_mistakes
from perceptune.core.weights import Header, Stored, header_bytes, read_header

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Dtypes of weights that an adapter can be added to, by safetensors' names."""
NEUTRAL = (True, False, "gaussian", "eva", "orthogonal")
"""Values of PEFT's `init_lora_weights` that leave the base model's weights as they are."""
BLOCK = 2**24
"""Bytes copied at once."""


@dataclass(frozen=True)
class _Update:
    """The change of one layer's weight: scale * B A."""

    file: Path
    """The adapter's weights."""
    layer: str
    scale: float

    def added_to(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The layer's merged weight, computed in float32 and rounded to `dtype`.

        Raises `UserError` if the adapter does not fit the layer, and for a NaN or infinite number.
        """
        matrices = {name: _read(self.file, name).float() for name in _matrices(self.layer)}
        for name, matrix in matrices.items():
            if not _finite(matrix):
                raise UserError(f"adapter `{self.file}`: `{name}` has NaN or infinite numbers")
        down, up = matrices.values()
        if (found := (up.shape[0], down.shape[1])) != weight.shape:
            raise UserError(
                f"adapter `{self.file}`: the update of layer `{self.layer}` has shape {found}, expected "
                f"{tuple(weight.shape)}"
            )
        merged = (up @ down).mul_(self.scale).add_(weight).to(dtype)  # in the order of PEFT, which rounds alike
        if not _finite(merged):
            raise UserError(f"adapter `{self.file}`: layer `{self.layer}` is NaN or infinite in {dtype} when merged")
        return merged


def merge_weights(source: Path, adapter: Path, folder: Path, dtype: str, trust_remote_code: bool = False) -> None:
    """Writes the weights of the model folder `source`, with the adapter merged in, to `folder`.

    Names of files and tensors stay the same, and so do the bytes of all tensors without an update.
    The weight of a layer with one becomes `weight + scale * B A`, computed in float32 as in PEFT's
    `merge_and_unload`, and is rounded to its stored dtype. If `dtype`, in which the model is used,
    has numbers that the stored dtype lacks, it is stored in float32 instead. Needs memory for one
    such layer only.

    Raises `UserError` if the adapter has anything but LoRA matrices of linear layers, does not fit
    the model, or has a NaN or infinite number.
    """
    headers = {name: _header(source / name) for name in _weight_files(source)}
    stored = [name for header in headers.values() for name in header.tensors]
    updates = _updates(source, adapter, stored, trust_remote_code)
    for name, header in headers.items():
        _write(source / name, folder / name, header, updates, getattr(torch, dtype))
    if (source / INDEX).exists():
        index = json.loads((source / INDEX).read_text())
        index["metadata"] = {**(index.get("metadata") or {}), "total_size": _total(folder, headers)}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _weight_files(folder: Path) -> list[str]:
    """The files that transformers loads."""
    if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
        return [WEIGHTS]
    return sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))


def _header(file: Path) -> Header:
    try:
        return read_header(file)
    except (OSError, ValueError) as error:
        raise UserError(f"model file `{file}`: {error}") from None


def _total(folder: Path, files: Iterable[str]) -> int:
    """Bytes of the tensors in these files."""
    return sum(tensor.bytes for name in files for tensor in _header(folder / name).tensors.values())


def _updates(source: Path, adapter: Path, stored: Iterable[str], trust_remote_code: bool) -> dict[str, _Update]:
    """Name of a stored tensor to its update; every tensor of the adapter is part of exactly one."""
    settings = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(settings, trust_remote_code=trust_remote_code)
    names, file = _stored_names(model, stored), adapter / ADAPTER
    scales = _scales(model, adapter)
    with safe_open(file, framework="pt") as opened:
        found = set(opened.keys())
    expected = {name for layer in scales for name in _matrices(layer)}
    for problem, wrong in (
        ("is not a LoRA matrix of a linear layer", found - expected),
        ("is missing", expected - found),
        (f"has no weight of its own in model folder `{source}`", {x for x in scales if f"{x}.weight" not in names}),
    ):
        if wrong:
            shown = joined_mistakes([f"`{name}`" for name in sorted(wrong)], ", ")
            raise UserError(f"adapter `{file}` cannot be merged: {problem}: {shown}")
    return {names[f"{layer}.weight"]: _Update(file, layer, scale) for layer, scale in scales.items()}


def _matrices(layer: str) -> tuple[str, str]:
    """The names of A and B in an adapter's file."""
    return f"base_model.model.{layer}.lora_A.weight", f"base_model.model.{layer}.lora_B.weight"


def _stored_names(model: PreTrainedModel, stored: Iterable[str]) -> dict[str, str]:
    """Name of a weight in the model to its name in the files, as `from_pretrained` renames them.

    Weights that transformers makes of several tensors, or of a part of one, are left out.
    """
    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    weights = model.state_dict()
    names: dict[str, str] = {}
    for name in sorted(stored, key=dot_natural_key):  # some renamings depend on the order
        renamed, part = rename_source_key(name, renamings, converters, model.base_model_prefix, weights)
        if renamed not in weights and name in weights:
            renamed, part = name, None
        if renamed in weights and part is None:
            names[renamed] = name
    return names


def _scales(model: PreTrainedModel, adapter: Path) -> dict[str, float]:
    """Layer to the scale of its update, by PEFT, which adds the adapter's layers to the model."""
    config = LoraConfig.from_pretrained(str(adapter))
    if config.init_lora_weights not in NEUTRAL:
        raise UserError(
            f"adapter `{adapter}` cannot be merged: `init_lora_weights` is `{config.init_lora_weights}`, "
            "which also changes the base model's weights"
        )
    config.init_lora_weights = False
    inject_adapter_in_model(config, model, low_cpu_mem_usage=True)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    for name, layer in layers.items():
        if type(layer) is not Linear or layer.lora_variant:
            raise UserError(f"adapter `{adapter}` cannot be merged: layer `{name}` is not plain LoRA on a linear layer")
    return {name: layer.scaling["default"] for name, layer in layers.items()}


def _finite(tensor: Tensor) -> bool:
    # NaN is the smallest and the largest of any numbers; isfinite(tensor).all() takes five times as long
    return bool(torch.isfinite(torch.stack(tensor.aminmax())).all())


def _read(file: Path, name: str) -> Tensor:
    # opened for each tensor: pages of a mapped file stay in memory until it is closed
    with safe_open(file, framework="pt") as opened:
        return opened.get_tensor(name)


def _write(source: Path, target: Path, header: Header, updates: Mapping[str, _Update], dtype: torch.dtype) -> None:
    """Copies a file of weights with the updates of its tensors."""
    tensors = {
        name: _widened(source, name, tensor, dtype) if name in updates else tensor
        for name, tensor in header.tensors.items()
    }
    with source.open("rb") as old, target.open("wb") as new:
        if tensors == header.tensors:
            new.write(old.read(header.length))
        else:
            tensors = _placed(tensors)
            new.write(header_bytes(tensors, header.metadata))
        for name, tensor in tensors.items():
            if name in updates:
                merged = updates[name].added_to(_read(source, name), DTYPES[tensor.dtype])
                new.write(merged.view(torch.uint8).numpy().data)
            else:
                _copy(old, new, header.length + header.tensors[name].start, tensor.bytes)


def _widened(file: Path, name: str, tensor: Stored, dtype: torch.dtype) -> Stored:
    """The tensor in the narrowest dtype that has all numbers of its own and of `dtype`."""
    if tensor.dtype not in DTYPES:
        raise UserError(
            f"model file `{file}`: `{name}` is stored as {tensor.dtype}, expected {', '.join(DTYPES)} to merge with"
        )
    wide = torch.promote_types(DTYPES[tensor.dtype], dtype)
    named = next(name for name, one in DTYPES.items() if one == wide)
    return replace(tensor, dtype=named, end=tensor.start + tensor.count * wide.itemsize)


def _placed(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors one behind the other. Larger dtypes come first, so that all are aligned."""
    placed: dict[str, Stored] = {}
    start = 0
    for name, one in sorted(tensors.items(), key=lambda item: -item[1].bytes // max(item[1].count, 1)):
        placed[name] = replace(one, start=start, end=start + one.bytes)
        start += one.bytes
    return placed


def _copy(old: BinaryIO, new: BinaryIO, start: int, length: int) -> None:
    old.seek(start)
    while length:
        block = old.read(min(length, BLOCK))
        new.write(block)
        length -= len(block)
