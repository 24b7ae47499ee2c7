"""Merges adapters into the weights of a model folder, tensor by tensor."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear, LoraLayer
from peft.tuners.lora.variants import DoraLinearVariant
from peft.utils.other import ModulesToSaveWrapper
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

from perceptune.contracts.errors import UserError, joined_mistakes
from perceptune.core.weights import Header, Stored, header_bytes, read_header

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""Of the names in an adapter's file."""
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Dtypes of weights that can be trained, by safetensors' names."""
NEUTRAL = (True, False, "gaussian", "eva", "orthogonal")
"""Values of PEFT's `init_lora_weights` that leave the base model's weights as they are."""
BLOCK = 2**24
"""Bytes copied at once."""


@dataclass(frozen=True)
class _Trained(ABC):
    """What an adapter makes of one stored tensor."""

    file: Path
    """The adapter's weights."""
    name: str
    """Of the layer, or of the tensor itself."""

    @property
    @abstractmethod
    def tensors(self) -> tuple[str, ...]:
        """The names of its tensors in the adapter's file."""

    def merged(self, stored: Tensor, dtype: torch.dtype) -> Tensor:
        """The tensor to serve instead of the stored one, rounded to `dtype`.

        Raises `UserError` if the adapter does not fit, and for a NaN or infinite number.
        """
        found = {name: _read(self.file, name).float() for name in self.tensors}
        for name, tensor in found.items():
            if not _finite(tensor):
                raise UserError(f"adapter `{self.file}`: `{name}` has NaN or infinite numbers")
        merged = self._applied(stored, *found.values()).to(dtype)
        if not _finite(merged):
            raise UserError(f"adapter `{self.file}`: `{self.name}` is NaN or infinite in {dtype} when merged")
        return merged

    @abstractmethod
    def _applied(self, stored: Tensor, *trained: Tensor) -> Tensor:
        """The result in float32, of the same operations as PEFT's, so that both round alike."""

    def _check(self, found: tuple[int, ...], expected: tuple[int, ...], what: str) -> None:
        if found != expected:
            raise UserError(
                f"adapter `{self.file}`: the {what} of `{self.name}` has shape {found}, expected {expected}"
            )


@dataclass(frozen=True)
class _InFull(_Trained):
    """A weight or bias that was trained itself."""

    @property
    def tensors(self) -> tuple[str, ...]:
        return (f"{PREFIX}{self.name}",)

    def _applied(self, stored: Tensor, *trained: Tensor) -> Tensor:
        (value,) = trained
        self._check(tuple(value.shape), tuple(stored.shape), "value")
        return value


@dataclass(frozen=True)
class _LowRank(_Trained):
    """The update of a layer's weight by LoRA: W + scale * B A."""

    scale: float

    @property
    def tensors(self) -> tuple[str, ...]:
        return f"{PREFIX}{self.name}.lora_A.weight", f"{PREFIX}{self.name}.lora_B.weight"

    def _applied(self, stored: Tensor, *trained: Tensor) -> Tensor:
        down, up = trained
        self._check((up.shape[0], down.shape[1]), tuple(stored.shape), "update")
        return (up @ down).mul_(self.scale).add_(stored)


@dataclass(frozen=True)
class _Dora(_LowRank):
    """The same by DoRA, with each row scaled to its trained norm (arXiv:2402.09353, eq. 5)."""

    @property
    def tensors(self) -> tuple[str, ...]:
        return (*super().tensors, f"{PREFIX}{self.name}.lora_magnitude_vector")

    def _applied(self, stored: Tensor, *trained: Tensor) -> Tensor:
        *matrices, norms = trained
        updated = super()._applied(stored, *matrices)
        self._check(tuple(norms.shape), (len(updated),), "magnitude")
        return updated.mul_((norms / torch.linalg.norm(updated, dim=1)).view(-1, 1))


