"""Model folders: whether they hold the declared family and complete weights, their digest and sizes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, get_args

from perceptune.contracts.config import ClipBlock, Config, LoraBlock, ModelBlock, Part, SaliencyBlock
from perceptune.contracts.errors import UserError, joined_mistakes
from perceptune.contracts.plugins import load, names
from perceptune.contracts.provenance.code import MEMORY
from perceptune.contracts.provenance.digests import digest_of_folder
from perceptune.core.data.signatures import GIT_LFS, mistaken
from perceptune.core.weights import Stored, read_header, short_name
from perceptune.planning.origin import where_bundled

PARTS = ("text", "vision")
"""Those that a `config.json` has settings for, such as `text_config`."""
LARGEST_POINTER = 1024
"""Largest Git LFS pointer in bytes, by its specification."""


def model_digest(block: ModelBlock | ClipBlock | SaliencyBlock) -> str:
    """Digest of a model folder's contents.

    Raises `UserError` if it holds no model, or a file that was not downloaded completely.
    """
    check_complete(block)
    return digest_of_folder(Path(block.path), MEMORY)


def check_complete(block: ModelBlock | ClipBlock | SaliencyBlock) -> None:
    """Raises `UserError` if a folder holds no model, or a file that was not downloaded completely."""
    folder = Path(block.path)
    if not (folder / "config.json").exists():
        raise UserError(
            f"model folder `{block.path}`: `config.json` not found, expected a folder in Hugging Face format",
            where_bundled(block.path) or "paths are relative to the working directory",
        )
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"model folder `{block.path}`: no `*.safetensors` weights found; other formats can run code on loading",
            "convert them with transformers: `model.save_pretrained(folder)`",
        )
    for file, reason in _damages(folder):
        raise UserError(f"model file `{file}`: {reason}", "was it downloaded completely?")


def check_models(config: Config) -> None:
    """Raises `UserError` for models in use whose folder contradicts the config: another family, a
    shorter context, or without the layers in `lora.parts` and `lora.target_modules`.

    Folders that cannot be read are left to `model_digest`: the targets may not need them.
    """
    if wrong := [*_wrong_families(config), *_short_contexts(config), *_unknown_layers(config)]:
        raise UserError("config\n  " + joined_mistakes(wrong))


def models_in_use(config: Config) -> list[str]:
    """Models of experiments, and of judges that run locally."""
    judges = [config.judges[name] for name in config.used_judges()]
    used = [experiment.model for experiment in config.experiments.values()]
    return list(dict.fromkeys([*used, *(judge.model for judge in judges if judge.url is None)]))


def _wrong_families(config: Config) -> Iterator[str]:
    for name in models_in_use(config):
        block = config.models[name]
        found = _model_type(Path(block.path) / "config.json")
        expected = load("family", block.family).model_types
        if found is None or not expected or found in expected:
            continue
        families = [family for family in names("family") if found in load("family", family).model_types]
        about = (
            f"key `models.{name}.family`: `{block.family}`, but `model_type` is `{found}` in `{block.path}/config.json`"
        )
        if families:
            yield f"{about}; did you mean `{families[0]}`?"
        else:
            yield f"{about}, expected {' or '.join(f'`{one}`' for one in expected)}; no family supports `{found}`, but `auto` may"


def _short_contexts(config: Config) -> Iterator[str]:
    """Models with fewer positions than `max_model_len`. Scaled positions are left to vLLM."""
    for name in models_in_use(config):
        block = config.models[name]
        settings = _read_object(Path(block.path) / "config.json") or {}
        text = settings.get("text_config")
        text = text if isinstance(text, dict) else settings
        positions = text.get("max_position_embeddings")
        scaling = text.get("rope_scaling") or text.get("rope_parameters") or {}
        if isinstance(positions, int) and positions < block.max_model_len and "factor" not in scaling:
            yield (
                f"key `models.{name}.max_model_len`: {block.max_model_len}, expected at most the {positions} of "
                f"model `{block.path}`"
            )


def _unknown_layers(config: Config) -> Iterator[str]:
    """Parts in `lora.parts` without layers, and names in `lora.target_modules` that match none."""
    found: dict[str, None] = {}
    seen: dict[str, dict[Part, dict[str, Linear]]] = {}
    for experiment in config.experiments.values():
        lora, model = config.trainings[experiment.training].lora, config.models[experiment.model]
        if lora.parts == ("language",) and not lora.target_modules:
            continue
        if experiment.model not in seen:
            seen[experiment.model] = linear_layers(model)
        layers = seen[experiment.model]
        if not any(layers.values()):  # the folder cannot be read
            continue
        key = f"key `trainings.{experiment.training}.lora"
        for part in lora.parts:
            if not layers[part]:
                found[f"{key}.parts`: `{part}` has no linear layer in `{model.path}`"] = None
        adapted = [part for part in lora.parts if part not in lora.full]
        known = sorted({short_name(layer) for part in adapted for layer in layers[part]})
        for name in lora.target_modules:
            if not any(f".{one}".endswith(f".{name}") or f".{name}".endswith(f".{one}") for one in known):
                parts = " or ".join(f"`{part}`" for part in adapted)
                about = f"{key}.target_modules`: `{name}` matches no layer of {parts} in `{model.path}`"
                found[f"{about}, expected one of {', '.join(known)}"] = None
    yield from found


def tensors(folder: Path) -> dict[str, Stored]:
    """Name to dtype and shape of the weights in a model folder. Reads only headers; unreadable files
    count as empty."""
    found: dict[str, Stored] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with suppress(OSError, ValueError):
            found |= read_header(file).tensors
    return found


class Linear(NamedTuple):
    """Sizes of a linear layer."""

    outputs: int
    inputs: int
    bias: bool


def linear_layers(model: ModelBlock) -> dict[Part, dict[str, Linear]]:
    """The linear layers of each part of a model, by their names in the checkpoint; none of a folder
    that cannot be read. The head, and layers that no output depends on, are in no part.
    """
    folder, family = Path(model.path), load("family", model.family)
    stored = tensors(folder)
    unused = family.unused_layers(_read_object(folder / "config.json") or {})
    layers: dict[Part, dict[str, Linear]] = {part: {} for part in get_args(Part)}
    for name, tensor in stored.items():
        layer, _, kind = name.rpartition(".")
        if kind == "weight" and len(tensor.shape) == 2 and not (unused and re.fullmatch(unused, layer)):
            part = _part(layer, family.lora_targets)
            if part:
                layers[part][layer] = Linear(*tensor.shape, f"{layer}.bias" in stored)
    return layers


def _part(layer: str, targets: Mapping[Part, str]) -> Part | None:
    """The part of a model that a layer belongs to. In names of the language model, `language_model`
    can be missing."""
    for part, pattern in targets.items():
        if part != "language" and re.fullmatch(pattern, layer):
            return part
    names = layer.split(".")
    seen = "language_model" not in names and any(name.startswith("vis") for name in names)
    return "language" if "layers" in names and not seen else None


def adapter_parameters(model: ModelBlock, lora: LoraBlock) -> int:
    """The number of parameters of a model's adapter."""
    targets = load("family", model.family).lora_targets

    def chosen(part: Part, layer: str) -> bool:
        if lora.target_modules:
            return any(layer == name or layer.endswith(f".{name}") for name in lora.target_modules)
        named = layer if part != "language" or "language_model" in layer else f"language_model.{layer}"
        return re.fullmatch(targets[part], named) is not None

    count = 0
    for part, layers in linear_layers(model).items():
        for layer, (outputs, inputs, bias) in layers.items() if part in lora.parts else ():
            if part in lora.full:
                count += outputs * (inputs + bias)
            elif chosen(part, layer):
                count += lora.r * (outputs + inputs) + outputs * lora.use_dora
    return count


