"""The model card of an exported policy: what it is, how good, and what it was made of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.files import write_text
from perceptune.contracts.paths import ROUND_MARK
from perceptune.contracts.plugins import load
from perceptune.contracts.provenance.lineage import FILE
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.contracts.tables.training import TRAINING
from perceptune.models.coordinates import coordinate_frame

TEMPLATE = "model_card.md.jinja"
FRAMES = {
    "padded_square": "shares of the square around the image",
    "original": "shares of its width and height",
    "resized_pixels": "pixels of the image as the processor resizes it",
    "thousand": "thousandths of its width and height",
}
FITS = {
    "pad": "Pad an image that is no square to one, in the processor's mean colour, before the processor sees it.",
    "crop": "Of an image that is no square the processor sees the middle.",
}
COMPARED = {
    "vllm_and_transformers": "vLLM and transformers, this folder",
    "vllm_and_base_with_adapter": "vLLM with this folder, and base model with adapter",
    "export_and_base_with_adapter_in_float32": "this folder, and base model with adapter, both in float32",
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
) -> None:
    """Writes the `card` beside `parity`. `config` has the blocks that made the policy, by section and name."""
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
        base=Path(model.path).as_posix(),
        base_policy=base,
        folder=card.parent.as_posix(),
        method=trained["method"],
        rounds=policy.rpartition(ROUND_MARK)[2] if ROUND_MARK in policy else "",
        lora=trained["lora"],
        dtype=model.dtype,
        max_model_len=model.max_model_len,
        pictures=_pictures(model),
        frame=FRAMES[coordinate_frame(model)],
        dataset=dataset,
        data=_described(config["datasets"][dataset]),
        source=", ".join(f"{key} `{experiment[key]}`" for key in _made_of(config, experiment)),
        parameters=_described(trained["parameters"]) or "its defaults",
        steps=steps,
        rows=list(_results(metrics)) if metrics else [],
        parity=_sentence(report),
        differences={COMPARED[name]: _shown(value) for name, value in report["differences"].items()}
        | {"base model with and without adapter, for comparison": _shown(report["effect_of_the_adapter"])},
        digests=_digests(record, adapter),
        versions=", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        config=yaml.safe_dump(dict(config), sort_keys=False, width=120),
    )
    write_text(card, text)


def _pictures(model: ModelBlock) -> str:
    """How images are to be given to the folder's processor."""
    if model.pixels:
        fewest, most = model.pixels
        return f"Images go in as they are; the processor here resizes them to between {fewest:,} and {most:,} pixels."
    return FITS[model.image_fit] if load("family", model.family).squares_images else "Images go in as they are."


def _made_of(config: Mapping[str, Any], experiment: Mapping[str, Any]) -> Iterator[str]:
    """The keys of an experiment that name a block which is neither model nor data nor training."""
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
    between = "" if low is None or high is None else f" [{low:.4f}, {high:.4f}]"
    return "" if value is None else f"{value:.4f}{between}"


def _sentence(report: Mapping[str, Any]) -> str:
    allowed = report["accepted"]
    return (
        f"The log-probabilities of {report['tokens']} tokens in {report['answers']} answers to benchmark questions, given by vLLM "
        f"with this folder in {report['dtype']}, were computed again with transformers, and with the base model and the adapter "
        f"beside it. The export would have failed with a mean difference above {allowed['mean']:g} or a largest one above "
        f"{allowed['max']:g} nats in {report['dtype']}, or, in float32, with more than half of what the adapter does."
    )


def _shown(difference: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:.2g}" for name, value in difference.items()}


def _digests(record: Mapping[str, Any], adapter: Mapping[str, Any]) -> dict[str, str]:
    """What it was made of, by name."""
    found = {"base model's files": record["parameters"]["weights"]}
    found |= {f"`{source['path']}`": source["sha256"] for source in record["inputs"].values()}
    found |= {f"`{source['path']}`": source["sha256"] for source in adapter["inputs"].values()}
    return found | {"code of the training": adapter["code"], "code of the export": record["code"]}
