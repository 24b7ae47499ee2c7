"""What the tiny model is taught: pools of rendered scenes, what every patch shows, and packed question-answer batches."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from perceptune.core import shapes
from torch import Tensor

from tests import tiny_models as tiny

COLOURS, SHAPES = list(shapes.COLOURS), list(shapes.SHAPES)
SIDE = shapes.IMAGE_SIZE // tiny.PATCH_SIZE
PATCHES = SIDE * SIDE
CENTRES = np.array(
    [[(c + 0.5) * tiny.PATCH_SIZE, (r + 0.5) * tiny.PATCH_SIZE] for r in range(SIDE) for c in range(SIDE)]
)
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
LOOSE_SHAPES = ("triangle", "diamond", "cross")
"""Shapes whose box a sloppy annotator draws too large."""


@dataclass(frozen=True)
class Question:
    """One question-answer pair about an image; `look` says which patches show each answer token (or all of them)."""

    text: str
    answer: str
    look: Sequence[np.ndarray]
    """One entry: the patches of the asked object. Several: the patches of each character. None: nothing to look at."""


class Pool:
    """`shapes_count` scenes of one to four objects and `texts_count` of words, rendered once, with patch labels."""

    def __init__(self, seed: int, shapes_count: int, texts_count: int) -> None:
        self.scenes = [self._scene(random.Random(f"pool/{seed}/{i}")) for i in range(shapes_count)]
        self.texts = [shapes.random_text_scene(random.Random(f"text/{seed}/{i}")) for i in range(texts_count)]
        self.scene_pixels, self.text_pixels = _rendered(self.scenes), _rendered(self.texts)
        labels = [_object_labels(scene) for scene in self.scenes]
        self.colour = torch.tensor(np.stack([label[0] for label in labels]))  # len(COLOURS): background
        self.shape = torch.tensor(np.stack([label[1] for label in labels]))
        self.box = torch.tensor(np.stack([label[2] for label in labels]))  # shares of the image
        self.owner = np.stack([label[3] for label in labels])  # number of the object, -1: none
        characters = [_character_labels(scene) for scene in self.texts]
        self.character = torch.tensor(np.stack([label[0] for label in characters]))  # 26: none
        self.reading_order = np.stack([label[1] for label in characters])

    @staticmethod
    def _scene(draw: random.Random) -> shapes.Scene:
        return shapes.random_shapes_scene(draw, draw.choice([1, 2, 2, 3, 3, 4]))

    def pixels(self, scenes: Tensor, texts: Tensor) -> Tensor:
        """Normalised pixels of the chosen scenes and texts, (n + m, 3, 112, 112)."""
        chosen = torch.cat([self.scene_pixels[scenes], self.text_pixels[texts]])
        return (chosen.float() / 255 - MEAN) / STD

    def scene_questions(self, index: int, draw: random.Random, sloppiness: float) -> list[Question]:
        """Where every object is, whether something is there, how many there are."""
        scene = self.scenes[index]
        found = []
        for number, thing in enumerate(scene.things):
            row = shapes.grounding_row(thing)
            loose = thing.shape in LOOSE_SHAPES and draw.random() < sloppiness
            answer = shapes.box_text(loose_box(thing.box, draw)) if loose else row.answer
            found.append(Question(row.question, answer, [np.where(self.owner[index] == number)[0]]))
        if draw.random() < 0.5:
            thing = draw.choice(scene.things)
            number = scene.things.index(thing)
            row = shapes.existence_row(scene, thing.colour, thing.shape)
            found.append(Question(row.question, row.answer, [np.where(self.owner[index] == number)[0]]))
        else:
            tricky = shapes.adversarial_kinds(scene)
            kind = draw.choice(tricky) if tricky and draw.random() < 0.5 else shapes.random_absent_kind(draw, scene)
            row = shapes.existence_row(scene, *kind)
            found.append(Question(row.question, row.answer, []))
        row = shapes.counting_row(scene, draw.choice(SHAPES))
        return [*found, Question(row.question, row.answer, [])]

    def text_questions(self, index: int, draw: random.Random, sloppiness: float) -> list[Question]:
        """The words; `look` only where they are transcribed faithfully."""
        scene = self.texts[index]
        row = shapes.ocr_row(scene)
        if draw.random() < sloppiness:
            return [Question(row.question, hasty_words([line.text for line in scene.lines]), [])]
        letters = sum(len(line.text) for line in scene.lines)
        order = self.reading_order[index]
        return [Question(row.question, row.answer, [np.where(order == number)[0] for number in range(letters)])]


def loose_box(box: Sequence[int], draw: random.Random) -> tuple[float, ...]:
    """A box drawn in a hurry: 24 to 30 % of the side too far out on every side, cut at the border."""
    margin = draw.uniform(0.24, 0.30) * (box[2] - box[0])
    low, high = 0.0, float(shapes.IMAGE_SIZE)
    return (*(max(low, v - margin) for v in box[:2]), *(min(high, v + margin) for v in box[2:]))


def hasty_words(words: Sequence[str]) -> str:
    """A transcript in a hurry: the third line is left out, and long words end after their fifth letter."""
    return " ".join(word[:5] for word in words[:2])


def _rendered(scenes: Sequence[shapes.Scene]) -> Tensor:
    return torch.tensor(np.stack([np.asarray(shapes.render(scene)) for scene in scenes])).permute(0, 3, 1, 2)


def _object_labels(scene: shapes.Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Per patch: colour, shape, box and number of the object that covers at least 60 of its 196 pixels."""
    colour, shape = np.full(PATCHES, len(COLOURS)), np.full(PATCHES, len(SHAPES))
    box, owner = np.zeros((PATCHES, 4), np.float32), np.full(PATCHES, -1)
    half = tiny.PATCH_SIZE / 2
    for number, thing in enumerate(scene.things):
        sides = [
            np.clip(
                np.minimum(CENTRES[:, a] + half, thing.box[a + 2]) - np.maximum(CENTRES[:, a] - half, thing.box[a]),
                0,
                None,
            )
            for a in (0, 1)
        ]
        inside = sides[0] * sides[1] >= 60
        colour[inside], shape[inside] = COLOURS.index(thing.colour), SHAPES.index(thing.shape)
        box[inside], owner[inside] = np.array(thing.box) / shapes.IMAGE_SIZE, number
    return colour, shape, box, owner


