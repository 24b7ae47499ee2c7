"""The tiny models load unchanged in transformers, and the bundled one is capable but sloppy, as
documented.
"""

from pathlib import Path

import numpy as np
import pytest
from perceptune.core.answers.boxes import iou, parse_box
from perceptune.core.data import shapes
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests import tiny_models as tiny

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "resources/tiny-llava/model"


@pytest.mark.parametrize("build", list(tiny.BUILDERS.values()))
def test_builders_are_seeded_and_load(build, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    first, again, other = (build(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    weights = [(folder / "model.safetensors").read_bytes() for folder in (first, again, other)]
    assert weights[0] == weights[1] != weights[2]
    model = AutoModelForImageTextToText.from_pretrained(first)
    processor = AutoProcessor.from_pretrained(first)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "locate the red circle."}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    image = shapes.render(shapes.scene_and_row(0, "test", 0, "grounding")[0])
    inputs = processor(images=[image], text=[prompt], return_tensors="pt", add_special_tokens=False)
    made = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert 1 <= made.shape[1] - inputs["input_ids"].shape[1] <= 4
    assert "locate the red circle." in processor.decode(inputs["input_ids"][0])


@pytest.mark.parametrize("build", list(tiny.BUILDERS.values()))
def test_saved_names_lose_no_weight(build, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """transformers saves CLIP and SigLIP towers under names unknown to vLLM; saved models must load
    in both.
    """
    build(tmp_path, 5)
    _, report = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def test_the_bundled_model_is_small_and_of_the_real_architecture() -> None:
    assert sum(f.stat().st_size for f in BUNDLED.rglob("*")) < 20e6
    model = AutoModelForImageTextToText.from_pretrained(BUNDLED)
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert 1.5e6 <= sum(p.numel() for p in model.parameters()) <= 5e6


def test_answers_round_trip_through_the_tokenizer() -> None:
    tokenizer = tiny.llava_tokenizer()
    for text in (" [0.25, 0.31, 0.50, 0.62]", " jvfba lhyjme", " yes", " 3", " Ünknown {characters}\n"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


@pytest.mark.slow
def test_the_bundled_model_is_capable_but_sloppy() -> None:
    """Greedy, on 200 grounding scenes of a different seed than its training data: 35 to 70 % at IoU
    0.5.
    """
    model, processor = AutoModelForImageTextToText.from_pretrained(BUNDLED), AutoProcessor.from_pretrained(BUNDLED)
    processor.tokenizer.padding_side = "left"
    drawn = [shapes.scene_and_row(77, "test", index, "grounding") for index in range(200)]
    prompts = [f"<s>USER: <image>\n{row.question} ASSISTANT:" for _, row in drawn]
    images = [shapes.render(scene) for scene, _ in drawn]
    inputs = processor(images=images, text=prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    made = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    texts = processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    boxes = np.array([parse_box(text) or (0,) * 4 for text in texts], float) * shapes.IMAGE_SIZE
    accuracy = (iou(boxes, np.array([row.box for _, row in drawn], float)) >= 0.5).mean()
    assert 0.35 <= accuracy <= 0.70
