"""Answers from vLLM: all questions of one policy in one engine start."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Set before vLLM is imported: run the engine in this process (a second one takes a minute to start
# on a CPU), without telemetry.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from PIL.Image import Image
from vllm import LLM, SamplingParams
from vllm.platforms import current_platform

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.progress import tell
from perceptune.engines.vllm.contrastive_decoding import Lockstep, Pair, Pairs
from perceptune.engines.vllm.requests import Answer, Contrast, Question
from perceptune.models.coordinates import pixel_limits
from perceptune.models.families.family import check_room, family_of
from perceptune.models.loading import load_processor, merged_model


class Unrepeated(logging.Filter):
    """Passes each message once: on a CPU, vLLM logs the same warning for every question."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is new."""
        message = record.getMessage()
        new = message not in self._seen
        self._seen.add(message)
        return new


logging.getLogger("vllm.v1.worker.cpu_worker").addFilter(Unrepeated())


@dataclass(frozen=True)
class Prepared:
    """A question as the engine takes it."""

    prompt: Mapping[str, Any]
    sampling: SamplingParams
    amateur: Mapping[str, Any] | None = None
    """The amateur's prompt, for amplified answers."""
    contrast: Contrast | None = None


class Sampler:
    """A running vLLM engine for one policy. Use it as a context manager."""

    def __init__(
        self,
        model: ModelBlock,
        adapter: Path | None,
        images_per_prompt: int,
        merged: Path,
        halvings: int = 0,
        contrastive: bool = False,
    ) -> None:
        """Starts the engine.

        Weights with the adapter merged in are written to the folder `merged`, which is removed at
        the end. Each of the `halvings` halves the number of sequences and tokens that the engine
        processes at once. `contrastive` prepares it for amplified answers.
        """
        if contrastive:
            # the V2 runner has another logits-processor interface
            os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
        if model.engine.batch_invariant:
            os.environ["VLLM_BATCH_INVARIANT"] = "1"  # read when the worker starts
        self._family, self._processor, self._model = family_of(model), load_processor(model), model
        self._merged = merged
        folder = model.path
        tell(f"starting vLLM with {adapter or folder}")
        if adapter is not None:
            shutil.rmtree(merged, ignore_errors=True)  # left by a killed run
            merged_model(model, adapter, merged)
            folder = str(merged)
        try:
            self._engine = LLM(
                model=folder,
                dtype=model.dtype,
                max_model_len=model.max_model_len,
                trust_remote_code=model.trust_remote_code,
                load_format="safetensors",
                limit_mm_per_prompt={"image": max(images_per_prompt, 1), "video": 0},
                mm_processor_kwargs=pixel_limits(model) or None,
                logprobs_mode="raw_logprobs",
                seed=0,
                disable_log_stats=True,
                **_placement(model, halvings, contrastive),
            )
        except ValueError as error:  # only vLLM knows the limit, which scaled positions raise
            limit = re.search(r"derived max_model_len \((?:\w+=)?(\d+)", str(error))
            if limit is None:
                raise
            raise UserError(
                f"key `max_model_len`: {model.max_model_len}, expected at most the {limit[1]} of model `{model.path}`"
            ) from None

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._merged, ignore_errors=True)

    def prepared(self, question: Question) -> Prepared:
        """The question as the engine takes it.

        Raises `ValueError` with the reason if it cannot be sampled.
        """
        messages = self._family.escaped(self._processor, question.messages) if question.escaped else question.messages
        tokens = self._family.prompt_ids(self._processor, messages)
        images = [self._family.prepare_image(image, self._processor) for image in question.images]
        length = self._family.prompt_length(self._processor, tokens, images)
        check_room(length, question.max_tokens, self._model)
        sampling = _sampling(question, self._family.placeholder_ids(self._processor))
        prompt, contrast = _prompt(tokens, images), question.contrast
        if contrast is None:
            return Prepared(prompt, sampling)
        if len(contrast.images) != len(question.images):
            raise ValueError(
                f"the amateur has {len(contrast.images)} images, the expert {len(question.images)}, expected the same number"
            )
        amateur = [self._family.prepare_image(image, self._processor) for image in contrast.images]
        return Prepared(prompt, sampling, _prompt(tokens, amateur), contrast)

    def answers(
        self, questions: Sequence[tuple[str, Prepared]], advance: Callable[[int], object] = lambda count: None
    ) -> dict[str, list[Answer]]:
        """The n answers of every question, by name.

        Calls `advance` with the number of answers that have just finished. Earlier calls have no
        influence: the engine is empty at the start, and its caches are emptied at the end.
        """
        plain = [(name, question) for name, question in questions if question.contrast is None]
        answers = self._plain(plain, advance) | self._amplified(questions, advance)
        self._engine.reset_prefix_cache()
        self._engine.llm_engine.reset_encoder_cache()
        return answers

    def _plain(
        self, questions: Sequence[tuple[str, Prepared]], advance: Callable[[int], object]
    ) -> dict[str, list[Answer]]:
        if not questions:
            return {}
        outputs = self._engine.generate(
            [question.prompt for _, question in questions],
            [question.sampling for _, question in questions],
            use_tqdm=partial(_Advance, advance),
        )
        answers = {}
        for (name, _), output in zip(questions, outputs, strict=True):
            length = len(output.prompt_token_ids or [])
            ordered = sorted(output.outputs, key=lambda completion: completion.index)
            answers[name] = [_answer(completion, length) for completion in ordered]
        return answers

    def _amplified(
        self, questions: Sequence[tuple[str, Prepared]], advance: Callable[[int], object]
    ) -> dict[str, list[Answer]]:
        pairs = [pair for name, question in questions for pair in _pairs(name, question)]
        if not pairs:
            return {}
        found: dict[str, Answer] = {}
        for name, output in Pairs(self._engine, self._model.max_model_len).answered(pairs):
            found[name] = _answer(output.outputs[0], len(output.prompt_token_ids or []))
            advance(1)
        amplified = [(name, question.sampling.n) for name, question in questions if question.contrast]
        return {name: [found[f"{name}/{i}"] for i in range(n)] for name, n in amplified}


