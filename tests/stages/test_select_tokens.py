"""The table of selected tokens has those that the trainer selects in the first step of the round."""

from pathlib import Path

import pytest
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.selected import SELECTED
from perceptune.contracts.tables.terms import TERMS
from perceptune.core.methods.method import Stored
from perceptune.core.methods.rollout import Tokens
from perceptune.engines.training.rollout_trainer import RolloutTrainer
from perceptune.stages.training import select_tokens, stored_logprobs

from tests.stages import test_rounds
from tests.stages.test_rounds import GROUPS, VIEWS, model_of

pytestmark = pytest.mark.slow
folder = test_rounds.folder


def test_they_are_those_of_the_first_step(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are recognised by their old log-probs: the trainer shuffles the groups."""
    steps: list[list[tuple[float, bool]]] = []
    with_selection = RolloutTrainer._with_selection

    def watched(self: RolloutTrainer, tokens: Tokens) -> Tokens:
        found = with_selection(self, tokens)
        assert found.selected is not None
        steps.append(list(zip(tokens.old.tolist(), found.selected.tolist(), strict=True)))
        return found

    monkeypatch.setattr(RolloutTrainer, "_with_selection", watched)
    test_rounds.trained(folder, tmp_path, method="cppo", batch_size=GROUPS)
    stored_logprobs.run(
        preferences=folder / "preferences.parquet", examples=folder / "examples.parquet", terms=tmp_path / "removed.parquet",
        views=VIEWS, model=model_of(folder), weights="w", adapter=None, of_round=True, stored=[Stored("old", "removing")],
    )  # fmt: skip
    select_tokens.run(
        preferences=folder / "preferences.parquet", terms=tmp_path / "terms.parquet", removed=tmp_path / "removed.parquet",
        selected=tmp_path / "e@1.parquet", lines=tmp_path / "e@1.jsonl", method="cppo", parameters={}, view="original",
        model=model_of(folder), weights="w",
    )  # fmt: skip
    chosen = [c for row in read_table(tmp_path / "e@1.parquet", SELECTED).to_pylist() for c in row["selected"]]
    terms = [row for row in read_table(tmp_path / "terms.parquet", TERMS).to_pylist() if row["term"] == "old"]
    old = [x for row in terms for response in row["logprobs"] for x in response]
    assert sum(chosen) > 5
    assert len(steps) == 1
    assert sorted(steps[0]) == sorted(zip(old, chosen, strict=True))
