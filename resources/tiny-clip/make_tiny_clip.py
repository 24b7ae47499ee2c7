"""Trains the bundled tiny CLIP: does a question about coloured shapes fit an image, or a crop of it?

    python resources/tiny-clip/make_tiny_clip.py             # trains, saves, measures
    python resources/tiny-clip/make_tiny_clip.py --measure   # measures the saved model

The vision tower starts from the tiny LLaVA's, which has already learned to see shapes, colours and letters.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from perceptune.core import shapes
from perceptune.core.shapes import COLOURS, SHAPES, Scene
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers import models as tokenizer_models
from torch import Tensor
from torch.nn import functional
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    PreTrainedTokenizerFast,
)

from tests import tiny_models as tiny

HERE = Path(__file__).parent
SPECIALS = ("<unk>", "<pad>", "<s>", "</s>")
"""transformers treats an end-of-text token with id 2 as a mark of old CLIP files and pools elsewhere, so it has id 3 here."""
STEPS, BATCH, RATE = 1500, 48, 6e-4
LARGEST_SCALE = 20.0
"""Of the logits: a low one spreads matching and other pairs over a wide range of cosines."""

Box = tuple[int, int, int, int]
Kind = tuple[str, str]
"""Colour and shape; an empty colour stands for any."""


def text_of(kind: Kind, draw: random.Random) -> str:
    """A question that names the kind, as the shapes data asks it."""
    colour, shape = kind
    if not colour:
        return f"how many {shapes.plural(shape)} are there?"
    article = "an" if colour[0] in "aeiou" else "a"
    return draw.choice([f"locate the {colour} {shape}.", f"is there {article} {colour} {shape}?"])


def visible(scene: Scene, box: Box) -> list[Kind]:
    """Colour and shape of every object of which at least half lies in the box."""
    found = []
    for thing in scene.things:
        width = min(thing.box[2], box[2]) - max(thing.box[0], box[0])
        height = min(thing.box[3], box[3]) - max(thing.box[1], box[1])
        side = thing.box[2] - thing.box[0]
        if width > 0 and height > 0 and width * height >= side * side / 2:
            found.append((thing.colour, thing.shape))
    return found


def fits(kind: Kind, seen: Sequence[Kind]) -> bool:
    return any(shape == kind[1] and kind[0] in ("", colour) for colour, shape in seen)


def random_box(draw: random.Random) -> Box:
    """The whole image, or a square of 36 pixels and more."""
    size = shapes.IMAGE_SIZE
    if draw.random() < 0.35:
        return 0, 0, size, size
    side = draw.randint(36, size)
    x, y = draw.randint(0, size - side), draw.randint(0, size - side)
    return x, y, x + side, y + side


class Lessons:
    """Batches of image parts with texts, and which of them fit."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(f"clip/{seed}")
        self.scenes = [shapes.random_shapes_scene(random.Random(f"clip/{seed}/{i}"), 1 + i % 4) for i in range(4000)]
        self.pixels = [shapes.render(scene) for scene in self.scenes]

    def batch(self, size: int) -> tuple[list[Image.Image], list[str], Tensor]:
        """(image parts, twice as many texts, which fit: (size, texts) bool)."""
        parts, seen, kinds = [], [], []
        while len(parts) < size:
            number = self.draw.randrange(len(self.scenes))
            box = random_box(self.draw)
            there = visible(self.scenes[number], box)
            if not there:
                continue
            parts.append(self.pixels[number].crop(box))
            seen.append(there)
            colour, shape = self.draw.choice(there)
            kinds += [(colour if self.draw.random() < 0.8 else "", shape), self.other(there)]
        texts = [text_of(kind, self.draw) for kind in kinds]
        return parts, texts, torch.tensor([[fits(kind, there) for kind in kinds] for there in seen])

    def other(self, there: Sequence[Kind]) -> Kind:
        """A kind that is not there: right colour with another shape, or the other way round, or anything."""
        while True:
            colour, shape = self.draw.choice(there)
            any_colour, any_shape = self.draw.choice(list(COLOURS)), self.draw.choice(SHAPES)
            kind = self.draw.choice([(colour, any_shape), (any_colour, shape), (any_colour, any_shape)])
            if not fits(kind, there):
                return kind


def tokenizer() -> PreTrainedTokenizerFast:
    """The pieces of the tiny LLaVA, with the text between `<s>` and `</s>`."""
    pieces = [(special, 0.0) for special in SPECIALS] + tiny.llava_pieces()[len(tiny.LLAVA_SPECIALS) :]
    made = Tokenizer(tokenizer_models.Unigram(pieces, unk_id=0, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=True)
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", SPECIALS.index("<s>")), ("</s>", SPECIALS.index("</s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=77,
    )


def processor() -> CLIPProcessor:
    size = shapes.IMAGE_SIZE
    images = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    return CLIPProcessor(image_processor=images, tokenizer=tokenizer())


def untrained(seed: int) -> CLIPModel:
    """The model with the tiny LLaVA's vision tower."""
    torch.manual_seed(seed)
    vision = tiny.llava_config(tiny.LARGE).vision_config
    text = CLIPTextConfig(
        vocab_size=len(tokenizer()),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=SPECIALS.index("<s>"),
        eos_token_id=SPECIALS.index("</s>"),
        pad_token_id=SPECIALS.index("<pad>"),
    )
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=64))
    stored = load_file(HERE.parent / "tiny-llava" / "model" / "model.safetensors")
    tower = {name.partition("vision_model.")[2]: value for name, value in stored.items() if "vision_model." in name}
    missing, surplus = model.vision_model.load_state_dict(tower, strict=False)
    assert not missing, missing
    assert not surplus, surplus
    return model


