"""The same answers under vLLM, under transformers, and under base and adapter: log-probabilities to compare."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from perceptune.contracts.config import ModelBlock
from perceptune.engines.questions import Answer, Question
from perceptune.engines.shared_prefix import Prompted, packed, token_logps
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, load_processor, load_trained


@dataclass(frozen=True)
class Answered:
    """A question with vLLM's answers to it."""

    question: Question
    answers: Sequence[Answer]

    @property
    def logprobs(self) -> list[float]:
        """vLLM's, of all tokens of all answers."""
        return [value for answer in self.answers for value in answer.logprobs]


def answered(model: ModelBlock, questions: Sequence[Question], scratch: Path, halvings: int = 0) -> list[Answered]:
    """vLLM's answers of a model folder, by an engine in a process of its own, which leaves no memory behind.

    Questions that cannot be asked, being too long, are left out. Each of the `halvings` halves what it holds at once.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        answers = pool.submit(_asked, model, questions, scratch, halvings).result()
    return [Answered(question, given) for question, given in zip(questions, answers, strict=True) if given]


def _asked(model: ModelBlock, questions: Sequence[Question], scratch: Path, halvings: int) -> list[list[Answer]]:
    from perceptune.engines.sampling import Sampler  # here, so that only this process loads vLLM

    most = max((len(question.images) for question in questions), default=1)
    with Sampler(model, None, most, scratch, halvings) as sampler:
        asked = []
        for number, question in enumerate(questions):
            try:
                asked.append((str(number), sampler.prepared(question)))
            except ValueError as error:
                print(f"not asked: {error}")
        found = sampler.answers(asked)
    return [found.get(str(number), []) for number in range(len(questions))]


def scored(
    model: ModelBlock, adapter: Path | None, dtype: str, given: Sequence[Answered], plain: bool = False
) -> list[float]:
    """transformers' log-probabilities of all tokens of the answers, in `dtype`, with the adapter beside the weights if there is
    one; `plain`: with it switched off.
    """
    family, processor = family_of(model), load_processor(model)
    loaded = load_model(model, getattr(torch, dtype))
    policy = loaded if adapter is None or plain else load_trained(loaded, adapter, trainable=False)
    policy.eval()
    padding = int(processor.tokenizer.pad_token_id or 0)
    values: list[float] = []
    for one in given:
        prefix = family.prefix(processor, one.question.messages, list(one.question.images))
        tokens = [answer.token_ids for answer in one.answers]
        batch = packed([Prompted(prefix, family.positions(loaded, prefix), tokens)], family, padding)
        with torch.inference_mode():
            values += token_logps(policy, batch).cpu().tolist()
    del policy, loaded
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return values
