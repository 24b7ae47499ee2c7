"""Prepares two mathematical answers for comparison: writes Unicode as LaTeX and separates units.

MathRuler and math-verify drop units, so that to them 5 cm is 5 m, and read no Unicode.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SIGNS = {
    "−": "-", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ", "±": r"\pm ", "π": r"\pi ", "∞": r"\infty ",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "°": r"^\circ ", "º": r"^\circ ", "∪": r"\cup ",
    "∩": r"\cap ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "％": r"\%", "\N{NO-BREAK SPACE}": " ",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
    "⅕": r"\frac{1}{5}", "⅖": r"\frac{2}{5}", "⅗": r"\frac{3}{5}", "⅘": r"\frac{4}{5}", "⅙": r"\frac{1}{6}",
    "⅚": r"\frac{5}{6}", "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}",
}  # fmt: skip
IN_LATEX = str.maketrans(SIGNS)
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
EXPONENT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
ROOT = re.compile(r"([√∛∜])\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[A-Za-z]))")
DEGREES = {"√": "", "∛": "[3]", "∜": "[4]"}

NAMES = {
    "mm": "millimetre millimeter", "cm": "centimetre centimeter", "dm": "decimetre decimeter", "m": "metre meter",
    "km": "kilometre kilometer", "in": "inch inches", "ft": "foot feet", "yd": "yard", "mi": "mile", "nm": "nanometre nanometer",
    "mg": "milligram", "g": "gram", "kg": "kilogram", "lb": "lbs pound", "oz": "ounce", "t": "ton tonne",
    "ms": "millisecond", "s": "sec second", "min": "minute", "h": "hr hrs hour", "day": "", "week": "", "month": "",
    "year": "yr yrs", "mL": "ml millilitre milliliter", "L": "l litre liter", "rad": "radian", "degree": "deg",
    "dollar": "usd", "cent": "", "euro": "€ eur", "percent": r"% \%", "mph": "", "N": "newton", "J": "joule", "kJ": "kilojoule",
    "W": "watt", "kW": "kilowatt", "Pa": "pascal", "Hz": "hertz", "V": "volt", "K": "kelvin", "mol": "mole", "unit": "",
}  # fmt: skip
"""Unit symbols and their other names. Names that are words also match with a plural -s."""
UNITS = {name: symbol for symbol, names in NAMES.items() for name in (symbol, *names.split())}
UNITS |= {f"{name}s": symbol for name, symbol in UNITS.items() if len(name) > 2 and name.isalpha()}
POWERS = {"square": "2", "sq": "2", "sq.": "2", "cubic": "3", "cu.": "3"}
_UNIT = "|".join(re.escape(name) for name in sorted(UNITS, key=len, reverse=True))
_POWER = "|".join(re.escape(name) for name in sorted(POWERS, key=len, reverse=True))
ONE = rf"(?<![A-Za-z\\])(?:(?P<power>{_POWER})\s*)?(?P<unit>{_UNIT})(?![A-Za-z])(?:\s*\^\s*\{{?\s*(?P<exponent>-?\d)\s*\}}?)?"
ONE_UNIT = re.compile(ONE, re.IGNORECASE)
_SAME = re.sub(r"\?P<\w+>", "?:", ONE)
_BETWEEN = r"\s*(?:/|\*|\\cdot|\bper\b)\s*"
QUANTITY = re.compile(
    rf"(?P<value>.*(?:\d\.?|[)}}]|\\pi|\\infty))\s*(?P<units>{_SAME}(?:{_BETWEEN}{_SAME})*)\s*\.?",
    re.IGNORECASE | re.DOTALL,
)
"""A value that ends like a number, and units to the end of the text."""
WRAPPED = re.compile(r"\\(?:text|textrm|mathrm|operatorname|mbox)\s*\{([^{}]*)\}")
SPACES = re.compile(r"\\[,;:! ]|~")
ARC = re.compile(r"\s*\^\s*\{?\s*\\circ\s*\}?\s*(?P<scale>[CF]\b)?\s*\.?$")
DOLLARS = re.compile(r"\s*\\?\$\s*(?=[-\d.])(?P<value>[^$]*)$")
GAP = re.compile(r"(?<=\d)\s+(?=\d)")
BLANK_LIST = re.compile(r"[-+]?[\d.]+(?:\s+[-+]?[\d.]+)+")
THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:\s\d{3})+(?:\.\d+)?")
VARIABLE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")
LONE_LETTER = re.compile(r"[A-Za-z]")


def comparable(answer: str, target: str) -> tuple[str, str] | None:
    """Both texts as LaTeX and, if only one has a unit or both have the same, without it; None if
    their units differ.

    5 cm is not 5 m, and 50 mm not 5 cm; 5 cm is 5. A single letter is a unit only against another
    unit, since it may be a variable. A percentage keeps its sign unless both have one.
    """
    answer, target = in_latex(answer), in_latex(target)
    one, other = _parted(answer), _parted(target)
    if one.unit and other.unit:
        return (one.value, other.value) if one.unit == other.unit else None
    return (one.value if one.sure else answer), (other.value if other.sure else target)


def in_latex(text: str) -> str:
    """The text with Unicode signs, roots, exponents and fractions as LaTeX.

    Numbers with blanks between them become a list, unless the blanks separate thousands.
    """
    text = ROOT.sub(lambda root: rf"\sqrt{DEGREES[root[1]]}{{{root[2] or root[3] or root[4]}}}", text)
    text = EXPONENT.sub(_raised, text).translate(IN_LATEX).strip()
    if BLANK_LIST.fullmatch(text):
        return GAP.sub("" if THOUSANDS.fullmatch(text) else ", ", text)
    return text


def _raised(found: re.Match[str]) -> str:
    exponent = found[0].translate(RAISED)
    return f"^{exponent}" if len(exponent) == 1 else f"^{{{exponent}}}"


@dataclass(frozen=True)
class _Quantity:
    value: str
    unit: str | None = None
    sure: bool = True
    """Whether the text is certainly a unit, not a variable, and dropping it keeps the value."""


def _parted(text: str) -> _Quantity:
    """The value and its unit; the whole text if it has no unit at its end."""
    plain = " ".join(SPACES.sub(" ", WRAPPED.sub(r"\1", text)).split())
    if degrees := ARC.search(plain):
        return _Quantity(plain[: degrees.start()], f"degree {degrees['scale'] or ''}".strip())
    if money := DOLLARS.fullmatch(plain):
        return _Quantity(money["value"], "dollar")
    quantity = QUANTITY.fullmatch(plain)
    if quantity is None:
        return _Quantity(text)
    lone = LONE_LETTER.fullmatch(quantity["units"]) is not None
    if lone and VARIABLE.search(quantity["value"]):
        return _Quantity(text)  # `3h + 2m` is an expression
    unit = _canonical(quantity["units"])
    return _Quantity(quantity["value"].strip(), unit, unit != "percent" and not lone)


def _canonical(units: str) -> str:
    """The canonical spelling of units: `m^2` for `square metres`."""
    parts = []
    for one in ONE_UNIT.finditer(units):
        symbol = UNITS.get(one["unit"]) or UNITS.get(one["unit"].lower()) or one["unit"]
        exponent = POWERS.get((one["power"] or "").lower()) or one["exponent"] or ""
        parts.append(f"{symbol}^{exponent}" if exponent not in ("", "1") else symbol)
    between = ["/" if re.search(r"/|per", gap) else "*" for gap in re.split(_SAME, units, flags=re.IGNORECASE)[1:-1]]
    return parts[0] + "".join(sign + part for sign, part in zip(between, parts[1:], strict=True))
