"""Contrastive decoding with plain transformers, the reference for the vLLM implementation: one forward
pass per prompt over the whole answer.
"""

from collections.abc import Sequence
from typing import Any

import torch
from perceptune.core.views.contrastive_decoding import amplified
from perceptune.models.families.family import Family, family_of
from perceptune.models.loading import load_model, load_processor


class Reference:
    """The model's choices by complete forward passes without a cache: slow but simple."""

    def __init__(self, block: Any) -> None:
        self.family: Family = family_of(block)
        self.processor, self.model = load_processor(block), load_model(block).eval()
        self.stop = self.processor.tokenizer.eos_token_id
        self.never = self.family.placeholder_ids(self.processor)

    @torch.inference_mode()
    def logits(self, prefix: Any, answer: Sequence[int]) -> torch.Tensor:
        """Logits of every token of the answer given those before it, float32, shape
        (len(answer), vocabulary).
        """
        inputs, _ = self.family.with_answer(self.model, prefix, answer)
        kept = self.model(**inputs, use_cache=False, logits_to_keep=len(answer) + 1).logits[0, :-1].float()
        kept[:, self.never] -= 100
        return kept

    def choices(
        self, messages: Any, images: Any, amateur: Any, strength: float, plausibility: float, answer: Sequence[int]
    ) -> tuple[list[int], float]:
        """(most likely token at each position of the answer, given the answer's tokens before it;
        smallest gap between the two most likely tokens).

        An answer is the greedy one if and only if it equals its choices and ends at the stop token or
        at the limit: by induction, greedy decoding then sees the same tokens at every position.
        """
        expert, other = (self.family.prefix(self.processor, messages, shown) for shown in (images, amateur))
        of_expert, of_amateur = self.logits(expert, answer), self.logits(other, answer)
        rows = [amplified(one, two, strength, plausibility) for one, two in zip(of_expert, of_amateur, strict=True)]
        best = torch.stack(rows).topk(2)
        gaps = best.values[:, 0] - best.values[:, 1]
        return best.indices[:, 0].tolist(), float(gaps.min())
