"""Reads preference tables as the groups that engines work on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl

from perceptune.contracts.config import ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.contracts.tables.terms import TERMS
from perceptune.core.methods.logprob_queries import PAIR_VIEWS
from perceptune.core.methods.method import Stored
from perceptune.core.views.view import Recipe
from perceptune.engines.training.groups import RankedList, Rollout, Shown, StoredTokens
from perceptune.stages.data.example_images import IllustratedExamples
from perceptune.stages.sampling.recipes import NoSaliencyError, Saliencies, recipe_of, with_pictures
from perceptune.stages.training.encodable import Prompts, encodable


def kept_lists(
    preferences: Path,
    examples: Path,
    views: Sequence[str],
    blocks: Mapping[str, ViewBlock],
    prompts: Prompts,
    redrawn: bool = False,
    saliencies: Mapping[str, Path] | None = None,
) -> list[RankedList]:
    """The kept groups of a `preferences` table in order, with responses and `views`.

    Groups that the model of `prompts` cannot encode are left out.

    A view stored with the group is taken from there (pairs without a crop lack some), any other
    from the config's `blocks`. With `redrawn`, views other than the sampled one are drawn anew for
    every group, as in rounds. `saliencies` are the tables of the saliency maps that the views need.
    Raises `UserError` for an image that has changed since the import, and if no group can be encoded.
    """
    salient = Saliencies(saliencies or {})
    groups = [group for group in read_table(preferences, PREFERENCES).to_pylist() if group["kept"]]
    ids = [group["example_id"] for group in groups]
    known = IllustratedExamples(examples)
    rows = known.rows(ids, ("example_id", "image_sha256", "image_sizes"))
    known.fetch(ids)
    lists = []
    for group in groups:
        example = rows[group["example_id"]]
        images = known.files(example["example_id"])
        lists.append(_list(group, example, images, views, blocks, redrawn, salient))
    return encodable(lists, prompts)


def kept_rollouts(
    preferences: Path,
    responses: Path,
    examples: Path,
    terms: Path,
    views: Sequence[str],
    blocks: Mapping[str, ViewBlock],
    stored: Sequence[Stored],
    saliencies: Mapping[str, Path],
    prompts: Prompts,
) -> list[Rollout]:
    """The kept groups of a round, with the engine's and all `stored` log-probs.

    Raises `UserError` if a table belongs to other responses.
    """
    lists = kept_lists(preferences, examples, views, blocks, prompts, redrawn=True, saliencies=saliencies)
    kept = pl.Series([one.group_id for one in lists], dtype=pl.String)
    columns = ["request_id", "sample_index", "logprobs", "finish_reason"]
    answers = pl.DataFrame(pl.from_arrow(read_table(responses, RESPONSES).select(columns)))
    answers = answers.filter(pl.col("request_id").is_in(kept.implode())).sort("request_id", "sample_index")
    sampled_of = {str(name): part for (name,), part in answers.group_by("request_id", maintain_order=True)}
    rows = {(row["group_id"], row["term"], row["view"]): row for row in read_table(terms, TERMS).to_pylist()}
    rollouts = []
    for one in lists:
        lengths = [len(response) for response in one.responses]
        part = sampled_of.get(one.group_id)
        sampled = [] if part is None else part["logprobs"].to_list()
        _check_lengths(sampled, lengths, responses, one.group_id)
        found: dict[tuple[Literal["reference", "old"], str], StoredTokens] = {}
        for term in stored:
            row = rows.get((one.group_id, *term)) or {"logprobs": [], "entropies": None}
            _check_lengths(row["logprobs"], lengths, terms, one.group_id)
            found[term] = StoredTokens(row["logprobs"], row["entropies"])
        truncated = [] if part is None else (part["finish_reason"] == "length").to_list()
        values = {field.name: getattr(one, field.name) for field in fields(one)}
        rollouts.append(Rollout(**values, sampled=sampled, truncated=truncated, stored=found))
    return rollouts


def _check_lengths(values: Sequence[Sequence[float]], lengths: Sequence[int], path: Path, group: str) -> None:
    if [len(v) for v in values] != list(lengths):
        raise UserError(
            f"`{path}` does not match group `{group}`: its responses have changed since", "delete the file and rerun"
        )


def _list(
    group: Mapping[str, Any],
    example: Mapping[str, Any],
    images: Sequence[Mapping[str, Any]],
    views: Sequence[str],
    blocks: Mapping[str, ViewBlock],
    redrawn: bool,
    salient: Saliencies,
) -> RankedList:
    own = {v["view"]: Shown(Recipe.read(v["recipe"]), v["messages"], v["sha256"]) for v in group["views"]}
    shown = {}
    for view in views:
        if view in own:
            shown[view] = own[view]
        if view in own or (group["pairs"] and view in PAIR_VIEWS):
            continue
        occasion = (group["group_id"],) if redrawn and view != group["view"] else ()
        try:
            known = salient.for_view(view, blocks, example["example_id"])
        except NoSaliencyError as missing:
            raise UserError(f"view `{view}` of example `{example['example_id']}`: {missing}") from None
        recipe = recipe_of(view, blocks, example["image_sha256"], occasion=occasion, saliencies=known)
        shown[view] = Shown(recipe, with_pictures(group["messages"], recipe, len(images)))
    return RankedList(
        group_id=group["group_id"],
        images=images,
        views=shown,
        responses=[r["token_ids"] for r in group["responses"]],
        rewards=[r["reward"] for r in group["responses"]],
        pairs={p["kind"]: (p["chosen"], p["rejected"]) for p in group["pairs"] if p["kept"]},
        numbers={n["name"]: n["value"] for n in group["numbers"]},
        sizes=tuple((width, height) for width, height in example["image_sizes"]),
    )


def with_reference(lists: Sequence[RankedList], terms: Mapping[str, Path]) -> list[RankedList]:
    """The lists with their summed reference log-probs under every view of `terms` (view to table).

    Raises `UserError` if the stored log-probs belong to other responses.
    """
    stored = {
        view: {row["group_id"]: row["logprobs"] for row in read_table(path, TERMS).to_pylist()}
        for view, path in terms.items()
    }
    referenced = []
    for one in lists:
        sums = {}
        for view, path in terms.items():
            if view not in one.views:
                continue
            logps = stored[view].get(one.group_id, [])
            _check_lengths(logps, [len(r) for r in one.responses], path, one.group_id)
            sums[view] = [sum(values) for values in logps]
        referenced.append(replace(one, reference=sums))
    return referenced


def view_ops(shown: Iterable[Shown]) -> list[str]:
    """The view types that are used."""
    return sorted({view.recipe.op for view in shown})
