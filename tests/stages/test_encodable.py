"""Lists that cannot be encoded or learnt are left out with their reason before training."""

import hashlib
import io
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.config import ModelBlock, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe
from perceptune.engines.training.groups import Shown
from perceptune.stages.sampling.recipes import messages_for
from perceptune.stages.training.encodable import Prompts
from perceptune.stages.training.groups import KeptLists, kept_lists
from PIL import Image

from tests.tiny_models import BUILDERS

FAMILIES = ["llava", "llava_next", "llava_onevision", "qwen2_5_vl", "internvl"]
PLACEHOLDERS = {
    "llava": {"image": "<image>"},
    "llava_next": {"image": "<image>"},
    "llava_onevision": {"image": "<image>", "video": "<video>"},
    "qwen2_vl": {"image": "<|image_pad|>", "video": "<|video_pad|>"},
    "qwen2_5_vl": {"image": "<|image_pad|>", "video": "<|video_pad|>"},
    "qwen3_vl": {"image": "<|image_pad|>", "video": "<|video_pad|>"},
    "internvl": {"image": "<IMG_CONTEXT>", "video": "<video>"},
}
CHAT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SPECIALS = {
    "llava": ["<unk>", "<s>", "</s>", "<pad>"],
    "llava_next": ["<unk>", "<s>", "</s>", "<pad>"],
    "llava_onevision": CHAT,
    **{name: [*CHAT, "<|vision_start|>", "<|vision_end|>"] for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")},
    "internvl": ["<|endoftext|>", "<|im_end|>", "<img>", "</img>"],  # the tiny one lacks <|im_start|>
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


def written(folder: Path, **groups: dict[str, Any]) -> tuple[Path, Path]:
    """Tables of one group of one answer per name, with these changes: `question`, `sizes` of its
    images, a `target` (text or a box), and a `crop` as a view of its own."""
    examples, preferences = [], []
    for name, changes in groups.items():
        sizes, target = changes.get("sizes", ((64, 48),)), changes.get("target")
        box = target if isinstance(target, list) else None
        crop = changes.get("crop")
        images = [picture(size) for size in sizes]
        recipe = Recipe("enhanced", box=crop)
        examples.append({
            "example_id": name, "task": "open", "question": "?", "images": [{"bytes": one, "path": None} for one in images],
            "image_sha256": [hashlib.sha256(one).hexdigest() for one in images], "image_hashes": [], "image_sizes": [list(size) for size in sizes],
            "target": None if box else target, "box": box, "split": "train", "source": None, "reason": None,
        })  # fmt: skip
        messages = messages_for(changes.get("question", "what is it?"), Recipe("original"), len(sizes))
        own = {
            "view": "crop",
            "recipe": recipe.text(),
            "messages": messages_for("?", recipe, len(sizes)),
            "sha256": "0",
            "strength": 0.5,
        }
        preferences.append({
            "group_id": f"group-{name}", "example_id": name, "request_id": name, "task": "open", "view": "original", "messages": messages,
            "responses": [{"sample_index": 0, "text": "", "token_ids": [5, 6], "reward": 1.0, "role": None}],
            "views": [own] if crop else [], "pairs": [], "numbers": [], "kept": True, "reason": None,
        })  # fmt: skip
    write_table(folder / "examples.parquet", EXAMPLES, examples, {})
    write_table(folder / "preferences.parquet", PREFERENCES, preferences, {})
    return folder / "preferences.parquet", folder / "examples.parquet"


def picture(size: tuple[int, int]) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", size, "red").save(encoded, "PNG")
    return encoded.getvalue()


def read(folder: Path, prompts: Prompts, views: tuple[str, ...] = ("original",), **groups: dict[str, Any]) -> KeptLists:
    return kept_lists(*written(folder, **groups), views, {"crop": ViewBlock(type="blur")}, prompts)


def names(lists: KeptLists) -> list[str]:
    return [one.group_id.removeprefix("group-") for one in lists]


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


@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_reserved_tokens_in_questions_and_answers_are_named(family: str, prompts: Callable[[str], Prompts]) -> None:
    """In the question and in every kind of answer, with the same words."""
    of = prompts(family)
    assert of.family.placeholders(of.processor) == {token: kind for kind, token in PLACEHOLDERS[family].items()}
    assert len(of.family.placeholder_ids(of.processor)) == len(PLACEHOLDERS[family])
    expected = {token: kind for kind, token in PLACEHOLDERS[family].items()} | dict.fromkeys(
        SPECIALS[family], "special"
    )
    assert of.family.reserved(of.processor) == expected
    for token, kind in expected.items():
        contains = f"contains the model's {kind} token `{re.escape(token)}`"
        with pytest.raises(ValueError, match=f"^the question {contains}$"):
            of.family.prompt_ids(of.processor, messages_for(f"what is {token}?", Recipe("original"), 1))
        with pytest.raises(ValueError, match=f"^an answer {contains}$"):
            of.family.learnt_answer(of.processor, f"it is {token}.", 100)
        with pytest.raises(ValueError, match=f"^the ground truth {contains}$"):
            of.ground_truth({"box": None, "target": f"{token} cup"}, 20)
    assert of.family.learnt_answer(of.processor, "it.", 100) == of.family.answer_ids(of.processor, "it.")


@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_reserved_tokens_are_those_that_a_tokenizer_finds_in_plain_text(
    family: str, prompts: Callable[[str], Prompts]
) -> None:
    """All single tokens in the text of an answer that decoding hides, but for the family's markup."""
    of = prompts(family)
    tokenizer = of.processor.tokenizer
    found = set()
    for number, token in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))):
        whole = tokenizer(token, add_special_tokens=False)["input_ids"] == [number]
        if whole and not tokenizer.decode([number], skip_special_tokens=True):
            found.add(token)
    assert found - set(of.family.markup) == set(of.family.reserved(of.processor))


