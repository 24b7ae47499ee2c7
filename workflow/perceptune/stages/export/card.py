"""The model card of an exported policy: what it is, its results, and how it was made."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from perceptune.contracts.config import Leakage, LoraBlock, ModelBlock
from perceptune.contracts.files import write_text
from perceptune.contracts.paths import ROUND_MARK
from perceptune.contracts.plugins import load
from perceptune.contracts.provenance.lineage import FILE
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.contracts.tables.training import TRAINING
from perceptune.models.coordinates import coordinate_frame
from perceptune.stages.data.leaked import leak_warnings

TEMPLATE = "model_card.md.jinja"
FRAMES = {
    "padded_square": "fractions of the square around the image",
    "original": "fractions of the image's width and height",
    "resized_pixels": "pixels of the image as resized by the processor",
    "thousand": "thousandths of the image's width and height",
}
FITS = {
    "pad": "Pad images to squares with the processor's mean colour before passing them to the processor.",
    "crop": "The processor centre-crops images that are not square.",
}
PARTS = {"language": "language model", "projector": "projector", "vision": "vision tower"}
COMPARED = {
    "vllm_and_transformers": "vLLM and transformers, this folder",
    "vllm_and_base_with_adapter": "vLLM with this folder, and the base model with the adapter",
    "export_and_base_with_adapter_in_float32": "this folder, and the base model with the adapter, both in float32",
}


def run(
    *,
    policy: str,
    base: str,
    parity: Path,
    training: Path,
    metrics: Path | None,
    card: Path,
    model: ModelBlock,
    config: Mapping[str, Any],
    leakage: Mapping[str, Path] = MappingProxyType({}),
    leakage_mode: Leakage = "warn",
) -> None:
    """Writes the `card` next to `parity`.

    `config` has the blocks that made the policy, by section and name. `leakage` is the table of what
    the training data share with benchmarks, by their name. Raises `UserError` if it is not empty and
    `leakage_mode` is `refuse`. A card is published, so it shows only the last part of absolute
    paths.
    """
    config = _without_folders(config)
    record, report = (json.loads((parity.parent / name).read_text()) for name in (FILE, parity.name))
    ((_, experiment),) = config["experiments"].items()
    trained = config["trainings"][experiment["training"]]
    steps = pl.DataFrame(pl.from_arrow(read_table(training, TRAINING))).get_column("step").max()
    adapter, dataset = record["adapter"], experiment["dataset"]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )  # fmt: skip
    text = environment.get_template(TEMPLATE).render(
        policy=policy,
        base=_without_folders(Path(model.path).as_posix()),
        base_policy=base,
        folder=_without_folders(card.parent.as_posix()),
        method=trained["method"],
        rounds=policy.rpartition(ROUND_MARK)[2] if ROUND_MARK in policy else "",
        adapter=_adapter(LoraBlock.model_validate(trained["lora"])),
        dtype=model.dtype,
        max_model_len=model.max_model_len,
        pictures=_pictures(model),
        padded=load("family", model.family).squares_images and model.image_fit == "pad",
        question=json.dumps(_prompt(config, experiment).replace("{question}", "Where is the red cup?")),
        frame=FRAMES[frame] if (frame := coordinate_frame(model)) else None,
        dataset=dataset,
        data=_described(config["datasets"][dataset]),
        source=", ".join(f"{key} `{experiment[key]}`" for key in _made_of(config, experiment)),
        parameters=_described(trained["parameters"]) or "default parameters",
        steps=steps,
        rows=list(_results(metrics)) if metrics else [],
        leaks=leak_warnings(leakage, leakage_mode, experiment["benchmarks"]),
        parity=_sentence(report),
        differences={COMPARED[name]: _shown(value) for name, value in report["differences"].items()}
        | {"base model with and without the adapter, for comparison": _shown(report["effect_of_the_adapter"])},
        digests=_digests(record, adapter),
        versions=", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        config=yaml.safe_dump(dict(config), sort_keys=False, width=120),
    )
    write_text(card, text)


def _adapter(lora: LoraBlock) -> str:
    """What was trained: `a LoRA adapter (rank 8) of the language model`."""
    kind = ("rank-stabilised " if lora.use_rslora else "") + ("DoRA" if lora.use_dora else "LoRA")
    adapted, full = ([PARTS[part] for part in lora.parts if (part in lora.full) == whole] for whole in (False, True))
    layers = f"layers {', '.join(f'`{name}`' for name in lora.target_modules)} of " if lora.target_modules else ""
    also = f", and the {' and '.join(full)} in full" if full else ""
    return f"a {kind} adapter (rank {lora.r}) of {layers}the {' and the '.join(adapted)}{also}"


def _pictures(model: ModelBlock) -> str:
    """How to prepare images for the folder's processor."""
    if model.pixels:
        fewest, most = model.pixels
        return f"Pass images unchanged; the processor in this folder resizes them to between {fewest:,} and {most:,} pixels."
    return FITS[model.image_fit] if load("family", model.family).squares_images else "Pass images unchanged."


def _without_folders(value: Any) -> Any:
    """The value with every absolute path in it shortened to its last part."""
    if isinstance(value, Mapping):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _prompt(config: Mapping[str, Any], experiment: Mapping[str, Any]) -> str:
    """The prompt of the questions that the policy learned from."""
    blocks = (block for key in _made_of(config, experiment) for block in config.get(f"{key}s", {}).values())
    return next((str(block["prompt"]) for block in blocks if "prompt" in block), "{question}")


def _made_of(config: Mapping[str, Any], experiment: Mapping[str, Any]) -> Iterator[str]:
    """The keys of an experiment that name a block other than model, dataset and training."""
    for key, value in experiment.items():
        if key not in ("model", "dataset", "training") and isinstance(value, str):
            yield key


def _described(block: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in block.items() if value not in (None, [], {}))


def _results(metrics: Path) -> Iterator[dict[str, Any]]:
    for row in read_table(metrics, METRICS).to_pylist():
        if row["condition"] == "greedy" and row["value"] is not None:
            value = _interval(row["value"], row["ci_low"], row["ci_high"])
            yield {**row, "value": value, "gain": _interval(row["gain"], row["gain_ci_low"], row["gain_ci_high"])}


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    known = all(bound is not None and math.isfinite(bound) for bound in (low, high))
    between = f" [{low:.4f}, {high:.4f}]" if known else ""
    return "" if value is None else f"{value:.4f}{between}"


def _sentence(report: Mapping[str, Any]) -> str:
    allowed = report["accepted"]
    return (
        f"The log-probabilities of {report['tokens']} tokens in {report['answers']} answers to benchmark questions, as computed by "
        f"vLLM with this folder in {report['dtype']}, were recomputed with transformers, and with the base model and the "
        f"separate adapter. The export fails if differences exceed {allowed['mean']:g} nats on average or {allowed['max']:g} "
        f"nats at most in {report['dtype']}, or half of the adapter's effect in float32."
    )


def _shown(difference: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:.2g}" for name, value in difference.items()}


def _digests(record: Mapping[str, Any], adapter: Mapping[str, Any]) -> dict[str, str]:
    """Name to digest of everything that the model was made from."""
    found = {"base model's files": record["parameters"]["weights"]}
    for source in (*record["inputs"].values(), *adapter["inputs"].values()):
        found[f"`{_without_folders(source['path'])}`"] = source["sha256"]
    return found | {"code of the training": adapter["code"], "code of the export": record["code"]}