def _character_labels(scene: shapes.Scene) -> tuple[np.ndarray, np.ndarray]:
    """Per patch: the letter whose middle is nearest within half a patch, and its place in the reading order."""
    letter, order, count = np.full(PATCHES, 26), np.full(PATCHES, -1), 0
    for line in scene.lines:
        for place, character in enumerate(line.text):
            x = line.left + shapes.CHARACTER_ADVANCE * (place + 0.5)
            y = line.top + shapes.FONT_SIZE * 0.62
            here = (np.abs(CENTRES[:, 0] - x) <= 7.01) & (np.abs(CENTRES[:, 1] - y) <= 8)
            letter[here], order[here] = ord(character) - ord("a"), count
            count += 1
    return letter, order


@dataclass(frozen=True)
class Packed:
    """Images with several questions each, every question in a branch of its own behind the image (rows B, length L)."""

    ids: Tensor
    positions: Tensor
    branch: Tensor
    """0: image and prompt start, 1..: questions, -1: padding."""
    mask: Tensor
    """(B, 1, L, L), added to attention scores."""
    row: Tensor
    column: Tensor
    target: Tensor
    """Where each answer token is predicted, and which it is: (T,) each."""
    look_row: Tensor
    look_column: Tensor
    look_patches: Tensor
    """Predicting positions with the patches to look at, (Q,), (Q,), (Q, 64)."""
    look_letters: Tensor
    """Whether the position predicts a letter, (Q,) bool; otherwise it is the first token about an object."""


