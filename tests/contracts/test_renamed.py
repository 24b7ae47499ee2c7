"""Old config keys are errors that state the new name."""

import re

import pytest
from perceptune.contracts.config import Config
from perceptune.contracts.errors import UserError
from perceptune.planning import policies
from perceptune.planning.renamed import KEYS, SECTIONS

from .demo_configs import DEMO


@pytest.mark.parametrize(("old", "new"), SECTIONS.items())
def test_an_old_section_is_refused_with_its_new_name(old: str, new: str) -> None:
    assert new in Config.model_fields
    assert old not in Config.model_fields
    with pytest.raises(UserError, match=rf"config\n  key `{old}`: renamed to `{new}`"):
        policies.load({**DEMO, old: {}})


@pytest.mark.parametrize(
    ("section", "old", "new"), [(section, *pair) for section, keys in KEYS.items() for pair in keys.items()]
)
def test_an_old_key_is_refused_with_its_new_name(section: str, old: str, new: str) -> None:
    outer, _, inner = old.rpartition(".")
    blocks = {**DEMO.get(section, {}), "mine": {outer: {inner: 1}} if outer else {inner: 1}}
    named = f"{section}.mine.{new}" if outer else new
    with pytest.raises(UserError, match=re.escape(f"config\n  key `{section}.mine.{old}`: renamed to `{named}`")):
        policies.load({**DEMO, section: blocks})
