"""Whether family `auto` understands a model, found out on its weights with made-up questions.

Two comparisons, both with the model's own generation: log-probs of given answers as training computes
them (in one pass over a shared prefix, and with a row per answer), and log-probs of vLLM's answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, ProcessorMixin

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.core.parity import TOLERANCES, Difference, difference, disagreement
from perceptune.engines.parity import Answered, answered, scored
from perceptune.engines.training.separate_sequences import separated
from perceptune.engines.training.shared_prefix import Packed, Prompted, packed, token_logps
from perceptune.engines.vllm.requests import Question
from perceptune.models.families.family import Family
from perceptune.models.placement import bare, on_device
from perceptune.runtime.job import of_memory

SIZES = ((224, 160), (120, 180))
"""Width and height of the images, in pixels: different shapes, one question each."""
QUESTION = "What is in this picture?"
ANSWERS = ("Yes.", "A red circle above a blue cross.", "3")
EXACT, ROUNDED = 1e-4, TOLERANCES["float32"].max
"""Differences in nats that float32 makes to the log-prob of a token: usually less than the first one,
and never more than the second one."""
NOISE = 3
"""A shared prefix may differ this many times as much as separate sequences do, if these round much."""
TOKENS = 16
"""Token limit of vLLM's answers."""


@dataclass(frozen=True)
class Comparison:
    """Log-probs of the same tokens from two implementations."""

    check: str
    tokens: int
    found: Difference | None
    """None if one implementation failed."""
    problem: str | None
    """Why they do not agree; None if they do."""

    @property
    def agrees(self) -> bool:
        """Whether they agree."""
        return self.problem is None


def questions() -> list[tuple[list[dict[str, Any]], Image.Image]]:
    """Messages and image of each question."""
    random = np.random.default_rng(0)
    content = [{"type": "image", "text": None}, {"type": "text", "text": QUESTION}]
    return [
        ([{"role": "user", "content": content}], Image.fromarray(random.integers(0, 255, (h, w, 3), dtype=np.uint8)))
        for w, h in SIZES
    ]


def compare_layouts(
    model: PreTrainedModel, family: Family, processor: ProcessorMixin, longest: int
) -> tuple[Comparison, Comparison]:
    """(Shared prefix, separate sequences), each compared with generation; `model` in float32.

    `longest` is the most tokens of a prompt with its answer.
    """
    groups = []
    try:
        for messages, image in questions():
            prefix = family.prefix(processor, messages, [image])
            answers = [family.answer_ids(processor, text) for text in ANSWERS]
            groups.append(Prompted(prefix, family.positions(model, prefix), answers))
        expected = [logp for one in groups for answer in one.responses for logp in generated(model, one.prefix, answer)]
    except Exception as error:  # whatever a foreign model raises
        if of_memory(error):
            raise
        problem = f"the model's generation fails: {line(error)}"
        return Comparison("shared prefix", 0, None, problem), Comparison("separate sequences", 0, None, problem)
    padding = int(processor.tokenizer.pad_token_id or 0)
    alone = _compared(
        "separate sequences", model, lambda: separated(groups, family, model, padding), expected, _beyond(ROUNDED)
    )
    most = min(ROUNDED, max(EXACT, NOISE * alone.found.max if alone.found else 0.0))
    shared = _compared("shared prefix", model, lambda: packed(groups, family, padding), expected, _beyond(most))
    if shared.agrees and (window := sliding_window(model)) and window < longest:
        problem = f"attention sees the last {window} tokens only, fewer than `max_model_len: {longest}`"
        shared = Comparison(shared.check, shared.tokens, shared.found, problem)
    return shared, alone


def _beyond(most: float) -> Callable[[Difference], str | None]:
    def problem(found: Difference) -> str | None:
        if found.max <= most:
            return None
        return f"log-probs differ by up to {found.max:.2g} nats from those of generation, expected at most {most:.2g}"

    return problem


