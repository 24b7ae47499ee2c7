"""A dictionary on disk behaves like one in memory."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perceptune.core.data.disk_dict import DiskDict

STEPS = st.lists(
    st.tuples(st.sampled_from(["set", "default", "add", "get"]), st.text(max_size=2), st.integers() | st.text())
)


@given(steps=STEPS)
def test_it_is_a_dictionary(steps: list[tuple[str, str, Any]]) -> None:
    disk, memory, keys = DiskDict(), dict[str, Any](), DiskDict()
    seen = set[str]()
    for what, key, value in steps:
        match what:
            case "set":
                disk[key] = memory[key] = value
            case "default":
                assert disk.setdefault(key, value) == memory.setdefault(key, value)
            case "add":
                assert keys.add(key) == (key not in seen)
                seen.add(key)
        assert disk.get(key) == memory.get(key)
        assert (key in disk) == (key in memory)


def test_keys_are_any_text_and_missing_ones_are_named() -> None:
    disk = DiskDict()
    disk["\udcff\0"] = {"bytes": b"x"}
    assert disk["\udcff\0"] == {"bytes": b"x"}
    with pytest.raises(KeyError, match="absent"):
        disk["absent"]
