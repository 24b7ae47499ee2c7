"""Blocks that are valid alone, and fail together only after sampling."""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.errors import UserError
from perceptune.planning import policies
from perceptune.planning.cross_checks import equal_samples, trained_on_test

from tests.shipped import CONFIGS, raw_of

from .demo_configs import DEMO, P2DPO, ROUNDS, edited


def mistakes(*edits: tuple[str, Any], base: dict[str, Any] = DEMO) -> str:
    """What the plan says about a config with these edits; empty if it is valid."""
    config = copy.deepcopy(base)
    for path, value in edits:
        config = edited(path, value, config)
    try:
        policies.load(config)
    except UserError as error:
        return str(error)
    return ""


OCR = ("datasets.shapes.train", {"grounding": 3, "ocr": 3})


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ([("samplings.n20.n", 1)], "key `samplings.n20.n`: got `1`, expected at least the 2 of `selections.ranked.min_list_size`: a list needs several responses"),
        ([("samplings.n20.n", 4), ("selections.ranked.min_list_size", 5)], "key `samplings.n20.n`: got `4`, expected at least the 5 of"),
        ([("selections.ranked.list_size", 3), ("selections.ranked.min_list_size", 4)], "key `selections.ranked.list_size`: got `3`, expected at least the 4 of"),
        ([("samplings.n20.temperature", 0)], "key `samplings.n20.temperature`: got `0`, with which all responses to a question are equal"),
        ([("samplings.n20.top_k", 1)], "key `samplings.n20.top_k`: got `1`, with which all responses to a question are equal"),
        ([("samplings.n20.max_tokens", 512)], "key `samplings.n20.max_tokens`: got `512`, expected less than the 512 tokens of `models.tiny.max_model_len`"),
        ([("benchmarks.shapes-test.max_tokens", 9999)], "key `benchmarks.shapes-test.max_tokens`: got `9999`, expected less than"),
        ([OCR, ("rewards.perception.tasks", {"grounding": "iou"})], "key `rewards.perception.tasks`: no reward for task `ocr`, which `samplings.n20` asks questions of"),
        ([("samplings.n20.tasks", ["counting"]), ("datasets.shapes", {"kind": "jsonl", "path": "x"}), ("rewards.perception.tasks", {"grounding": "iou"})], "no reward for task `counting`, which `samplings.n20` asks"),
        ([("datasets.shapes.test", {"ocr": 3}), ("rewards.perception.tasks", {"grounding": "iou"})], "no reward for task `ocr`, which `benchmarks.shapes-test` asks"),
        ([("samplings.n20.split", "trian")], "key `samplings.n20.split`: dataset `shapes` has no questions of split `trian`"),
        ([("benchmarks.shapes-test.tasks", ["counting"])], "key `benchmarks.shapes-test.split`: dataset `shapes` has no questions of split `test` and tasks counting"),
    ],
)  # fmt: skip
def test_what_fails_only_after_sampling_is_said_first(edits: list[tuple[str, Any]], expected: str) -> None:
    assert expected in mistakes(*edits)


@pytest.mark.parametrize(
    ("base", "model", "expected"),
    [
        (DEMO, {"family": "auto"}, "key `models.tiny.coordinates`: missing, `family: auto` does not know how the model writes boxes, which `rewards.perception.tasks.grounding` reads"),
        (DEMO, {"family": "auto", "coordinates": "thousand"}, ""),
        (DEMO, {"family": "auto", "coordinates": "resized_pixels"}, "key `models.tiny.coordinates`: `resized_pixels` is for Qwen-VL families only, got `family: auto`"),
        (P2DPO, {"family": "auto", "coordinates": "thousand"}, "key `models.tiny.family`: `auto` has no attention maps, which `pair_generations.self-made.focus` needs for its crops"),
    ],
)  # fmt: skip
def test_what_a_family_lacks_is_said_first(base: dict[str, Any], model: dict[str, Any], expected: str) -> None:
    found = mistakes(("models.tiny", {**base["models"]["tiny"], **model}), base=base)
    assert found == expected or expected in found.split("\n  ")


def test_all_uses_of_attention_maps_are_said_for_a_family_without_them() -> None:
    model = ("models.tiny", {**P2DPO["models"]["tiny"], "family": "auto", "coordinates": "thousand"})
    about = "key `models.tiny.family`: `auto` has no attention maps, which"
    without = [("experiments", {"dpo": P2DPO["experiments"]["dpo"]}), ("exports", {}), ("reports", {})]
    without = [edit for edit in without if edit[0] in P2DPO]
    measured, views = "benchmarks.shapes-p2-test.attention_map", "benchmarks.shapes-p2-test.views"
    assert f"{about} `{measured}` measures" in mistakes(model, *without, base=P2DPO).split("\n  ")
    without.append((measured, None))
    assert about not in mistakes(model, *without, base=P2DPO)
    for key, value in ((views, ["original", "enhanced"]), ("samplings.n8.view", "enhanced")):
        found = mistakes(model, *without, (key, value), base=P2DPO)
        assert f"{about} `{key}` needs for the crops of view `enhanced`" in found.split("\n  ")


