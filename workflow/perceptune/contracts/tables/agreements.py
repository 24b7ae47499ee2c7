"""Agreement of a judge with another judge, with people or with selected tokens: one row per metric or
pair of labels."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NULL, Table

AGREEMENTS = Table(
    "agreements",
    ("agreement", pa.string()),
    ("source", pa.string()),  # the benchmark, comparison, or round whose tokens are selected
    ("part", pa.string()),  # a policy, or `all`; of tokens `selected`, `random` or their `difference`
    ("judge", pa.string()),
    ("other", pa.string()),  # the second judge, `people`, or `selected tokens`
    ("metric", pa.string()),  # `agreement`, `kappa` or `count`; of tokens also `precision`, `recall`, `f1`
    ("label", pa.string(), NULL),  # of a `count`: the judge's label
    ("other_label", pa.string(), NULL),
    ("value", pa.float64(), NULL),
    ("ci_low", pa.float64(), NULL),
    ("ci_high", pa.float64(), NULL),
    ("n", pa.int32()),  # items with two labels; of tokens, answers
    ("n_unread", pa.int32()),  # items with a verdict that cannot be read
    ("n_unlabelled", pa.int32()),  # items without people's label
    ("reason", pa.string(), NULL),  # why there is no value
)
