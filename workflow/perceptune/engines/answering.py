"""Answers of one policy to single questions, from transformers: no engine has to start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel, ProcessorMixin

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.engines.vllm.requests import Answer, Question
from perceptune.models.families.family import check_room, family_of
from perceptune.models.loading import load_model, load_processor, load_trained
from perceptune.models.placement import on_device

LEAST_ROOM = 16
"""Tokens that must fit after the prompt of a question without `max_tokens`."""


class Answerer:
    """A loaded policy. The adapter stays beside the weights, as in training."""

    def __init__(self, model: ModelBlock, adapter: Path | None) -> None:
        """Raises `UserError` if the model or the adapter cannot be loaded, or its processor is not
        understood."""
        self._family, self.processor, self._block = family_of(model), load_processor(model), model
        self._family.check(self.processor)
        loaded = load_model(model)
        self._never = self._family.placeholder_ids(self.processor)
        _draw_freely(loaded, self.processor)
        try:
            self._model = loaded if adapter is None else load_trained(loaded, adapter, trainable=False)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"adapter `{adapter}` cannot be loaded into model `{model.path}`: {reason}") from error
        self._model.eval()

    def room(self, question: Question) -> int:
        """Tokens that fit after the prompt. Raises `ValueError` if the model cannot be asked this."""
        prefix = self._family.prefix(self.processor, question.messages, list(question.images))
        length = int(prefix["input_ids"].shape[1])
        check_room(length, LEAST_ROOM, self._block)
        return self._block.max_model_len - length

    def answers(self, question: Question) -> list[Answer]:
        """The n answers; a temperature of 0 is greedy, with one answer.

        Draws depend on the seed, and differ from vLLM's. Raises `ValueError` if the model cannot be
        asked this.
        """
        prefix = self._family.prefix(self.processor, question.messages, list(question.images))
        length = int(prefix["input_ids"].shape[1])
        check_room(length, question.max_tokens, self._block)
        torch.manual_seed(question.seed)
        chosen = _Chosen(self._never)
        with torch.inference_mode():
            made = self._model.generate(
                **on_device(prefix, self._model),
                **_drawing(question),
                max_new_tokens=question.max_tokens,
                logits_processor=LogitsProcessorList([chosen]),
            )
        answered = made[:, length:].cpu()
        return [self._answer(*one, length) for one in zip(answered, chosen.logprobs(made).cpu(), strict=True)]

    def _answer(self, tokens: Tensor, logprobs: Tensor, prompt: int) -> Answer:
        """One answer up to its end-of-sequence token; `tokens` and `logprobs` have shape (T,)."""
        ends = torch.isin(tokens, torch.tensor(self._ends())).nonzero()
        count = int(ends[0]) + 1 if len(ends) else len(tokens)
        text = self.processor.tokenizer.decode(tokens[:count], skip_special_tokens=True).strip()
        reason = "stop" if len(ends) else "length"
        return Answer(text, tokens[:count].tolist(), logprobs[:count].tolist(), reason, prompt)

    def _ends(self) -> list[int]:
        return list(self._model.generation_config.eos_token_id)


class _Chosen(LogitsProcessor):
    """Records the log-probs of the tokens that generation chooses, and keeps it from choosing some.

    It comes before temperature, top-p and top-k, so that they are those of the model itself. Unlike
    generation with `output_logits`, it keeps one number per token instead of the whole vocabulary.
    """

    def __init__(self, never: Sequence[int]) -> None:
        self._never = torch.tensor(never, dtype=torch.long)
        self._found: list[Tensor] = []
        self._last: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The logits (n, V) of the next tokens, without those that are never chosen."""
        self._take(input_ids)
        self._last = scores.float().log_softmax(dim=-1)
        return scores.index_fill(1, self._never.to(scores.device), -torch.inf)

    def logprobs(self, sequences: Tensor) -> Tensor:
        """The log-probs (n, T) of all tokens after the prompt, float32."""
        self._take(sequences)
        return torch.cat(self._found, dim=1)

    def _take(self, sequences: Tensor) -> None:
        if self._last is not None:
            self._found.append(self._last.gather(1, sequences[:, -1:]))


def _draw_freely(model: PreTrainedModel, processor: ProcessorMixin) -> None:
    """Replaces the model's own sampling settings, such as a repetition penalty, with none, as in the
    workflow."""
    ends, tokenizer = model.generation_config.eos_token_id, processor.tokenizer
    known = ends if isinstance(ends, list) else [ends]
    stops = sorted({one for one in (*known, tokenizer.eos_token_id) if one is not None})
    padding = stops[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    model.generation_config = GenerationConfig(eos_token_id=stops, pad_token_id=padding, use_cache=True)


def _drawing(question: Question) -> dict[str, object]:
    if question.temperature == 0:
        return {"do_sample": False}
    return {
        "do_sample": True,
        "temperature": question.temperature,
        "top_p": question.top_p,
        "top_k": question.top_k,
        "num_return_sequences": question.n,
    }