def test_boxes_to_learn_need_a_coordinate_format() -> None:
    learnt = (
        "trainings.perpo",
        {**DEMO["trainings"]["perpo"], "method": "sft", "parameters": {"source": "ground_truth"}},
    )
    auto = {**DEMO["models"]["tiny"], "family": "auto"}
    expected = "which `trainings.perpo` learns from the ground truths of `samplings.n20`"
    assert expected in mistakes(learnt, ("models.tiny", auto))
    assert expected not in mistakes(learnt, ("models.tiny", {**auto, "coordinates": "thousand"}))
    assert expected not in mistakes(learnt, ("models.tiny", auto), ("samplings.n20.tasks", ["ocr"]))
    imported = ("datasets.shapes", {"kind": "refer", "path": "x"})
    assert expected in mistakes(learnt, ("models.tiny", auto), imported)
    sampled = {**learnt[1], "parameters": {"source": "best_of_n"}}
    assert expected not in mistakes(("trainings.perpo", sampled), ("models.tiny", auto))


def test_pairs_and_rounds_and_judges_have_the_same_limit_of_tokens() -> None:
    limit = P2DPO["models"]["tiny"]["max_model_len"]
    key = "pair_generations.self-made.robust.rejected.max_tokens"
    assert f"key `{key}`: got `{limit}`, expected less than" in mistakes((key, limit), base=P2DPO)
    assert mistakes((key, limit - 1), base=P2DPO) == ""
    limit = ROUNDS["models"]["tiny"]["max_model_len"]
    assert "key `rollouts.g8.max_tokens`" in mistakes(("rollouts.g8.max_tokens", limit), base=ROUNDS)
    assert "key `rollouts.g8.top_k`: got `1`" in mistakes(("rollouts.g8.top_k", 1), base=ROUNDS)
    judged = [
        ("judges", {"local": {"model": "tiny", "max_tokens": 512}}),
        ("benchmarks.shapes-test", {"dataset": "shapes", "protocol": "mmhal", "judge": "local", "reward": "perception", "max_tokens": 9}),
    ]  # fmt: skip
    assert "key `judges.local.max_tokens`: got `512`, expected less than the 512 tokens" in mistakes(*judged)


def test_blocks_that_no_experiment_uses_may_be_anything() -> None:
    unused = {**DEMO["samplings"]["n20"], "n": 1, "max_tokens": 10**6, "split": "none"}
    assert mistakes(("samplings.later", unused)) == ""


def test_benchmarks_whose_samples_are_equal_are_said() -> None:
    def said(**settings: Any) -> list[str]:
        config = edited("benchmarks.shapes-test", {**DEMO["benchmarks"]["shapes-test"], **settings})
        return list(equal_samples(policies.load(config).config))

    assert said() == said(temperature=0, n=0) == said(top_k=1, n=1) == said(top_k=2) == []
    assert said(temperature=0) == [
        "key `benchmarks.shapes-test.temperature`: got `0`, with which all 20 sampled responses are equal; `n: 0` samples none"
    ]
    assert len(said(temperature=0, top_k=1)) == 2


def overlapping(config: dict[str, Any]) -> list[str]:
    return trained_on_test(policies.load(config).config)


def test_training_on_a_benchmarks_split_is_said(tmp_path: Path) -> None:
    assert overlapping(DEMO) == []
    trained = edited("samplings.n20.split", "test")
    lines = overlapping(trained)
    assert lines == [
        f"key `samplings.n20.split`: `test` is also the split of benchmark `shapes-test`; experiment `{name}` trains on its questions"
        for name in ("dpo", "perpo")
    ]
    apart = edited(
        "samplings.n20.tasks", ["grounding"], edited("datasets.shapes.test", {"grounding": 2, "ocr": 2}, trained)
    )
    assert overlapping(edited("benchmarks.shapes-test.tasks", ["ocr"], apart)) == []
    assert [line[:30] for line in overlapping(edited("rollouts.g8.split", "test", ROUNDS))] == [
        "key `rollouts.g8.split`: `test"
    ] * 3


def test_training_on_a_benchmarks_split_is_a_mistake_if_leakage_is_refused() -> None:
    split = ("samplings.n20.split", "test")
    assert "experiment `dpo` trains on its questions, but `leakage` is `refuse`" in mistakes(
        split, ("leakage", "refuse")
    )
    assert mistakes(split, ("leakage", "allow")) == mistakes(("leakage", "refuse")) == ""


def test_two_datasets_of_one_file_are_the_same_questions(tmp_path: Path) -> None:
    config = edited(
        "datasets", {n: {"kind": "jsonl", "path": f"{p}own.jsonl"} for n, p in (("one", ""), ("two", "./"))}
    )
    config["benchmarks"]["shapes-test"]["dataset"] = "two"
    for experiment in config["experiments"].values():
        experiment["dataset"] = "one"
    assert overlapping(config) == []
    assert len(overlapping(edited("samplings.n20.split", "test", config))) == 2


def split_of(paths: Iterable[Path]) -> list[str]:
    return [line for path in paths for line in overlapping(raw_of(path))]


def test_no_shipped_config_trains_on_its_test_questions() -> None:
    assert split_of(CONFIGS) == []
