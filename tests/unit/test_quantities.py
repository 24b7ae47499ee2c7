"""Units, and Unicode as LaTeX, of two mathematical answers."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perceptune.core.answers.quantities import comparable, in_latex


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("3√(x+1)", r"3\sqrt{x+1}"), ("∛8", r"\sqrt[3]{8}"), ("√2.5", r"\sqrt{2.5}"), ("√ab", r"\sqrt{a}b"),
        ("x⁻¹²", "x^{-12}"), ("x²y³", "x^2y^3"), ("2½", r"2\frac{1}{2}"), ("−3", "-3"), ("90°", r"90^\circ"),
        ("1 2", "1, 2"), ("1\n2.5", "1, 2.5"), ("12 000 000", "12000000"), ("1234 000", "1234, 000"),
        ("7 3/4", "7 3/4"), (r"\frac 3 4", r"\frac 3 4"), ("a b", "a b"), ("", ""),
    ],
)  # fmt: skip
def test_unicode_in_latex(text: str, latex: str) -> None:
    assert in_latex(text) == latex


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5 cm", r"5\text{ cm}"), ("5 inches", "5 in"), ("5 m^2", "5 square metres"), ("5 sq. m", r"5\ \mathrm{m}^{2}"),
        ("5 m/s^2", r"5 \text{ meters per s}^2"), ("5 mL", "5 millilitres"), (r"5^{\circ}", "5 degrees"), ("$5", "5 dollars"),
        (r"5 N \cdot m", "5 N*m"), ("5 km/h", "5 kilometres per hour"), (r"5\%", "5 percent"), ("5 cm.", "5"), ("5", "5 Kilometers"),
    ],
)  # fmt: skip
def test_the_same_units_and_one_unit_alone_are_dropped(one: str, other: str) -> None:
    assert comparable(one, other) == comparable(other, one) == ("5", "5")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5 cm", "5 m"),
        ("5 cm", "5 cm^2"),
        ("5 m/s", "5 m*s"),
        ("5 g", "5 h"),
        ("5°", "5 rad"),
        ("$5", r"5\%"),
        ("5 miles", "5 min"),
    ],
)
def test_other_units(one: str, other: str) -> None:
    assert comparable(one, other) is comparable(other, one) is None


@pytest.mark.parametrize("text", ["5 apples", "5n+m", "x", r"\text{A}", "second", "(2 m)^2", "5m", r"5\%", "a in b"])
def test_what_may_be_no_unit_is_kept(text: str) -> None:
    """A letter may be a variable; 5 % is 0.05."""
    assert comparable(text, "x") == (text, "x")


def test_an_expression_has_no_unit() -> None:
    assert comparable("3h + 2m", "2m + 3h") == ("3h + 2m", "2m + 3h")
    assert comparable(r"2\pi m", r"2\pi h") is None


PIECES = [
    "5",
    "1",
    ".",
    " ",
    "m",
    "cm",
    "N",
    "per",
    "/",
    "^",
    "2",
    "{",
    "}",
    "$",
    "\\",
    r"\text{",
    r"\cdot",
    "°",
    "√",
    "²",
    "square",
    "%",
    ",",
]


@given(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
)
def test_any_text_can_be_compared_in_either_order(one: str, other: str) -> None:
    pair, turned = comparable(one, other), comparable(other, one)
    assert turned == (pair and pair[::-1])


@pytest.mark.parametrize("piece", ["1", " ", "5 m", "m/", "(", "√", "1 ", "^", "\\text{", "square "])
def test_long_texts_take_no_time(piece: str) -> None:
    start = time.process_time()
    comparable(f"5 {piece * 20_000}x{piece * 20_000} m", "5")
    assert time.process_time() - start < 5
