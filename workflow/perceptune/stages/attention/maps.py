"""Attention maps of a policy before it answers, and the image share of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perceptune.contracts.config import AttentionBlock, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import module_of
from perceptune.contracts.progress import Progress
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.attention import ATTENTION
from perceptune.contracts.tables.io import table_writer
from perceptune.core.views.attention_maps import Region, attention_focus_ratio, on_image
from perceptune.core.views.view import Recipe
from perceptune.engines.vision.attention_capture import Looked, look, watching
from perceptune.models.coordinates import framed
from perceptune.models.families.family import Family, family_of
from perceptune.models.loading import load_model, load_processor, load_trained
from perceptune.models.placement import bare, language_model
from perceptune.stages.data.example_images import IllustratedExamples
from perceptune.stages.sampling.recipes import messages_for
from perceptune.stages.sampling.requests import chosen_examples

WRITTEN = 16
"""Maps written at once."""


def run(
    *,
    dataset: str,
    examples: Path,
    attention: Path,
    model: ModelBlock,
    weights: str,
    adapter: Path | None,
    config: AttentionBlock,
) -> None:
    """Writes `attention`, one row per example that the block selects.

    The map belongs to the position that predicts the answer's first token. The layers' image shares
    are averaged over all positions that predict the ground truth, if there is one. `weights` is the
    digest of the model's files.
    """
    chosen = chosen_examples(dataset, examples, config.split, config.tasks, config.limit)
    family, processor, loaded = family_of(model), load_processor(model), load_model(model)
    if adapter is not None:
        loaded = load_trained(loaded, adapter, trainable=False)
    loaded.eval()
    maps = _Maps(IllustratedExamples(examples), family, processor, loaded, model, config)
    parameters = {
        "model": model.model_dump(mode="json"),
        "weights": weights,
        "attention": config.model_dump(mode="json"),
    }
    inputs = {"examples": examples} | ({"adapter": adapter / "adapter_model.safetensors"} if adapter else {})
    with table_writer(attention, ATTENTION) as table:
        with watching(loaded), Progress("attention", len(chosen), "examples") as progress:
            for start in range(0, len(chosen), WRITTEN):
                part = chosen[start : start + WRITTEN]
                table.write([maps.row(example) for example in part])
                progress.advance(len(part))
        table.lineage = lineage("attention.maps", parameters, inputs, [module_of("family", model.family)])


class _Maps:
    """Computes rows from examples."""

    def __init__(
        self,
        examples: IllustratedExamples,
        family: Family,
        processor: Any,
        model: Any,
        block: ModelBlock,
        config: AttentionBlock,
    ) -> None:
        self._family, self._processor, self._model, self._block, self._config = family, processor, model, block, config
        self._examples = examples
        layers = int(language_model(model).config.num_hidden_layers)
        self._layers = config.layers or (0, layers - 1)
        first, last = self._layers
        if last >= layers:
            raise UserError(
                f"key `layers`: [{first}, {last}], expected first and last of the model's layers 0 to {layers - 1}"
            )
        if config.method == "gradient" and first != last:
            raise UserError(f"key `layers`: [{first}, {last}], expected the same layer twice for `method: gradient`")

    def row(self, example: Mapping[str, Any]) -> dict[str, Any]:
        size = tuple(example["image_sizes"][0]) if example["image_sizes"] else (0, 0)
        empty = dict.fromkeys(("grid", "attention", "afr", "layer_afr", "global_afr", "image_share"))
        row = {"example_id": example["example_id"], "size": list(size), **empty, "reason": None}
        if not example["image_sha256"]:
            return {**row, "reason": "no image"}
        try:
            captured, grid, region = self._capture(example)
        except ValueError as error:
            return {**row, "reason": str(error)}
        flat = captured.gradient if captured.gradient is not None else self._mean(captured)
        shown = on_image(flat.numpy().reshape(grid), region, size)
        box = example["box"]
        layers = [on_image(layer.numpy().reshape(grid), region, size) for layer in captured.maps] if box else []
        return {
            **row,
            "grid": list(shown.shape),
            "attention": shown.astype(np.float32).ravel().tolist(),
            "afr": attention_focus_ratio(shown, size, tuple(box)) if box else None,
            "layer_afr": [attention_focus_ratio(layer, size, tuple(box)) for layer in layers] if box else None,
            "global_afr": attention_focus_ratio(np.sum(layers, axis=0), size, tuple(box)) if box else None,
            "image_share": [float(share) for share in captured.shares],
        }

    def _mean(self, captured: Looked) -> torch.Tensor:
        first, last = self._layers
        return captured.maps[first : last + 1].mean(dim=0)

    def _capture(self, example: Mapping[str, Any]) -> tuple[Looked, tuple[int, int], Region]:
        images = self._examples.images(example["example_id"])
        text = self._config.prompt.replace("{question}", example["question"])
        prefix = self._family.prefix(self._processor, messages_for(text, Recipe("original"), len(images)), images)
        grid = self._family.grids(self._processor, prefix)[0]
        region = self._family.covered(images[0].size)
        image, whole = self._family.image_positions(self._processor, prefix)
        inputs, last = self._family.with_answer(bare(self._model), prefix, self._answer(example))
        layer = self._layers[0] if self._config.method == "gradient" else None
        return look(self._model, inputs, last, image, layer, whole), grid, region

    def _answer(self, example: Mapping[str, Any]) -> list[int]:
        """Token ids of the ground truth as the model would write it; empty if there is none."""
        if example["box"] is None and example["target"] is None:
            return []
        text = self._family.ground_truth(*framed(example, self._block))
        return self._family.learnt_answer(self._processor, text, self._block.max_model_len, "the ground truth")
