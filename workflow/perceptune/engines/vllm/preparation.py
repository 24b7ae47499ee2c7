"""Prepares questions for vLLM, with its own processor: in the engine's process or in others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import perceptune.engines.vllm.environment  # noqa: F401

# isort: split
from PIL.Image import Image
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.renderers import BaseRenderer, renderer_from_config
from vllm.renderers.inputs.preprocess import parse_model_prompt
from vllm.sampling_params import RequestOutputKind

from perceptune.contracts.config import ModelBlock
from perceptune.engines.vllm.requests import Question
from perceptune.models.coordinates import pixel_limits
from perceptune.models.families.family import check_room, family_of
from perceptune.models.loading import load_processor

PRELOADED = (__name__, "torch", "transformers")
"""Modules that processes which prepare questions have in common."""


@dataclass(frozen=True)
class Amateur:
    """The second prompt of contrastive decoding, lambda, and the plausibility threshold."""

    prompt: Mapping[str, Any]
    strength: float
    plausibility: float


@dataclass(frozen=True)
class Prepared:
    """A question as the engine takes it: vLLM's inputs, with tensors of the images."""

    prompt: Mapping[str, Any]
    sampling: SamplingParams
    amateur: Amateur | None = None


class Preparer:
    """Prepares questions to a model. It needs no engine: `renderer` is that of a running one, or
    its own."""

    def __init__(self, model: ModelBlock, most_images: int, renderer: BaseRenderer | None = None) -> None:
        self._family, self._processor, self._model = family_of(model), load_processor(model), model
        if renderer is None:
            renderer = renderer_from_config(EngineArgs(**engine_arguments(model, most_images)).create_engine_config())
        self._renderer = renderer
        self._never = self._family.placeholder_ids(self._processor)

    def __call__(self, question: Question) -> Prepared:
        """The question as the engine takes it.

        Raises `ValueError` with the reason if it cannot be sampled.
        """
        messages = self._family.escaped(self._processor, question.messages) if question.escaped else question.messages
        tokens = self._family.prompt_ids(self._processor, messages)
        prompt = self._prompt(tokens, question.images, question.max_tokens)
        sampling, contrast = _sampling(question, self._never), question.contrast
        if contrast is None:
            return Prepared(prompt, sampling)
        expected, found = len(question.images), len(contrast.images)
        if found != expected:
            raise ValueError(f"the amateur has {found} images, the expert {expected}, expected the same number")
        # its view may enlarge images, and with them the prompt
        amateur = self._prompt(tokens, contrast.images, question.max_tokens)
        return Prepared(prompt, sampling, Amateur(amateur, contrast.strength, contrast.plausibility))

    def _prompt(self, tokens: list[int], images: Sequence[Image], new: int) -> Mapping[str, Any]:
        """The prompt with the images' tensors, as `LLM.generate` would make it.

        Raises `ValueError` if it and `new` tokens after it exceed `max_model_len`.
        """
        fitted = [self._family.prepare_image(image, self._processor) for image in images]
        check_room(self._family.prompt_length(self._processor, tokens, fitted), new, self._model)
        raw = {"prompt_token_ids": tokens, **({"multi_modal_data": {"image": fitted}} if fitted else {})}
        parsed = parse_model_prompt(self._renderer.model_config, raw)
        (rendered,) = self._renderer.render_cmpl([parsed], self._renderer.default_cmpl_tok_params)
        return rendered


def engine_arguments(model: ModelBlock, most_images: int) -> dict[str, Any]:
    """The arguments of vLLM's engine that determine how prompts are processed."""
    return {
        "model": model.path,
        "dtype": model.dtype,
        "max_model_len": model.max_model_len,
        "trust_remote_code": model.trust_remote_code,
        "limit_mm_per_prompt": {"image": max(most_images, 1), "video": 0},
        "mm_processor_kwargs": pixel_limits(model) or None,
        "mm_processor_cache_gb": 0,  # it must see the same images in the same order as the engine
    }


def _sampling(question: Question, never: list[int]) -> SamplingParams:
    return SamplingParams(
        n=question.n,
        temperature=question.temperature,
        top_p=question.top_p,
        top_k=question.top_k,
        max_tokens=question.max_tokens,
        seed=question.seed % 2**62,  # vLLM draws answer i of a request with seed + i
        logprobs=0,
        logit_bias=dict.fromkeys(never, -100.0),  # vLLM's minimum
        skip_special_tokens=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
