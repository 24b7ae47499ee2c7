"""Adapters: the layers that they train, their PEFT configuration, and the dtype of their weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from perceptune.contracts.config import LoraBlock, Part
from perceptune.contracts.errors import SHOWN, UserError, joined_mistakes, near
from perceptune.core.weights import short_name
from perceptune.models.families.family import Family
from perceptune.models.placement import language_model

KEY = "lora.target_modules"
LANGUAGE = r"(?:.*\.)?(?:language_model|text_model)\..*"
"""All layers of the language model; names may choose others than the family's default."""
FROZEN = r"(?:.*\.)?experts\..*|.*(?:gate|router)"
"""Experts of a mixture and their router, which the adapters of no family change."""


def adapter_config(model: PreTrainedModel, lora: LoraBlock, family: Family) -> LoraConfig:
    """PEFT's configuration of a new adapter.

    Raises `UserError` for a name in `lora.target_modules` that matches no linear layer of the parts.
    """
    parts = [part for part in lora.parts if part not in lora.full]
    full = _any_of([family.lora_targets[part] for part in lora.full])
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_targets(model, parts, lora.target_modules, family),
        exclude_modules=family.unused_layers(model.config.to_dict()) if "vision" in parts else None,
        modules_to_save=[name for name in _linear_layers(model) if re.fullmatch(full, name)] or None,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        bias="none",
        task_type="CAUSAL_LM",
    )


def new_adapter(model: PreTrainedModel, lora: LoraBlock, family: Family) -> PeftModel:
    """The model with a new adapter, with which it is still the base model.

    Raises `UserError` as `adapter_config`, and for DoRA on a layer with rows of zeros.
    """
    adapted = in_float32(get_peft_model(model, adapter_config(model, lora, family)))
    for name, layer in adapted.get_base_model().named_modules() if lora.use_dora else ():
        if isinstance(layer, LoraLayer):
            # PEFT computed the norms in the model's dtype: in 16 bits, rows would change by up to 0.4 %
            layer.lora_variant["default"].init(layer, "default")
            if zeros := int((layer.lora_magnitude_vector["default"].weight == 0).sum()):
                raise UserError(
                    f"key `lora.use_dora`: layer `{name}` has {zeros} rows of zeros, which DoRA cannot scale",
                    "name the layers to adapt in `lora.target_modules`, without this one",
                )
    return adapted


def in_float32(model: PeftModel) -> PeftModel:
    """The model with the layers that are trained in full in float32, as PEFT does it for LoRA: in 16
    bits, most updates would be lost to rounding. What these layers return keeps its dtype.
    """
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            dtype = module.original_module.weight.dtype
            for layer in module.modules_to_save.values():
                layer.float()
                layer.register_forward_pre_hook(_to_float32)
                layer.register_forward_hook(partial(_to_dtype, dtype))
    return model


def leave_casts_to_autocast(model: PeftModel) -> None:
    """LoRA layers no longer cast their input to float32, in which autocast would cast it back: the same
    values without two copies of each input. The model then runs in mixed precision only.

    DoRA's layers are left alone, because they compute norms in that dtype.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer) and not module.lora_variant:
            module.cast_input_dtype_enabled = False


def _to_float32(layer: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return inputs[0].float()


def _to_dtype(dtype: torch.dtype, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output.to(dtype)


def _targets(model: nn.Module, parts: Sequence[Part], names: Sequence[str], family: Family) -> str:
    """A regular expression for the layers of these parts, or those with these names.

    Names are such as `q_proj` or `self_attn.q_proj`; layers of other parts with the same names stay
    frozen. Raises `UserError` for a name that matches no linear layer of the parts.
    """
    if not names:
        return _any_of([family.lora_targets[part] for part in parts])
    inside = _any_of([LANGUAGE if part == "language" else family.lora_targets[part] for part in parts])
    layers = [name for name in _linear_layers(model) if re.fullmatch(inside, name)]
    allowed = sorted({short_name(name) for name in layers})
    mistakes = []
    for name in names:
        if not _with_name(layers, name):
            elsewhere = _with_name([n for n, _ in model.named_modules() if n not in layers], name)
            found = ", ".join(f"`{layer}`" for layer in elsewhere[:SHOWN]) + (", ..." if elsewhere[SHOWN:] else "")
            about = f"matches {found}, which is not a linear layer" if elsewhere else "matches no layer"
            wanted = " or ".join(f"`{part}`" for part in parts)
            mistakes.append(f"key `{KEY}`: `{name}` {about} of {wanted}, expected one of {', '.join(allowed)}")
    if mistakes:
        raise UserError(joined_mistakes(mistakes), near(names[0], allowed) if len(names) == 1 else None)
    return rf"(?=(?:{inside})$)(?:.*\.)?(?:{'|'.join(re.escape(name) for name in names)})"


def decoder_layers(model: PreTrainedModel, family: Family) -> tuple[list[str], list[str]]:
    """(The language model's linear layers that `lora` adapts by default, those that it leaves out).

    Experts of a mixture and their router are in neither.
    """
    inside = {id(module) for module in language_model(model).modules()}
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and id(module) in inside]
    pattern = family.lora_targets["language"]
    adapted = [name for name in layers if re.fullmatch(pattern, name)]
    return adapted, [name for name in layers if name not in {*adapted} and not re.fullmatch(FROZEN, name)]


def _any_of(patterns: Sequence[str]) -> str:
    """A regular expression that matches where one of several does; none matches nothing."""
    if len(patterns) == 1:
        return patterns[0]
    return f"(?:{'|'.join(f'(?:{pattern})' for pattern in patterns)})" if patterns else r"(?!)"


def _linear_layers(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def _with_name(layers: Sequence[str], name: str) -> list[str]:
    """The layers that a name matches: exactly, or as the last parts of their path."""
    return [layer for layer in layers if layer == name or layer.endswith(f".{name}")]
