"""Model folders: whether they hold the declared family and complete weights, and their digest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perceptune.contracts.config import ClipBlock, Config, ModelBlock, SaliencyBlock
from perceptune.contracts.errors import UserError, joined_mistakes
from perceptune.contracts.plugins import load, names
from perceptune.contracts.provenance.code import MEMORY
from perceptune.contracts.provenance.digests import digest_of_folder
from perceptune.core.data.signatures import GIT_LFS, mistaken

LARGEST_POINTER = 1024
"""Largest Git LFS pointer in bytes, by its specification."""
LARGEST_HEADER = 100_000_000
"""Bytes, by safetensors' own limit."""


def model_digest(block: ModelBlock | ClipBlock | SaliencyBlock) -> str:
    """Digest of a model folder's contents.

    Raises `UserError` if it holds no model, or a file that was not downloaded completely.
    """
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
    return digest_of_folder(folder, MEMORY)


def check_families(config: Config) -> None:
    """Raises `UserError` for models in use whose `family` is not that of their folder.

    Folders that cannot be read are left to `model_digest`: the targets may not need them.
    """
    if wrong := [*_wrong_families(config)]:
        raise UserError("config\n  " + joined_mistakes(wrong))


def _wrong_families(config: Config) -> Iterator[str]:
    judges = [config.judges[judge] for b in config.used_benchmarks() if (judge := config.benchmarks[b].judge)]
    used = [experiment.model for experiment in config.experiments.values()]
    used += [judge.model for judge in judges if judge.url is None]
    for name in dict.fromkeys(used):
        block = config.models[name]
        found = _model_type(Path(block.path) / "config.json")
        expected = load("family", block.family).model_types
        if found is None or found in expected:
            continue
        families = [family for family in names("family") if found in load("family", family).model_types]
        about = (
            f"key `models.{name}.family`: `{block.family}`, but `model_type` is `{found}` in `{block.path}/config.json`"
        )
        if families:
            yield f"{about}; did you mean `{families[0]}`?"
        else:
            yield f"{about}, expected {' or '.join(f'`{one}`' for one in expected)}; no family supports `{found}`"


def _model_type(file: Path) -> str | None:
    """`model_type` of a `config.json`, or None if it cannot be read."""
    try:
        found = _object(file.read_bytes())
    except OSError:
        return None
    return None if found is None else str(found.get("model_type", ""))


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
        if reason := _damage(file):
            yield file, reason


def _damage(file: Path) -> str | None:
    """What is wrong with a file of weights: its size does not fit its header.

    Format: https://huggingface.co/docs/safetensors (8 bytes for the header's length, the header as
    JSON, the tensors' bytes).
    """
    size = file.stat().st_size
    if size < 8:
        return f"{size} bytes, expected weights in safetensors format"
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > LARGEST_HEADER:
            return "not in safetensors format"
        if length > size - 8:
            return f"{size} bytes, expected a header of {length} bytes and weights after it"
        header = _object(opened.read(length))
    try:
        tensors = [tensor for name, tensor in (header or {}).items() if name != "__metadata__"]
        expected = 8 + length + max((int(tensor["data_offsets"][1]) for tensor in tensors), default=0)
    except (KeyError, IndexError, TypeError, ValueError):
        header = None
    if header is None:
        return "not in safetensors format"
    return f"{size} bytes, expected {expected} by its header" if size != expected else None


def _object(text: bytes) -> dict[str, Any] | None:
    """The JSON object in the text; None if it is anything else."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
