"""Names of `ClassLabel` columns: Hugging Face `datasets` stores their numbers only.

The names are in the features of the dataset, which `to_parquet` also writes into the metadata of the
Parquet schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from perceptune.core.data.row_checks import RowError, one_line

METADATA = b"huggingface"
"""Key of the Parquet schema's metadata."""
NO_LABEL = -1
"""The number of a missing label, as in test sets without published answers."""

Named = Callable[[Any], Any]
"""Replaces the numbers in a value by names; raises `RowError` for a number without a name."""


def labelled_columns(metadata: Mapping[bytes, bytes] | None) -> dict[str, Named]:
    """Column to `Named`, for the columns of a Parquet file that contain class labels."""
    try:
        features = json.loads((metadata or {}).get(METADATA, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return labelled_features(features)


def labelled_features(features: Any) -> dict[str, Named]:
    """The same from `datasets.Features.to_dict()`."""
    found = {name: _named(feature) for name, feature in features.items()} if isinstance(features, Mapping) else {}
    return {name: named for name, named in found.items() if named is not None}


def with_names(row: dict[str, Any], columns: Mapping[str, Named]) -> dict[str, Any] | RowError:
    """The row with names for numbers, without labels that are missing."""
    for column, named in columns.items():
        try:
            if column in row:
                row[column] = named(row[column])
        except RowError as error:
            return RowError(f"column `{one_line(column)}`: {error}")
    return {key: value for key, value in row.items() if value is not None} if columns else row


def _named(feature: Any) -> Named | None:
    """How to name the values of a feature; None if it contains no class label."""
    if isinstance(feature, list) and len(feature) == 1:
        return _each(_named(feature[0]))
    if not isinstance(feature, Mapping):
        return None
    if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
        names = [str(name) for name in feature["names"]]
        return lambda value: _name(value, names)
    if feature.get("_type") in ("Sequence", "List", "LargeList"):
        inner = feature.get("feature")
        return _each(_named(inner)) if isinstance(inner, list) or "_type" in (inner or {}) else _structs(inner)
    return _struct(feature) if "_type" not in feature else None


def _each(named: Named | None) -> Named | None:
    if named is None:
        return None
    return lambda value: [named(one) for one in value] if isinstance(value, list) else value


def _struct(fields: Any) -> Named | None:
    inner = labelled_features(fields)
    if not inner:
        return None

    def name(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: inner[key](one) if key in inner else one for key, one in value.items()}

    return name


def _structs(fields: Any) -> Named | None:
    """For a list of structs, which a `Sequence` stores as a struct of lists."""
    one = _struct(fields)
    if one is None:
        return None
    many = {key: _each(named) for key, named in labelled_features(fields).items()}

    def name(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: named(part) if (named := many.get(key)) else part for key, part in value.items()}
        return [one(part) for part in value] if isinstance(value, list) else value

    return name


def _name(value: Any, names: list[str]) -> Any:
    """The name of a label. A value that is no number, such as a name, stays as it is."""
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    if value == NO_LABEL:
        return None
    if not 0 <= value < len(names):
        raise RowError(f"class label {value} has no name, expected 0 to {len(names) - 1}")
    return names[value]
