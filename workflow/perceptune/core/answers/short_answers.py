"""Words and numbers in one form, so that equal answers are equal texts."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

NUMBER = re.compile(r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:e[-+]?\d{1,3})?")
"""A number; larger exponents are text."""


def normalised(text: str) -> str:
    """Normalised text: `" 3.0. "` and `"3"` become `"3"`, `"The  Cat."` becomes `"the cat"`.

    Composed and decomposed letters (`é`) are the same. Numbers are exact, of any length, and commas
    may only separate thousands: `"1,000"` becomes `"1000"`, `"1,5"` stays.
    """
    bare = " ".join(unicodedata.normalize("NFC", text).lower().split()).removesuffix(".").strip()
    if NUMBER.fullmatch(bare) is None:
        return bare
    number = f"{Decimal(bare.replace(',', '')):f}"
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return "0" if number == "-0" else number
