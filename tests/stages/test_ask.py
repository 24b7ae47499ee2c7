"""`perceptune ask`: the answer's log-prob against a forward pass, and the box in the image."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from perceptune.__main__ import main
from perceptune.commands import ask
from perceptune.commands.ask import Found, drawn
from perceptune.contracts.config import LoraBlock, ModelBlock, TrainingBlock
from perceptune.core.answers.boxes import UNREAD
from perceptune.core.data import shapes
from perceptune.engines.answering import Answerer
from perceptune.engines.training.trainer import with_adapter
from perceptune.engines.vllm.requests import Answer, Question
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, load_processor
from perceptune.planning import policies
from PIL import Image, ImageColor
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from tests.tiny_models import BUILDERS

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "resources/tiny-llava/model"
BLOCK = ModelBlock(path=str(MODEL), family="llava", dtype="float32", max_model_len=512)
CONFIG: dict[str, Any] = yaml.safe_load("""
models: {tiny: {path: model, family: llava, dtype: float32, max_model_len: 512}}
datasets: {shapes: {kind: shapes, train: {grounding: 8}, test: {grounding: 8}}}
samplings: {n8: {n: 8, max_tokens: 24}}
rewards: {all: {tasks: {grounding: iou}}}
selections: {ranked: {list_size: 8}}
trainings: {dpo: {method: dpo}}
benchmarks: {test: {dataset: shapes, reward: all, n: 0, max_tokens: 2, prompt: "{question} {format}"}}
experiments:
  dpo: {model: tiny, dataset: shapes, sampling: n8, reward: all, selection: ranked, training: dpo, benchmarks: [test]}
