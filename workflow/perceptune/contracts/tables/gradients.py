"""Gradients: what is measured of one pair, one row per pair, point in time and part of the adapter."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import Table

GRADIENTS = Table(
    "gradients",
    ("point", pa.string()),  # `start` or `end` of training
    ("group_id", pa.string()),
    ("kind", pa.string()),  # `focus`, `robust`, or `extremes` of a ranked list
    ("weights", pa.string()),  # `all`, `language` or `vision`
    ("chosen_squared", pa.float64()),  # squared norm of the gradient of the summed log-prob
    ("rejected_squared", pa.float64()),
    ("difference_squared", pa.float64()),  # of chosen minus rejected
    ("chosen_drawn_squared", pa.float64()),  # the same with tokens drawn from the policy
    ("rejected_drawn_squared", pa.float64()),
    ("chosen_image", pa.float64()),  # log-prob with the image minus without it, in nats
    ("rejected_image", pa.float64()),
    ("chosen_tokens", pa.int32()),
    ("rejected_tokens", pa.int32()),
)