def _prompt(tokens: list[int], images: Sequence[Image]) -> dict[str, Any]:
    return {"prompt_token_ids": tokens, **({"multi_modal_data": {"image": list(images)}} if images else {})}


def _pairs(name: str, question: Prepared) -> Iterator[Pair]:
    """One pair per answer of an amplified question, each with the seed that vLLM would use."""
    contrast, sampling = question.contrast, question.sampling
    if contrast is None or question.amateur is None:
        return
    for index in range(sampling.n):
        drawing = sampling.clone()
        drawing.n, drawing.seed = 1, sampling.seed + index
        yield Pair(
            f"{name}/{index}", question.prompt, question.amateur, drawing, contrast.strength, contrast.plausibility
        )


class _Advance:
    """A stand-in for vLLM's progress bars: one over prompts, one updated with answers."""

    def __init__(self, advance: Callable[[int], object], prompts: Iterable[object] = (), **_: object) -> None:
        self._advance, self._prompts, self.n, self.postfix = advance, prompts, 0, ""
        self.format_dict = {"elapsed": 1.0}

    def __iter__(self) -> Iterator[object]:
        return iter(self._prompts)

    def update(self, count: int) -> None:
        self.n += count
        self._advance(count)

    def refresh(self) -> None: ...

    def close(self) -> None: ...


def _placement(model: ModelBlock, halvings: int, contrastive: bool) -> dict[str, Any]:
    engine = model.engine
    placement: dict[str, Any] = {
        "tensor_parallel_size": engine.tensor_parallel_size,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "enforce_eager": engine.enforce_eager,
        "max_num_seqs": max(engine.max_num_seqs >> halvings, 1),
    }
    if contrastive:
        placement["max_num_seqs"] = max(placement["max_num_seqs"], 2)
        placement |= {"logits_processors": [Lockstep], "async_scheduling": False, "enable_chunked_prefill": False}
        placement["max_num_batched_tokens"] = max(16384 >> halvings, 2 * model.max_model_len)
        return placement
    if current_platform.is_cpu():
        # on a CPU, vLLM 0.32 cannot rewind a seeded generator after a part of a prompt
        tokens = max(16384 >> halvings, model.max_model_len)
        return {**placement, "enable_chunked_prefill": False, "max_num_batched_tokens": tokens}
    if halvings:
        placement["max_num_batched_tokens"] = max(
            8192 >> halvings, placement["max_num_seqs"]
        )  # 8192: vLLM's default for GPUs
    return placement


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
    )


def _answer(completion: Any, prompt_tokens: int) -> Answer:
    tokens = list(completion.token_ids)
    logprobs = [at[token].logprob for at, token in zip(completion.logprobs, tokens, strict=True)]
    return Answer(completion.text, tokens, logprobs, str(completion.finish_reason), prompt_tokens)