""")
SCENE, ROW = shapes.scene_and_row(0, "test", 0, "grounding")
QUESTION = ROW.question
NOTE = "the question is asked as it is, unlike those of `benchmarks.test` (see --like)\n"


@dataclass
class Printed:
    status: int
    lines: list[str]
    errors: str


Asked = Callable[..., Printed]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("model").symlink_to(MODEL)
    Path("my.yaml").write_text(yaml.safe_dump(CONFIG))
    shapes.render(SCENE).save("a.png")
    return tmp_path


@pytest.fixture
def asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> Asked:
    def run(policy: str = "tiny", *options: str, image: str = "a.png", question: str = QUESTION) -> Printed:
        capsys.readouterr()
        status = main(["ask", policy, image, question, "--config", "my.yaml", *options])
        printed = capsys.readouterr()
        return Printed(status, printed.out.splitlines(), printed.err)

    return run


def adapter_at(folder: Path) -> None:
    """A random adapter that changes answers."""
    training = TrainingBlock(method="dpo", lora=LoraBlock(r=4, alpha=8))
    adapted = with_adapter(load_model(BLOCK), training, family_of(BLOCK), BLOCK.path)
    generator = torch.Generator().manual_seed(0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.05
    adapted.save_pretrained(folder)


def logprob(answer: str, adapter: Path | None = None) -> tuple[float, int]:
    """Log-prob and length of an answer by transformers alone, without a cache, in float32."""
    processor = LlavaProcessor.from_pretrained(MODEL)
    model = LlavaForConditionalGeneration.from_pretrained(
        MODEL, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    if adapter is not None:
        model.load_adapter(str(adapter))
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    prompt = processor.apply_chat_template(turn, add_generation_prompt=True)
    special = not prompt.startswith(processor.tokenizer.bos_token)
    encoded = processor(images=Image.open("a.png"), text=prompt, return_tensors="pt", add_special_tokens=special)
    tokens = torch.tensor([[*processor.tokenizer(f" {answer}", add_special_tokens=False)["input_ids"], 2]])
    ids = torch.cat([encoded["input_ids"], tokens], dim=1)
    with torch.inference_mode():
        logits = model(input_ids=ids, pixel_values=encoded["pixel_values"]).logits[0].double()
    before = logits[encoded["input_ids"].shape[1] - 1 : -1].log_softmax(-1)
    return before.gather(1, tokens[0][:, None]).sum().item(), tokens.shape[1]


@pytest.mark.parametrize("policy", ["tiny", "dpo"])
def test_answer_logprob_and_box(asked: Asked, policy: str) -> None:
    adapter = Path("results/adapters/dpo")
    adapter_at(adapter)
    found = asked(policy)
    assert found.status == 0
    answer, measured, box, written = found.lines
    expected, length = logprob(answer, adapter if policy == "dpo" else None)
    total, mean = (float(value.split()[0]) for value in measured.removeprefix("log-prob ").split(", ")[:2])
    # four printed digits; float32 with a cache and without
    assert total == pytest.approx(expected, abs=2e-4)
    assert mean == pytest.approx(expected / length, abs=1e-4)
    assert measured.endswith(f" per token, {length} tokens")
    fractions = json.loads(answer)
    pixels = [112 * fraction for fraction in fractions]  # the image is square, so there is no padding
    assert box == f"box {', '.join(f'{value:.1f}' for value in pixels)} in pixels of 112 x 112"
    assert written == f"drawn into a-{policy}.png"
    before, after = (np.asarray(Image.open(name).convert("RGB"), dtype=int) for name in ("a.png", f"a-{policy}.png"))
    changed = (before != after).any(axis=-1)
    x1, y1, x2, y2 = map(round, pixels)
    outline = np.zeros((112, 112), dtype=bool)
    outline[y1:y2, x1:x2] = True
    outline[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] = False
    assert (changed <= outline).all()
    assert (after[outline] == (0xE6, 0x19, 0x4B)).all()


def test_sampled_answers_and_their_tokens(asked: Asked) -> None:
    drawn_twice = [asked("tiny", "--n", "3", "--temperature", "1.2", "--seed", seed, "--tokens") for seed in "556"]
    first, second, other = (found.lines for found in drawn_twice)
    assert first == second != other
    assert [line for line in first if line.startswith("answer ")] == ["answer 1:", "answer 2:", "answer 3:"]
    starts = [number for number, line in enumerate(first) if line.startswith("log-prob ")]
    assert len(starts) == 3
    for start in starts:
        total, _, count = first[start].removeprefix("log-prob ").split(", ")
        tokens = [line for line in first[start + 1 :] if line.startswith("  ")][: int(count.split()[0])]
        assert sum(float(line.split()[-1]) for line in tokens) == pytest.approx(float(total), abs=1e-3)


def test_an_answer_that_is_cut_off_has_no_box(asked: Asked) -> None:
    found = asked("tiny", "--max-tokens", "2", "--out", "boxes.png")
    assert found.lines[1].endswith(", 2 tokens; cut off there (--max-tokens)")
    assert len(found.lines) == 2
    assert found.errors.endswith("no box: expected four numbers in brackets; `boxes.png` is not written\n")
    assert not Path("boxes.png").exists()


def test_asking_like_a_block(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Question] = []

    class Stub:
        def __init__(self, *_: object) -> None:
            self.processor = None

        def answers(self, question: Question) -> list[Answer]:
            seen.append(question)
            return [Answer("nothing", [1, 2], [-0.25, -0.5], "stop", 9)]

    monkeypatch.setattr("perceptune.engines.answering.Answerer", Stub)
    found = asked("tiny", "--max-tokens", "9")
    assert found.errors == f"{NOTE}loading tiny\n{UNREAD}; no picture is drawn\n"
    found = asked("tiny", "--like", "benchmarks.test", "--task", "existence")
    assert found.lines == ["nothing", "log-prob -0.7500, -0.3750 per token, 2 tokens"]
    assert found.errors == "loading tiny\n"
    texts = [[item["text"] for item in question.messages[0]["content"]] for question in seen]
    assert texts == [[None, QUESTION], [None, f"{QUESTION} Answer only yes or no."]]
    assert [question.max_tokens for question in seen] == [9, 2]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["perpi"], "policy `perpi` does not exist, expected one of `tiny`, `dpo`"),
        (["models/tiny"], "policy `models/tiny` does not exist, expected one of `tiny`, `dpo`"),
        (
            ["dpo"],
            "policy `dpo` is not trained yet: `results/adapters/dpo/adapter_model.safetensors` does not exist in",
        ),
        (["tiny", "--n", "2"], "--n 2: greedy answers are all the same\nhint: add `--temperature 1`"),
        (["tiny", "--out", "a.jpg"], "--out: `a.jpg` expected to end in `.png`"),
        (["tiny", "--out", "a.png"], "--out: `a.png` is the image itself, expected another file"),
        (["tiny", "--out", "nowhere/b.png"], "--out: folder `"),
        (
            ["tiny", "--like", "benchmarks.tets"],
            "--like: `benchmarks.tets` does not exist, expected one of `benchmarks.",
        ),
        (
            ["tiny", "--like", "benchmarks.test"],
            "--task: the prompt of `benchmarks.test` contains `{format}`, expected",
        ),
        (["tiny", "--task", "ocr"], "--task: the prompt does not depend on the task"),
        (["tiny", "--directory", "nowhere"], "directory `nowhere` does not exist, expected the directory of a run"),
        (["tiny", "--config", "absent.yaml"], "config file `"),
    ],
)
def test_mistakes_are_found_before_a_model_is_loaded(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    monkeypatch.setattr("perceptune.engines.answering.Answerer", None)
    found = asked(*arguments)
    assert (found.status, found.lines) == (1, [])
    assert found.errors.startswith(f"error: {expected}")


def test_unusable_images_questions_models_and_adapters(asked: Asked) -> None:
    Path("text.png").write_text("no image")
    for image, expected in (
        ("text.png", "image `text.png`: the file is not an image that Pillow can read"),
        ("absent.png", "image `absent.png`: the file does not exist"),
    ):
        assert asked(image=image).errors == f"error: {expected}\n"
    assert asked(question=" ").errors == "error: the question is empty\n"
    for question, expected in (
        ("what </s>?", "the question contains the model's special token `</s>`"),
        ("x" * 600, "prompt of 669 tokens and 16 new ones exceed max_model_len 512"),
    ):
        assert asked(question=question).errors == f"{NOTE}loading tiny\nerror: {expected}\n"
    adapter_at(Path("results/adapters/dpo"))
    weights = Path("results/adapters/dpo/adapter_model.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    cut = asked("dpo")
    assert cut.errors.startswith(f"error: adapter `{weights}`: {len(whole) - 8} bytes, expected {len(whole)}")
    weights.write_bytes(whole)
    settings = weights.with_name("adapter_config.json")
    settings.write_text(settings.read_text().replace('"r": 4', '"r": 8'))  # as if of another model
    assert "error: adapter `results/adapters/dpo` cannot be loaded into model `model`: " in asked("dpo").errors
    Path("model").unlink()
    assert asked().errors.startswith("error: model folder `model`: `config.json` not found")


def test_a_policy_of_a_run_in_another_directory(asked: Asked, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "run").mkdir()
    (folder / "run/model").symlink_to(MODEL)
    adapter_at(folder / "run/results/adapters/dpo")
    found = asked("dpo", "--directory", "run", "--out", "here.png")
    assert found.status == 0
    assert (folder / "here.png").exists()


def test_rehearsals_and_rounds(asked: Asked, folder: Path) -> None:
    Path("my.yaml").write_text(yaml.safe_dump({**CONFIG, "rehearse": 2}))
    assert "`rehearsal/adapters/dpo/adapter_model.safetensors` does not exist" in asked("dpo").errors
    Path("resources").symlink_to(ROOT / "resources")
    shutil.copy(ROOT / "config/demo-rounds.yaml", "my.yaml")
    plan = policies.load(yaml.safe_load(Path("my.yaml").read_text()))
    experiment, *_ = plan.config.experiments
    last = f"{experiment}@{plan.config.experiments[experiment].rounds}"
    assert asked(experiment).errors.startswith(f"error: policy `{last}` is not trained yet: ")
    Path(f"results/adapters/{experiment}@1").mkdir(parents=True)
    Path(f"results/adapters/{experiment}@1/adapter_model.safetensors").touch()
    assert asked(experiment).errors.endswith(f"\nhint: trained are `{experiment}@1`\n")


@pytest.mark.parametrize(
    ("size", "text", "expected"),
    [
        # LLaVA: fractions of the square of side 200, of which the upper 50 rows are padding
        ((200, 100), "It is at [0.5, 0.5, 0.75, 0.75].", (100, 50, 150, 100)),
        ((100, 100), "<think>[0, 0, 1, 1]</think>(0.1, 0.2, 0.3, 0.4)", (10, 20, 30, 40)),
        ((100, 100), "nothing", None),
    ],
)
def test_boxes_in_pixels(size: tuple[int, int], text: str, expected: tuple[float, ...] | None) -> None:
    found = ask.box_in(text, BLOCK, size)
    assert found is None if expected is None else found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing", "no box: expected four numbers in brackets"),
        ("<think>[0.1, 0.2, 0.3, 0.4]", "no box: the answer ends within its reasoning"),
        ("[0.3, 0.2, 0.1, 0.4]", "the box is inverted or empty"),
    ],
)
def test_why_nothing_is_drawn(text: str, expected: str) -> None:
    assert ask.why_undrawn(text, BLOCK) == expected


def test_what_is_said_about_boxes() -> None:
    answer = Answer("text", [1], [-1.0], "stop", 9)
    said = [
        list(ask.described(answer, np.array(box), (100, 50)))[-1]
        for box in ((1.0, 2.0, 3.0, 4.25), (3.0, 2.0, 1.0, 4.0), (-1.0, 0.0, 100.0, 50.0))
    ]
    assert said == [
        "box 1.0, 2.0, 3.0, 4.2 in pixels of 100 x 50",
        "box 3.0, 2.0, 1.0, 4.0 in pixels of 100 x 50; it is inverted or empty, and not drawn",
        "box -1.0, 0.0, 100.0, 50.0 in pixels of 100 x 50; it extends beyond the image",
    ]


def test_several_boxes_have_their_own_colours() -> None:
    boxes = [Found(1, np.array([0.0, 0, 50, 50])), Found(3, np.array([60.0, 60, 200, 90])), Found(4, np.full(4, 500.0))]
    picture = Image.new("RGB", (100, 100), "white")
    found = drawn(picture, boxes)
    assert picture.getcolors() == [(10000, (255, 255, 255))]
    assert [found.getpixel(at) for at in ((0, 49), (49, 0), (60, 89), (99, 60))] == [
        *[ImageColor.getrgb(ask.COLOURS[0])] * 2,
        *[ImageColor.getrgb(ask.COLOURS[1])] * 2,
    ]


@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_logprobs_of_every_family(family: str, tmp_path: Path) -> None:
    """Those of generation with a cache, against a forward pass over prompt and answer."""
    BUILDERS[family](tmp_path / "model", 0)
    block = ModelBlock(path=str(tmp_path / "model"), family=family, dtype="float32")
    settings = json.loads((tmp_path / "model/generation_config.json").read_text())
    # what published models have, and the workflow does not use
    settings |= {"repetition_penalty": 3.0, "top_k": 1, "temperature": 0.01, "do_sample": True}
    (tmp_path / "model/generation_config.json").write_text(json.dumps(settings))
    messages = [{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "what is it?"}]}]
    picture = shapes.render(SCENE).resize((90, 60))
    (greedy,) = Answerer(block, None).answers(Question(messages, [picture], 1, 0.0, 1.0, 0, 6, 0))
    sampled = Answerer(block, None).answers(Question(messages, [picture], 3, 1.0, 1.0, 0, 6, 0))
    assert len({tuple(answer.token_ids) for answer in sampled}) > 1
    kind, processor, model = family_of(block), load_processor(block), load_model(block).eval()
    prefix = kind.prefix(processor, messages, [picture])
    for answer in (greedy, *sampled):
        inputs, last = kind.with_answer(model, prefix, answer.token_ids)
        with torch.no_grad():
            logits = model(**inputs).logits[0, last:-1].double()
        expected = logits.log_softmax(-1).gather(1, torch.tensor(answer.token_ids)[:, None])[:, 0]
        assert answer.logprobs == pytest.approx(expected.tolist(), abs=1e-4)
        if answer is greedy:
            logits[:, kind.placeholder_ids(processor)] = -torch.inf
            assert logits.argmax(-1).tolist() == answer.token_ids
