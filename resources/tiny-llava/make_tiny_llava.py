"""Makes the bundled model: a LLaVA-1.5 of 2.9 M parameters that can point and read, but learnt from sloppy annotators too.

    python resources/tiny-llava/make_tiny_llava.py --seed 0 --output resources/tiny-llava/model

Four stages, each with a fixed number of steps, so that the same seed gives the same model on the same machine. A killed run
goes on from the last finished stage (`--work`).
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, l1_loss, log_softmax
from transformers import LlavaForConditionalGeneration
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))
from lessons import COLOURS, PATCHES, SHAPES, Packed, Packer, Pool
from perceptune.core import shapes
from perceptune.core.boxes import iou, parse_box

from tests import tiny_models as tiny

STEPS = {"see": 2000, "speak": 1700, "bind": 450, "sloppy": 300}
"""Optimiser steps of each stage."""
FIND_LAYER = 2
"""Decoder layer whose heads are taught where to look; the layers before gather the question's words."""
SLOW_PLANES = (10, 11, 12, 13, 14, 15)
"""Rotary planes of a 32-wide head that hardly turn over the length of a prompt: only these can match contents."""


class Teacher(nn.Module):
    """The model with the helpers that are thrown away after training."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        config = tiny.llava_config(tiny.LARGE)
        config._attn_implementation = "sdpa"
        self.model = LlavaForConditionalGeneration(config)
        width = config.vision_config.hidden_size
        sizes = {"colour": len(COLOURS) + 1, "shape": len(SHAPES) + 1, "box": 4, "character": 27}
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
        self.packer = Packer()
        self.seen: dict[int, tuple[Tensor, tuple[Tensor, Tensor]]] = {}
        for number in range(FIND_LAYER + 1):
            self.decoder.layers[number].self_attn.register_forward_pre_hook(self._remember(number), with_kwargs=True)
        word = self.packer.tokenizer.convert_tokens_to_ids
        self.words = [torch.tensor([word(f"▁{name}") for name in names]) for names in (COLOURS, SHAPES)]
        self.letters = torch.tensor([word(letter) for letter in shapes.LETTERS])
        plurals = [word(f"▁{shapes.plural(name)}") for name in SHAPES]
        self.content_words = torch.cat([*self.words, torch.tensor(plurals)])

    @property
    def decoder(self) -> nn.Module:
        return self.model.model.language_model

    def _remember(self, number: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            self.seen[number] = (kwargs["hidden_states"], kwargs["position_embeddings"])

        return hook

    def patches(self, pixels: Tensor) -> Tensor:
        """Features of the layer that LLaVA reads, (B, 64, V)."""
        return self.model.model.vision_tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-2][:, 1:]

    def label_loss(self, features: Tensor, pool: Pool, scenes: Tensor, texts: Tensor) -> Tensor:
        """Colour, shape and box of the object under each patch; the character under each patch."""
        of_scenes, of_texts = features[: len(scenes)], features[len(scenes) :]
        colour, box = pool.colour[scenes], pool.box[scenes]
        on = colour < len(COLOURS)
        loss = cross_entropy(self.heads["colour"](of_scenes).flatten(0, 1).float(), colour.flatten())
        loss = loss + cross_entropy(self.heads["shape"](of_scenes).flatten(0, 1).float(), pool.shape[scenes].flatten())
        loss = loss + 5 * l1_loss(self.heads["box"](of_scenes).float()[on], box[on])
        characters = self.heads["character"](of_texts).flatten(0, 1).float()
        return loss + 2 * cross_entropy(characters, pool.character[texts].flatten())

    def word_loss(self, projected: Tensor, pool: Pool, scenes: Tensor, texts: Tensor) -> Tensor:
        """Pulls projected patches towards the embeddings of the words for what they show."""
        table = self.model.get_input_embeddings().weight
        colour, shape, letter = pool.colour[scenes], pool.shape[scenes], pool.character[texts]
        on, written = colour < len(COLOURS), letter < 26
        things = table[self.words[0][colour[on]]] + table[self.words[1][shape[on]]]
        of_scenes = cosine_similarity(projected[: len(scenes)][on].float(), things)
        of_texts = cosine_similarity(projected[len(scenes) :][written].float(), table[self.letters[letter[written]]])
        return 2 - of_scenes.mean() - of_texts.mean()

    def attention(self, layer: int, heads: Iterable[int], packed: Packed, row: Tensor, column: Tensor) -> Tensor:
        """Attention of chosen positions, (Q, heads, L), computed again from what the layer was given."""
        module, (hidden, (cosine, sine)) = self.decoder.layers[layer].self_attn, self.seen[layer]
        shape = (*hidden.shape[:2], -1, tiny.HEAD_SIZE)
        query, key = (f(hidden).view(shape).transpose(1, 2) for f in (module.q_proj, module.k_proj))
        query, key = apply_rotary_pos_emb(query, key, cosine, sine)
        chosen = list(heads)
        scores = torch.einsum("nhd,nhld->nhl", query[:, chosen][row, :, column].float(), key[:, chosen][row].float())
        return (scores / tiny.HEAD_SIZE**0.5 + packed.mask[row, 0, column][:, None]).softmax(-1)

    def look_loss(self, packed: Packed) -> tuple[Tensor, float]:
        """Cross-entropy of where the teaching heads look; and the share of attention on the asked object."""
        first, loss, on_object = self.packer.first_patch, torch.zeros(()), 0.0
        chosen = {False: ~packed.look_letters, True: packed.look_letters & (torch.rand(len(packed.look_row)) < 0.3)}
        for letters, heads in ((False, (0,)), (True, (3, 4))):
            at = chosen[letters]
            if not at.any():
                continue
            look = self.attention(FIND_LAYER, heads, packed, packed.look_row[at], packed.look_column[at])
            share = (look[:, :, first : first + PATCHES] * packed.look_patches[at][:, None]).sum(-1)
            loss = loss - (share + 1e-4).log().mean()
            on_object = on_object if letters else share.mean().item()
        row, column = packed.look_row[~packed.look_letters], packed.look_column[~packed.look_letters]
        content = torch.isin(packed.ids, self.content_words)[row]
        own = packed.branch[row] == packed.branch[row, column][:, None]
        for layer, heads in ((0, (0, 1)), (1, (0,))):
            share = (self.attention(layer, heads, packed, row, column) * (content & own)[:, None]).sum(-1)
            loss = loss - 0.5 * (share + 1e-4).log().mean()
        return loss, on_object

    def spoken(self, projected: Tensor, packed: Packed) -> Tensor:
        """Hidden states (B, L, D) of packed rows."""
        embedded = self.model.get_input_embeddings()(packed.ids)
        first = self.packer.first_patch
        embedded = torch.cat([embedded[:, :first], projected.to(embedded.dtype), embedded[:, first + PATCHES :]], dim=1)
        return self.decoder(
            inputs_embeds=embedded, attention_mask=packed.mask, position_ids=packed.positions, use_cache=False
        ).last_hidden_state

    def answer_loss(self, hidden: Tensor, packed: Packed, sigma: float) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy with soft coordinates; the first coordinate, which needs the right object, counts twice."""
        logits = self.model.lm_head(hidden[packed.row, packed.column]).float()
        soft = self.packer.soft_targets(packed.target, logits.shape[-1], sigma)
        losses = -(soft * log_softmax(logits, dim=-1)).sum(-1)
        zero = self.packer.tokenizer.convert_tokens_to_ids("0.00,")
        coordinates = [self.packer.coordinate_of.get(token, (-1, 0))[0] for token in packed.target.tolist()]
        box, first = (torch.tensor([test(c) for c in coordinates]) for test in (lambda c: c >= 0, lambda c: c == zero))
        parts = {"box": losses[box].mean(), "first": losses[first].mean(), "other": losses[~box].mean()}
        return sum(parts.values(), torch.zeros(())), {name: value.item() for name, value in parts.items()}


