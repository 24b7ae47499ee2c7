"""Responses to rewards and preferences: chained small tables."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from perceptune.contracts.config import ModelBlock, RewardBlock, SelectionBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load
from perceptune.core.rewards.metrics import mean
from perceptune.core.rewards.reward import Answers, RewardMetric, Scores
from perceptune.stages.preferences import score
from transformers import Qwen2VLImageProcessor

from .scored_tables import REWARD, ROWS, Tables, example, request


def test_rewards_keep_every_row_in_order(tmp_path: Path) -> None:
    asked = [(request("box", 3), ["[0.1, 0.1, 0.5, 0.5]", "somewhere", None]), (request("there", 2), ["Yes.", "no"])]
    table = Tables(tmp_path, ROWS, asked).rewards(RewardBlock(tasks=REWARD.tasks, max_failed_share=0.5))
    assert table["request_id"].to_list() == ["mine/box/original/sampled"] * 3 + ["mine/there/original/sampled"] * 2
    assert table["reward"].to_list() == pytest.approx([1.0, 0.0, None, 1.0, 0.0])
    assert table["reason"].to_list() == [
        None,
        "no box: expected four numbers in brackets",
        "the file is empty",
        None,
        None,
    ]
    assert json.loads(table["parsed"][0])["box_pixels"] == [10, 10, 50, 50]


def test_an_image_that_the_processor_refuses_does_not_stop_the_stage(tmp_path: Path) -> None:
    """Its request has no response. The other image is resized to 112 x 112 pixels."""
    Qwen2VLImageProcessor().save_pretrained(tmp_path)
    rows = [ROWS[0], example("thin", "grounding", box=[0.0, 0, 9, 1], image_sizes=[[301, 1]])]
    tables = Tables(tmp_path, rows, [(request("box", 1), ["[11.2, 11.2, 56, 56]"]), (request("thin", 1), [None])])
    model = ModelBlock(path=str(tmp_path), family="qwen2_5_vl")
    table = tables.rewards(RewardBlock(tasks=REWARD.tasks, max_failed_share=0.5), model)
    assert table["reward"].to_list() == [pytest.approx(1.0), None]
    assert table["reason"].to_list() == [None, "the file is empty"]


def test_a_reward_that_is_not_finite_is_no_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets a reason, its group is not trained on, and the others are unaffected."""

    def broken(answers: Answers) -> Scores:
        values = np.array([np.nan if text == "oops" else 1.0 * (text == "yes") for text in answers.texts])
        return Scores(values, [None] * len(values), {"correct": values}, [None] * len(values))

    reward = replace(load("reward", "yes_no"), name="broken", score=broken, components=("correct",), metrics={
        "accuracy": RewardMetric(mean("correct"), "accuracy", component="correct")
    })  # fmt: skip
    monkeypatch.setattr(score, "load", lambda kind, name: reward if kind == "reward" else load(kind, name))
    rows = [*ROWS, example("far", "existence", target="yes")]
    tables = Tables(tmp_path, rows, [(request("there", 2), ["yes", "oops"]), (request("far", 2), ["yes", "no"])])
    table = tables.rewards()
    assert table["reward"].to_list() == [1.0, None, 1.0, 0.0]
    assert table["reason"].to_list() == [None, "the reward is nan, expected a finite number", None, None]
    kept, _ = tables.preferences(SelectionBlock())
    assert [(row["kept"], row["reason"]) for row in kept] == [(False, "one distinct answer"), (True, None)]


def test_too_many_missing_responses_stop_the_stage(tmp_path: Path) -> None:
    tables = Tables(tmp_path, ROWS, [(request("box", 2), ["[0.1, 0.1, 0.5, 0.5]", None])])
    with pytest.raises(
        UserError, match=r"1 of 2 responses are missing[\s\S]*request `mine/box/original/sampled`: the file is empty"
    ):
        tables.rewards()
    assert not tables["rewards"].exists()


