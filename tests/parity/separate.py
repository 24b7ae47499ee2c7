"""The reference for log-probs of answers: one plain forward pass per answer, in float64."""

import torch
from peft import PeftModel
from perceptune.contracts.config import ModelBlock
from perceptune.core.data.images import open_image
from perceptune.core.views.apply import shown
from perceptune.engines.training.groups import RankedList
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_processor
from perceptune.models.placement import bare
from torch import Tensor
from transformers import PreTrainedModel


class SeparatePasses:
    """Passes of a policy, which is converted to float64."""

    def __init__(self, model: ModelBlock, policy: PreTrainedModel | PeftModel) -> None:
        self.family, self.processor, self.policy = family_of(model), load_processor(model), policy.double()

    def logps(self, one: RankedList, place: int, view: str) -> Tensor:
        """Log-probs of the whole vocabulary at each position of the answer, shape (len(answer),
        vocabulary), with their gradient.
        """
        answer = one.responses[place]
        images = shown(one.views[view].recipe, [open_image(image) for image in one.images])
        prefix = self.family.prefix(self.processor, one.views[view].messages, images)
        inputs, last = self.family.with_answer(bare(self.policy), prefix, answer)
        inputs = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
        return self.policy(**inputs, use_cache=False).logits[0, last : last + len(answer)].log_softmax(-1)

    def summed(self, one: RankedList, place: int, view: str) -> Tensor:
        """Log-prob of the answer, a scalar with its gradient."""
        rows = self.logps(one, place, view)
        return torch.stack([row[token] for row, token in zip(rows, one.responses[place], strict=True)]).sum()
