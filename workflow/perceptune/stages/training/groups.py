"""Reads preference tables as the groups that engines work on, when they are needed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import polars as pl
import pyarrow as pa

from perceptune.contracts.config import PLAIN_VIEWS, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import Rows
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.contracts.tables.terms import TERMS
from perceptune.core.methods.logprob_queries import PAIR_VIEWS, Pairs
from perceptune.core.methods.method import Stored
from perceptune.core.views.view import Recipe
from perceptune.engines.training.groups import RankedList, Rollout, Shown, StoredTokens
from perceptune.stages.data.example_images import IllustratedExamples
from perceptune.stages.data.scans import collected, numbered
from perceptune.stages.sampling.recipes import NoSaliencyError, Saliencies, recipe_of, with_pictures
from perceptune.stages.training.encodable import Prompts, Sizes, left_out

COLUMNS = (
    "group_id", "example_id", "view", "messages", "responses.list.element.token_ids", "responses.list.element.reward",
    "views", "pairs", "numbers",
)  # fmt: skip
FACTS = ("image_sha256", "image_sizes")
AT_ONCE = 1024
"""Groups in memory during a pass that needs only some values of each."""

One = TypeVar("One", bound=RankedList)


class Fetched(Sequence[One], Generic[One]):
    """Groups that are read when they are needed."""

    @overload
    def __getitem__(self, place: int) -> One: ...
    @overload
    def __getitem__(self, place: slice) -> list[One]: ...
    def __getitem__(self, place: int | slice) -> One | list[One]:
        chosen = range(len(self))[place]
        return self.__getitems__([chosen])[0] if isinstance(chosen, int) else self.__getitems__(chosen)

    @abstractmethod
    def __getitems__(self, places: Sequence[int]) -> list[One]:
        """Several groups at once, as PyTorch's data loader asks for them."""


@dataclass(frozen=True, eq=False)
class _Source:
    """What the groups are read from."""

    preferences: Path
    groups: Rows
    examples: IllustratedExamples
    views: Sequence[str]
    blocks: Mapping[str, ViewBlock]
    redrawn: bool
    salient: Saliencies

    def shown(self, group: Mapping[str, Any], example: Mapping[str, Any]) -> dict[str, Shown]:
        """The asked views of a group, without those that it lacks."""
        own = {v["view"]: Shown(Recipe.read(v["recipe"]), v["messages"], v["sha256"]) for v in group["views"]}
        found = {}
        for view in self.views:
            if view in own:
                found[view] = own[view]
            if view in own or (group["pairs"] and view in PAIR_VIEWS):
                continue
            occasion = (group["group_id"],) if self.redrawn and view != group["view"] else ()
            try:
                known = self.salient.for_view(view, self.blocks, group["example_id"])
            except NoSaliencyError as missing:
                raise UserError(f"view `{view}` of example `{group['example_id']}`: {missing}") from None
            digests = example["image_sha256"]
            recipe = recipe_of(view, self.blocks, digests, occasion=occasion, saliencies=known)
            found[view] = Shown(recipe, with_pictures(group["messages"], recipe, len(digests)))
        return found

    def alike(self) -> dict[str, Recipe] | None:
        """A recipe of each asked view, if those of all groups have its name and keep the sizes of images.

        None if that depends on the group. Views stored with a group are not considered.
        """
        found = {}
        for view in self.views:
            op = view if view in PLAIN_VIEWS else self.blocks[view].type if view in self.blocks else None
            if op is None or view in PAIR_VIEWS:
                return None
            kind = load("view", op)
            if kind.needs_box or kind.needs_saliency:
                return None
            found[view] = recipe_of(view, self.blocks, ())
            if not kind.keeps_size(kind.Parameters.model_validate(found[view].parameters)):
                return None
        return found


