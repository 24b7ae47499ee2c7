"""Controls: a policy's gain compared with other explanations of it."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import Table

CONTROLS = Table(
    "controls",
    ("policy", pa.string()),
    ("benchmark", pa.string()),
    ("split", pa.string()),
    ("task", pa.string()),
    ("view", pa.string()),
    ("control", pa.string()),  # `prompt`, `blank`, `mean_of_n`, `sft_on_best`
    ("against", pa.string()),  # the policy to compare with
    ("k", pa.int32()),  # index of the prompt, 0 for the benchmark's own; N of the mean; otherwise 1
    ("metric", pa.string()),
    ("value", pa.float64()),  # of the policy; for `blank`, its gain with the image
    ("control_value", pa.float64()),  # of the control; for `blank`, the policy's gain without the image
    ("gain", pa.float64()),  # of the policy over its base model
    ("difference", pa.float64()),  # paired difference: the part the control does not account for
    ("ci_low", pa.float64()),
    ("ci_high", pa.float64()),
    ("n", pa.int32()),
)
