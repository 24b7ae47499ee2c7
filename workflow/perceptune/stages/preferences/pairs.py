"""Pairs from answers: what the model answered under good and under bad conditions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from perceptune.contracts.config import PairingBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.progress import Progress
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import Rows, table_writer
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.core.data.images import open_image
from perceptune.core.preferences.pair_filter import perplexity
from perceptune.core.views.apply import shown, strength
from perceptune.core.views.view import Recipe, pixel_digest
from perceptune.stages.data.example_images import IllustratedExamples
from perceptune.stages.data.scans import collected, numbered
from perceptune.stages.sampling.recipes import messages_for, with_pictures

ROLES = {"focus": ("focus_chosen", "focus_rejected"), "robust": ("robust_chosen", "robust_rejected")}
REQUESTED = ("request_id", "example_id", "condition", "recipe", "messages")
ANSWERED = ("text", "token_ids", "logprobs", "reason")
FACTS = ("example_id", "task", "question", "image_sha256")
AT_ONCE = 1024
"""Examples with their requests and answers in memory."""
SHOWN_IN = {"enhanced": "focus_chosen", "degraded": "focus_rejected", "noise": "robust_rejected"}
"""View of the losses to the role of the answer that was sampled under it."""


def run(*, requests: Path, responses: Path, examples: Path, pairs: Path, config: PairingBlock) -> None:
    """Writes `pairs`, a `preferences` table with one group per example.

    A pair without two different, non-empty answers is dropped with its reason; a group without any
    pair is not kept. Margins and perplexities are those of each answer in its own context. Raises
    `UserError` if no pair is left.
    """
    asked = _asked(requests, responses)
    tables = Rows(requests, REQUESTS, REQUESTED), Rows(responses, RESPONSES, ANSWERED)
    known = IllustratedExamples(examples)
    kept = 0
    reasons: set[str] = set()
    inputs = {"requests": requests, "responses": responses, "examples": examples}
    with table_writer(pairs, PREFERENCES) as table:
        with Progress("pairs", asked.height, "examples") as progress:
            for part in asked.iter_slices(AT_ONCE):
                places = [part[name].explode().to_list() for name in ("requests", "responses")]
                both = zip(*(rows.take(own) for rows, own in zip(tables, places, strict=True)), strict=True)
                rows = []
                for example_id, count in zip(part["example_id"], part["requests"].list.len(), strict=True):
                    requested, answered = {}, {}
                    for request, answer in islice(both, count):
                        requested[request["condition"]] = request
                        answered[request["request_id"]] = answer
                    rows.append(_group(known, known.row(example_id, FACTS), requested, answered, config))
                    progress.advance()
                table.write(rows)
                kept += sum(row["kept"] for row in rows)
                reasons |= {str(pair["reason"]) for row in rows for pair in row["pairs"]}
        if not kept:
            raise UserError(f"none of {table.rows} examples has a usable pair: {', '.join(sorted(reasons))}")
        print(f"pairs of {kept} of {table.rows} examples")
        table.lineage = lineage("preferences.pairs", config.model_dump(mode="json"), inputs)


def _asked(requests: Path, responses: Path) -> pl.DataFrame:
    """Example ids in order with the rows of their requests and of the responses to them."""
    asked = numbered(requests, REQUESTS).select("example_id", "request_id", requests="row")
    answered = numbered(responses, RESPONSES).select("request_id", responses="row")
    joined = collected(asked, requests).join(
        collected(answered, responses), "request_id", "left", maintain_order="left"
    )
    return joined.group_by("example_id", maintain_order=True).agg("requests", "responses")


def _group(
    known: IllustratedExamples,
    example: Mapping[str, Any],
    requested: Mapping[str, Mapping[str, Any]],
    answered: Mapping[str, Mapping[str, Any]],
    config: PairingBlock,
) -> dict[str, Any]:
    places: dict[str, int] = {}
    found: list[dict[str, Any]] = []
    for role, request in requested.items():
        answer = answered[request["request_id"]]
        if answer["token_ids"]:
            places[role] = len(found)
            found.append(
                {
                    "sample_index": 0,
                    "text": answer["text"],
                    "token_ids": answer["token_ids"],
                    "reward": 0.0,
                    "role": role,
                }
            )
    made = [_pair(kind, places, requested, answered) for kind in ROLES if ROLES[kind][0] in requested]
    messages = messages_for(example["question"], Recipe("original"), len(example["image_sha256"]))
    usable = any(pair["kept"] for pair in made)
    return {
        "group_id": example["example_id"],
        "example_id": example["example_id"],
        "request_id": next(iter(requested.values()))["request_id"],
        "task": example["task"],
        "view": "original",
        "messages": messages,
        "responses": found,
        "views": list(_shown(known, example["example_id"], requested, messages, config)) if usable else [],
        "pairs": made,
        "numbers": [],
        "kept": usable,
        "reason": None if usable else "; ".join(f"{pair['kind']}: {pair['reason']}" for pair in made),
    }


def _pair(
    kind: str, places: Mapping[str, int], requested: Mapping[str, Any], answered: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    chosen, rejected = (answered[requested[role]["request_id"]] for role in ROLES[kind])
    pair: dict[str, Any] = {
        "kind": kind, "chosen": places.get(ROLES[kind][0], -1), "rejected": places.get(ROLES[kind][1], -1),
        "ppl_chosen": None, "ppl_rejected": None, "margin": None, "ips": None, "kept": False, "reason": None,
    }  # fmt: skip
    for answer in (chosen, rejected):
        if answer["text"] is None:
            return {**pair, "reason": f"no answer: {answer['reason']}"}
        if not answer["text"].strip():
            return {**pair, "reason": "empty answer"}
    means = [math.fsum(answer["logprobs"]) / len(answer["logprobs"]) for answer in (chosen, rejected)]
    pair |= {"ppl_chosen": perplexity(means[0]), "ppl_rejected": perplexity(means[1]), "margin": means[0] - means[1]}
    if chosen["text"].strip() == rejected["text"].strip():
        return {**pair, "reason": "identical answers"}
    return {**pair, "kept": True}


def _shown(
    known: IllustratedExamples,
    example_id: str,
    requested: Mapping[str, Any],
    messages: list[dict[str, Any]],
    config: PairingBlock,
) -> Any:
    """The views that the losses use, with digests of their pixels and measured strengths."""
    images = [open_image(image) for image in known.files(example_id)]
    for view, role in SHOWN_IN.items():
        if role not in requested:
            continue
        recipe = Recipe.read(requested[role]["recipe"])
        pictures = shown(recipe, images)
        own_prompt = view == "enhanced" and config.loss_prompt == "enhanced"
        yield {
            "view": view,
            "recipe": recipe.text(),
            "messages": requested[role]["messages"] if own_prompt else with_pictures(messages, recipe, len(images)),
            "sha256": pixel_digest(pictures),
            "strength": strength(recipe, images, pictures),
        }