@dataclass(frozen=True, eq=False)
class KeptLists(Fetched[RankedList]):
    """The kept groups of a `preferences` table, each read with its images when it is needed.

    Reading one raises `UserError` if an image is unreadable or has changed since the import.
    """

    source: _Source
    entries: pa.Table
    """In order: `group_id`, `row` in the table, `lengths` of the responses in tokens, names of the
    `views`, and `terms <view>`, the rows of stored log-probs."""
    ops: Sequence[str]
    """The view types that all groups together use."""
    terms: Mapping[str, Rows] = field(default_factory=dict)
    """View to the table of the reference's log-probs."""
    truths: Prompts | None = None
    """Set if the ground truth takes the place of the responses."""

    @property
    def _frame(self) -> pl.DataFrame:
        """The entries for Polars, which is not used to read a group: it blocks in forked processes,
        such as a data loader's.
        """
        return pl.DataFrame(self.entries)

    def __len__(self) -> int:
        return self.entries.num_rows

    def __getitems__(self, places: Sequence[int]) -> list[RankedList]:
        chosen = self.entries.take(pa.array(places, pa.int64())).to_pylist()
        groups = self.source.groups.take([place["row"] for place in chosen])
        return [self._list(place, group) for place, group in zip(chosen, groups, strict=True)]

    def _list(self, place: Mapping[str, Any], group: Mapping[str, Any]) -> RankedList:
        examples, example_id = self.source.examples, group["example_id"]
        example = examples.row(example_id, FACTS)
        one = RankedList(
            group_id=group["group_id"],
            images=examples.files(example_id),
            views=self.source.shown(group, example),
            responses=[response["token_ids"] for response in group["responses"]],
            rewards=[response["reward"] for response in group["responses"]],
            pairs=_pairs(group),
            numbers={number["name"]: number["value"] for number in group["numbers"]},
            sizes=_sizes(example["image_sizes"]),
        )
        if self.truths is not None:
            answer = self.truths.ground_truth(examples.row(example_id), 0)  # whether it fits is known
            return replace(one, responses=[answer], rewards=[1.0])
        if not self.terms:
            return one
        stored = {view: table[place[f"terms {view}"]] for view, table in self.terms.items() if view in one.views}
        return replace(one, reference={view: [sum(v) for v in row["logprobs"]] for view, row in stored.items()})

    def tokens(self) -> list[int]:
        """Number of response tokens of each group."""
        return self._frame["lengths"].list.sum().to_list()

    def where(self, chosen: Iterable[bool]) -> KeptLists:
        """The groups for which `chosen` has True."""
        return replace(self, entries=self.entries.filter(pa.array(list(chosen), pa.bool_())))

    def under(self, view: str) -> KeptLists:
        """The groups that have a view."""
        return replace(self, entries=self._frame.filter(pl.col("views").list.contains(view)).to_arrow())

    def ranks(self) -> Iterator[tuple[list[float], Pairs]]:
        """Rewards and kept pairs of each group, without the rest of it."""
        rewards = pl.col("responses").list.eval(pl.element().struct.field("reward")).alias("rewards")
        groups = numbered(self.source.preferences, PREFERENCES).join(self._frame.lazy().select("row"), "row", "semi")
        found = collected(groups.select("row", rewards, "pairs").sort("row"), self.source.preferences)
        for part in found.iter_slices(AT_ONCE):
            for one in part.to_arrow().to_pylist():
                yield [1.0] if self.truths is not None else one["rewards"], _pairs(one)

    def with_reference(self, terms: Mapping[str, Path]) -> KeptLists:
        """The lists with their summed reference log-probs under every view of `terms` (view to table).

        Raises `UserError` if the stored log-probs belong to other responses.
        """
        entries = self._frame
        for view, path in terms.items():
            having = self.under(view)
            rows = having._frame.select(
                "group_id", _rows(having, _lengths(numbered(path, TERMS)), path).alias(f"terms {view}")
            )
            entries = entries.join(rows, "group_id", "left", maintain_order="left")
        return replace(
            self,
            entries=entries.to_arrow(),
            terms={view: Rows(path, TERMS, ["logprobs"]) for view, path in terms.items()},
        )

    def with_ground_truth(self, view: str, prompts: Prompts) -> KeptLists:
        """The lists with the ground truth, in the model's notation, as their only response.

        Its reward is 1. Lists whose ground truth cannot be learnt (see `Prompts.ground_truth`) after
        the prompt under `view` are left out. Raises `UserError` if none is left.
        """
        reasons: dict[str, str] = {}
        for part in self.entries.to_batches(AT_ONCE):
            for group in self.source.groups.take(part["row"].to_pylist()):
                example = self.source.examples.row(group["example_id"])
                try:
                    prompt = prompts.length(self.source.shown(group, example)[view], _sizes(example["image_sizes"]))
                    prompts.ground_truth(example, prompt)
                except ValueError as error:
                    reasons[group["group_id"]] = str(error)
        left_out(reasons, len(self), "have a ground truth to learn from")
        return replace(self.where(name not in reasons for name in self.entries["group_id"].to_pylist()), truths=prompts)


