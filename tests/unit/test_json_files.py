"""JSON lists are parsed record by record, with the same outcome as parsing the whole file."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perceptune.contracts.errors import UserError
from perceptune.core.data import json_files
from perceptune.core.data.json_files import json_lines, json_list, json_members

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json") / "data.json"


def whole(text: str) -> list[Any] | None:
    """The list in a text; None if there is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, list) else None


def in_pieces(file: Path, text: str, size: int) -> list[Any] | None:
    """The same, read in pieces of `size` characters."""
    file.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_files, "BYTES_AT_ONCE", size)
        try:
            return list(json_files._elements(file))
        except ValueError:
            return None


@given(
    records=st.lists(VALUES, max_size=6), size=st.integers(1, 40), indent=st.none() | st.integers(0, 2), data=st.data()
)
def test_pieces_of_any_size(file: Path, records: list[Any], size: int, indent: int | None, data: st.DataObject) -> None:
    text = json.dumps(records, indent=indent, ensure_ascii=data.draw(st.booleans()))
    assert in_pieces(file, f" \n{text} ", size) == records


@given(records=st.lists(VALUES, max_size=4), size=st.integers(1, 40), seed=st.integers(0, 1000))
def test_broken_lists_are_broken_in_pieces_as_well(file: Path, records: list[Any], size: int, seed: int) -> None:
    chance, text = random.Random(seed), json.dumps(records)
    for _ in range(3):
        place = chance.randrange(len(text))
        broken = (
            text[:place] + chance.choice(["", ",", "]", "[", '"', "1", " ", "e"]) + text[place + chance.randrange(2) :]
        )
        assert in_pieces(file, broken, size) == whole(broken)


@given(
    value=st.dictionaries(st.text(max_size=3), VALUES, max_size=5),
    size=st.integers(1, 40),
    indent=st.none() | st.just(1),
)
def test_lists_in_an_object_come_element_by_element(file: Path, value: Any, size: int, indent: int | None) -> None:
    file.write_text("\ufeff" + json.dumps(value, indent=indent), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_files, "BYTES_AT_ONCE", size)
        found = list(json_members(file))
    assert found == [(key, one) for key, inner in value.items() if isinstance(inner, list) for one in inner]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": [1, 2', "is not valid JSON: "),
        ('{"a": [1],}', "is not valid JSON: "),
        ('{"a": [1] "b": 2}', "is not valid JSON: "),
        ('{"a": [1]} 2', "is not valid JSON: Extra data"),
        ("{1: [1]}", "is not valid JSON: Expecting property name"),
        ("", "is not valid JSON: "),
        ("[1]", "data.json` is a list, expected an object with lists"),
        ('"x"', "data.json` is a single value, expected an object with lists"),
    ],
)
def test_a_broken_object_says_what_is_wrong(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(UserError) as stopped:
        list(json_members(file))
    assert message in stopped.value.args[0]


@pytest.mark.parametrize("text", ["[1, 2", "[1, ]", "[1] 2", "[nul]", '["\x01"]', "[" * 100_000, "[1" * 100_000])
def test_a_broken_list_has_the_message_of_the_whole_file(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(UserError) as stopped:
        list(json_list(file))
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        assert f"data.json` is not valid JSON: {str(error)[:40]}" in stopped.value.args[0]


def test_a_list_is_one_even_if_named_as_lines(file: Path) -> None:
    file.write_text('[{"a": 1, "b": null},\n {"a": 2}]')
    assert list(json_lines(file)) == [("record 1", {"a": 1}), ("record 2", {"a": 2})]
    file.write_text('[1]\n{"a": 2}\n')
    assert list(json_lines(file)) == [("line 1", [1]), ("line 2", {"a": 2})]
    file.write_text('{\n"a": 2}\n')
    assert list(json_lines(file)) == [("record 1", {"a": 2})]
    file.write_text('\n{"a": 2}\n\n3')
    assert list(json_lines(file)) == [("line 2", {"a": 2}), ("line 4", 3)]
