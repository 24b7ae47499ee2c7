"""Lists that cannot be encoded or learnt are left out with their reason before training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe
from perceptune.engines.training.groups import RankedList, Shown
from perceptune.stages.sampling.recipes import messages_for
from perceptune.stages.training.encodable import Prompts, encodable, ground_truth_lists
from PIL import Image

from tests.tiny_models import BUILDERS

FAMILIES = ["llava", "llava_next", "llava_onevision", "qwen2_5_vl", "internvl"]
PLACEHOLDERS = {
    "llava": {"image": "<image>"},
    "llava_onevision": {"image": "<image>", "video": "<video>"},
    "qwen2_vl": {"image": "<|image_pad|>", "video": "<|video_pad|>"},
    "qwen2_5_vl": {"image": "<|image_pad|>", "video": "<|video_pad|>"},
    "qwen3_vl": {"image": "<|image_pad|>", "video": "<|video_pad|>"},
    "internvl": {"image": "<IMG_CONTEXT>", "video": "<video>"},
}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Prompts]:
    """Prompts of a tiny model of a family."""
    made: dict[str, Prompts] = {}

    def of(family: str) -> Prompts:
        if family not in made:
            folder = BUILDERS[family](tmp_path_factory.mktemp(family), 0)
            made[family] = Prompts(ModelBlock(path=str(folder), family=family, dtype="float32", max_model_len=512))
        return made[family]

    return of


def listed(name: str, text: str = "what is it?", *sizes: tuple[int, int], **views: Recipe) -> RankedList:
    """A list with one response, under the original view and `views`."""
    recipes = {"original": Recipe("original"), **views}
    sizes = sizes or ((64, 48),)
    return RankedList(
        group_id=name,
        images=[],
        views={view: Shown(recipe, messages_for(text, recipe, len(sizes))) for view, recipe in recipes.items()},
        responses=[[5, 6]],
        rewards=[1.0],
        sizes=sizes,
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sizes", [((64, 48),), ((300, 40),), ((64, 48), (30, 90)), ()])
def test_lengths_are_those_of_the_real_prompt(family: str, sizes: Any, prompts: Callable[[str], Prompts]) -> None:
    """For the original images, and with the crop of the first image as another one."""
    of = prompts(family)
    crop = Recipe("enhanced", box=(3.0, 4.0, 30.0, 40.0))
    for recipe in (Recipe("original"), crop):
        view = Shown(recipe, messages_for("what is it?", recipe, len(sizes)))
        pictures = shown(recipe, [Image.new("RGB", size, "red") for size in sizes])
        expected = of.family.prefix(of.processor, view.messages, pictures)["input_ids"].shape[1]
        assert [of.length(view, sizes) for _ in range(2)] == [expected] * 2


@pytest.mark.parametrize("family", sorted(PLACEHOLDERS))
def test_placeholders_in_questions_and_answers_are_named(family: str, prompts: Callable[[str], Prompts]) -> None:
    of = prompts(family)
    assert of.family.placeholders(of.processor) == {token: kind for kind, token in PLACEHOLDERS[family].items()}
    for kind, token in PLACEHOLDERS[family].items():
        with pytest.raises(ValueError, match=f"the question contains the model's {kind} token `"):
            of.family.prompt_ids(of.processor, messages_for(f"what is {token}?", Recipe("original"), 1))
        with pytest.raises(ValueError, match=f"an answer contains the model's {kind} token"):
            of.family.learnt_answer(of.processor, f"it is {token}.", 100)
    assert len(of.family.placeholder_ids(of.processor)) == len(PLACEHOLDERS[family])
    assert of.family.learnt_answer(of.processor, "it.", 100) == of.family.answer_ids(of.processor, "it.")


def test_lists_that_cannot_be_encoded_are_left_out(
    prompts: Callable[[str], Prompts], capsys: pytest.CaptureFixture[str]
) -> None:
    lists = [listed("good"), listed("video", "<|video_pad|>?"), listed("long", "what?", (1, 300)), listed("last")]
    assert [one.group_id for one in encodable(lists, prompts("qwen2_5_vl"))] == ["good", "last"]
    printed = capsys.readouterr().out
    assert "left out: list `video`: the question contains the model's video token `<|video_pad|>`\n" in printed
    assert "left out: list `long`: absolute aspect ratio must be smaller than 200" in printed
    assert "2 of 4 lists can be encoded; dropped: absolute aspect ratio must be" in printed


def test_every_view_of_a_list_counts(prompts: Callable[[str], Prompts]) -> None:
    """The image is fine; its crop is too thin for the processor."""
    thin = Recipe("enhanced", box=(0.0, 0.0, 400.0, 1.0))
    lists = [listed("good", "?", (400, 90)), listed("thin", "?", (400, 90), crop=thin)]
    with pytest.raises(ValueError, match="absolute aspect ratio"):
        prompts("qwen2_5_vl").length(lists[1].views["crop"], lists[1].sizes)
    assert [one.group_id for one in encodable(lists, prompts("qwen2_5_vl"))] == ["good"]


def test_no_list_left_is_one_line(prompts: Callable[[str], Prompts]) -> None:
    lists = [listed("1", "<image>"), listed("2", "<image>")]
    reason = r"none of 2 lists can be encoded: the question contains the model's image token `<image>` \(2\)"
    with pytest.raises(UserError, match=reason):
        encodable(lists, prompts("llava"))
    assert encodable([], prompts("llava")) == []


def truths(folder: Path, **targets: Any) -> tuple[Path, Path]:
    """The tables of one example per name, with this ground truth: text, a box, or None."""
    examples, preferences = [], []
    for name, target in targets.items():
        box = target if isinstance(target, list) else None
        examples.append({
            "example_id": name, "task": "open", "question": "?", "images": [{"bytes": b"", "path": None}], "image_sha256": ["0"],
            "image_sizes": [[64, 48]], "target": None if box else target, "box": box, "split": "train", "source": None, "reason": None,
        })  # fmt: skip
        preferences.append({
            "group_id": f"group-{name}", "example_id": name, "request_id": name, "task": "open", "view": "original", "messages": [],
            "responses": [], "views": [], "pairs": [], "numbers": [], "kept": True, "reason": None,
        })  # fmt: skip
    write_table(folder / "examples.parquet", EXAMPLES, examples, {})
    write_table(folder / "preferences.parquet", PREFERENCES, preferences, {})
    return folder / "preferences.parquet", folder / "examples.parquet"


def test_ground_truths_have_the_limits_of_given_answers(
    tmp_path: Path, prompts: Callable[[str], Prompts], capsys: pytest.CaptureFixture[str]
) -> None:
    of = prompts("llava")
    targets = {
        "good": "a cup",
        "box": [1.0, 2.0, 30.0, 40.0],
        "missing": None,
        "mark": "![a](<image>)",
        "long": "ab" * 600,
    }
    lists = [listed(f"group-{name}") for name in targets]
    made = ground_truth_lists(lists, *truths(tmp_path, **targets), "original", of)
    assert [one.group_id for one in made] == ["group-good", "group-box"]
    assert made[0].responses == [of.family.answer_ids(of.processor, "a cup")]
    assert made[0].rewards == [1.0]
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "left out: list `group-missing`: no ground truth",
        "left out: list `group-mark`: the ground truth contains the model's image token",
        "left out: list `group-long`: prompt and ground truth exceed max_model_len",
        "2 of 5 lists have a ground truth to learn from; dropped: no ground truth (1), prompt and ground truth exceed"
        " max_model_len (1), the ground truth contains the model's image token (1)",
    ]


def test_a_ground_truth_may_fill_the_context_to_its_last_token(
    tmp_path: Path, prompts: Callable[[str], Prompts]
) -> None:
    of, one = prompts("llava"), listed("group-a")
    room = 512 - of.length(one.views["original"], one.sizes)
    per_word = len(of.family.answer_ids(of.processor, "a a")) - len(of.family.answer_ids(of.processor, "a"))
    words = 1
    while len(of.family.answer_ids(of.processor, " ".join(["a"] * (words + 1)))) <= room:
        words += 1
    assert per_word > 0
    for count, kept in ((words, True), (words + 1, False)):
        tables = truths(tmp_path, a=" ".join(["a"] * count), b="b")
        made = ground_truth_lists([one, listed("group-b")], *tables, "original", of)
        assert ("group-a" in [m.group_id for m in made]) == kept


def test_no_ground_truth_at_all_is_one_line(tmp_path: Path, prompts: Callable[[str], Prompts]) -> None:
    lists = [listed("group-a"), listed("group-b")]
    with pytest.raises(UserError, match=r"none of 2 lists have a ground truth to learn from: no ground truth \(2\)"):
        ground_truth_lists(lists, *truths(tmp_path, a=None, b=None), "original", prompts("llava"))
