"""The views that methods use: their jobs, and the saliency maps and crops that they need."""

import copy
from typing import Any

import pytest
from perceptune.contracts.errors import UserError
from perceptune.core.methods.method import Stored
from perceptune.planning import policies as planning
from perceptune.planning.rules import job_of
from perceptune.planning.views import saliency_tables, view_blocks, views_trained

from .demo_configs import ROUNDS, edited


def with_semantic_mask(**saliency: Any) -> dict[str, Any]:
    config = copy.deepcopy(ROUNDS)
    config["saliency_maps"] = {"dino": {"path": "dino", **saliency}}
    config["views"]["hidden"] = {"type": "semantic", "parameters": {"share": 0.4}, "saliency_map": "dino"}
    config["trainings"]["papo_g"]["parameters"]["mask"] = "hidden"
    return config


def test_a_saliency_map_is_independent_of_policies_and_goes_where_a_view_needs_it() -> None:
    config = with_semantic_mask()
    config["views"]["either"] = {"choice": ["masked", "hidden"]}
    plan = planning.load(config)
    table = "<results>/saliency/shapes-rounds/dino.parquet"
    views = {e: views_trained(plan, f"{e}@2") for e in ("grpo", "papo_g")}
    assert (
        saliency_tables(plan, "shapes-rounds", views["papo_g"])
        == saliency_tables(plan, "shapes-rounds", ["either"])
        == {"dino": table}
    )
    assert saliency_tables(plan, "shapes-rounds", views["grpo"]) == {}
    assert "perceptune.core.views.semantic" in job_of(plan, "train_round", {"experiment": "papo_g@1"}).modules
    assert "perceptune.core.views.semantic" not in job_of(plan, "train_round", {"experiment": "cppo@1"}).modules
    for split in ("train", "test"):
        config["saliency_maps"][split] = {"path": "dino", "split": split}
    config["views"] |= {"tested": {"type": "semantic", "saliency_map": "test"}}
    config["benchmarks"]["shapes-rounds-test"]["views"] = ["original", "tested"]
    asked = job_of(planning.load(config), "plan_benchmarks", {"policy": "papo_g@4"}).inputs["saliencies"]
    assert asked == ["<results>/saliency/shapes-rounds/test.parquet"]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("views.hidden.saliency_map", "dyno", "key `views.hidden.saliency_map`: `dyno` is not defined, expected one of 'dino'; did you mean `dino`?"),
        ("views.hidden.saliency_map", None, "key `views.hidden.saliency_map`: `semantic` needs a saliency map, got `None`"),
        ("views.masked.saliency_map", "dino", "key `views.masked.saliency_map`: `masked` does not use a saliency map, got `dino`"),
        ("views.hidden.crop", "salient", "key `views.hidden.crop`: `salient` is not defined"),
        ("views.hidden.parameters", {"share": 1.5}, "key `views.hidden.parameters.share`: input should be less than or equal to 1, got `1.5`"),
        ("views.hidden.parameters", {"cells": [[1]]}, "key `views.hidden.parameters.cells"),
        ("views.removing", {"choice": ["hidden"], "saliency_map": "dino"}, "`parameters`, `crop` and `saliency_map` cannot be combined with `choice`"),
        ("saliency_maps.dino.layers", [6], "key `saliency_maps.dino.layers"),
        ("saliency_maps.dino.split", "test", "key `saliency_maps.dino.split`: may leave out questions of `rollouts.g8`"),
        ("saliency_maps.dino.tasks", ["ocr"], "key `saliency_maps.dino.tasks`: may leave out questions of `rollouts.g8`"),
        ("saliency_maps.dino.limit", 600, "key `saliency_maps.dino.limit`: may leave out questions of `rollouts.g8`"),
        ("benchmarks.shapes-rounds-test.views", ["hidden"], "key `saliency_maps.dino.split`: may leave out questions of `benchmarks.shapes-rounds-test`"),
        ("samplings", {"s": {"view": "hidden", "split": "test"}}, "key `saliency_maps.dino.split`: may leave out questions of `samplings.s`"),
        ("trainings.grpo.view", "hidden", "key `trainings.grpo.view`: `hidden` needs a saliency map; training views of rounds do not support these"),
        ("pair_generations", {"p": {"robust": {"chosen": {}, "rejected": {"view": "hidden"}}}}, "key `pair_generations.p.robust.rejected.view`: `hidden` needs a saliency map; pairs do not support these"),
    ],
)  # fmt: skip
def test_incompatible_views_and_saliency_maps(path: str, value: Any, expected: str) -> None:
    config = with_semantic_mask()
    *outer, last = path.split(".")
    place = config
    for key in outer:
        place = place[key]
    place[last] = value
    with pytest.raises(UserError) as caught:
        planning.load(config)
    assert expected in str(caught.value)


