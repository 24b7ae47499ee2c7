"""The answer after a model's reasoning."""

import json
from pathlib import Path

import pytest
from perceptune.contracts.config import ModelBlock
from perceptune.core.answers.reasoning import COMMON, KNOWN, Reasoning, markers_in
from perceptune.models.reasoning import reasoning_of

TURNS = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
ASKED = TURNS + "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
THINKING = TURNS + "{% if add_generation_prompt %}{{ '<|assistant|>\n<think>\n' }}{% endif %}"


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>a cat?</think>a dog", "a dog"),
        ("<think>\na cat?\n</think>\n\nYes\n", "Yes"),
        ("a cat?</think>a dog", "a dog"),  # the prompt opened the reasoning
        ("<think>a</think>b<think>c</think>d", "d"),
        ("<think>all of it</think>", ""),
        ("<think>a cat, because", None),
        ("<think>a</think>b<think>c", None),
        ("Hm. <think>a", None),
        (" [1, 2] \n", " [1, 2] \n"),  # no marker: not even stripped
        ("a < b > c, think", "a < b > c, think"),
        ("", ""),
        ("<think>\na cat?\n</think>\n<answer>\na\ndog\n</answer>\n", "a\ndog"),
        ("<answer>B</answer>", "B"),
        ("<answer></answer>", ""),
        ("so <answer>B</answer>", "so <answer>B</answer>"),  # more than the tag
        ("<answer>A</answer><answer>B</answer>", "<answer>A</answer><answer>B</answer>"),
        ("<answer>B", "<answer>B"),
    ],
)
def test_answers_after_reasoning(response: str, answer: str | None) -> None:
    assert Reasoning().answer(response) == answer


@pytest.mark.parametrize(("opening", "closing"), KNOWN)
def test_all_known_markers(opening: str, closing: str) -> None:
    reasoning = Reasoning((opening, closing))
    assert reasoning.answer(f"{opening}no{closing}yes") == "yes"
    assert reasoning.answer(f"{opening}no") is None
    others = [pair for pair in KNOWN if pair[0] != opening]
    for other in others:
        text = f"{other[0]}no{other[1]}yes"
        assert reasoning.answer(text) == text


def test_a_prompt_that_opens_the_reasoning() -> None:
    """Without a closing marker, the whole response is reasoning."""
    reasoning = Reasoning(COMMON, opened=True)
    assert reasoning.answer("a cat, because") is None
    assert reasoning.answer("a cat?</think>a dog") == "a dog"


@pytest.mark.parametrize(
    ("template", "markers"),
    [("", None), (ASKED, None), (THINKING, COMMON), *((f"x{opening}y", (opening, _)) for opening, _ in KNOWN)],
)
def test_markers_that_a_template_mentions(template: str, markers: tuple[str, str] | None) -> None:
    assert markers_in(template) == markers


def block(folder: Path, **settings: object) -> ModelBlock:
    return ModelBlock(path=str(folder), family="llava", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", THINKING),
        ("chat_template.json", json.dumps({"chat_template": THINKING})),
        ("tokenizer_config.json", json.dumps({"chat_template": THINKING})),
        (
            "tokenizer_config.json",
            json.dumps(
                {"chat_template": [{"name": "tool", "template": "x"}, {"name": "default", "template": THINKING}]}
            ),
        ),
    ],
)
def test_the_models_chat_template_decides(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert reasoning_of(block(tmp_path)) == Reasoning(COMMON, opened=True)


@pytest.mark.parametrize(
    "template", [ASKED, "{{ of_transformers() }}", "{% broken", "{% generation %}{% endgeneration %}"]
)
def test_other_templates_open_nothing(tmp_path: Path, template: str) -> None:
    (tmp_path / "chat_template.jinja").write_text(template)
    assert reasoning_of(block(tmp_path)) == Reasoning(COMMON, opened=False)


def test_the_block_decides_before_the_template(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(f"[THINK]{ASKED}")
    assert reasoning_of(block(tmp_path)).markers == ("[THINK]", "[/THINK]")
    assert reasoning_of(block(tmp_path, reasoning=("<r>", "</r>"))).markers == ("<r>", "</r>")


def test_a_folder_without_template_has_the_common_markers(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("[]")
    assert reasoning_of(block(tmp_path)) == Reasoning()
