"""A few random SIGKILLs; `make chaos` is the long version."""

from pathlib import Path

import pytest

from .chaos import chaos, small_config

pytestmark = [pytest.mark.slow, pytest.mark.extended, pytest.mark.timeout(1800)]


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_rows(tmp_path: Path) -> None:
    outcome = chaos(tmp_path, small_config(questions=32, tests=12, part=48), kills=8, seed=1, longest=40)
    print(outcome.text())
    assert len(outcome.kills) == 8
    assert outcome.differences == []
    assert outcome.lost_answers == 0
    assert outcome.compared > 20