def kept_lists(
    preferences: Path,
    examples: Path,
    views: Sequence[str],
    blocks: Mapping[str, ViewBlock],
    prompts: Prompts,
    redrawn: bool = False,
    saliencies: Mapping[str, Path] | None = None,
) -> KeptLists:
    """The kept groups of a `preferences` table in order, with responses and `views`.

    Groups that the model of `prompts` cannot encode are left out; what is left out is printed.

    A view stored with the group is taken from there (pairs without a crop lack some), any other
    from the config's `blocks`. With `redrawn`, views other than the sampled one are drawn anew for
    every group, as in rounds. `saliencies` are the tables of the saliency maps that the views need.
    Raises `UserError` if an image file does not exist, and if no group can be encoded.
    """
    known = IllustratedExamples(examples)
    groups = Rows(preferences, PREFERENCES, COLUMNS)
    source = _Source(preferences, groups, known, views, blocks, redrawn, Saliencies(saliencies or {}))
    index = _kept(source, prompts.reserved)
    known.check_files(index["example_id"].to_arrow())
    common = source.alike()
    ops: set[str] = set()
    views_of: list[list[str]] = []
    reasons: dict[str, str] = {}
    columns = (index[name].to_list() for name in ("group_id", "row", "special", "image_sizes"))
    for group_id, row, special, sizes in zip(*columns, strict=True):
        recipes: Mapping[str, Recipe] = {}
        try:
            recipes = _checked(row, _sizes(sizes), source, None if special else common, prompts)
        except ValueError as error:
            reasons[group_id] = str(error)
        ops |= {recipe.op for recipe in recipes.values()}
        views_of.append(list(recipes))
    left_out(reasons, index.height, "can be encoded")
    entries = index.select("group_id", "row", "lengths").to_arrow()
    entries = entries.append_column("views", pa.array(views_of, pa.list_(pa.string())))
    return KeptLists(source, entries, sorted(ops)).where(name not in reasons for name in index["group_id"])


def _kept(source: _Source, reserved: Iterable[str]) -> pl.DataFrame:
    """The kept groups in order: `group_id`, `example_id`, `image_sizes`, `row`, `lengths` of the
    responses, and `special`, whether its views or its texts must be looked at.
    """
    texts = pl.element().struct.field("content").explode().struct.field("text")
    suspicious = pl.col("messages").list.eval(texts.str.contains_any(list(reserved)).any()).list.any()
    own = pl.col("views").list.eval(pl.element().struct.field("view").is_in(list(source.views))).list.any()
    groups = numbered(source.preferences, PREFERENCES).filter("kept")
    groups = groups.select(
        "group_id",
        "example_id",
        "row",
        pl.col("responses").list.eval(pl.element().struct.field("token_ids").list.len()).alias("lengths"),
        special=suspicious.fill_null(False) | own.fill_null(False),
    )
    sizes = (
        numbered(source.examples.path, EXAMPLES).filter(pl.col("reason").is_null()).select("example_id", "image_sizes")
    )
    found = collected(groups, source.preferences)
    found = found.join(collected(sizes, source.examples.path), "example_id", "left", maintain_order="left")
    for unknown in found.filter(pl.col("image_sizes").is_null())["example_id"]:
        raise UserError(
            f"`{source.preferences}`: example `{unknown}` is not in `{source.examples.path}`",
            "delete the file and rerun",
        )
    return found