def train(seed: int) -> CLIPModel:
    """Symmetric contrastive loss; where several texts fit an image, or several images a text, they share the target."""
    model, lessons, prepared = untrained(seed), Lessons(seed), processor()
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05, betas=(0.9, 0.98))
    started = time.time()
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 100, 2 * (1 - step / STEPS) + 0.02)
        images, texts, fit = lessons.batch(BATCH)
        inputs = prepared(text=texts, images=images, return_tensors="pt", padding=True)
        with torch.autocast("cpu", torch.bfloat16):
            output = model(**inputs)
        seen, said = (functional.normalize(e.float(), dim=-1) for e in (output.image_embeds, output.text_embeds))
        logits = seen @ said.T * model.logit_scale.exp().clamp(max=LARGEST_SCALE)
        found = fit.any(dim=0)  # a text that fits no image of the batch is only a wrong answer
        loss = shared_target(logits, fit) + shared_target(logits.T[found], fit.T[found])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % 50 == 0:
            seconds = time.time() - started
            left = seconds / (step + 1) * (STEPS - step - 1)
            print(f"step {step + 1}/{STEPS} loss {loss.item():.3f}, {seconds:.0f} s, {left:.0f} s left", flush=True)
    return model.eval()


def shared_target(logits: Tensor, fit: Tensor) -> Tensor:
    """Mean over rows of -log of the probability that all fitting columns have together, and of their even share."""
    logps = logits.log_softmax(dim=1)
    return -(logps * fit / fit.sum(dim=1, keepdim=True)).sum(dim=1).mean()


@torch.inference_mode()
def measured(folder: Path, count: int = 300) -> dict[str, float]:
    """On scenes that were not trained on, full images of 2 to 4 objects."""
    model, prepared = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    draw = random.Random("clip/held out")
    columns: dict[str, list[float]] = {name: [] for name in ("whole", "object", "away", "absent")}
    for number in range(count):
        scene = shapes.random_shapes_scene(random.Random(f"clip/held out/{number}"), 2 + number % 3)
        image, thing = shapes.render(scene), draw.choice(scene.things)
        tricky = shapes.adversarial_kinds(scene)
        absent = draw.choice(tricky) if tricky and number % 2 else shapes.random_absent_kind(draw, scene)
        around, away = square(thing.box), elsewhere(scene, thing.box, draw)
        texts = [text_of((thing.colour, thing.shape), draw), text_of(absent, draw)]
        inputs = prepared(
            text=texts, images=[image, image.crop(around), image.crop(away)], return_tensors="pt", padding=True
        )
        output = model(**inputs)
        seen, said = (functional.normalize(e, dim=-1) for e in (output.image_embeds, output.text_embeds))
        whole, near, far = (said[0] @ seen.T).tolist()
        columns["whole"].append(whole)
        columns["object"].append(near)
        columns["away"].append(far)
        columns["absent"].append(float(said[1] @ seen[0]))
    c = {name: np.array(values) for name, values in columns.items()}
    low, median, high = np.quantile(c["whole"], [0.25, 0.5, 0.75])
    positive = c["whole"] > 0
    return {
        "scenes": count,
        "AUC of present against absent kinds": float((c["whole"][:, None] > c["absent"][None]).mean()),
        "share where the object's crop is above the image": float((c["object"] > c["whole"]).mean()),
        "median ratio of the object's crop": float(np.median(c["object"][positive] / c["whole"][positive])),
        "share where another crop is below the image": float((c["away"] < c["whole"]).mean()),
        "median ratio of another crop": float(np.median(c["away"][positive] / c["whole"][positive])),
        "matching cosine, first quartile": float(low),
        "matching cosine, median": float(median),
        "matching cosine, third quartile": float(high),
    }


def square(box: Sequence[int], least: int = 40) -> Box:
    """A square of at least `least` pixels around the box, inside the image."""
    side = max(least, box[2] - box[0], box[3] - box[1])
    x, y = (min(max((box[a] + box[a + 2] - side) // 2, 0), shapes.IMAGE_SIZE - side) for a in (0, 1))
    return x, y, x + side, y + side


def elsewhere(scene: Scene, box: Sequence[int], draw: random.Random) -> Box:
    """A square of 40 pixels that shows at most a little of the box."""
    best, least = (0, 0, 40, 40), float("inf")
    for _ in range(50):
        x, y = draw.randint(0, shapes.IMAGE_SIZE - 40), draw.randint(0, shapes.IMAGE_SIZE - 40)
        overlap = max(0, min(box[2], x + 40) - max(box[0], x)) * max(0, min(box[3], y + 40) - max(box[1], y))
        if overlap < least:
            best, least = (x, y, x + 40, y + 40), overlap
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE / "model")
    parser.add_argument("--measure", action="store_true")
    settings = parser.parse_args()
    if not settings.measure:
        model = train(settings.seed)
        model.save_pretrained(settings.output)
        processor().save_pretrained(settings.output)
    print(json.dumps({name: round(value, 3) for name, value in measured(settings.output).items()}, indent=1))


if __name__ == "__main__":
    main()
