"""`perceptune check` on data: what a run would leave out or stop at, and why."""

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from perceptune.__main__ import main
from perceptune.commands import data_check
from perceptune.contracts.config import FileDataset, LoraBlock, ModelBlock, ShapesDataset, TrainingBlock
from perceptune.engines.training.trainer import with_adapter
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model
from perceptune.planning.model_folders import adapter_parameters, tensors
from perceptune.stages.data import import_examples, make_shapes
from PIL import Image

from tests.tiny_models import BUILDERS

ROOT = Path(__file__).parents[2]
CONFIG: dict[str, Any] = yaml.safe_load("""
models: {tiny: {path: model, family: llava, dtype: float32, max_model_len: 512}}
datasets: {own: {kind: jsonl, path: own.jsonl}}
samplings: {n8: {n: 8, max_tokens: 24}}
rewards: {all: {tasks: {existence: yes_no, open: free_text}, max_failed_share: 0.6}}
selections: {ranked: {list_size: 8}}
trainings: {sft: {method: sft}}
benchmarks: {test: {dataset: own, reward: all, n: 4, max_tokens: 24}}
experiments:
  sft: {model: tiny, dataset: own, sampling: n8, reward: all, selection: ranked, training: sft, benchmarks: [test]}
""")
ROWS: list[dict[str, Any]] = [
    {"id": "good", "question": "is there a circle?", "answer": "a circle"},
    {"id": "asked", "question": "is there a </s> circle?", "answer": "no"},
    {"id": "again", "question": "no </s>", "answer": "no"},
    {"id": "image", "question": "is there a <pad> circle?", "answer": "no"},
    {"id": "long", "question": "x" * 600, "answer": "no"},
    {"id": "longer", "question": "x" * 700, "answer": "no"},
    {"id": "answer", "question": "is it?", "answer": "a <s>red</s> circle"},
    {"id": "page", "question": "is it?", "answer": "x" * 600},
    {"id": "none", "question": "is it?"},
    {"id": "test", "question": "what is in the picture?", "answer": "no", "split": "test"},
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(ROOT / "resources/tiny-llava/model")
    Image.new("RGB", (64, 48), "red").save("a.png")
    return tmp_path


def written(rows: list[dict[str, Any]]) -> None:
    Path("own.jsonl").write_text("\n".join(json.dumps({"image": "a.png", "task": "open", **row}) for row in rows))


def imported(rows: list[dict[str, Any]] = ROWS, config: dict[str, Any] = CONFIG) -> None:
    written(rows)
    block = FileDataset.model_validate(config["datasets"]["own"])
    import_examples.run(config=block, examples=Path("results/examples/own.parquet"))


Checked = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> Checked:
    """Exit status and lines, without the table of disk space."""

    def check(config: dict[str, Any] = CONFIG) -> tuple[int, list[str]]:
        Path("my.yaml").write_text(yaml.safe_dump(config))
        capsys.readouterr()
        status = main(["check", "my.yaml"])
        printed = capsys.readouterr()
        if status and not printed.out:
            return status, printed.err.splitlines()
        lines = printed.out.splitlines()
        place = next(n for n, line in enumerate(lines) if line.startswith("disk space"))
        return status, [*lines[:place], lines[-1]]

    return check


def changed(path: str, value: Any, config: dict[str, Any] = CONFIG) -> dict[str, Any]:
    made = copy.deepcopy(config)
    *outer, last = path.split(".")
    place = made
    for key in outer:
        place = place[key]
    place[last] = value
    return made


def test_every_row_that_will_be_left_out_is_counted_with_an_example(checked: Checked) -> None:
    imported()
    status, lines = checked()
    asked = "left out: `samplings.n8`, dataset `own`, model `tiny`: "
    learnt = "left out: experiment `sft`, dataset `own`, in training: "
    special = "contains the model's special token"
    # 793: 700 letters, 24 new tokens, 64 of the image, 5 of the template
    assert lines[:3] == [
        f"{asked}2 of 9 questions: the question {special} `</s>`, such as example `asked`; remove it to keep them",
        f"{asked}1 of 9 questions: the question {special} `<pad>`, such as example `image`; remove it to keep them",
        f"{asked}2 of 9 questions: prompt and `max_tokens` exceed `max_model_len`, such as example `long`;"
        " raise `models.tiny.max_model_len` (793 tokens are needed) or lower `max_tokens`",
    ]
    assert lines[3:-1] == [
        f"{learnt}1 of 9 questions: the ground truth {special} `<s>`, such as example `answer`; remove it to keep them",
        f"{learnt}1 of 9 questions: prompt and ground truth exceed max_model_len, such as example `page`;"
        " raise `models.tiny.max_model_len`",
        f"{learnt}1 of 9 questions: no ground truth, such as example `none`",
    ]
    assert (status, lines[-1]) == (0, "the config is valid: 1 experiment; nothing found that would stop the run")


def test_a_box_that_the_model_cannot_write_stops(checked: Checked) -> None:
    """That it is learnt is not known before the rows are."""
    written([*ROWS[:1], {**ROWS[6], "id": "boxed", "box": [1, 2, 30, 40]}, ROWS[-1]])
    status, lines = checked(changed("models.tiny.family", "auto"))
    about = "stops: experiment `sft`, dataset `own`, in training: example `boxed`: "
    assert lines[0] == f"{about}the model's boxes have no coordinate format; set `coordinates` in its block of `models`"
    assert (status, len(lines)) == (1, 2)
    assert checked(changed("models.tiny.coordinates", "thousand", changed("models.tiny.family", "auto")))[0] == 0


def test_more_than_the_reward_allows_stops(checked: Checked) -> None:
    imported()
    status, (line, *_, verdict) = checked(changed("rewards.all.max_failed_share", 0.02))
    assert line == (
        "stops: `rewards.all`: 40 of 72 answers to `samplings.n8` will be missing, at most a share of 0.02 may:"
        " scoring stops after all others are sampled; correct the rows, or raise the limit"
    )
    assert (status, verdict) == (1, "the config is valid: 1 experiment; the run would stop (1 reason above)")


def test_a_reward_that_needs_the_missing_ground_truth_stops(checked: Checked) -> None:
    imported()
    status, (line, *_, verdict) = checked(changed("rewards.all.tasks.open", "exact_match"))
    assert line == (
        "stops: `samplings.n8`: dataset `own`: 1 of 9 questions of task `open` have no `answer`, which reward `exact_match`"
        " needs, such as example `none`; add it to their rows, or leave them out: key `samplings.n8.tasks` selects the tasks"
    )
    assert (status, verdict) == (1, "the config is valid: 1 experiment; the run would stop (1 reason above)")


def test_nothing_to_report_is_one_line(checked: Checked) -> None:
    imported([ROWS[0], ROWS[-1]])
    assert checked() == (0, ["the config is valid: 1 experiment; nothing found that would stop the run"])


def test_nothing_left_to_train_on_stops(checked: Checked) -> None:
    imported([ROWS[1], ROWS[8], ROWS[9]])
    status, lines = checked()
    assert "stops: experiment `sft`, dataset `own`: no question is left to train on" in lines
    assert status == 1


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("rewards.all.tasks", {"existence": "yes_no"}, "stops: `samplings.n8`: dataset `own` has questions of task `open`, expected existence (the tasks of reward `all`); key `samplings.n8.tasks` selects the tasks"),
        ("samplings.n8.split", "trian", "stops: `samplings.n8`: dataset `own` has no examples of split `trian`; it has test/open, train/open; did you mean `train`?"),
        ("benchmarks.test.tasks", ["existence"], "stops: `benchmarks.test`: dataset `own` has no examples of split `test` and tasks existence"),
        ("models.tiny.path", "none", "stops: key `models.tiny.path`: `none` does not exist"),
        ("datasets.own.images", "none", "stops: key `datasets.own.images`: `none` does not exist (paths are relative to the working directory)"),
        ("datasets.own.max_images", 7, "the config is valid: 1 experiment; nothing found that would stop the run"),
    ],
)  # fmt: skip
def test_what_the_run_would_stop_at_is_said(checked: Checked, path: str, value: Any, expected: str) -> None:
    imported([ROWS[0], ROWS[-1]])
    status, lines = checked(changed(path, value))
    assert any(line.startswith(expected) for line in lines), lines
    assert status == int(expected.startswith("stops"))