def test_a_task_without_reward_is_named(tmp_path: Path) -> None:
    tables = Tables(tmp_path, ROWS, [(request("there", 1), ["yes"])])
    with pytest.raises(UserError, match="no reward for task `existence`"):
        tables.rewards(RewardBlock(tasks={"grounding": "iou"}))


def test_preferences_are_ranked_and_say_what_was_dropped(tmp_path: Path) -> None:
    texts = ["[0.1, 0.1, 0.5, 0.5]", "[0.1, 0.1, 0.5, 0.4]", "nonsense"]
    tables = Tables(tmp_path, ROWS, [(request("box", 3), texts[::-1]), (request("there", 2), ["yes", "yes"])])
    tables.rewards()
    rows, statistics = tables.preferences(SelectionBlock())
    assert [r["kept"] for r in rows] == [True, False]
    assert [r["text"] for r in rows[0]["responses"]] == texts
    assert [r["reward"] for r in rows[0]["responses"]] == pytest.approx([1.0, 0.75, 0.0])
    assert [r["token_ids"] for r in rows[0]["responses"]] == [[2], [1], [0]]
    assert rows[1]["reason"] == "one distinct answer"
    assert statistics["dropped"] == {"one distinct answer": 1}


def test_no_kept_list_is_a_clear_error(tmp_path: Path) -> None:
    tables = Tables(tmp_path, ROWS, [(request("there", 2), ["yes", "yes"])])
    tables.rewards()
    with pytest.raises(UserError, match=r"none of 1 lists is kept: one distinct answer \(1\)"):
        tables.preferences(SelectionBlock())


def test_no_kept_list_is_explained_by_answers_that_could_not_be_read(tmp_path: Path) -> None:
    texts = ["Q" * 100, "left", "top", "[0.1, 0.1, 0.5, 0.5]"]
    asked = [(request("box", 2), texts[:2]), (request("box", 3, condition="again"), [*texts[2:], None])]
    tables = Tables(tmp_path, ROWS[:1], asked)
    reasons = tables.rewards(REWARD.model_copy(update={"max_failed_share": 1.0}))["reason"].to_list()
    with pytest.raises(UserError) as caught:
        tables.preferences(SelectionBlock(min_list_size=3))
    assert caught.value.hint == (
        f'3 of 4 answers could not be read, most often: {reasons[0]}; for example "{"Q" * 80}...". '
        "Check `prompt` and `max_tokens` of the sampling"
    )
    assert "four numbers" in reasons[0]
    half = Tables(tmp_path, ROWS[:1], [(request("box", 2), texts[2:])])
    half.rewards()
    with pytest.raises(UserError, match="none of 1 lists is kept") as caught:
        half.preferences(SelectionBlock(min_list_size=3))
    assert caught.value.hint == "lower `min_margin` of the selection, or sample more answers"


def test_another_coordinate_format_is_reported_and_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A padded-square model writes fractions of the image, 100 x 50 pixels: [10, 10, 50, 40]."""
    wide = [example(f"box-{n}", "grounding", box=[10.0, 10, 50, 40], image_sizes=[[100, 50]]) for n in range(30)]
    asked = [(request(f"box-{n}", 1, "ref", "greedy"), ["[0.1, 0.2, 0.5, 0.8]"]) for n in range(30)]
    asked += [(request(f"box-{n}", 1, "ref"), ["[0.1, 0.45, 0.5, 0.65]"]) for n in range(30)]  # samples do not count
    table = Tables(tmp_path, wide, asked).rewards()
    # padded by 25 pixels at top and bottom: y spans -5 to 55, so the overlap is 40 x 30 of 40 x 60
    assert table["reward"][:30].to_list() == pytest.approx([0.5] * 30)
    said = capsys.readouterr().out
    assert "mean IoU of 30 boxes" in said
    assert "`padded_square` 0.500, `original` 1.000, `thousand` 0.000; declared: `padded_square`" in said
    assert "warning: the model's boxes look like `original`, not `padded_square`" in said