def _compared(
    check: str,
    model: PreTrainedModel,
    pack: Callable[[], Packed],
    expected: Sequence[float],
    problem: Callable[[Difference], str | None],
) -> Comparison:
    try:
        with torch.inference_mode():
            found = difference(token_logps(model, pack()).tolist(), expected)
    except Exception as error:  # whatever a foreign model raises, for example for a mask of four dimensions
        if of_memory(error):
            raise
        return Comparison(check, len(expected), None, line(error))
    return Comparison(check, len(expected), found, problem(found))


def sliding_window(model: PreTrainedModel) -> int | None:
    """The fewest previous tokens that some layer sees; None if every layer sees all of them."""
    text = bare(model).config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    windows = []
    if getattr(text, "sliding_window", None) and (not kinds or "sliding_attention" in kinds):
        windows.append(int(text.sliding_window))
    if getattr(text, "attention_chunk_size", None) and (not kinds or "chunked_attention" in kinds):
        windows.append(int(text.attention_chunk_size))
    return min(windows, default=None)


class _Forced(LogitsProcessor):
    """Makes generation choose the given tokens."""

    def __init__(self, prompt: int, tokens: Sequence[int]) -> None:
        self._prompt, self._tokens = prompt, tokens

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token = self._tokens[input_ids.shape[1] - self._prompt]
        return torch.full_like(scores, -torch.inf).index_fill_(1, torch.tensor([token], device=scores.device), 0.0)


def generated(model: PreTrainedModel, prefix: Mapping[str, Tensor], answer: Sequence[int]) -> list[float]:
    """Log-probs of an answer's tokens in the model's own generation, token by token."""
    made = model.generate(
        **on_device(prefix, model),
        logits_processor=LogitsProcessorList([_Forced(prefix["input_ids"].shape[1], answer)]),
        max_new_tokens=len(answer),
        min_new_tokens=len(answer),
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    logps = torch.cat(made.logits).float().log_softmax(-1)
    return logps.gather(1, torch.tensor(list(answer), device=logps.device)[:, None])[:, 0].tolist()


def compare_engine(
    model: ModelBlock, family: Family, processor: ProcessorMixin, scratch: Path, separate: bool, halvings: int = 0
) -> Comparison:
    """vLLM's answers, compared with training's log-probs of them in the model's dtype."""
    asked = [
        Question(messages, [image], 2, 1.0, 1.0, 0, TOKENS, seed) for seed, (messages, image) in enumerate(questions())
    ]
    try:
        answers = answered(model, asked, scratch, halvings)
    except Exception as error:  # whatever an engine raises for a model that it does not know
        if of_memory(error):
            raise
        return Comparison("engine", 0, None, f"vLLM cannot serve it: {line(error)}")
    if len(answers) < len(asked):
        return Comparison("engine", 0, None, "vLLM refuses a question with an image")
    vllm = [logp for one in answers for logp in one.logprobs]
    for one in answers:
        if problem := _other_prompt(one, family, processor):
            return Comparison("engine", len(vllm), None, problem)
    try:
        found = difference(vllm, scored(model, None, model.dtype, answers, separate=separate))
    except Exception as error:  # whatever a foreign model raises
        if of_memory(error):
            raise
        return Comparison("engine", len(vllm), None, f"training's forward pass fails: {line(error)}")
    return Comparison("engine", len(vllm), found, disagreement(found, TOLERANCES[model.dtype]))


def _other_prompt(one: Answered, family: Family, processor: ProcessorMixin) -> str | None:
    """A message if vLLM's prompt has another length than the processor's."""
    own = family.prefix(processor, one.question.messages, list(one.question.images))["input_ids"].shape[1]
    other = one.answers[0].prompt_tokens
    return None if own == other else f"vLLM's prompt has {other} tokens, the processor's {own}"


def line(error: Exception) -> str:
    """An exception in one line."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def refused(path: str, what: str, comparison: Comparison) -> UserError:
    """The error for a comparison that fails."""
    return UserError(
        f"model folder `{path}`: family `auto` cannot use it, because {what}: {comparison.problem}",
        "docs/families.md lists models that were tried",
    )
