"""Probes a model of family `auto` before its first use: whether it is understood, and how to train it."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import module_of
from perceptune.contracts.progress import tell
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.probe import PROBE
from perceptune.core.weights import short_name
from perceptune.engines.probing import Comparison, compare_engine, compare_layouts, refused
from perceptune.models.adapters import decoder_layers
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, load_processor

ACTIVATIONS = 2 * 10**9
"""Bytes for all but the weights when layouts are compared, an assumption."""


def run(*, probe: Path, model: ModelBlock, weights: str, halvings: int = 0) -> None:
    """Writes the `probe` table.

    Raises `UserError` if the processor is not understood, if LoRA would adapt no layer, if neither
    layout of training agrees with the model's generation, or if vLLM does not. `weights` is the
    digest of the model's files. Each of the `halvings` halves the engine's batch size.
    """
    shared, alone = _layouts(model)
    print(_shown(shared), _shown(alone), sep="\n")
    if not shared.agrees and not alone.agrees:
        raise refused(model.path, "training does not compute what the model generates with", alone)
    if not shared.agrees:
        tell(f"warning: answers of `{model.path}` are trained in separate sequences, which is slower: {shared.problem}")
    engine = _engine(model, not shared.agrees, probe.parent, halvings)
    print(_shown(engine))
    if not engine.agrees:
        raise refused(model.path, "vLLM and transformers do not agree", engine)
    write_table(
        probe,
        PROBE,
        [_row(one) for one in (shared, alone, engine)],
        lineage(
            "training.probe",
            {"model": model.model_dump(mode="json"), "weights": weights},
            {},
            [module_of("family", model.family)],
        ),
    )


def _layouts(model: ModelBlock) -> Sequence[Comparison]:
    """The layouts of training, compared in float32, in which a difference is none of rounding."""
    family, processor = family_of(model), load_processor(model)
    family.check(processor)
    loaded = _placed(load_model(model, torch.float32, sharded=True)).eval()
    compared = compare_layouts(loaded, family, processor, model.max_model_len)
    if any(one.agrees for one in compared):  # otherwise the model may not even have a decoder
        _check_layers(model, *decoder_layers(loaded, family))
    del loaded
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return compared


def _placed(model: PreTrainedModel) -> PreTrainedModel:
    """The model in float32 on the GPU if there is one that it fits on; otherwise on the CPU, whose
    memory the job requests anyway."""
    if not torch.cuda.is_available():
        return model
    needed = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())) + ACTIVATIONS
    free = torch.cuda.mem_get_info()[0]
    if needed <= free:
        return model.to("cuda")
    tell(
        f"the layouts are compared on the CPU: float32 needs {needed / 1e9:.0f} GB, the GPU has {free / 1e9:.0f} GB free"
    )
    return model


def _check_layers(model: ModelBlock, adapted: Sequence[str], left_out: Sequence[str]) -> None:
    """Warns of linear layers of the decoder that LoRA leaves out."""
    names = ", ".join(f"`{name}`" for name in sorted({short_name(layer) for layer in left_out}))
    if not adapted:
        raise UserError(
            f"model folder `{model.path}`: family `auto` cannot use it, because LoRA finds none of the decoder's "
            f"linear layers by their usual names, only {names or 'none at all'}",
            "`perceptune describe auto` shows these names; docs/families.md lists models that were tried",
        )
    if left_out:
        tell(
            f"warning: LoRA leaves out linear layers of `{model.path}`: {names}; `lora.target_modules` can name layers"
        )


def _engine(model: ModelBlock, separate: bool, folder: Path, halvings: int) -> Comparison:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        return compare_engine(
            model, family_of(model), load_processor(model), Path(scratch) / "vllm", separate, halvings
        )


def _shown(one: Comparison) -> str:
    """A line for the log."""
    differences = f"mean {one.found.mean:.2g}, max {one.found.max:.2g} nats on {one.tokens} tokens" if one.found else ""
    return f"{one.check}: {'; '.join(filter(None, (differences, one.problem or 'agrees')))}"


def _row(one: Comparison) -> dict[str, object]:
    mean, most = one.found or (None, None)
    return {"check": one.check, "tokens": one.tokens, "mean": mean, "max": most, "problem": one.problem}