def _checked(
    row: int, sizes: Sizes, source: _Source, common: Mapping[str, Recipe] | None, prompts: Prompts
) -> Mapping[str, Recipe]:
    """The recipes of a group's views, which are `common` unless that is None.

    Raises `ValueError` if the prompt cannot be encoded under one of them.
    """
    if common is not None:
        prompts.unchanged_images(sizes)
        return common
    group = source.groups[row]
    shown = source.shown(group, source.examples.row(group["example_id"], FACTS))
    for view in shown.values():
        prompts.check(view, sizes)
    return {name: view.recipe for name, view in shown.items()}


def _pairs(group: Mapping[str, Any]) -> Pairs:
    return {pair["kind"]: (pair["chosen"], pair["rejected"]) for pair in group["pairs"] if pair["kept"]}


def _sizes(sizes: Iterable[Sequence[int]]) -> Sizes:
    return tuple((width, height) for width, height in sizes)


@dataclass(frozen=True, eq=False)
class KeptRollouts(Fetched[Rollout]):
    """The kept groups of a round, like `KeptLists`."""

    lists: KeptLists
    rows: pa.Table
    """For each group, the rows of its answers, and of each term and view in `terms`."""
    answers: Rows
    terms: Rows
    stored: Sequence[Stored]

    def __len__(self) -> int:
        return len(self.lists)

    def __getitems__(self, places: Sequence[int]) -> list[Rollout]:
        rows = self.rows.take(pa.array(places, pa.int64())).to_pylist()
        return [self._rollout(one, own) for one, own in zip(self.lists.__getitems__(places), rows, strict=True)]

    def _rollout(self, one: RankedList, rows: Mapping[str, Any]) -> Rollout:
        answers = self.answers.take(rows["answers"])
        numbers = {term: self.terms[rows[_column(term)]] for term in self.stored}
        return Rollout(
            **{part.name: getattr(one, part.name) for part in fields(one)},
            sampled=[answer["logprobs"] for answer in answers],
            truncated=[answer["finish_reason"] == "length" for answer in answers],
            stored={term: StoredTokens(row["logprobs"], row["entropies"]) for term, row in numbers.items()},
        )


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
) -> KeptRollouts:
    """The kept groups of a round, with the engine's and all `stored` log-probs.

    Raises `UserError` if a table belongs to other responses.
    """
    lists = kept_lists(preferences, examples, views, blocks, prompts, redrawn=True, saliencies=saliencies)
    answers = numbered(responses, RESPONSES).group_by(pl.col("request_id").alias("group_id"))
    in_order = {"row": pl.col("row"), "lengths": pl.col("logprobs").list.len()}
    in_order = {name: column.sort_by("sample_index") for name, column in in_order.items()}
    found = {"answers": _rows(lists, answers.agg(**in_order), responses)}
    for term in stored:
        of_term = (pl.col("term") == term.term) & (pl.col("view") == term.view)
        found[_column(term)] = _rows(lists, _lengths(numbered(terms, TERMS).filter(of_term)), terms)
    return KeptRollouts(
        lists,
        pl.DataFrame(found).to_arrow(),
        Rows(responses, RESPONSES, ["logprobs", "finish_reason"]),
        Rows(terms, TERMS, ["logprobs", "entropies"]),
        stored,
    )


def _column(term: Stored) -> str:
    return f"{term.term} {term.view}"


def _lengths(terms: pl.LazyFrame) -> pl.LazyFrame:
    return terms.select("group_id", "row", lengths=pl.col("logprobs").list.eval(pl.element().list.len()))


def _rows(lists: KeptLists, stored: pl.LazyFrame, path: Path) -> pl.Series:
    """For each list the `row` of `stored`, a frame of `group_id`, `row` and `lengths` of the responses.

    Raises `UserError` if these are not the lengths of the list's responses.
    """
    of = collected(stored, path).unique("group_id", keep="last")
    found = lists._frame.select("group_id", "lengths").join(of, "group_id", "left", maintain_order="left", suffix=" of")
    for group in found.filter(pl.col("lengths").ne_missing(pl.col("lengths of")))["group_id"]:
        raise UserError(
            f"`{path}` does not match group `{group}`: its responses have changed since", "delete the file and rerun"
        )
    return found["row"]
