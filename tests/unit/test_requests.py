"""The planned requests: which question goes to which policy, with which seed."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from perceptune.contracts.config import BenchmarkBlock, RolloutBlock, SamplingBlock, Task, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.core.benchmarks.control_prompts import FORMATS, asked_as, condition_of, number_of
from perceptune.stages.sampling import requests
from perceptune.stages.sampling.recipes import recipe_of
from perceptune.stages.training.round_status import Ending, Stop


def example(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "example_id": str(number), "task": "grounding", "question": f"locate {{thing}} {number}.", "images": [{"bytes": None, "path": "x"}],
        "image_sha256": [f"digest-{number}"], "image_hashes": [], "image_sizes": [[8, 8]], "target": None, "box": [0.0, 0.0, 4.0, 4.0],
        "split": "train", "source": None, "reason": None,
    }  # fmt: skip
    return {**row, **changes}


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    rows = [example(n) for n in range(4)]
    rows += [example(4, task="ocr"), example(5, split="test"), example(6, reason="broken")]
    write_table(tmp_path / "examples.parquet", EXAMPLES, rows, {})
    return tmp_path / "examples.parquet"


def samples(examples: Path, **settings: Any) -> list[dict[str, Any]]:
    target = examples.with_name("requests.parquet")
    requests.run_samples(dataset="mine", examples=examples, requests=target, config=SamplingBlock(**settings))
    return read_table(target, REQUESTS).to_pylist()


def test_requests_cover_the_valid_examples_of_the_split(examples: Path) -> None:
    rows = samples(examples, n=7, temperature=0.8)
    assert [r["example_id"] for r in rows] == ["0", "1", "2", "3", "4"]  # neither the test split nor the broken row
    assert {(r["n"], r["temperature"], r["condition"], r["view"]) for r in rows} == {(7, 0.8, "sampled", "original")}
    assert rows[0]["messages"] == [
        {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "locate {thing} 0."}]}
    ]


def test_a_dataset_without_a_usable_example_is_named(tmp_path: Path) -> None:
    write_table(tmp_path / "examples.parquet", EXAMPLES, [example(0, reason="broken")], {})
    with pytest.raises(UserError, match="dataset `mine` has no examples of split `train`; it has no usable ones"):
        samples(tmp_path / "examples.parquet")


def test_all_answers_of_a_benchmark_can_be_decoded_with_contrast(examples: Path) -> None:
    """Greedy, sampled and to other prompts; each against the same noise, which the seed of the view
    and the image determine."""
    views = {"noisy": ViewBlock(type="noise", parameters={"sigma": 0.4})}
    settings = {"view": "noisy", "strength": 1.0, "plausibility": 0.1}
    shared: dict[str, Any] = {
        "dataset": "mine",
        "reward": "r",
        "split": "train",
        "n": 3,
        "tasks": ("ocr",),
        "prompts": ("{question}!",),
    }
    blocks = {"plain": BenchmarkBlock(**shared), "vcd": BenchmarkBlock(**shared, contrast=settings)}
    target = examples.with_name("requests.parquet")
    requests.run_benchmarks(
        examples={"mine": examples}, requests=target, benchmarks=blocks, views={"mine": requests.Views(views)}
    )
    rows = read_table(target, REQUESTS).to_pylist()
    plain, vcd = ([row for row in rows if row["benchmark"] == name] for name in blocks)
    assert [row["condition"] for row in vcd] == ["greedy", "greedy", "sampled", condition_of(1)]
    assert [row["recipe"] for row in vcd] == [row["recipe"] for row in plain]
    assert {row["contrast"] for row in plain} == {None}
    expected = recipe_of("noisy", views, ["digest-4"], None)
    assert [row["contrast"] for row in vcd] == [{"recipe": expected.text(), "strength": 1.0, "plausibility": 0.1}] * 4


def test_base_models_get_additional_prompts_greedily_under_the_first_view(examples: Path) -> None:
    prompts = ("Look. {question}", "{question} {format}")
    block = BenchmarkBlock(
        dataset="mine", reward="r", split="train", n=2, prompts=prompts, prompt="{question} Please.", tasks=("ocr",)
    )
    target = examples.with_name("requests.parquet")
    requests.run_benchmarks(
        examples={"mine": examples}, requests=target, benchmarks={"b": block}, views={"mine": requests.Views()}
    )
    rows = read_table(target, REQUESTS).to_pylist()
    assert [(r["condition"], r["view"], r["n"], r["temperature"]) for r in rows] == [
        ("greedy", "original", 1, 0.0),
        ("greedy", "blank", 1, 0.0),
        ("sampled", "original", 2, 1.0),
        ("prompt-1", "original", 1, 0.0),
        ("prompt-2", "original", 1, 0.0),
    ]
    assert [r["messages"][0]["content"][1]["text"] for r in rows[2:]] == [
        "locate {thing} 4. Please.",
        "Look. locate {thing} 4.",
        "locate {thing} 4. Answer only with the text, exactly as it is written.",
    ]
    assert len({r["request_id"] for r in rows}) == 5


def test_conditions_of_prompts_are_numbered() -> None:
    assert [number_of(condition_of(n)) for n in (1, 2, 12)] == [1, 2, 12]
    assert [number_of(condition) for condition in ("greedy", "sampled", "round-3")] == [None] * 3


def test_every_task_has_words_for_its_format() -> None:
    assert set(FORMATS) == set(get_args(Task))
    assert (
        asked_as("{question} {format}", "Is {format} there?", "existence")
        == "Is {format} there? Answer only yes or no."
    )


def test_tasks_and_limits(examples: Path) -> None:
    assert [r["example_id"] for r in samples(examples, tasks=["ocr"])] == ["4"]
    assert [r["example_id"] for r in samples(examples, limit=2)] == ["0", "1", "4"]  # per task


def test_the_prompt_surrounds_the_question(examples: Path) -> None:
    text = samples(examples, prompt="{question} Answer with a box.")[0]["messages"][0]["content"][1]["text"]
    assert text == "locate {thing} 0. Answer with a box."


def test_seeds_depend_on_the_row_and_its_settings_not_on_its_place(examples: Path) -> None:
    all_rows = {r["example_id"]: r["seed"] for r in samples(examples)}
    few_rows = {r["example_id"]: r["seed"] for r in samples(examples, tasks=["ocr"])}
    assert len(set(all_rows.values())) == 5
    assert few_rows["4"] == all_rows["4"]
    assert samples(examples, seed=1)[0]["seed"] != all_rows["0"]
    assert samples(examples, temperature=0.5)[0]["seed"] != all_rows["0"]


def test_nothing_to_ask_says_what_there_is(examples: Path) -> None:
    with pytest.raises(
        UserError, match=r"no examples of split `dev` and tasks ocr; it has test/grounding, train/grounding, train/ocr"
    ):
        samples(examples, split="dev", tasks=["ocr"])


@pytest.mark.parametrize(
    ("kept", "split", "hint"),
    [
        ("train", "test", "`test_share: 0.2` in the dataset block holds out a fifth of the images"),
        ("train", "trian", "did you mean `train`?"),
        ("test", "train", None),
    ],
)
def test_a_missing_split_has_a_hint(examples: Path, kept: str, split: str, hint: str | None) -> None:
    write_table(examples, EXAMPLES, [example(0, split=kept)], {})
    with pytest.raises(UserError, match=f"no examples of split `{split}`") as stopped:
        samples(examples, split=split)
    assert stopped.value.hint == hint


def test_benchmarks_ask_greedily_under_each_view_and_sample_the_first(examples: Path) -> None:
    blocks = {
        "a": BenchmarkBlock(dataset="mine", reward="r", n=5),
        "b": BenchmarkBlock(dataset="mine", reward="r", split="train", tasks=("ocr",), n=0, views=("original",)),
    }
    target = examples.with_name("requests.parquet")
    requests.run_benchmarks(examples={"mine": examples}, requests=target, benchmarks=blocks, views={})
    rows = read_table(target, REQUESTS).to_pylist()
    assert [r["request_id"] for r in rows] == [
        "a/5/original/greedy",
        "a/5/blank/greedy",
        "a/5/original/sampled",
        "b/4/original/greedy",
    ]
    assert [(r["n"], r["temperature"]) for r in rows] == [(1, 0), (1, 0), (5, 1), (1, 0)]
    assert [r["benchmark"] for r in rows] == ["a", "a", "a", "b"]


def test_benchmarks_draw_as_their_block_says_and_only_the_sampled_answers(examples: Path) -> None:
    block = BenchmarkBlock(
        dataset="mine", reward="r", n=8, views=("original",), temperature=0.9, top_p=0.8, top_k=50, max_tokens=7
    )
    target = examples.with_name("requests.parquet")
    requests.run_benchmarks(examples={"mine": examples}, requests=target, benchmarks={"b": block}, views={})
    rows = read_table(target, REQUESTS).to_pylist()
    drawn = [[row[key] for key in ("n", "temperature", "top_p", "top_k", "max_tokens")] for row in rows]
    assert drawn == [[1, 0.0, 1.0, 0, 7], [8, 0.9, 0.8, 50, 7]]


HALLUSION = {
    "category": "VD", "subcategory": "chart", "set_id": "0", "figure_id": "1", "question_id": "0", "visual_input": "1",
    "gt_answer_details": "It is.",
}  # fmt: skip


def planned(examples: Path, rewards: dict[str, dict[str, str]], **block: Any) -> int:
    target = examples.with_name("requests.parquet")
    blocks = {"b": BenchmarkBlock(**{"dataset": "mine", "reward": "r", "n": 0, "views": ["original"], **block})}
    requests.run_benchmarks(examples={"mine": examples}, requests=target, benchmarks=blocks, views={}, rewards=rewards)
    return read_table(target, REQUESTS).num_rows


def test_tasks_without_a_reward_are_left_out(examples: Path) -> None:
    with pytest.raises(UserError) as caught:
        planned(examples, {"r": {"grounding": "iou", "counting": "exact_match"}}, split="train")
    assert str(caught.value) == (
        "error: benchmark `b`: dataset `mine` has questions of task `ocr`, expected grounding, counting (the tasks of reward `r`)\n"
        "hint: key `benchmarks.b.tasks` selects the tasks"
    )
    assert planned(examples, {"r": {"grounding": "iou"}}, split="train", tasks=["grounding"]) == 4


def test_questions_that_no_reward_will_score_are_refused_before_sampling(examples: Path) -> None:
    target = examples.with_name("requests.parquet")
    shared: dict[str, Any] = {"dataset": "mine", "examples": examples, "requests": target}
    tasks = {"both": {"grounding": "iou", "ocr": "free_text"}, "one": {"grounding": "iou"}}
    message = "error: dataset `mine` has questions of task `ocr`, expected grounding (the tasks of reward `one`)\nhint: key `tasks` of the {} selects the tasks"
    with pytest.raises(UserError) as caught:
        requests.run_samples(**shared, config=SamplingBlock(), rewards=tasks)
    assert str(caught.value) == message.format("sampling")
    with pytest.raises(UserError) as caught:
        requests.run_round(**shared, config=RolloutBlock(questions=2), number=1, before=None, rewards=tasks)
    assert str(caught.value) == message.format("rollout")
    assert not target.exists()
    requests.run_samples(**shared, config=SamplingBlock(tasks=("grounding",)), rewards=tasks)
    assert read_table(target, REQUESTS).num_rows == 4
    requests.run_samples(**shared, config=SamplingBlock(), rewards={"both": tasks["both"]})
    assert read_table(target, REQUESTS).num_rows == 5


def test_questions_without_the_ground_truth_that_a_reward_needs_are_refused_before_sampling(examples: Path) -> None:
    target = examples.with_name("requests.parquet")
    shared: dict[str, Any] = {"dataset": "mine", "examples": examples, "requests": target}
    rewards = {"read": {"grounding": "iou", "ocr": "edit_distance"}}
    message = "dataset `mine`: 1 of 1 questions of task `ocr` have no `answer`, which reward `edit_distance` needs, such as example `4`"
    with pytest.raises(UserError, match=message):
        requests.run_samples(**shared, config=SamplingBlock(), rewards=rewards)
    with pytest.raises(UserError, match=message):
        requests.run_round(**shared, config=RolloutBlock(questions=2), number=1, before=None, rewards=rewards)
    with pytest.raises(UserError, match=f"benchmark `b`: {message}"):
        planned(examples, {"r": rewards["read"]}, split="train")
    requests.run_samples(**shared, config=SamplingBlock(tasks=("grounding",)), rewards=rewards)
    assert read_table(target, REQUESTS).num_rows == 4


@pytest.mark.parametrize("missing", [None, "set_id", "category", "gt_answer_details"])
def test_examples_that_a_protocol_cannot_measure_are_rejected(tmp_path: Path, missing: str | None) -> None:
    source = json.dumps({key: value for key, value in HALLUSION.items() if key != missing})
    shared = {"task": "existence", "split": "test", "target": "yes", "box": None}
    rows = [example(0, source=json.dumps(HALLUSION), **shared), example(1, source=source, **shared)]
    write_table(tmp_path / "examples.parquet", EXAMPLES, rows, {})
    if missing is None:
        assert planned(tmp_path / "examples.parquet", {}, protocol="hallusionbench") == 2
        return
    with pytest.raises(
        UserError,
        match=f"benchmark `b`: dataset `mine`, example `1` has no `{missing}`, required by protocol `hallusionbench`",
    ):
        planned(tmp_path / "examples.parquet", {}, protocol="hallusionbench")
    assert planned(tmp_path / "examples.parquet", {}) == 2  # without a protocol nothing uses it


@pytest.mark.parametrize(
    ("protocol", "source", "missing"),
    [
        ("mathvista", {"choices": ["red", "blue"], "answer_type": "text", "precision": None, "metadata": {}}, "subtask"),
        ("mathvista", {"choices": [], "answer_type": "float", "subtask": "x"}, "precision"),
        ("mathverse", {"question_type": "free-form", "question_for_eval": "?", "problem_version": "Text Lite"}, "problem"),
        ("dynamath", {"seed_question": "1", "variant": 1}, "answer_type"),
        ("dynamath", {"answer_type": "float", "variant": 1}, "seed_question"),
        ("mathvision", {"level": 1}, "choices"), ("mmmu_pro", {"subject": "Art"}, "choices"),
        ("we_math", {"problem": "1"}, "key"), ("we_math", {"key": "2steps_1"}, "problem"), ("logicvista", {}, "skills"),
    ],
)  # fmt: skip
def test_a_mathematical_protocol_asks_rows_of_its_own_kind_only(
    tmp_path: Path, protocol: str, source: dict[str, Any], missing: str
) -> None:
    row = example(0, source=json.dumps(source), task="open", split="test", target="B", box=None)
    write_table(tmp_path / "examples.parquet", EXAMPLES, [row], {})
    with pytest.raises(UserError, match=f"example `0` has no `{missing}`, required by protocol `{protocol}`"):
        planned(tmp_path / "examples.parquet", {}, protocol=protocol)


def asked_in(examples: Path, number: int, before: Path | None = None, **settings: Any) -> list[dict[str, Any]]:
    target = examples.with_name(f"round-{number}.parquet")
    block = RolloutBlock(**{"questions": 2, "n": 3, "tasks": ["grounding"], **settings})
    requests.run_round(dataset="mine", examples=examples, requests=target, number=number, before=before, config=block)
    return read_table(target, REQUESTS).to_pylist()


def test_rounds_ask_every_question_once_before_any_comes_again(examples: Path) -> None:
    drawn = [[row["example_id"] for row in asked_in(examples, number)] for number in range(1, 7)]
    passes = [drawn[0] + drawn[1], drawn[2] + drawn[3], drawn[4] + drawn[5]]
    assert [sorted(names) for names in passes] == [["0", "1", "2", "3"]] * 3
    assert len({tuple(names) for names in passes}) > 1  # reshuffled


def test_a_round_does_not_depend_on_how_many_there_are_nor_on_the_order_of_the_examples(
    examples: Path, tmp_path: Path
) -> None:
    rows = read_table(examples, EXAMPLES).to_pylist()
    (tmp_path / "other").mkdir()
    write_table(tmp_path / "other/examples.parquet", EXAMPLES, rows[::-1], {})
    assert asked_in(examples, 3) == asked_in(tmp_path / "other/examples.parquet", 3)


def test_what_is_less_than_a_round_is_left_out_of_a_pass(examples: Path) -> None:
    drawn = [[row["example_id"] for row in asked_in(examples, number, questions=3)] for number in (1, 2)]
    assert [len(set(names)) for names in drawn] == [3, 3]
    assert drawn[0] != drawn[1]


def test_a_question_of_another_round_is_another_request(examples: Path) -> None:
    first, third = asked_in(examples, 1, questions=4), asked_in(examples, 3, questions=4)
    assert {row["condition"] for row in first} == {"round-1"}
    assert not {row["request_id"] for row in first} & {row["request_id"] for row in third}
    assert not {row["seed"] for row in first} & {row["seed"] for row in third}


def test_a_stopped_experiment_asks_nothing_more(examples: Path) -> None:
    ended, goes_on = examples.with_name("ended.json"), examples.with_name("goes-on.json")
    ended.write_text(Ending(3, Stop(2, "the loss grew")).text())
    goes_on.write_text(Ending(3).text())
    assert asked_in(examples, 4, ended) == []
    assert asked_in(examples, 4, goes_on) == asked_in(examples, 4) != []


def test_a_round_needs_as_many_examples_as_it_asks(examples: Path) -> None:
    with pytest.raises(
        UserError,
        match="key `questions` of the rollout: 5 per round, but dataset `mine` has 4 examples of split `train`",
    ):
        asked_in(examples, 1, questions=5)


def test_one_of_several_views_is_drawn_for_every_image_and_occasion() -> None:
    blocks = {
        "masked": ViewBlock(type="masked"),
        "zoomed": ViewBlock(type="zoom"),
        "removing": ViewBlock(choice=("masked", "zoomed")),
    }
    drawn = [recipe_of("removing", blocks, [f"digest-{i}"]) for i in range(400)]
    assert 150 < sum(recipe.op == "masked" for recipe in drawn) < 250
    assert drawn == [recipe_of("removing", blocks, [f"digest-{i}"]) for i in range(400)]
    rounds = [recipe_of("masked", blocks, ["digest-0"], occasion=[f"round-{i}"]) for i in range(9)]
    assert len({recipe.seed for recipe in rounds}) == 9
    assert {recipe.parameters["share"] for recipe in rounds} == {0.6}