class Course:
    """The stages, with one optimiser each."""

    def __init__(self, teacher: Teacher, seed: int) -> None:
        self.teacher = teacher
        self.pool = Pool(seed, 24000, 10000)
        self.draw, self.numbers = random.Random(seed), np.random.default_rng(seed)

    def batch(self, scenes: int, texts: int) -> tuple[Tensor, Tensor]:
        pick = self.numbers.integers
        return torch.tensor(pick(0, len(self.pool.scenes), scenes)), torch.tensor(pick(0, len(self.pool.texts), texts))

    def run(self, stage: str, rate: float, step: Callable[[float], tuple[Tensor, dict[str, float]]]) -> None:
        """AdamW with warm-up, constant rate and linear decay over the second half; one line every 50 steps."""
        parameters = list(self.teacher.parameters())
        optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
        started, total = time.time(), STEPS[stage]
        for number in range(total):
            done = number / total
            for group in optimiser.param_groups:
                group["lr"] = rate * min(1.0, (number + 1) / 50, 2 * (1 - done) + 0.02)
            with torch.autocast("cpu", torch.bfloat16):
                loss, described = step(done)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            if (number + 1) % 50 == 0:
                seconds = time.time() - started
                left = seconds / (number + 1) * (total - number - 1)
                values = ", ".join(f"{name} {value:.3f}" for name, value in described.items())
                print(f"{stage} {number + 1}/{total} {values}, {seconds:.0f} s, {left:.0f} s left", flush=True)

    def see(self, _: float) -> tuple[Tensor, dict[str, float]]:
        """Patch labels only: what is where."""
        scenes, texts = self.batch(32, 24)
        loss = self.teacher.label_loss(self.teacher.patches(self.pool.pixels(scenes, texts)), self.pool, scenes, texts)
        return loss, {"loss": loss.item()}

    def speak(
        self, scene_count: int, text_count: int, sloppiness: float
    ) -> Callable[..., tuple[Tensor, dict[str, float]]]:
        """Questions and answers, with patch labels, word embeddings and attention as side lessons."""

        def step(done: float) -> tuple[Tensor, dict[str, float]]:
            scenes, texts = self.batch(scene_count, text_count)
            asked = [self.pool.scene_questions(int(i), self.draw, sloppiness) for i in scenes]
            asked += [self.pool.text_questions(int(i), self.draw, sloppiness) for i in texts]
            packed = self.teacher.packer.packed(asked)
            features = self.teacher.patches(self.pool.pixels(scenes, texts))
            projected = self.teacher.model.model.multi_modal_projector(features)
            hidden = self.teacher.spoken(projected, packed)
            sigma = 1.5 if done < 0.7 and not sloppiness else 0.7
            loss, described = self.teacher.answer_loss(hidden, packed, sigma)
            look, on_object = self.teacher.look_loss(packed)
            loss = loss + (0.1 if sloppiness else 0.5) * look
            loss = loss + 0.2 * self.teacher.word_loss(projected, self.pool, scenes, texts)
            loss = loss + 0.2 * self.teacher.label_loss(features, self.pool, scenes, texts)
            return loss, {**described, "on object": on_object}

        return step

    @torch.no_grad()
    def bind(self, scale: float = 60.0) -> None:
        """Gives one head the question-to-object match, in closed form; gradient descent alone takes very long to find it.

        Two ridge regressions, from what the layer is given: patches to the colour and shape that they show (text tokens to
        nothing), and first answer positions to the colour and shape that are asked for. As key and query matrices of head
        0, in the slow rotary planes, their product is large where both agree.
        """
        keys: list[tuple[Tensor, Tensor]] = []
        queries: list[tuple[Tensor, Tensor]] = []
        kinds = len(COLOURS) + len(SHAPES)
        first = self.teacher.packer.first_patch
        for _ in range(12):
            scenes, texts = self.batch(32, 4)
            asked = [self.pool.scene_questions(int(i), self.draw, 0.0) for i in scenes]
            asked += [self.pool.text_questions(int(i), self.draw, 0.0) for i in texts]
            packed = self.teacher.packer.packed(asked)
            features = self.teacher.patches(self.pool.pixels(scenes, texts))
            self.teacher.spoken(self.teacher.model.model.multi_modal_projector(features), packed)
            hidden = self.teacher.seen[FIND_LAYER][0]
            shown = torch.zeros(len(asked), PATCHES, kinds + 2)
            colour, shape = self.pool.colour[scenes], self.pool.shape[scenes]
            shown[: len(scenes)].scatter_(2, colour.clamp(max=len(COLOURS) - 1)[..., None], 1)
            shown[: len(scenes)].scatter_(2, len(COLOURS) + shape.clamp(max=len(SHAPES) - 1)[..., None], 1)
            shown[: len(scenes)][colour == len(COLOURS)] = 0
            keys.append((hidden[:, first : first + PATCHES].flatten(0, 1), shown[..., :kinds].flatten(0, 1)))
            words = packed.branch > 0
            keys.append((hidden[words], torch.zeros(int(words.sum()), kinds)))
            for number, index in enumerate(scenes.tolist()):
                for branch, thing in enumerate(self.pool.scenes[index].things, 1):
                    column = (packed.branch[number] == branch) & (packed.ids[number] == self._colon())
                    label = torch.zeros(kinds)
                    label[COLOURS.index(thing.colour)] = label[len(COLOURS) + SHAPES.index(thing.shape)] = 1
                    queries.append((hidden[number, column], label[None]))
        attention = self.teacher.decoder.layers[FIND_LAYER].self_attn
        half = tiny.HEAD_SIZE // 2
        rows = [*SLOW_PLANES, *(plane + half for plane in SLOW_PLANES)]
        for linear, pairs, damping in ((attention.k_proj, keys, 1e-3), (attention.q_proj, queries, 1e-2)):
            inputs, labels = (torch.cat(part).float() for part in zip(*pairs, strict=True))
            gram = inputs.T @ inputs / len(inputs) + damping * torch.eye(inputs.shape[1])
            linear.weight[: tiny.HEAD_SIZE] = 0
            linear.weight[rows] = torch.linalg.solve(gram, inputs.T @ labels / len(inputs)).T * scale**0.5

    def _colon(self) -> int:
        """The prompt's last token, which predicts the first of the answer."""
        return self.teacher.packer.encoded("x ASSISTANT:")[-1]