def with_mdpo(**parameters: Any) -> dict[str, Any]:
    """The demo with a method that uses two views, and views that need a crop or a saliency map."""
    config = edited(
        "views", {"hidden": {"type": "semantic", "saliency_map": "dino"}, "tiny-part": {"type": "random_crop"}}
    )
    config["saliency_maps"] = {"dino": {"path": "dino"}}
    config["attention_maps"], config["crops"] = {"first": {}}, {"salient": {"attention_map": "first"}}
    config["views"]["cut"] = {"type": "degraded", "crop": "salient"}
    config["views"]["either"] = {"choice": ["tiny-part", "hidden"]}
    config["trainings"]["perpo"] |= {"method": "mdpo", "parameters": parameters}
    return config


def test_jobs_of_a_list_method_get_every_view_it_uses() -> None:
    plan = planning.load(with_mdpo(corrupted="either"))
    assert views_trained(plan, "perpo") == ["original", "either"]
    assert view_blocks(plan, *views_trained(plan, "perpo")).keys() == {"either", "tiny-part", "hidden"}
    assert saliency_tables(plan, "shapes", views_trained(plan, "perpo")) == {
        "dino": "<results>/saliency/shapes/dino.parquet"
    }
    assert list(plan.stored_logprobs("perpo")) == [Stored("reference", "original"), Stored("reference", "either")]
    assert len(set(plan.stored_logprobs("perpo").values())) == 2
    modules = job_of(plan, "train_adapter", {"experiment": "perpo"}).modules
    assert {"perceptune.core.views.random_crop", "perceptune.core.views.semantic"} < set(modules)
    assert views_trained(plan, "dpo") == ["original"]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("trainings.perpo.parameters", {}, "key `trainings.perpo`: method `mdpo` uses view `corrupted`, which is not defined"),
        ("trainings.perpo.parameters", {"corrupted": "hiden"}, "key `trainings.perpo.parameters.corrupted`: view `hiden` is not defined; did you mean `hidden`?"),
        ("trainings.perpo.parameters", {"corrupted": "noise"}, "key `trainings.perpo.parameters.corrupted`: view `noise` is not defined"),
        ("trainings.perpo.parameters", {"corrupted": "original"}, "key `trainings.perpo.parameters.corrupted`: `original` is the training view"),
        ("trainings.perpo.parameters", {"corrupted": "cut"}, "key `trainings.perpo`: view `cut` needs a crop; ranked lists have none, crops are available only for pairs"),
        ("trainings.perpo.view", "cut", "key `trainings.perpo.view`: `cut` needs a crop; ranked lists have none, crops are available only for pairs"),
        ("saliency_maps.dino.split", "test", "key `saliency_maps.dino.split`: may leave out questions of `samplings.n20`"),
        ("saliency_maps.dino.limit", 1, "key `saliency_maps.dino.limit`: may leave out questions of `samplings.n20`"),
        ("views.tiny-part.parameters", {"smallest": 0.5}, "key `views.tiny-part.parameters`: `smallest` 0.5 exceeds `largest` 0.2"),
        ("views.either.choice", ["tiny-part", "cut"], "key `views.either.choice`: `cut` needs a crop; choices do not support these"),
    ],
)  # fmt: skip
def test_views_that_a_list_method_cannot_use(path: str, value: Any, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        planning.load(edited(path, value, with_mdpo(corrupted="hidden")))
    assert expected in str(caught.value)


def test_a_list_method_may_train_under_a_saliency_map_but_its_lists_are_not_exported() -> None:
    config = edited("trainings.perpo.view", "hidden", with_mdpo(corrupted="tiny-part"))
    assert views_trained(planning.load(config), "perpo") == ["hidden", "tiny-part"]
    config["exports"] = {"out": {"experiment": "perpo", "format": "trl"}}
    with pytest.raises(
        UserError, match=r"key `exports\.out`: view `hidden` needs a saliency map; exports do not support these"
    ):
        planning.load(config)


def test_only_datasets_that_are_shown_under_a_crop_get_one() -> None:
    config = with_mdpo(corrupted="hidden")
    config["datasets"]["others"] = {"kind": "shapes", "test": {"grounding": 20}}
    config["benchmarks"]["cut-test"] = {**config["benchmarks"]["shapes-test"], "views": ["original", "cut"]}
    config["benchmarks"]["others-test"] = {**config["benchmarks"]["shapes-test"], "dataset": "others"}
    for experiment in config["experiments"].values():
        experiment["benchmarks"] = ["cut-test", "others-test"]
    plan = planning.load(config)
    job = job_of(plan, "plan_benchmarks", {"policy": "perpo"})
    assert job.inputs["crops"] == ["<results>/crops/tiny/shapes/salient.parquet"]
    assert {dataset: set(views["crops"]) for dataset, views in job.details["views"].items()} == {
        "shapes": {"salient"},
        "others": set(),
    }
