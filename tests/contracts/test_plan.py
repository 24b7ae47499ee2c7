"""The plan of a config: its policies, sweeps, model folders, and what is part of a result."""

from pathlib import Path

import pytest
from perceptune.contracts.errors import UserError
from perceptune.planning import policies as planning

from tests.shipped import CONFIGS, raw_of

from .demo_configs import DEMO, edited


@pytest.mark.parametrize("file", CONFIGS, ids=lambda f: f.name)
def test_every_shipped_config_is_valid(file: Path) -> None:
    assert planning.load(raw_of(file)).policies


def test_lists_are_sweeps_in_all_combinations() -> None:
    config = edited("trainings.perpo.parameters", {"beta": [0.05, 0.1], "gamma": [0, 1]})
    config["selections"]["ranked"]["min_margin"] = [0.2, 0.6]
    plan = planning.load(config)
    names = [p for p in plan.policies if p.startswith("perpo")]
    assert len(names) == 2 * 2 * 2
    name = "perpo-min_margin_0.2-beta_0.05-gamma_1"
    assert plan.training(name).parameters == {"beta": 0.05, "gamma": 1}
    assert plan.config.selections[plan.config.experiments[name].selection].min_margin == 0.2
    assert plan.samples(name)["sampling"] == "n20"  # the samples are shared


def test_trackers_are_no_sweep_and_not_part_of_the_result() -> None:
    plan = planning.load(edited("trainings.dpo.report_to", ["tensorboard", "wandb"]))
    assert plan.policies == ["tiny", "dpo", "perpo"]
    assert plan.training("dpo").report_to == ("tensorboard", "wandb")
    assert planning.tracked(plan.training("dpo")) == planning.tracked(planning.load(DEMO).training("dpo"))


def test_untracked_settings_are_not_part_of_the_result() -> None:
    plan = planning.load(edited("trainings.perpo.micro_batch_size", 2))
    assert planning.tracked(plan.training("perpo")) == planning.tracked(planning.load(DEMO).training("perpo"))


def test_a_missing_model_folder_is_named(tmp_path: Path) -> None:
    plan = planning.load(edited("models.tiny.path", str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match=r"nowhere`: `config\.json` not found"):
        plan.model_settings("perpo")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], "`config.json` not found"),
        (["config.json"], "no `*.safetensors` weights found; other formats can run code on loading"),
        (
            ["config.json", "pytorch_model.bin"],
            "no `*.safetensors` weights found; other formats can run code on loading",
        ),
    ],
)
def test_only_safetensors_are_weights(tmp_path: Path, files: list[str], expected: str) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError) as caught:
        planning.load(edited("models.tiny.path", str(tmp_path))).model_settings("tiny")
    assert expected in str(caught.value)


def test_a_policy_answers_benchmarks_in_the_order_of_the_config() -> None:
    config = edited("benchmarks.more", DEMO["benchmarks"]["shapes-test"])
    config["experiments"]["dpo"] = {**config["experiments"]["dpo"], "benchmarks": ["more", "shapes-test"]}
    plan = planning.load(config)
    assert plan.benchmarks("tiny") == plan.benchmarks("dpo") == ["shapes-test", "more"]
    assert plan.benchmarks("perpo") == ["shapes-test"]
