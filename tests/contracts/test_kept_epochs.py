"""`keep_epochs`: policies and jobs of epochs, and the stage that makes the adapter of one."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.lineage import FILE
from perceptune.planning import policies as planning
from perceptune.planning.graph import graph
from perceptune.planning.jobs.evaluation import write_report
from perceptune.stages.training import keep_epoch

ROOT = Path(__file__).parents[2]
DEMO, ROUNDS = (yaml.safe_load((ROOT / "config" / name).read_text()) for name in ("config.yaml", "demo-rounds.yaml"))


def keeping(epochs: float, base: dict[str, Any] = DEMO, training: str = "perpo", **more: Any) -> dict[str, Any]:
    raw: dict[str, Any] = copy.deepcopy(base)
    raw["trainings"][training] |= {"epochs": epochs, "keep_epochs": True}
    return {**raw, **more}


@pytest.mark.parametrize(("epochs", "kept"), [(2, 1), (2.5, 2), (4, 3)])
def test_every_epoch_before_the_last_is_a_policy(epochs: float, kept: int) -> None:
    plan = planning.load(keeping(epochs))
    names = [f"perpo@{number}" for number in range(1, kept + 1)]
    assert plan.tested("perpo") == [*names, "perpo"]
    assert set(plan.policies) == {"tiny", *DEMO["experiments"], *names}
    assert plan.kept == names
    assert plan.trained == list(DEMO["experiments"])  # one training
    assert {plan.behaviour_policy(name) for name in names} == {"tiny"}
    assert {plan.base(name) for name in names} == {"tiny"}
    shown = write_report(plan).details["epochs"]
    assert shown == {"perpo": {**{name: int(name[-1]) for name in names}, "perpo": epochs}}


def test_its_adapter_comes_from_the_experiments_training() -> None:
    nodes = graph(planning.load(keeping(3)))
    jobs = {(rule, dict(of).get("experiment")): node for (rule, of), node in nodes.items()}
    assert {one for rule, one in jobs if rule == "train_adapter"} == set(DEMO["experiments"])
    kept = jobs["keep_epoch", "perpo@2"]
    assert {dict(of)["experiment"] for _, of in kept.needs} == {"perpo"}
    assert kept.job.details["kept"] == "<results>/adapters/perpo/epochs/2"
    sampling = next(n for (rule, of), n in nodes.items() if rule == "sample_responses" and ("policy", "perpo@2") in of)
    assert ("keep_epoch", (("experiment", "perpo@2"),)) in sampling.needs


def test_without_the_key_there_are_none() -> None:
    plan = planning.load(DEMO)
    assert plan.kept == []
    assert write_report(plan).details["epochs"] == {}
    assert not [rule for rule, _ in graph(plan) if rule == "keep_epoch"]


def test_an_sft_counterpart_keeps_none() -> None:
    plan = planning.load(keeping(2, controls={}))
    assert plan.kept == ["perpo@1"]
    twin = plan.counterpart("perpo")
    assert twin is not None and plan.training(twin).epochs == 2
    assert plan.controlled.count("perpo") == 1 and "perpo@1" not in plan.controlled


def test_nothing_to_keep_is_a_mistake() -> None:
    with pytest.raises(
        UserError, match=r"key `trainings.perpo`: `keep_epochs` keeps those before the last, expected more than 1"
    ):
        planning.load(keeping(1))
    with pytest.raises(
        UserError, match=r"key `trainings.grpo.keep_epochs`: experiments with `rounds` keep the adapter of each"
    ):
        planning.load(keeping(2, ROUNDS, "grpo"))


def test_the_adapter_is_copied_with_its_lineage(tmp_path: Path) -> None:
    kept, trained = tmp_path / "e/epochs/1", tmp_path / "e/adapter_model.safetensors"
    with pytest.raises(UserError, match=r"epochs/1`: not found, expected the adapter of an epoch"):
        keep_epoch.run(experiment="e@1", trained=trained, kept=kept, adapter=tmp_path / "e@1")
    kept.mkdir(parents=True)
    trained.write_bytes(b"last")
    (kept / "adapter_model.safetensors").write_bytes(b"first")
    (kept / "adapter_config.json").write_text("{}")
    keep_epoch.run(experiment="e@1", trained=trained, kept=kept, adapter=tmp_path / "e@1")
    found = {path.name: path.read_bytes() for path in (tmp_path / "e@1").iterdir()}
    assert found.keys() == {"adapter_model.safetensors", "adapter_config.json", FILE}
    assert found["adapter_model.safetensors"] == b"first"
