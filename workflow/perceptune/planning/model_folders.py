"""Model folders: whether they hold the declared family and complete weights, their digest and sizes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from perceptune.contracts.config import ClipBlock, Config, LoraBlock, ModelBlock, SaliencyBlock
from perceptune.contracts.errors import UserError, joined_mistakes
from perceptune.contracts.plugins import load, names
from perceptune.contracts.provenance.code import MEMORY
from perceptune.contracts.provenance.digests import digest_of_folder
from perceptune.core.data.signatures import GIT_LFS, mistaken
from perceptune.core.weights import Stored, read_header

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
            "paths are relative to the working directory",
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
    shorter context, or no layers with the names in `lora.target_modules`.

    Folders that cannot be read are left to `model_digest`: the targets may not need them.
    """
    if wrong := [*_wrong_families(config), *_short_contexts(config), *_unknown_layers(config)]:
        raise UserError("config\n  " + joined_mistakes(wrong))


def models_in_use(config: Config) -> list[str]:
    """Models of experiments, and of judges that run locally."""
    judges = [config.judges[judge] for b in config.used_benchmarks() if (judge := config.benchmarks[b].judge)]
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
    """Names in `lora.target_modules` that no layer of the language model ends with."""
    found: dict[str, None] = {}
    for experiment in config.experiments.values():
        named = config.trainings[experiment.training].lora.target_modules
        path = config.models[experiment.model].path
        layers = {name.rpartition(".")[2] for name in language_layers(Path(path))} if named else set()
        for name in named:
            if layers and name.rpartition(".")[2] not in layers:
                about = f"key `trainings.{experiment.training}.lora.target_modules`: `{name}` matches no layer"
                found[f"{about} of the language model in `{path}`, expected one of {', '.join(sorted(layers))}"] = None
    yield from found


def tensors(folder: Path) -> dict[str, Stored]:
    """Name to dtype and shape of the weights in a model folder. Reads only headers; unreadable files
    count as empty."""
    found: dict[str, Stored] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with suppress(OSError, ValueError):
            found |= read_header(file).tensors
    return found


def language_layers(folder: Path) -> dict[str, tuple[int, int]]:
    """Name to shape (out, in) of the language model's linear layers, except its head.

    Names are those of the checkpoint, in which `language_model` can be missing.
    """
    layers: dict[str, tuple[int, int]] = {}
    for name, stored in tensors(folder).items():
        shape = stored.shape
        layer, _, kind = name.rpartition(".")
        parts = layer.split(".")
        seen = "language_model" not in parts and any(part.startswith("vis") for part in parts)
        if kind == "weight" and len(shape) == 2 and "layers" in parts and not seen:
            layers[layer] = (shape[0], shape[1])
    return layers


def adapter_parameters(layers: Mapping[str, tuple[int, int]], lora: LoraBlock, targets: str) -> int:
    """The number of parameters of a LoRA adapter on `layers`, as in `language_layers`.

    `targets` is the family's `lora_targets`, which `lora.target_modules` overrides.
    """

    def chosen(layer: str) -> bool:
        if lora.target_modules:
            return any(layer == name or layer.endswith(f".{name}") for name in lora.target_modules)
        return re.fullmatch(targets, layer if "language_model" in layer else f"language_model.{layer}") is not None

    return sum(lora.r * (rows + columns) for layer, (rows, columns) in layers.items() if chosen(layer))


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
