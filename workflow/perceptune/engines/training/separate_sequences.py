"""One row per response, each with a prompt of its own: for models that cannot share a prefix.

These are models in which a prompt's tokens see later ones, whose attention has a sliding window, or
that keep a state instead of attending. The model makes its mask itself, as in generation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from perceptune.engines.training.image_features import PackedImages
from perceptune.engines.training.shared_prefix import Packed, Prompted
from perceptune.models.families.family import Family

TYPES = ("token_type_ids", "mm_token_type_ids")
"""Names of processors for tensors that tell text tokens from others."""


def separated(groups: Sequence[Prompted], family: Family, model: PreTrainedModel, padding: int) -> Packed:
    """Rows `[prefix | response | padding]`, in the order of the lists' responses.

    `model` is not run: it only says which types generated tokens have.
    """
    rows = [(group, list(response)) for group in groups for response in group.responses]
    starts = [group.positions.shape[1] for group, _ in rows]
    length, first = max(s + len(r) for s, (_, r) in zip(starts, rows, strict=True)), min(starts) - 1
    types = [answer_types(model, group.prefix) for group, _ in rows]
    ids = torch.full((len(rows), length), padding)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    positions = torch.zeros((groups[0].positions.shape[0], len(rows), length), dtype=torch.long)
    kinds = {name: torch.zeros((len(rows), length), dtype=torch.long) for name in {n: None for t in types for n in t}}
    for row, (start, (group, response)) in enumerate(zip(starts, rows, strict=True)):
        end = start + len(response)
        ids[row, :start], ids[row, start:end] = group.prefix["input_ids"][0], torch.tensor(response)
        mask[row, :end] = 1
        positions[:, row, :start] = group.positions
        positions[:, row, start:] = group.positions.max() + 1 + torch.arange(length - start)
        for name, kind in types[row].items():
            kinds[name][row, :start], kinds[name][row, start:] = group.prefix[name][0], kind
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": family.shaped_positions(positions),
        **kinds,
        **family.model_inputs([group.prefix for group, _ in rows]),
    }
    lengths = torch.tensor([len(response) for _, response in rows])
    owners = torch.arange(len(rows)).repeat_interleave(lengths)
    return Packed(
        inputs,
        keep=torch.arange(first, length),
        targets=torch.tensor([token for _, response in rows for token in response]),
        rows=owners,
        predictors=torch.cat([torch.arange(len(r)) + s - 1 - first for s, (_, r) in zip(starts, rows, strict=True)]),
        owners=owners,
        counts=[len(group.responses) for group in groups],
        images=PackedImages.of(group.images for group, _ in rows),
    )


def answer_types(model: PreTrainedModel, prefix: Mapping[str, Tensor]) -> dict[str, int]:
    """The type of generated tokens, for each tensor of types that the processor returned.

    For example, PaliGemma's prompts have type 0, whose tokens see each other, and generated tokens 1.
    """
    given = {name: prefix[name] for name in TYPES if name in prefix}
    extended = model._update_model_kwargs_for_generation(ModelOutput(), dict(given), num_new_tokens=1)
    return {name: int(extended[name][0, -1]) for name in given}
