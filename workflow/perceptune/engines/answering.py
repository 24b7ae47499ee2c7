"""Answers of one policy to single questions, from transformers: no engine has to start."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, ProcessorMixin

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
        _draw_freely(loaded, self.processor, self._family.placeholder_ids(self.processor))
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
        with torch.inference_mode():
            made = self._model.generate(
                **on_device(prefix, self._model),
                **_drawing(question),
                max_new_tokens=question.max_tokens,
                return_dict_in_generate=True,
                output_logits=True,
            )
        answered = made.sequences[:, length:]
        # of the model itself: before temperature, top-p and top-k
        columns = [
            logits.float().log_softmax(dim=-1).gather(1, tokens[:, None])
            for logits, tokens in zip(made.logits, answered.T, strict=True)
        ]
        logprobs = torch.cat(columns, dim=1)
        return [self._answer(*one, length) for one in zip(answered.cpu(), logprobs.cpu(), strict=True)]

    def _answer(self, tokens: Tensor, logprobs: Tensor, prompt: int) -> Answer:
        """One answer up to its end-of-sequence token; `tokens` and `logprobs` have shape (T,)."""
        ends = torch.isin(tokens, torch.tensor(self._ends())).nonzero()
        count = int(ends[0]) + 1 if len(ends) else len(tokens)
        text = self.processor.tokenizer.decode(tokens[:count], skip_special_tokens=True).strip()
        reason = "stop" if len(ends) else "length"
        return Answer(text, tokens[:count].tolist(), logprobs[:count].tolist(), reason, prompt)

    def _ends(self) -> list[int]:
        return list(self._model.generation_config.eos_token_id)


def _draw_freely(model: PreTrainedModel, processor: ProcessorMixin, never: list[int]) -> None:
    """Replaces the model's own sampling settings, such as a repetition penalty, with none, as in the
    workflow. Placeholders (`never`) are not sampled."""
    ends, tokenizer = model.generation_config.eos_token_id, processor.tokenizer
    known = ends if isinstance(ends, list) else [ends]
    stops = sorted({one for one in (*known, tokenizer.eos_token_id) if one is not None})
    padding = stops[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    model.generation_config = GenerationConfig(
        eos_token_id=stops, pad_token_id=padding, suppress_tokens=never or None, use_cache=True
    )


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