@torch.no_grad()
def measured(teacher: Teacher, count: int, seed: int) -> str:
    """Greedy results on `count` validation scenes per task, in words."""
    from transformers import LlavaProcessor

    processor: LlavaProcessor = tiny.llava_processor()
    processor.tokenizer.padding_side = "left"
    teacher.model.eval()
    answers: dict[str, list[tuple[str, shapes.Row]]] = {}
    for task in shapes.TASKS:
        drawn = [shapes.scene_and_row(seed, "validation", index, task) for index in range(count)]
        for start in range(0, count, 50):
            part = drawn[start : start + 50]
            prompts = [f"<s>USER: <image>\n{row.question} ASSISTANT:" for _, row in part]
            images = [shapes.render(scene) for scene, _ in part]
            inputs = processor(images=images, text=prompts, return_tensors="pt", padding=True, add_special_tokens=False)
            made = teacher.model.generate(**inputs, max_new_tokens=28, do_sample=False)
            texts = processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            answers.setdefault(task, []).extend((t.strip(), row) for t, (_, row) in zip(texts, part, strict=True))
    teacher.model.train()
    boxes = np.array([parse_box(text) or (0,) * 4 for text, _ in answers["grounding"]], float) * shapes.IMAGE_SIZE
    overlaps = iou(boxes, np.array([row.box for _, row in answers["grounding"]], float))
    distances = [Levenshtein.normalized_distance(text, row.answer) for text, row in answers["ocr"]]
    right = {t: np.mean([text == row.answer for text, row in answers[t]]) for t in ("existence", "counting")}
    return (
        f"{count} validation scenes per task, greedy: accuracy at IoU 0.5 {(overlaps >= 0.5).mean():.3f}, "
        f"mean IoU {overlaps.mean():.3f}, NED {np.mean(distances):.3f}, "
        + ", ".join(f"{task} {re.sub(r'^0', '', f'{value:.2f}')}" for task, value in right.items())
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--work", type=Path, default=Path("results/tiny-llava"), help="checkpoints of finished stages")
    parser.add_argument("--sloppiness", type=float, default=0.75, help="share of sloppy answers in the last stage")
    settings = parser.parse_args()
    settings.work.mkdir(parents=True, exist_ok=True)
    started = time.time()
    teacher = Teacher(settings.seed)
    course = Course(teacher, settings.seed)
    stages: dict[str, Callable[[], None]] = {
        "see": lambda: course.run("see", 1.5e-3, course.see),
        "speak": lambda: course.run("speak", 1e-3, course.speak(24, 16, 0.0)),
        "bind": lambda: (course.bind(), course.run("bind", 1e-3, course.speak(32, 8, 0.0)))[1],
        "sloppy": lambda: course.run("sloppy", 5e-4, course.speak(32, 16, settings.sloppiness)),
    }
    for stage, train in stages.items():
        checkpoint = settings.work / f"{stage}.pt"
        if checkpoint.exists():
            state = torch.load(checkpoint, weights_only=False)
            teacher.load_state_dict(state["teacher"])
            course.draw.setstate(state["draw"])
            course.numbers.bit_generator.state = state["numbers"]
            torch.set_rng_state(state["torch"])
            print(f"{stage}: done before", flush=True)
            continue
        train()
        print(f"{stage}: {measured(teacher, 200, settings.seed + 1)}, {time.time() - started:.0f} s", flush=True)
        state = {"teacher": teacher.state_dict(), "torch": torch.get_rng_state()}
        state |= {"draw": course.draw.getstate(), "numbers": course.numbers.bit_generator.state}
        torch.save(state, checkpoint)
    tiny.save_llava(teacher.model, settings.output)
    print(f"{settings.output}: {sum(p.numel() for p in teacher.model.parameters()):,} parameters", flush=True)


if __name__ == "__main__":
    main()