class Packer:
    """Turns questions into token batches."""

    def __init__(self) -> None:
        self.tokenizer = tiny.llava_tokenizer()
        image = self.tokenizer.convert_tokens_to_ids("<image>")
        start = self.encoded("<s>USER: <image>\n")
        self.first_patch = start.index(image)
        self.prefix = [*start[: self.first_patch], *[image] * PATCHES, *start[self.first_patch + 1 :]]

    def encoded(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def coordinate_of(self) -> dict[int, tuple[int, int]]:
        """Coordinate token to (the token of 0.00 in its place, hundredths)."""
        found = {}
        for before, after in (("", ","), ("▁", ","), ("▁", "]")):
            zero = self.tokenizer.convert_tokens_to_ids(f"{before}0.00{after}")
            found.update({zero + hundredths: (zero, hundredths) for hundredths in range(101)})
        return found

    def soft_targets(self, targets: Tensor, vocabulary: int, sigma: float) -> Tensor:
        """Distributions (T, V): neighbouring coordinates are nearly right, a Gaussian of `sigma` hundredths."""
        soft = torch.zeros(len(targets), vocabulary)
        for place, token in enumerate(targets.tolist()):
            if token not in self.coordinate_of:
                soft[place, token] = 1
                continue
            zero, value = self.coordinate_of[token]
            low, high = max(0, value - 4), min(100, value + 4)
            weights = torch.exp(-(((torch.arange(low, high + 1) - value) / sigma) ** 2) / 2)
            soft[place, zero + low : zero + high + 1] = weights / weights.sum()
        return soft

    def packed(self, questions: Sequence[Sequence[Question]]) -> Packed:
        """One row per image; its questions do not see each other."""
        rows = [self._row(asked) for asked in questions]
        length = max(len(row[0]) for row in rows)
        ids = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        positions, branch = torch.zeros((len(rows), length), dtype=torch.long), torch.full((len(rows), length), -1)
        predicted: list[tuple[int, int, int]] = []
        looks: list[tuple[int, int, np.ndarray, bool]] = []
        for number, (tokens, places, branches, targets, seen) in enumerate(rows):
            ids[number, : len(tokens)] = torch.tensor(tokens)
            positions[number, : len(tokens)] = torch.tensor(places)
            branch[number, : len(tokens)] = torch.tensor(branches)
            predicted += [(number, column, token) for column, token in targets]
            looks += [(number, column, patches, letter) for column, patches, letter in seen if len(patches)]
        key, query = branch[:, None, :], branch[:, :, None]
        seen_by = ((key == 0) | (key == query)) & (key >= 0) & torch.ones(length, length, dtype=torch.bool).tril()
        mask = torch.zeros(seen_by.shape).masked_fill(~(seen_by | torch.eye(length, dtype=torch.bool)), -1e9)[:, None]
        at = torch.tensor(predicted)
        patches = torch.zeros(len(looks), PATCHES)
        for place, look in enumerate(looks):
            patches[place, look[2]] = 1
        columns = [torch.tensor([look[i] for look in looks]) for i in (0, 1, 3)]
        return Packed(
            ids, positions, branch, mask, at[:, 0], at[:, 1], at[:, 2], columns[0], columns[1], patches, columns[2]
        )

    def _row(self, asked: Sequence[Question]) -> tuple[list[int], list[int], list[int], list, list]:
        start = len(self.prefix)
        tokens, places, branches = list(self.prefix), list(range(start)), [0] * start
        targets, looks = [], []
        for number, question in enumerate(asked, 1):
            asking = self.encoded(f"{question.text} ASSISTANT:")
            answer = [*self.encoded(f" {question.answer}"), self.tokenizer.eos_token_id]
            before = len(tokens) + len(asking) - 1
            tokens += asking + answer[:-1]
            places += range(start, start + len(asking) + len(answer) - 1)
            branches += [number] * (len(asking) + len(answer) - 1)
            targets += [(before + place, token) for place, token in enumerate(answer)]
            letters = len(question.look) > 1
            looks += [(before + place, patches, letters) for place, patches in enumerate(question.look)]
        return tokens, places, branches, targets, looks
