"""Answers from vLLM: all questions of one policy in one engine start."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# before vLLM is imported: the engine in this process (a second one takes a minute to start on a CPU), no telemetry
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from PIL.Image import Image
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform

from perceptune.contracts.config import ModelBlock
from perceptune.models.families import family_of
from perceptune.models.loading import load_processor, merged_model

REQUESTS_AT_ONCE = 512
"""Requests handed to the engine together: bounds the decoded images in memory. Each is answered on its own terms."""


@dataclass(frozen=True)
class Question:
    """One request: messages with their images, and how to draw its n answers."""

    messages: Sequence[Mapping[str, Any]]
    images: Sequence[Image]
    n: int
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    seed: int


@dataclass(frozen=True)
class Answer:
    """One sampled response.

    `logprobs`: of the sampled tokens under the model itself, before temperature, top-p and top-k, float32.
    """

    text: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: str
    prompt_tokens: int


class Sampler:
    """A running vLLM engine for one policy. Use it as a context manager."""

    def __init__(self, model: ModelBlock, adapter: Path | None, images_per_prompt: int) -> None:
        self._family, self._processor, self._model = family_of(model), load_processor(model), model
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._lora: LoRARequest | None = None
        folder = model.path
        if adapter is not None and model.engine.adapters == "merge":
            self._temporary = tempfile.TemporaryDirectory(prefix="perceptune-merged-")
            folder = self._temporary.name
            merged_model(model, adapter, Path(folder))
        elif adapter is not None:
            self._lora = LoRARequest("adapter", 1, str(adapter))
        self._engine = LLM(
            model=folder,
            dtype=model.dtype,
            max_model_len=model.max_model_len,
            trust_remote_code=model.trust_remote_code,
            limit_mm_per_prompt={"image": max(images_per_prompt, 1), "video": 0},
            logprobs_mode="raw_logprobs",
            enable_lora=self._lora is not None,
            seed=0,
            disable_log_stats=True,
            **_placement(model),
            **({"max_lora_rank": model.engine.max_lora_rank} if self._lora else {}),
        )

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    def answers(self, questions: Iterator[tuple[str, Question]]) -> Iterator[tuple[str, list[Answer]]]:
        """(request id, its n answers) for every question the engine takes, in order; see `refused` for the others."""
        part: list[tuple[str, Question]] = []
        for item in questions:
            part.append(item)
            if len(part) == REQUESTS_AT_ONCE:
                yield from self._generate(part)
                part = []
        if part:
            yield from self._generate(part)

    def refusal(self, question: Question) -> str | None:
        """Why the engine cannot take a question; None if it can."""
        try:
            length = len(self._family.prompt_ids(self._processor, question.messages))
        except ValueError as error:
            return str(error)
        if length + question.max_tokens > self._model.max_model_len:
            return f"prompt of {length} tokens and {question.max_tokens} new ones exceed max_model_len {self._model.max_model_len}"
        return None

    def _generate(self, part: list[tuple[str, Question]]) -> Iterator[tuple[str, list[Answer]]]:
        prompts = [self._prompt(question) for _, question in part]
        outputs = self._engine.generate(
            prompts,  # type: ignore[arg-type]
            [_sampling(question, self._family.placeholder_ids(self._processor)) for _, question in part],
            lora_request=self._lora,
            use_tqdm=False,
        )
        for (request_id, _), output in zip(part, outputs, strict=True):
            length = len(output.prompt_token_ids or [])
            ordered = sorted(output.outputs, key=lambda completion: completion.index)
            yield request_id, [_answer(completion, length) for completion in ordered]

    def _prompt(self, question: Question) -> dict[str, Any]:
        prompt: dict[str, Any] = {"prompt_token_ids": self._family.prompt_ids(self._processor, question.messages)}
        if question.images:
            images = [self._family.prepare_image(image, self._processor) for image in question.images]
            prompt["multi_modal_data"] = {"image": images}
        return prompt


def _placement(model: ModelBlock) -> dict[str, Any]:
    engine = model.engine
    whole_prompts = {"enable_chunked_prefill": False, "max_num_batched_tokens": max(16384, model.max_model_len)}
    return {
        # on a CPU vLLM 0.32 cannot rewind a seeded generator after part of a prompt, so prompts must go in whole
        **(whole_prompts if current_platform.is_cpu() else {}),
        "tensor_parallel_size": engine.tensor_parallel_size,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "enforce_eager": engine.enforce_eager,
        "max_num_seqs": engine.max_num_seqs,
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
        logit_bias=dict.fromkeys(never, -100.0),  # vLLM's lowest
        skip_special_tokens=True,
    )


def _answer(completion: Any, prompt_tokens: int) -> Answer:
    tokens = list(completion.token_ids)
    logprobs = [at[token].logprob for at, token in zip(completion.logprobs, tokens, strict=True)]
    return Answer(completion.text, tokens, logprobs, str(completion.finish_reason), prompt_tokens)
