"""Answers from vLLM: all questions of one policy in one engine start."""

from __future__ import annotations

import itertools
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import perceptune.engines.vllm.environment  # noqa: F401

# isort: split
from vllm import LLM
from vllm.platforms import current_platform

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.progress import Waiting
from perceptune.engines.vllm.contrastive_decoding import Lockstep, Pair, Pairs
from perceptune.engines.vllm.preparation import Prepared, Preparer, engine_arguments
from perceptune.engines.vllm.requests import Answer
from perceptune.models.loading import merged_model
from perceptune.runtime.orphans import ends_with_this_process


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


MARGIN = 1.25
"""Answers that the engine knows of, as a multiple of those that it computes at once."""


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
        the end, or here if the engine cannot start. Each of the `halvings` halves the number of
        sequences and tokens that the engine processes at once. `contrastive` prepares it for
        amplified answers.

        Raises `UserError` if vLLM was built for a device that this process does not see.
        """
        if current_platform.is_unspecified():
            raise UserError(
                "vLLM sees no GPU, and the installed build needs one",
                "check `nvidia-smi` and CUDA_VISIBLE_DEVICES; `make clean install ENV=cpu` installs the build for CPUs",
            )
        # on a GPU, the engine has a process of its own, which computes while this one prepares prompts; on
        # a CPU they share the cores, and another process would take a minute to start
        apart = current_platform.is_cuda_alike() and not contrastive
        if os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", str(int(apart))) == "1":
            ends_with_this_process()
        if contrastive:
            # the V2 runner has another logits-processor interface
            os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
        if model.engine.batch_invariant:
            os.environ["VLLM_BATCH_INVARIANT"] = "1"  # read when the worker starts
        self._model = model
        self._numbers = itertools.count()
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, merged, ignore_errors=True)
            folder = model.path
            if adapter is not None:
                shutil.rmtree(merged, ignore_errors=True)  # left by a killed run
                merged_model(model, adapter, merged)
                folder = str(merged)
            self._engine = _started(model, folder, images_per_prompt, _placement(model, halvings, contrastive))
            self.prepared = Preparer(model, images_per_prompt, self._engine.llm_engine.renderer)
            self._room = int(self._engine.llm_engine.vllm_config.scheduler_config.max_num_seqs * MARGIN)
            self._at_end = stack.pop_all()

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self._at_end.close()

    def answers(
        self, questions: Iterable[tuple[str, Prepared]], ready: Callable[[], bool] = lambda: True
    ) -> Iterator[tuple[str, list[Answer]]]:
        """The n answers of every question, with its name, as soon as they are finished.

        Questions are taken when the engine has room for them, and not waited for while it is busy:
        `ready` says whether the next one would be there at once. Either all or none have an amateur.
        Earlier calls have no influence: the engine is empty at the start, and its caches are emptied
        at the end.
        """
        source = iter(questions)
        first = next(source, None)
        if first is None:
            return
        contrastive = first[1].amateur is not None

        def checked() -> Iterator[tuple[str, Prepared]]:
            for name, question in itertools.chain([first], source):
                if (question.amateur is not None) != contrastive:
                    raise ValueError(f"question `{name}`: expected an amateur either in all questions or in none")
                yield name, question

        try:
            yield from (self._amplified if contrastive else self._plain)(checked(), ready)
        finally:
            self._empty()

    def _empty(self) -> None:
        engine = self._engine.llm_engine
        if unfinished := list(engine.output_processor.request_states):  # after an error
            engine.abort_request(unfinished, internal=True)
        engine.reset_prefix_cache()
        engine.reset_encoder_cache()

    def _plain(
        self, questions: Iterator[tuple[str, Prepared]], ready: Callable[[], bool]
    ) -> Iterator[tuple[str, list[Answer]]]:
        engine = self._engine.llm_engine
        running: dict[str, str] = {}  # id of the request to name
        unfinished, more = 0, True
        while more or running:
            while more and unfinished < self._room and (not running or ready()):
                asked = next(questions, None)
                if more := asked is not None:
                    name, question = asked
                    identity = str(next(self._numbers))
                    engine.add_request(identity, question.prompt, question.sampling)
                    running[identity] = name
                    unfinished += question.sampling.n
            for output in engine.step() if running else ():
                if output.finished:
                    answers = sorted(output.outputs, key=lambda one: one.index)
                    length = len(output.prompt_token_ids or [])
                    unfinished -= len(answers)
                    yield running.pop(output.request_id), [_answer(one, length) for one in answers]

    def _amplified(
        self, questions: Iterator[tuple[str, Prepared]], ready: Callable[[], bool]
    ) -> Iterator[tuple[str, list[Answer]]]:
        """Each answer is a pair of requests."""
        counts: dict[str, int] = {}
        found: dict[str, dict[int, Answer]] = {}

        def pairs() -> Iterator[Pair]:
            for name, question in questions:
                counts[name] = question.sampling.n
                yield from _pairs(name, question)

        for pair, output in Pairs(self._engine, self._model.max_model_len).answered(pairs(), ready):
            name, _, index = pair.rpartition("/")
            answers = found.setdefault(name, {})
            answers[int(index)] = _answer(output.outputs[0], len(output.prompt_token_ids or []))
            if len(answers) == counts[name]:
                yield name, [answers[i] for i in range(counts.pop(name))]
                del found[name]


def _pairs(name: str, question: Prepared) -> Iterator[Pair]:
    """One pair per answer of an amplified question, each with the seed that vLLM would use."""
    amateur, sampling = question.amateur, question.sampling
    assert amateur is not None  # checked by `answers`
    for index in range(sampling.n):
        drawing = sampling.clone()
        drawing.n, drawing.seed = 1, sampling.seed + index
        yield Pair(f"{name}/{index}", question.prompt, amateur.prompt, drawing, amateur.strength, amateur.plausibility)


def _started(model: ModelBlock, folder: str, images_per_prompt: int, placement: Mapping[str, Any]) -> LLM:
    """The engine with the weights in `folder`. Raises `UserError` if `max_model_len` exceeds the model's own
    limit.
    """
    try:
        with Waiting("starting vLLM"):
            return LLM(
                **{**engine_arguments(model, images_per_prompt), "model": folder},
                load_format="safetensors",
                logprobs_mode="raw_logprobs",
                seed=0,
                disable_log_stats=True,
                **placement,
            )
    except ValueError as error:  # only vLLM knows the limit, which scaled positions raise
        limit = re.search(r"derived max_model_len \((?:\w+=)?(\d+)", str(error))
        if limit is None:
            raise
        raise UserError(
            f"key `max_model_len`: {model.max_model_len}, expected at most the {limit[1]} of model `{model.path}`"
        ) from None


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


def _answer(completion: Any, prompt_tokens: int) -> Answer:
    tokens = list(completion.token_ids)
    logprobs = [at[token].logprob for at, token in zip(completion.logprobs, tokens, strict=True)]
    return Answer(completion.text, tokens, logprobs, str(completion.finish_reason), prompt_tokens)
