"""Where a probe of the model is needed: before everything that uses a model of family `auto`."""

from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.probe import PROBE, needs_separate_sequences
from perceptune.planning import policies
from perceptune.planning.rules import job_of
from perceptune.planning.sizes import group_tokens

from .demo_configs import DEMO, ROUNDS, edited

USES = [
    (DEMO, "sample_responses", {"policy": "tiny", "plan": "shapes/n20", "scatteritem": "1-of-1"}),
    (DEMO, "sample_responses", {"policy": "perpo", "plan": "benchmarks", "scatteritem": "1-of-1"}),
    (
        DEMO,
        "compute_logprobs",
        {
            "policy": "tiny",
            "dataset": "shapes",
            "groups": "n20/perception/ranked",
            "stored": "reference@original",
        },
    ),
    (DEMO, "train_adapter", {"experiment": "perpo"}),
    (ROUNDS, "train_round", {"experiment": "grpo@2"}),
    (DEMO, "export_model", {"policy": "perpo"}),
]


@pytest.mark.parametrize(("base", "rule", "wildcards"), USES)
def test_a_model_of_family_auto_is_probed_first(
    base: dict[str, Any], rule: str, wildcards: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert job_of(policies.load(base), rule, wildcards).inputs["probe"] is None
    model = {**base["models"]["tiny"], "family": "auto", "coordinates": "padded_square"}
    plan = policies.load(edited("models.tiny", model, base))
    table = job_of(plan, rule, wildcards).inputs["probe"]
    assert table == "<results>/probes/tiny.parquet"
    probing = job_of(plan, "probe_model", {"policy": "tiny"})
    assert probing.settings["base"]["weights"] == plan.model_details("tiny")["weights"]  # found again by content


def test_each_response_may_need_a_prompt_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    auto = edited("models.tiny", {**DEMO["models"]["tiny"], "family": "auto", "coordinates": "padded_square"})
    shared, alone = (group_tokens(policies.load(config), "perpo", "n20", 2) for config in (DEMO, auto))
    assert shared == 2 * (512 + 20 * 24)
    assert alone == 2 * 20 * (512 + 24)


@pytest.mark.parametrize(
    ("check", "problem", "separate"),
    [("shared prefix", None, False), ("shared prefix", "they differ", True), ("separate sequences", "slow", False)],
)
def test_a_probe_says_how_to_train(check: str, problem: str | None, separate: bool, tmp_path: Path) -> None:
    row = {"check": check, "tokens": 3, "mean": 0.0, "max": 0.0, "problem": problem}
    write_table(tmp_path / "probe.parquet", PROBE, [row], {})
    assert needs_separate_sequences(tmp_path / "probe.parquet") == separate
    assert not needs_separate_sequences(None)