def feature_numbers(model: ModelBlock) -> int:
    """How many numbers the language model takes for an image token: its width, and once more for each of
    the first decoder layers that DeepStack adds features to. 0 if the folder cannot be read.
    """
    settings = _read_object(Path(model.path) / "config.json") or {}
    text, vision = (found if isinstance(found := settings.get(f"{part}_config"), dict) else {} for part in PARTS)
    width = text.get("hidden_size") or settings.get("hidden_size") or 0
    return int(width) * (1 + len(vision.get("deepstack_visual_indexes") or ()))


def _model_type(file: Path) -> str | None:
    """`model_type` of a `config.json`, or None if it cannot be read."""
    found = _read_object(file)
    return None if found is None else str(found.get("model_type", ""))


def _read_object(file: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is none."""
    try:
        return _object(file.read_bytes())
    except OSError:
        return None


def _damages(folder: Path) -> Iterator[tuple[Path, str]]:
    """Incomplete files of a model folder, each with what is wrong. Reads only the weights' headers."""
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.stat().st_size <= LARGEST_POINTER and mistaken(file.read_bytes()) is GIT_LFS:
            yield file, "a Git LFS pointer, not the file itself"
    if _object((folder / "config.json").read_bytes()) is None:
        yield folder / "config.json", "no valid JSON object"
    for index in sorted(folder.glob("*.safetensors.index.json")):
        shards = (_object(index.read_bytes()) or {}).get("weight_map")
        if not isinstance(shards, dict):
            yield index, "has no `weight_map`, expected the shard of each tensor"
            continue
        missing = (folder / shard for shard in sorted(set(map(str, shards.values()))))
        yield from ((shard, f"does not exist, but `{index.name}` names it") for shard in missing if not shard.is_file())
    for file in sorted(folder.glob("*.safetensors")):
        try:
            read_header(file)
        except ValueError as error:
            yield file, str(error)


def _object(text: bytes) -> dict[str, Any] | None:
    """The JSON object in the text; None if it is anything else."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