@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_escaped_text_has_no_reserved_token(family: str, prompts: Callable[[str], Prompts]) -> None:
    of = prompts(family)
    reserved = of.family.reserved(of.processor)
    text = "".join(f"{token}{token} a" for token in reserved)
    messages = messages_for(text, Recipe("original"), 1)
    (escaped,) = of.family.escaped(of.processor, messages)
    image, written = escaped["content"]
    assert image == {"type": "image", "text": None}
    assert written["text"].replace(" ", "") == text.replace(" ", "")
    tokens = of.family.prompt_ids(of.processor, [escaped])
    plain = of.family.prompt_ids(of.processor, messages_for("a", Recipe("original"), 1))
    ids = of.processor.tokenizer.convert_tokens_to_ids(list(reserved))
    assert {i: tokens.count(i) for i in ids} == {i: plain.count(i) for i in ids}


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_marks_of_boxes_are_part_of_texts(family: str, prompts: Callable[[str], Prompts]) -> None:
    of = prompts(family)
    marked = "<|object_ref_start|>cup<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>"
    of.family.prompt_ids(of.processor, messages_for(marked, Recipe("original"), 1))
    assert of.family.learnt_answer(of.processor, marked, 100) == of.family.answer_ids(of.processor, marked)
    example = {"box": [1.0, 2.0, 30.0, 40.0], "image_sizes": [[64, 48]], "target": None}
    assert of.ground_truth(example, 20)


def test_lists_that_cannot_be_encoded_are_left_out(
    tmp_path: Path, prompts: Callable[[str], Prompts], capsys: pytest.CaptureFixture[str]
) -> None:
    lists = read(
        tmp_path,
        prompts("qwen2_5_vl"),
        good={},
        video={"question": "<|video_pad|>?"},
        long={"sizes": [(1, 300)]},
        last={},
    )
    assert names(lists) == ["good", "last"]
    printed = capsys.readouterr().out
    assert "left out: list `group-video`: the question contains the model's video token `<|video_pad|>`\n" in printed
    assert "left out: list `group-long`: absolute aspect ratio must be smaller than 200" in printed
    assert "2 of 4 lists can be encoded; dropped: absolute aspect ratio must be" in printed


def test_every_view_of_a_list_counts(tmp_path: Path, prompts: Callable[[str], Prompts]) -> None:
    """The image is fine; its crop is too thin for the processor. Another list has another view."""
    of = prompts("qwen2_5_vl")
    thin = Shown(Recipe("enhanced", box=(0.0, 0.0, 400.0, 1.0)), messages_for("?", Recipe("original"), 2))
    for refuses in (of.length, of.check):
        with pytest.raises(ValueError, match="absolute aspect ratio"):
            refuses(thin, ((400, 90),))
    sized = {"sizes": [(400, 90)]}
    groups = {
        "good": sized,
        "thin": {**sized, "crop": (0.0, 0.0, 400.0, 1.0)},
        "wide": {**sized, "crop": (0.0, 0.0, 400.0, 80.0)},
    }
    lists = read(tmp_path, of, ("original", "crop"), **groups)
    assert names(lists) == ["good", "wide"]
    assert lists.ops == ["blur", "enhanced", "original"]
    assert names(read(tmp_path, of, **groups)) == ["good", "thin", "wide"]


