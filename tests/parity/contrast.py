"""Contrastive decoding with plain transformers, the reference for the vLLM implementation: two
forward passes per token.
"""

from collections.abc import Sequence
from typing import Any

import torch
from perceptune.core.views.contrastive_decoding import amplified
from perceptune.models.families.family import Family, family_of
from perceptune.models.loading import load_model, load_processor


class Reference:
    """Greedy answers by complete forward passes without a cache: slow but simple."""

    def __init__(self, block: Any) -> None:
        self.family: Family = family_of(block)
        self.processor, self.model = load_processor(block), load_model(block).eval()
        self.stop = self.processor.tokenizer.eos_token_id
        self.never = self.family.placeholder_ids(self.processor)

    @torch.inference_mode()
    def logits(self, prefix: Any, answer: Sequence[int]) -> torch.Tensor:
        inputs, _ = self.family.with_answer(self.model, prefix, answer)
        logits = self.model(**inputs, use_cache=False, logits_to_keep=1).logits[0, -1].float()
        logits[self.never] -= 100
        return logits

    def answer(
        self, messages: Any, images: Any, amateur: Any, strength: float, plausibility: float, most: int
    ) -> tuple[list[int], float]:
        """(token ids, smallest gap between the two most likely tokens over all steps)."""
        expert = self.family.prefix(self.processor, messages, images)
        other = None if amateur is None else self.family.prefix(self.processor, messages, amateur)
        tokens: list[int] = []
        closest = float("inf")
        while len(tokens) < most:
            logits = self.logits(expert, tokens)
            if other is not None:
                logits = amplified(logits, self.logits(other, tokens), strength, plausibility)
            best = logits.topk(2)
            closest = min(closest, float(best.values[0] - best.values[1]))
            tokens.append(int(best.indices[0]))
            if tokens[-1] == self.stop:
                break
        return tokens, closest
