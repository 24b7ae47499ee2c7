"""The type of tables, and column types that several tables share."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

MESSAGES = pa.list_(
    pa.struct([("role", pa.string()), ("content", pa.list_(pa.struct([("type", pa.string()), ("text", pa.string())])))])
)
"""Chat messages. A content item of type `image` with null text marks the place of an image."""

NAMED_VALUE = pa.struct([("name", pa.string()), ("value", pa.float64())])

NULL = True
"""Third item of a nullable field."""

Field = tuple[str, pa.DataType] | tuple[str, pa.DataType, bool]


@dataclass(frozen=True, init=False)
class Table:
    """A table. Each has its own module, so that an edit reruns only its readers and writers."""

    name: str
    schema: pa.Schema
    group_bytes: int | None
    """Most bytes per row group of tables whose rows are fetched one by one: a reader decodes the
    whole group for each. None: as usual, see `io.GROUP_BYTES`."""

    def __init__(self, name: str, *fields: Field, group_bytes: int | None = None) -> None:
        schema = pa.schema([pa.field(f[0], f[1], nullable=len(f) == 3) for f in fields])
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "schema", schema)
        object.__setattr__(self, "group_bytes", group_bytes)

    @property
    def columns(self) -> list[str]:
        """Column names, in order."""
        return list(self.schema.names)