def test_rows_are_checked_before_their_import_as_after_it(checked: Checked) -> None:
    written(ROWS)
    before = checked()
    assert not Path("results").exists()
    imported()
    assert checked() == before
    os.utime("own.jsonl")  # Snakemake does not import again, either
    assert checked() == before
    written(ROWS[:-1])
    status, lines = checked()
    assert (status, lines[0]) == (
        1,
        "stops: `benchmarks.test`: dataset `own` has no examples of split `test`; it has train/open;"
        " `test_share: 0.2` in the dataset block holds out a fifth of the images",
    )
    Path("results/examples/own.parquet").write_text("no table")
    assert checked()[1][0].startswith("not checked: dataset `own` has no usable table: `results/examples/own.parquet`")


def test_of_large_data_only_the_first_rows_are_checked(checked: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_check, "AT_ONCE", 4)
    monkeypatch.setattr(data_check, "SECONDS", 0)
    written(ROWS[:4])
    assert not any(line.startswith("not checked") for line in checked()[1])
    written(ROWS)
    then = "run `snakemake --cores all data`, then check again"
    assert checked() == (0, [
        f"not checked: dataset `own` is not imported yet, and has more than the 4 rows checked: {then}",
        "the config is valid: 1 experiment; nothing found that would stop the run, but not everything could be checked",
    ])  # fmt: skip
    written([{**ROWS[0], "task": "opne"}, *ROWS[1:]])
    wrong = "1 of 4 rows cannot be used, at most a share of {} may fail"
    status, lines = checked()
    assert (status, lines[0]) == (1, f"stops: `datasets.own`: {wrong.format(0)}")
    assert lines[1].startswith("  own.jsonl, line 1: `task` is 'opne', expected one of grounding, ")
    assert lines[1].endswith("; did you mean `open`?")
    status, lines = checked(changed("datasets.own.max_failed_share", 0.1))  # there may be many others
    assert (status, lines[0]) == (0, f"warning: `datasets.own`: {wrong.format(0.1)}")
    status, lines = checked(changed("datasets.own.max_failed_share", 0.5))
    assert (status, lines[0]) == (0, "left out: `datasets.own`: 1 of 4 rows, which cannot be used")


