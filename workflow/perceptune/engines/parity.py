"""Log-probs of the same answers under vLLM, transformers, and the base model with an adapter."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.progress import Waiting
from perceptune.engines.training.branch_attention import suits
from perceptune.engines.training.separate_sequences import separated
from perceptune.engines.training.shared_prefix import Prompted, branched, packed, token_logps
from perceptune.engines.vllm.requests import Answer, Question
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, load_processor, load_trained


@dataclass(frozen=True)
class Answered:
    """A question with vLLM's answers to it."""

    question: Question
    answers: Sequence[Answer]

    @property
    def logprobs(self) -> list[float]:
        """vLLM's log-probs of all tokens of all answers."""
        return [value for answer in self.answers for value in answer.logprobs]


def answered(model: ModelBlock, questions: Sequence[Question], scratch: Path, halvings: int = 0) -> list[Answered]:
    """vLLM's answers from a model folder, sampled in a separate process, which frees all memory.

    Questions that are too long are left out. Each of the `halvings` halves the engine's batch size.
    """
    with Waiting(f"sampling with {model.path}"), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        answers = pool.submit(_sample, model, questions, scratch, halvings).result()
    return [Answered(question, found) for question, found in zip(questions, answers, strict=True) if found]


def _sample(model: ModelBlock, questions: Sequence[Question], scratch: Path, halvings: int) -> list[list[Answer]]:
    from perceptune.engines.vllm.sampler import Sampler  # only the child process loads vLLM

    most = max((len(question.images) for question in questions), default=1)
    with Sampler(model, None, most, scratch, halvings) as sampler:
        prepared = []
        for number, question in enumerate(questions):
            try:
                prepared.append((str(number), sampler.prepared(question)))
            except ValueError as error:
                print(f"question left out: {error}")
        found = dict(sampler.answers(prepared))
    return [found.get(str(number), []) for number in range(len(questions))]


def scored(
    model: ModelBlock,
    adapter: Path | None,
    dtype: str,
    answers: Sequence[Answered],
    plain: bool = False,
    separate: bool = False,
) -> list[float]:
    """transformers' log-probs of all answer tokens, in `dtype`.

    `adapter` is applied without merging; `plain` disables it. `separate`: with a row per answer.
    """
    family, processor = family_of(model), load_processor(model)
    loaded = load_model(model, getattr(torch, dtype))
    policy = loaded if adapter is None or plain else load_trained(loaded, adapter, trainable=False)
    policy.eval()
    padding = int(processor.tokenizer.pad_token_id or 0)
    values: list[float] = []
    for one in answers:
        prefix = family.prefix(processor, one.question.messages, list(one.question.images))
        tokens = [answer.token_ids for answer in one.answers]
        prompted = [Prompted(prefix, family.positions(loaded, prefix), tokens)]
        # as in training on this device
        if separate:
            batch = separated(prompted, family, loaded, padding)
        else:
            batch = branched(prompted, family) if suits(loaded) else packed(prompted, family, padding)
        with torch.inference_mode():
            values += token_logps(policy, batch).cpu().tolist()
    del policy, loaded
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return values
