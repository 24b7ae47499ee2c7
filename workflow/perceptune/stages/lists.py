"""Preference tables to the lists that engines work on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables import read_table
from perceptune.core.images import image_bytes
from perceptune.engines.lists import RankedList
from perceptune.models.families import family_of
from perceptune.models.geometry import coordinate_frame, resized_sizes

if TYPE_CHECKING:
    from perceptune.core.methods.method import Method


def kept_lists(preferences: Path, examples: Path) -> list[RankedList]:
    """The kept lists of a `preferences` table in its order, with all responses.

    Raises `UserError` for an image that is no longer the one that was imported.
    """
    images = {row["example_id"]: row for row in read_table(examples, "examples").to_pylist()}
    table = read_table(preferences, "preferences").to_pylist()
    lists = [
        RankedList(
            group_id=row["group_id"],
            messages=row["messages"],
            images=images[row["example_id"]]["images"],
            responses=[r["token_ids"] for r in row["responses"]],
            rewards=[r["reward"] for r in row["responses"]],
        )
        for row in table
        if row["kept"]
    ]
    for row in table:
        if row["kept"]:
            _check_unchanged(images[row["example_id"]])
    return lists


def _check_unchanged(example: Mapping[str, Any]) -> None:
    for image, sha256 in zip(example["images"], example["image_sha256"], strict=True):
        try:
            data = image_bytes(image)
        except ValueError as error:
            raise UserError(f"image `{image['path']}` of example `{example['example_id']}`: {error}") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise UserError(f"image `{image['path']}` has changed since the import", "import the dataset again")


def with_reference(lists: Sequence[RankedList], terms: Path) -> list[RankedList]:
    """The lists with their summed reference log-probabilities; `UserError` when the terms are of other responses."""
    stored = {row["group_id"]: row["logprobs"] for row in read_table(terms, "terms").to_pylist()}
    referenced = []
    for one in lists:
        logps = stored.get(one.group_id)
        if logps is None or [len(v) for v in logps] != [len(r) for r in one.responses]:
            raise UserError(f"`{terms}` does not fit list `{one.group_id}`", "delete it and run again")
        referenced.append(replace(one, reference=[sum(values) for values in logps]))
    return referenced


def chosen_responses(lists: Sequence[RankedList], method: Method, parameters: Any) -> list[RankedList]:
    """The lists cut down to the responses that a method needs."""
    cut = []
    for one in lists:
        keep = method.responses(one.rewards, parameters)
        cut.append(
            replace(
                one,
                responses=[one.responses[i] for i in keep],
                rewards=[one.rewards[i] for i in keep],
                reference=None if one.reference is None else [one.reference[i] for i in keep],
            )
        )
    return cut


def ground_truth_lists(
    lists: Sequence[RankedList], preferences: Path, examples: Path, model: ModelBlock, processor: Any
) -> list[RankedList]:
    """The lists with the true answer, in the model's own notation, in place of the responses; its reward is 1."""
    truths = {row["example_id"]: row for row in read_table(examples, "examples").to_pylist()}
    table = read_table(preferences, "preferences").select(["group_id", "example_id"]).to_pylist()
    example_of = {row["group_id"]: row["example_id"] for row in table}
    family = family_of(model)
    made = []
    for one in lists:
        text = family.ground_truth(*_framed(truths[example_of[one.group_id]], model))
        made.append(replace(one, responses=[family.answer_ids(processor, text)], rewards=[1.0], reference=None))
    return made


def _framed(example: Mapping[str, Any], model: ModelBlock) -> tuple[Mapping[str, Any], Any, tuple[int, int] | None]:
    frame = coordinate_frame(model)
    if frame != "resized_pixels" or example["box"] is None:
        return example, frame, None
    import numpy as np

    width, height = resized_sizes(model, np.array([example["image_sizes"][0]]))[0]
    return example, frame, (int(width), int(height))