def test_data_dated_in_the_future_stops_its_import(checked: Checked) -> None:
    imported([ROWS[0], ROWS[-1]])
    os.utime("own.jsonl", (2**32, 2**32))
    status, lines = checked()
    assert (status, len(lines)) == (0, 2)
    assert lines[0].startswith("warning: key `datasets.own.path`: `own.jsonl` is dated in the future")
    written(ROWS)
    os.utime("own.jsonl", (2**32, 2**32))
    status, lines = checked()
    assert (status, len(lines)) == (1, 2)
    assert lines[0].startswith("stops: key `datasets.own.path`: `own.jsonl` is dated in the future")


def test_generated_data_is_compared_with_its_settings(checked: Checked) -> None:
    config = copy.deepcopy(CONFIG)
    config["datasets"]["own"] = {"kind": "shapes", "train": {"existence": 3}, "test": {"existence": 2}}
    data = Path("results/data/own/data.jsonl")
    make_shapes.run(config=ShapesDataset.model_validate(config["datasets"]["own"]), data=data)
    block = FileDataset(kind="jsonl", path=str(data), coordinates="pixels")
    import_examples.run(config=block, examples=Path("results/examples/own.parquet"))
    assert checked(config)[1][-1].endswith("nothing found that would stop the run")
    _, lines = checked(changed("datasets.own.train", {"existence": 4}, config))
    assert lines[0].startswith("not checked: dataset `own` has other settings since its import")


