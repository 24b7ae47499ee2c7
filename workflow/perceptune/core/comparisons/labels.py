"""People's labels of answers, from a CSV, JSON lines or Parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from perceptune.contracts.errors import UserError, listed, near
from perceptune.core.data.read_files import Files
from perceptune.core.data.row_checks import RowError, shown

KEYS = ("key", "example_id", "policy", "kind", "label")
MOST_SHOWN = 5


class Place(NamedTuple):
    """Which answer a label belongs to. None: any."""

    key: str | None
    """The verdict's key, which stands for all other parts."""
    example_id: str | None
    policy: str | None
    kind: str | None
    """Of a pair: `focus`, `robust` or `list`."""


def read_labels(file: Path, allowed: Sequence[str], *, of_policies: bool = True) -> dict[Place, str]:
    """Place to label. A row has `label` and either `key`, a verdict's key, or `example_id`; `policy`
    and `kind` tell several answers to a question apart. Other columns are ignored, and so is
    `policy` unless the labels are `of_policies`.

    Raises `UserError` that lists the first rows that are wrong.
    """
    found: dict[Place, str] = {}
    wrong: list[str] = []
    for place, record in Files(file).records():
        try:
            where, label = _row(record, allowed)
            where = where if of_policies else where._replace(policy=None)
            if found.setdefault(where, label) != label:
                raise RowError(f"found another label for the same answer, `{found[where]}`, expected one")
        except RowError as error:
            wrong.append(f"{place}: {error}")
    if wrong:
        more = f"\n  and {len(wrong) - MOST_SHOWN} more" if len(wrong) > MOST_SHOWN else ""
        raise UserError(f"labels `{file}`\n  " + "\n  ".join(wrong[:MOST_SHOWN]) + more)
    if not found:
        raise UserError(f"labels `{file}`: found no rows, expected columns `example_id` and `label`")
    return found


def _row(record: Any, allowed: Sequence[str]) -> tuple[Place, str]:
    if isinstance(record, RowError):
        raise record
    if not isinstance(record, dict):
        raise RowError(f"found {shown(record)}, expected an object with `example_id` and `label`")
    values = {name: _text(record, name) for name in KEYS}
    label = (values["label"] or "").lower()
    if not label:
        hint = near("label", record)
        raise RowError(f"no `label`, expected one of {listed(allowed)}" + (f"; {hint}" if hint else ""))
    if label not in allowed:
        raise RowError(f"`label` is {shown(values['label'])}, expected one of {listed(allowed)}")
    if values["key"]:
        return Place(values["key"], None, None, None), label
    if not values["example_id"]:
        raise RowError("neither `key` nor `example_id`, expected one of them")
    return Place(None, values["example_id"], values["policy"], values["kind"]), label


def _text(record: dict[str, Any], name: str) -> str | None:
    value = record.get(name)
    if value is None:
        return None
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise RowError(f"`{name}` is {shown(value)}, expected text")
    return str(value).strip() or None


def label_of(
    labels: dict[Place, str], key: str, example_id: str, policies: Sequence[str], kind: str | None
) -> str | None:
    """The label of one answer: by its verdict's key, else by the most exact place; None if there is
    none. `policies`: the names of its policy.
    """
    places = [Place(key, None, None, None)]
    places += [
        Place(None, example_id, p, k) for p in dict.fromkeys((*policies, None)) for k in dict.fromkeys((kind, None))
    ]
    return next((labels[place] for place in places if place in labels), None)
