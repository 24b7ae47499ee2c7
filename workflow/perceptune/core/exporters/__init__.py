"""Formats of exported preferences by name. A new one is a file here, a test, and a line in the dict."""

from __future__ import annotations

from perceptune.core.exporters.easyr1 import EASYR1
from perceptune.core.exporters.exporter import Exporter
from perceptune.core.exporters.llama_factory import LLAMA_FACTORY
from perceptune.core.exporters.ms_swift import MS_SWIFT
from perceptune.core.exporters.trl import TRL
from perceptune.core.exporters.verl import VERL

EXPORTERS: dict[str, Exporter] = {
    exporter.name: exporter
    for exporter in (
        EASYR1,
        LLAMA_FACTORY,
        MS_SWIFT,
        TRL,
        VERL,
    )
}