def test_damaged_weights_stop(checked: Checked, folder: Path) -> None:
    imported([ROWS[0], ROWS[-1]])
    shutil.copytree(ROOT / "resources/tiny-llava/model", "cut")
    file = Path("cut/model.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    status, lines = checked(changed("models.tiny.path", "cut"))
    assert lines[0].startswith("stops: model file `cut/model.safetensors`: ")
    assert lines[1] == "not checked: prompts of model `tiny`, whose folder cannot be used"
    assert status == 1


def test_dataset_preferences_are_those_of_the_stage(checked: Checked) -> None:
    config = copy.deepcopy(CONFIG)
    config["dataset_preferences"] = {"taken": {}}
    config["trainings"] = {"dpo": {"method": "dpo"}}
    config["experiments"] = {
        "dpo": {"model": "tiny", "dataset": "own", "dataset_preference": "taken", "training": "dpo", "benchmarks": []}
    }
    answers = [{"text": "a", "reward": 1}, {"text": "b</s>", "reward": 0}]
    rows = [{**row, "answers_given": [answers[0], {"text": "b", "reward": 0}]} for row in ROWS]
    rows[0]["answers_given"] = answers
    rows[6]["answers_given"] = [answers[0]]
    imported(rows)
    about = "left out: `dataset_preferences.taken`, dataset `own`: "
    status, lines = checked(config)
    assert lines[0].startswith(f"{about}1 of 9 lists: an answer contains the model's special token `</s>`, such as")
    assert any(line == f"{about}1 of 9 lists: one distinct answer, such as example `answer`" for line in lines)
    assert status == 0
    imported(ROWS)
    status, lines = checked(config)
    assert (
        "stops: `dataset_preferences.taken`, dataset `own`: no list is kept, so there is nothing to train on" in lines
    )
    assert status == 1


def test_pairs_need_room_for_image_and_crop(checked: Checked, folder: Path) -> None:
    """With the crop as a second image, prompts have 64 more tokens and a line break."""
    (folder / "resources").symlink_to(ROOT / "resources")
    config = yaml.safe_load((ROOT / "config/demo-p2dpo.yaml").read_text())
    config["datasets"] = {"own": CONFIG["datasets"]["own"]}
    config["benchmarks"]["shapes-p2-test"]["dataset"] = "own"
    config["rewards"]["perception"]["tasks"]["open"] = "exact_match"
    config["experiments"] = {"p2dpo": {**config["experiments"]["p2dpo"], "dataset": "own"}}
    room = 512 - 69 - 65 - 24  # image and template, crop, new tokens
    imported([ROWS[0], {"id": "wide", "question": "x" * room}, ROWS[-1]])
    assert checked(config) == (0, ["the config is valid: 1 experiment; nothing found that would stop the run"])
    rows = [{"id": "wide", "question": "x" * (room + 1)}]
    imported([ROWS[0], *rows, ROWS[-1]])
    status, lines = checked(config)
    assert lines[0].startswith(
        "left out: `pair_generations.self-made`, dataset `own`, model `tiny`: 1 of 2 questions: "
    )
    assert "exceed `max_model_len` in 1 of 4 prompts, such as example `wide`; raise" in lines[0]
    assert "`models.tiny.max_model_len` (513 tokens are needed)" in lines[0]
    assert (status, len(lines)) == (0, 2)
    imported([ROWS[1], ROWS[-1]])
    status, lines = checked(config)
    about = "stops: `pair_generations.self-made`, dataset `own`, model `tiny`: no question can be sampled: 1 of 1 questions: "
    assert lines[0].startswith(
        f"{about}the question contains the model's special token `</s>`, such as example `asked`"
    )
    assert (status, len(lines)) == (1, 2)


def test_images_that_a_processor_refuses_are_found_without_their_pixels(checked: Checked, folder: Path) -> None:
    model = {"path": str(BUILDERS["qwen2_5_vl"](folder / "qwen", 0)), "family": "qwen2_5_vl", "dtype": "float32"}
    Image.new("RGB", (300, 1), "red").save("line.png")
    imported([ROWS[0], {**ROWS[6], "image": "line.png"}, ROWS[-1]])
    _, lines = checked(changed("models.tiny", model))
    assert lines[0].startswith(
        "left out: `samplings.n8`, dataset `own`, model `tiny`: 1 of 2 questions: absolute aspect"
    )
    assert lines[0].endswith("got 300.0, such as example `answer`")


def test_a_round_with_more_questions_than_the_data_stops(checked: Checked) -> None:
    imported([ROWS[0], ROWS[-1]])
    config = copy.deepcopy(CONFIG)
    config["rollouts"] = {"g4": {"questions": 2, "n": 4, "max_tokens": 24}}
    config["batch_selections"] = {"every": {}}
    config["trainings"] = {"grpo": {"method": "grpo", "scheduler": "constant"}}
    config["experiments"] = {
        "grpo": {"model": "tiny", "dataset": "own", "rollout": "g4", "reward": "all", "batch_selection": "every", "rounds": 2,
                 "training": "grpo", "benchmarks": ["test"]}
    }  # fmt: skip
    status, lines = checked(config)
    assert lines[0].startswith(
        "stops: `rollouts.g4`: key `questions` of the rollout: 2 per round, but dataset `own` has 1"
    )
    assert status == 1


@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_sizes_of_adapters_are_those_of_peft(family: str, tmp_path: Path) -> None:
    folder = BUILDERS[family](tmp_path, 0)
    model = ModelBlock(path=str(folder), family=family, dtype="float32")
    for lora in (
        LoraBlock(r=3),
        LoraBlock(r=5, target_modules=("q_proj", "mlp.down_proj")),
        LoraBlock(
            r=2, parts=("language", "vision"), target_modules=("q_proj", "qkv" if family.startswith("qwen") else "fc1")
        ),
        LoraBlock(r=3, parts=("projector", "language", "vision"), use_dora=True),
        LoraBlock(r=3, parts=("projector", "vision"), full=("projector",)),
    ):
        base = load_model(model)
        assert sum(stored.count for stored in tensors(folder).values()) == sum(
            parameter.numel() for parameter in base.parameters()
        )
        adapted = with_adapter(base, TrainingBlock(method="dpo", lora=lora), family_of(model), "x")
        expected = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
        assert adapter_parameters(model, lora) == expected > 0


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_the_sampler_refuses_what_the_check_reports(family: str, tmp_path: Path) -> None:
    """The engine takes no part in this."""
    from perceptune.commands.preflight import PromptLengths
    from perceptune.core.views.view import Recipe
    from perceptune.engines.vllm.preparation import Preparer
    from perceptune.engines.vllm.requests import Question
    from perceptune.models.families.family import check_room
    from perceptune.stages.sampling.recipes import messages_for

    model = ModelBlock(path=str(BUILDERS[family](tmp_path, 0)), family=family, dtype="float32", max_model_len=400)
    prompts = PromptLengths(model)
    prepared = Preparer(model, 1)
    size = (90, 60)
    image, recipe = Image.new("RGB", size), Recipe("original")
    row = {"image_sizes": [size]}
    length = prompts.needed("what is it?", recipe, row)
    texts = ["what is it?", *(f"what {token}?" for token in prompts.family.reserved(prompts.processor))]
    texts += ["ab" * ((400 - length) // 2 - 10), "ab" * 300]
    for text in texts:
        said = []
        for refuse in (
            lambda text: check_room(prompts.needed(text, recipe, row), 20, model),
            lambda text: prepared(Question(messages_for(text, recipe, 1), [image], 1, 1.0, 1.0, 0, 20, 0)),
        ):
            try:
                refuse(text)
                said.append("")
            except ValueError as error:
                said.append(str(error))
        assert said[0] == said[1]
        assert bool(said[0]) == (text not in (texts[0], texts[-2]))
    judged = messages_for(" ".join(prompts.family.reserved(prompts.processor)), recipe, 1)
    prepared(Question(judged, [image], 1, 1.0, 1.0, 0, 20, 0, escaped=True))