@pytest.mark.parametrize("family", FAMILIES)
def test_lists_are_checked_as_the_tokenizer_would(family: str, prompts: Callable[[str], Prompts]) -> None:
    """Without it: any reserved token in any message, and images that the processor refuses."""
    of = prompts(family)
    texts = ["what is it?", "", *(f"a {token}" for token in of.family.reserved(of.processor)), "<unused>", "< image>"]
    for text, sizes in itertools.product(texts, [((64, 48),), ((1, 300),), ((64, 48), (30, 90)), ()]):
        view = Shown(Recipe("original"), messages_for(text, Recipe("original"), len(sizes)))
        refusals = []
        for refuses in (of.length, of.check):
            try:
                refuses(view, sizes)
                refusals.append(None)
            except ValueError as error:
                refusals.append(str(error))
        assert refusals[0] == refusals[1]


def test_no_list_left_is_one_line(tmp_path: Path, prompts: Callable[[str], Prompts]) -> None:
    question = {"question": "<image>"}
    reason = r"none of 2 lists can be encoded: the question contains the model's image token `<image>` \(2\)"
    with pytest.raises(UserError, match=reason):
        read(tmp_path, prompts("llava"), a=question, b=question)
    assert len(read(tmp_path, prompts("llava"))) == 0


def test_ground_truths_have_the_limits_of_given_answers(
    tmp_path: Path, prompts: Callable[[str], Prompts], capsys: pytest.CaptureFixture[str]
) -> None:
    of = prompts("llava")
    targets = {
        "good": "a cup",
        "box": [1.0, 2.0, 30.0, 40.0],
        "missing": None,
        "mark": "![a](<image>)",
        "end": "a cup</s>",
        "long": "ab" * 600,
    }
    lists = read(tmp_path, of, **{name: {"target": target} for name, target in targets.items()})
    made = lists.with_ground_truth("original", of)
    assert names(made) == ["good", "box"]
    assert made[0].responses == [of.family.answer_ids(of.processor, "a cup")]
    assert made[0].rewards == [1.0]
    assert made[0].reference is None
    assert list(made.ranks()) == [([1.0], {})] * 2
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "left out: list `group-missing`: no ground truth",
        "left out: list `group-mark`: the ground truth contains the model's image token `<image>`",
        "left out: list `group-end`: the ground truth contains the model's special token `</s>`",
        "left out: list `group-long`: prompt and ground truth exceed max_model_len",
        "2 of 6 lists have a ground truth to learn from; dropped: no ground truth (1), prompt and ground truth exceed"
        " max_model_len (1), the ground truth contains the model's image token `<image>` (1), the ground truth contains"
        " the model's special token `</s>` (1)",
    ]


def test_a_ground_truth_may_fill_the_context_to_its_last_token(
    tmp_path: Path, prompts: Callable[[str], Prompts]
) -> None:
    of = prompts("llava")
    question = Shown(Recipe("original"), messages_for("what is it?", Recipe("original"), 1))
    room = 512 - of.length(question, ((64, 48),))
    per_word = len(of.family.answer_ids(of.processor, "a a")) - len(of.family.answer_ids(of.processor, "a"))
    words = 1
    while len(of.family.answer_ids(of.processor, " ".join(["a"] * (words + 1)))) <= room:
        words += 1
    assert per_word > 0
    for count, kept in ((words, True), (words + 1, False)):
        lists = read(tmp_path, of, a={"target": " ".join(["a"] * count)}, b={"target": "b"})
        assert ("a" in names(lists.with_ground_truth("original", of))) == kept


def test_no_ground_truth_at_all_is_one_line(tmp_path: Path, prompts: Callable[[str], Prompts]) -> None:
    lists = read(tmp_path, prompts("llava"), a={}, b={})
    with pytest.raises(UserError, match=r"none of 2 lists have a ground truth to learn from: no ground truth \(2\)"):
        lists.with_ground_truth("original", prompts("llava"))
