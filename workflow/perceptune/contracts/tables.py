"""Arrow schemas of every table, and the one reader and writer.

Every row in is a row out: a row that failed is present with its `reason`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from perceptune.contracts.errors import UserError
from perceptune.contracts.files import appearing

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""One image as the Hugging Face `datasets.Image` feature stores it; `bytes` is null when a file is referred to."""

IMAGE_ROWS = 1000
"""Rows per group of tables with images: Arrow cannot read a group with more than 2 GiB of them back."""

MESSAGES = pa.list_(
    pa.struct([("role", pa.string()), ("content", pa.list_(pa.struct([("type", pa.string()), ("text", pa.string())])))])
)
"""Chat messages; an image's place is a content item of type `image` with null text, images in order."""

RANKED_RESPONSE = pa.struct(
    [
        ("sample_index", pa.int32()),
        ("text", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("reward", pa.float64()),  # 0 in pairs
        ("role", pa.string()),  # null in ranked lists, `focus_chosen` and so on in pairs
    ]
)

NAMED_VALUE = pa.struct([("name", pa.string()), ("value", pa.float64())])

CONTRAST = pa.struct([("recipe", pa.string()), ("strength", pa.float64()), ("plausibility", pa.float64())])
"""Contrastive amplification: how the amateur is shown the image (a view's recipe, JSON), lambda, and the plausible share."""

SHOWN = pa.struct(
    [
        ("view", pa.string()),
        ("recipe", pa.string()),  # JSON of `core.views.Recipe`
        ("messages", MESSAGES),
        ("sha256", pa.string()),  # of the pixels
        ("strength", pa.float64()),  # how much it really did, in the view's unit
    ]
)

PAIR = pa.struct(
    [
        ("kind", pa.string()),  # `focus` or `robust`
        ("chosen", pa.int32()),  # places in `responses`
        ("rejected", pa.int32()),
        ("ppl_chosen", pa.float64()),
        ("ppl_rejected", pa.float64()),
        ("margin", pa.float64()),  # of mean log-probabilities per token
        ("ips", pa.float64()),  # of summed log-probabilities given the original image
        ("kept", pa.bool_()),
        ("reason", pa.string()),  # why the pair was dropped
    ]
)


def _schema(*fields: tuple[str, pa.DataType] | tuple[str, pa.DataType, bool]) -> pa.Schema:
    return pa.schema([pa.field(f[0], f[1], nullable=len(f) == 3) for f in fields])


NULL = True
SCHEMAS: dict[str, pa.Schema] = {
    "examples": _schema(
        ("example_id", pa.string()),
        ("task", pa.string()),
        ("question", pa.string()),
        ("images", pa.list_(IMAGE)),
        ("image_sha256", pa.list_(pa.string())),
        ("image_sizes", pa.list_(pa.list_(pa.int32()))),  # (width, height) in pixels, after EXIF rotation
        ("target", pa.string(), NULL),
        ("box", pa.list_(pa.float64()), NULL),  # x1, y1, x2, y2 in pixels of the first image
        ("split", pa.string()),
        ("source", pa.string(), NULL),  # the user's other columns, JSON
        ("reason", pa.string(), NULL),  # why the row is quarantined; null for a good row
    ),
    "requests": _schema(
        ("request_id", pa.string()),
        ("example_id", pa.string()),
        ("dataset", pa.string()),
        ("benchmark", pa.string(), NULL),  # null for training samples
        (
            "condition",
            pa.string(),
        ),  # `greedy`, `sampled`, `prompt-2`; in pairs the role, such as `focus_chosen`; `round-3`
        ("view", pa.string()),
        ("recipe", pa.string()),  # the view for this example, JSON of `core.views.Recipe`
        ("contrast", CONTRAST, NULL),
        ("messages", MESSAGES),
        ("n", pa.int32()),
        ("temperature", pa.float64()),
        ("top_p", pa.float64()),
        ("top_k", pa.int32()),  # 0: off
        ("max_tokens", pa.int32()),
        ("seed", pa.int64()),  # sample i is drawn with its own seed, derived from this one and i
    ),
    "responses": _schema(
        ("request_id", pa.string()),
        ("example_id", pa.string()),
        ("view", pa.string()),
        ("sample_index", pa.int32()),
        ("text", pa.string(), NULL),
        ("token_ids", pa.list_(pa.int32()), NULL),  # the end-of-sequence token included when it was drawn
        ("logprobs", pa.list_(pa.float32()), NULL),  # of the sampled tokens, before temperature and top-p
        ("finish_reason", pa.string(), NULL),
        ("prompt_tokens", pa.int32(), NULL),
        ("reason", pa.string(), NULL),  # why there is no response
    ),
    "journal": _schema(
        ("key", pa.string()),  # digest of everything that was asked
        ("request_id", pa.string()),
        ("example_id", pa.string()),
        ("view", pa.string()),
        ("sample_index", pa.int32()),
        ("text", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int32()),
    ),
    "rewards": _schema(
        ("request_id", pa.string()),
        ("example_id", pa.string()),
        ("task", pa.string()),
        ("benchmark", pa.string(), NULL),
        ("condition", pa.string()),
        ("view", pa.string()),
        ("sample_index", pa.int32()),
        ("text", pa.string(), NULL),
        ("target", pa.string(), NULL),
        ("reward", pa.float64(), NULL),  # in [0, 1]; 0 for an unparsable answer, null where there was no response
        ("parsed", pa.string(), NULL),  # the parsed answer, JSON
        ("components", pa.list_(NAMED_VALUE)),
        ("reason", pa.string(), NULL),  # the parser's verdict on an unparsable answer
    ),
    "verdicts": _schema(
        ("request_id", pa.string()),
        ("sample_index", pa.int32()),
        ("example_id", pa.string()),
        ("view", pa.string()),
        ("condition", pa.string()),
        ("key", pa.string()),  # digest of all that the judge was asked: its name, messages, parameters
        ("text", pa.string(), NULL),  # what it said
        ("model", pa.string(), NULL),  # that said it, as the endpoint names it
        ("reason", pa.string(), NULL),  # why it said nothing
    ),
    "preferences": _schema(
        ("group_id", pa.string()),
        ("example_id", pa.string()),
        ("request_id", pa.string()),
        ("task", pa.string()),
        ("view", pa.string()),
        ("messages", MESSAGES),
        ("responses", pa.list_(RANKED_RESPONSE)),  # lists: best first; rounds: as drawn
        ("views", pa.list_(SHOWN)),  # how the example is shown under views that are its own
        ("pairs", pa.list_(PAIR)),
        ("numbers", pa.list_(NAMED_VALUE)),  # of the group, such as CLIP scores
        ("kept", pa.bool_()),
        ("reason", pa.string(), NULL),  # why the group was dropped
    ),
    "attention": _schema(
        ("example_id", pa.string()),
        ("size", pa.list_(pa.int32())),  # width and height of the image in pixels
        ("grid", pa.list_(pa.int32()), NULL),  # rows and columns of the map
        ("attention", pa.list_(pa.float32()), NULL),  # the map on the image, row by row
        ("afr", pa.float64(), NULL),  # attention focus ratio of the map; null without a true box
        ("layer_afr", pa.list_(pa.float64()), NULL),  # of each layer by itself
        ("image_share", pa.list_(pa.float64()), NULL),  # per layer: the answer's attention on image tokens, of all
        ("reason", pa.string(), NULL),
    ),
    "crops": _schema(
        ("example_id", pa.string()),
        ("box", pa.list_(pa.float64()), NULL),  # x1, y1, x2, y2 in pixels of the first image
        ("inverse", pa.list_(pa.float64()), NULL),  # the control: as large, where least attended
        ("ratio", pa.float64(), NULL),
        ("contrast", pa.float64(), NULL),
        ("flag", pa.string(), NULL),  # `whole image` or `empty map`
        ("reason", pa.string(), NULL),  # why there is no crop
    ),
    "saliency": _schema(
        ("example_id", pa.string()),
        ("grid", pa.list_(pa.int32()), NULL),  # rows and columns of every image's patches
        (
            "saliency",
            pa.list_(pa.list_(pa.float32())),
            NULL,
        ),  # per image, row by row: the attention that a patch receives
        ("reason", pa.string(), NULL),
    ),
    "clips": _schema(
        ("example_id", pa.string()),
        ("image", pa.float64(), NULL),  # cosine of question and image
        ("crop", pa.float64(), NULL),
        ("inverse", pa.float64(), NULL),
        ("reason", pa.string(), NULL),
    ),
    "terms": _schema(
        ("group_id", pa.string()),
        ("term", pa.string()),  # `reference` (the base model) or `old` (the policy that answered)
        ("view", pa.string()),
        ("logprobs", pa.list_(pa.list_(pa.float32()))),  # [response][token], in the order of `preferences.responses`
        ("entropies", pa.list_(pa.list_(pa.float32())), NULL),  # of the whole distribution, in nats; of rounds only
    ),
    "training": _schema(
        ("experiment", pa.string()),
        ("step", pa.int32()),
        ("metric", pa.string()),
        ("value", pa.float64()),
    ),
    "controls": _schema(
        ("policy", pa.string()),
        ("benchmark", pa.string()),
        ("split", pa.string()),
        ("task", pa.string()),
        ("view", pa.string()),
        ("control", pa.string()),  # `prompt`, `blank`, `mean_of_n`, `sft_on_best`
        ("against", pa.string()),  # the policy that is compared with
        ("k", pa.int32()),  # number of the prompt, 0 for the benchmark's own; N of the mean; else 1
        ("metric", pa.string()),
        ("value", pa.float64()),  # the policy's; of `blank` its gain with the image
        ("control_value", pa.float64()),  # the control's; of `blank` the policy's gain without the image
        ("gain", pa.float64()),  # of the policy over its base model, in this metric
        ("difference", pa.float64()),  # paired: what the control does not account for
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("n", pa.int32()),
    ),
    "metrics": _schema(
        ("policy", pa.string()),
        ("benchmark", pa.string()),
        ("split", pa.string()),
        ("task", pa.string()),
        ("view", pa.string()),
        (
            "condition",
            pa.string(),
        ),  # `greedy`, `mean_of_n`, `best_of_n`, each with its n in `k`; `prompt`, its number in `k`
        ("k", pa.int32()),
        ("metric", pa.string()),
        ("value", pa.float64(), NULL),
        ("ci_low", pa.float64(), NULL),
        ("ci_high", pa.float64(), NULL),
        ("base_value", pa.float64(), NULL),
        ("gain", pa.float64(), NULL),  # paired difference to the base policy
        ("gain_ci_low", pa.float64(), NULL),
        ("gain_ci_high", pa.float64(), NULL),
        ("n", pa.int32()),
        ("n_failed", pa.int32()),  # answers that could not be parsed
        ("judge", pa.string(), NULL),  # its name and the model that answered, where a judge has a say in the value
        ("reason", pa.string(), NULL),  # why it could not be measured, such as a resource that has to be brought
    ),
}


def to_table(name: str, data: Any) -> pa.Table:
    """`data` (list of row dicts, Arrow table, or anything with `to_arrow`, as polars frames have) in the schema `name`.

    Raises `ValueError` naming table and column: missing, surplus or ill-typed, or a null where none may be.
    """
    schema = SCHEMAS[name]
    if isinstance(data, list):
        surplus = set().union(*(row.keys() for row in data[:1])) - set(schema.names)
        if surplus:
            raise ValueError(f"table `{name}`: unknown columns {sorted(surplus)}")
        table = pa.Table.from_pylist(data, schema=schema)
    else:
        table = data if isinstance(data, pa.Table) else data.to_arrow()
        if set(table.column_names) != set(schema.names):
            missing, surplus = set(schema.names) - set(table.column_names), set(table.column_names) - set(schema.names)
            raise ValueError(f"table `{name}`: missing columns {sorted(missing)}, unknown columns {sorted(surplus)}")
        table = table.select(schema.names).cast(schema)
    for field in schema:
        if not field.nullable and table[field.name].null_count:
            raise ValueError(
                f"table `{name}`, column `{field.name}`: {table[field.name].null_count} nulls, expected none"
            )
    return table


def write_table(path: Path, name: str, data: Any, lineage: Mapping[str, Any]) -> None:
    """Validates `data` against the schema `name` and writes it as zstd Parquet, atomically, with its lineage."""
    table = to_table(name, data)
    metadata = {**(table.schema.metadata or {}), b"perceptune": json.dumps({"table": name, **lineage}).encode()}
    with appearing(path) as file:
        rows = IMAGE_ROWS if "images" in table.column_names else None
        pq.write_table(table.replace_schema_metadata(metadata), file, compression="zstd", row_group_size=rows)


def read_table(path: Path, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The table `name` at `path`, or some of its columns in their order: an `examples` table may hold gigabytes of images.

    A `UserError` names the file when it is absent, truncated or another table.
    """
    if path.exists() and not path.is_file():  # a named pipe would be waited for for ever
        raise UserError(f"`{path}` is {'a folder' if path.is_dir() else 'no file'}, expected a `{name}` table")
    try:
        stored, expected = pq.read_schema(path), SCHEMAS[name]
        same = stored.equals(expected, check_metadata=False)
        table = pq.read_table(path, partitioning=None, columns=columns if same else [])
    except FileNotFoundError:
        raise UserError(f"`{path}` does not exist, expected a `{name}` table") from None
    except (pa.ArrowException, OSError, ValueError) as invalid:
        found = " ".join(str(invalid).split())
        raise UserError(f"`{path}` is not readable as Parquet: {found}", "delete it and run again") from None
    if not same:
        raise UserError(
            f"`{path}` is no `{name}` table of this version: columns {stored.names}, expected {expected.names}",
            "delete it and run again",
        )
    return table


def read_lineage(path: Path) -> dict[str, Any]:
    """The lineage that `write_table` stored in the file at `path`, empty for another's file; a `UserError` names a broken one."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        record = json.loads(metadata.get(b"perceptune", b"{}"))
    except FileNotFoundError:
        raise UserError(f"`{path}` does not exist, expected a table") from None
    except (pa.ArrowException, OSError, ValueError) as invalid:
        found = " ".join(str(invalid).split())
        raise UserError(f"`{path}` is not readable as Parquet: {found}", "delete it and run again") from None
    if not isinstance(record, dict):
        raise UserError(f"`{path}` has no lineage but {str(record)[:60]!r}", "delete it and run again")
    return record
