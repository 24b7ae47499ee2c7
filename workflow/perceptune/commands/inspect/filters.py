"""What a page's address says: filters, order and page number. Every address can be kept as a link."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, Self
from urllib.parse import urlencode

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perceptune.contracts.errors import UserError, printable

ANY, NONE = "(any)", "(none)"
"""Values of `reason`: every row with a reason, every row without one."""
ALL = "(all)"
"""Value of `view` and `condition` where None stands for those that count."""


AnswerOrder = Literal[
    "", "-reward", "reward", "-margin", "margin", "text", "-text", "-length", "length", "policy", "-policy", "task", "-task",
    "view", "-view", "reason", "-reason",
]  # fmt: skip
CompareOrder = Literal["", "-change", "change", "text", "-text", "task", "-task", "view", "-view"]
GroupOrder = Literal["", "-margin", "margin", "task", "-task", "view", "-view", "reason", "-reason"]
ExampleOrder = Literal[
    "", "-reward", "reward", "-margin", "margin", "text", "-text", "task", "-task", "split", "-split", "reason", "-reason"
]  # fmt: skip


class Address(BaseModel):
    """The query of an address. Unknown keys and empty values are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Self:
        """From the keys of a query. Raises `UserError` that names key and value."""
        given = {key: value for key, value in query.items() if value != ""}
        try:
            return cls.model_validate(given)
        except ValidationError as invalid:
            first = invalid.errors()[0]
            key, value = str(first["loc"][0]), printable(str(first["input"]))[:80]
            found = f"found `{value}`, " if key in given else ""
            raise UserError(f"`{key}` in the address: {found}{first['msg'].lower()}") from None

    def query(self, **changes: Any) -> str:
        """As a query string, with `changes`. It has only what differs from the defaults."""
        values = self.model_copy(update=changes).model_dump(exclude_defaults=True)
        return urlencode({key: value for key, value in values.items() if value is not None})


class Paged(Address):
    """A list with pages."""

    text: str | None = None
    """Part of a text, in upper or lower case."""
    page: int = Field(default=1, ge=1, le=10**9)


class AnswerFilter(Paged):
    """Which answers to list."""

    policy: str | None = None
    plan: str | None = None
    scored: str | None = None
    benchmark: str | None = None
    task: str | None = None
    view: str | None = None
    condition: str | None = None
    reason: str | None = None
    example: str | None = None
    reward_min: float | None = Field(default=None, allow_inf_nan=False)
    reward_below: float | None = Field(default=None, allow_inf_nan=False)
    margin_min: float | None = Field(default=None, allow_inf_nan=False)
    margin_below: float | None = Field(default=None, allow_inf_nan=False)
    sort: AnswerOrder = ""


class CompareFilter(Paged):
    """Which questions of two policies to compare."""

    a: str | None = None
    b: str | None = None
    plan: str | None = None
    scored: str | None = None
    benchmark: str | None = None
    task: str | None = None
    view: str | None = None
    """None: the view that counts, see `counting`."""
    condition: str | None = None
    """None: the condition that counts."""
    right: float = Field(default=0.5, allow_inf_nan=False)
    """Least reward of a right answer."""
    change: Literal["", "fixed", "broken", "both right", "both wrong"] = ""
    change_min: float | None = Field(default=None, allow_inf_nan=False)
    change_below: float | None = Field(default=None, allow_inf_nan=False)
    sort: CompareOrder = ""


class GroupFilter(Paged):
    """Which preference groups to list."""

    table: str
    task: str | None = None
    view: str | None = None
    kept: Literal["yes", "no"] | None = None
    reason: str | None = None
    margin_min: float | None = Field(default=None, allow_inf_nan=False)
    margin_below: float | None = Field(default=None, allow_inf_nan=False)
    sort: GroupOrder = ""


class ExampleFilter(Paged):
    """Which examples of a dataset to list."""

    dataset: str
    task: str | None = None
    split: str | None = None
    reason: str | None = None
    answers: str | None = None
    """Name of a table of answers: their rewards are listed with the examples."""
    view: str | None = None
    """Of the answers. None: the view that counts, see `counting`."""
    condition: str | None = None
    """Of the answers."""
    reward_min: float | None = Field(default=None, allow_inf_nan=False)
    reward_below: float | None = Field(default=None, allow_inf_nan=False)
    margin_min: float | None = Field(default=None, allow_inf_nan=False)
    margin_below: float | None = Field(default=None, allow_inf_nan=False)
    sort: ExampleOrder = ""


class ImageAddress(Address):
    """An image of an example."""

    dataset: str
    id: str
    number: int = Field(default=0, ge=0)
    """Counted from 0."""
    size: Literal["", "small"] = ""


class ShownAddress(Address):
    """An image as a request showed it to the model."""

    table: str
    request: str
    number: int = Field(default=0, ge=0)


def counting(wanted: Address, columns: tuple[str, ...] = ("view", "condition")) -> pl.Expr:
    """Rows with the wanted view and condition or, where none is wanted, with those that count.

    As in the report, those of a benchmark are its first view, usually `original`, and `greedy`: its first
    row in the table has them. Answers to training questions all count, and `(all)` chooses all.
    """
    unsaid = [pl.col(column) for column in columns if getattr(wanted, column) is None]
    conditions = [pl.col("benchmark").is_null() | (one == one.first().over("benchmark")) for one in unsaid]
    named = tuple(column for column in columns if getattr(wanted, column) not in (None, ALL))
    return pl.all_horizontal(equal(wanted, named), *conditions)


def equal(wanted: Address, columns: tuple[str, ...]) -> pl.Expr:
    """The columns have the wanted values, where there are any. `(none)` stands for null."""
    conditions = []
    for column in columns:
        value = getattr(wanted, column)
        if value is not None:
            conditions.append(pl.col(column).is_null() if value == NONE else pl.col(column) == value)
    return pl.all_horizontal(pl.lit(True), *conditions)


def with_reason(reason: str | None) -> pl.Expr:
    """Rows with this reason."""
    if reason is None:
        return pl.lit(True)
    column = pl.col("reason")
    return {ANY: column.is_not_null(), NONE: column.is_null()}.get(reason, column == reason)


def containing(text: str | None, column: str = "text") -> pl.Expr:
    """Rows whose column contains the text, in upper or lower case."""
    if text is None:
        return pl.lit(True)
    return pl.col(column).str.to_lowercase().str.contains(text.lower(), literal=True).fill_null(value=False)


def in_order(frame: pl.DataFrame, sort: str, columns: Mapping[str, str] = MappingProxyType({})) -> pl.DataFrame:
    """The rows sorted by the column that `sort` names, downwards after a minus sign; null comes last.

    `columns` has the columns with another name than their order.
    """
    if not sort:
        return frame
    by = sort.removeprefix("-")
    return frame.sort(columns.get(by, by), descending=sort.startswith("-"), nulls_last=True, maintain_order=True)


def between(column: str, low: float | None, below: float | None) -> pl.Expr:
    """Rows with low <= column < below; None is no limit. Without any limit, also null."""
    value = pl.col(column)
    conditions = [value >= low] if low is not None else []
    conditions += [value < below] if below is not None else []
    return pl.all_horizontal(pl.lit(True), *conditions)