def merge_weights(source: Path, adapter: Path, folder: Path, dtype: str, trust_remote_code: bool = False) -> None:
    """Writes the weights of the model folder `source`, with the adapter merged in, to `folder`.

    Names of files and tensors stay the same, and so do the bytes of all tensors that were not
    trained. The others are computed in float32 as in PEFT's `merge_and_unload` (LoRA, rsLoRA and
    DoRA), or are those of the adapter (`modules_to_save`), and are rounded to their stored dtype. If
    `dtype`, in which the model is used, has numbers that the stored dtype lacks, they are stored in
    float32 instead. Needs memory for one such tensor only.

    Raises `UserError` if the adapter has anything else, does not fit the model, or has a NaN or
    infinite number.
    """
    headers = {name: _header(source / name) for name in _weight_files(source)}
    stored = [name for header in headers.values() for name in header.tensors]
    trained = _trained(source, adapter, stored, trust_remote_code)
    for name, header in headers.items():
        _write(source / name, folder / name, header, trained, getattr(torch, dtype))
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


def _trained(source: Path, adapter: Path, stored: Iterable[str], trust_remote_code: bool) -> dict[str, _Trained]:
    """Name of a stored tensor to what the adapter makes of it; every tensor of the adapter is part of
    exactly one."""
    settings = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(settings, trust_remote_code=trust_remote_code)
    names, file = _stored_names(model, stored), adapter / ADAPTER
    trained = _by_weight(model, adapter)
    with safe_open(file, framework="pt") as opened:
        found = set(opened.keys())
    expected = {name for one in trained.values() for name in one.tensors}
    for problem, wrong in (
        ("is not part of LoRA on a linear layer, or of `modules_to_save`", found - expected),
        ("is missing", expected - found),
        (f"has no weight of its own in model folder `{source}`", trained.keys() - names.keys()),
    ):
        if wrong:
            shown = joined_mistakes([f"`{name}`" for name in sorted(wrong)], ", ")
            raise UserError(f"adapter `{file}` cannot be merged: {problem}: {shown}")
    return {names[weight]: one for weight, one in trained.items()}


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


def _by_weight(model: PreTrainedModel, adapter: Path) -> dict[str, _Trained]:
    """Name of a weight in the model to what the adapter makes of it, by PEFT, which adds the adapter's
    layers to the model."""
    config = LoraConfig.from_pretrained(str(adapter))
    if config.init_lora_weights not in NEUTRAL:
        raise UserError(
            f"adapter `{adapter}` cannot be merged: `init_lora_weights` is `{config.init_lora_weights}`, "
            "which also changes the base model's weights"
        )
    config.init_lora_weights = False
    inject_adapter_in_model(config, model, low_cpu_mem_usage=True)
    file, trained = adapter / ADAPTER, dict[str, _Trained]()
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            variant = layer.lora_variant.get("default")
            if type(layer) is not Linear or not (variant is None or isinstance(variant, DoraLinearVariant)):
                raise UserError(
                    f"adapter `{adapter}` cannot be merged: layer `{name}` is not LoRA or DoRA on a linear layer"
                )
            kind = _LowRank if variant is None else _Dora
            trained[f"{name}.weight"] = kind(file, name, layer.scaling["default"])
        elif isinstance(layer, ModulesToSaveWrapper):
            weights = [f"{name}.{weight}" for weight in layer.modules_to_save["default"].state_dict()]
            trained |= {weight: _InFull(file, weight) for weight in weights}
    return trained


def _finite(tensor: Tensor) -> bool:
    # NaN is the smallest and the largest of any numbers; isfinite(tensor).all() takes five times as long
    return bool(torch.isfinite(torch.stack(tensor.aminmax())).all())


def _read(file: Path, name: str) -> Tensor:
    # opened for each tensor: pages of a mapped file stay in memory until it is closed
    with safe_open(file, framework="pt") as opened:
        return opened.get_tensor(name)


def _write(source: Path, target: Path, header: Header, trained: Mapping[str, _Trained], dtype: torch.dtype) -> None:
    """Copies a file of weights, with what was trained in the place of its tensors."""
    tensors = {
        name: _widened(source, name, tensor, dtype) if name in trained else tensor
        for name, tensor in header.tensors.items()
    }
    with source.open("rb") as old, target.open("wb") as new:
        if tensors == header.tensors:
            new.write(old.read(header.length))
        else:
            tensors = _placed(tensors)
            new.write(header_bytes(tensors, header.metadata))
        for name, tensor in tensors.items():
            if name in trained:
                merged = trained[name].merged(_read(source, name), DTYPES[tensor.dtype])
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
