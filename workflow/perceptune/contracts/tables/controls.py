"""Controls: a policy's gain against what else may explain it."""

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
)
