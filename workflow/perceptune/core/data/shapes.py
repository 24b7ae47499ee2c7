"""The synthetic `shapes` data: images of shapes or words, questions with exact answers.

A scene is a pure function of (seed, split, index, task), so any image can be redrawn on any
machine. Images are 112 x 112 RGB, so that LLaVA's padded-square and original coordinates coincide.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random

from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

IMAGE_SIZE = 112
"""Width and height in pixels."""
TASKS = ("grounding", "ocr", "existence", "counting")
SPLITS = ("train", "validation", "test")
COLOURS = {
    "red": (214, 40, 40),
    "green": (46, 150, 60),
    "blue": (40, 80, 210),
    "yellow": (240, 205, 30),
    "purple": (140, 60, 170),
    "orange": (240, 130, 30),
    "black": (35, 35, 35),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross")
MIN_SIDE = 24
MAX_SIDE = {1: 56, 2: 56, 3: 46, 4: 40}
"""Longest object side in pixels by number of objects, so that the objects fit without overlap."""
GAP = 2
"""Smallest distance in pixels between two boxes, and between a box and the border."""
FONT_SIZE = 22
CHARACTER_ADVANCE = 13.25
"""Pixels from one character to the next in DejaVu Sans Mono at `FONT_SIZE`."""
LINE_PITCH = 32
"""Pixels from the top of one line of text to the top of the next."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
COLOUR_JITTER = 12
"""Largest change of each colour channel (0 to 255)."""

RGB = tuple[int, int, int]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Thing:
    """One object; `rgb` is unique in its scene, `box` in pixels with exclusive x2 and y2."""

    colour: str
    shape: str
    rgb: RGB
    box: Box


@dataclass(frozen=True)
class Line:
    """One line of text, its left edge and the top of its em square in pixels."""

    text: str
    left: int
    top: int


@dataclass(frozen=True)
class Scene:
    """The complete content of an image; either `things` or `lines` is empty."""

    background: RGB
    ink: RGB
    things: tuple[Thing, ...] = ()
    lines: tuple[Line, ...] = ()

    def digest(self) -> str:
        """SHA-256 of everything that is drawn; equal scenes give equal images."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Row:
    """One question about a scene and its answer; `box` in pixels for grounding, else None."""

    task: str
    question: str
    answer: str
    box: Box | None = None


def box_text(box: tuple[float, ...], size: float = IMAGE_SIZE) -> str:
    """LLaVA's "[x1, y1, x2, y2]": fractions of a square of `size` pixels, two decimals."""
    return "[" + ", ".join(f"{coordinate / size:.2f}" for coordinate in box) + "]"


def scene_and_row(seed: int, split: str, index: int, task: str, attempt: int = 0) -> tuple[Scene, Row]:
    """The scene and question at this address; a higher `attempt` avoids an existing scene."""
    random = Random(f"shapes/{seed}/{split}/{task}/{index}/{attempt}")
    match task:
        case "grounding":
            return _grounding(random)
        case "ocr":
            return _ocr(random)
        case "existence":
            return _existence(random, index)
        case "counting":
            return _counting(random, index)
    raise ValueError(f"task `{task}`: expected one of {', '.join(TASKS)}")


def render(scene: Scene) -> Image.Image:
    """The scene as a 112 x 112 RGB image; text is anti-aliased, shapes are not."""
    image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), scene.background)
    draw = ImageDraw.Draw(image)
    for thing in scene.things:
        _draw_thing(draw, thing)
    for line in scene.lines:
        draw.text((line.left, line.top), line.text, fill=scene.ink, font=_font())
    return image


def random_things(random: Random, kinds: list[tuple[str, str]]) -> tuple[Thing, ...]:
    """Objects of the given (colour, shape) kinds at random places without overlap.

    Sides are `MIN_SIDE` to `MAX_SIDE` pixels.
    """
    while True:
        boxes: list[Box] = []
        for _ in kinds:
            side = random.randint(MIN_SIDE, MAX_SIDE[len(kinds)])
            for _ in range(30):
                x, y = (random.randint(GAP, IMAGE_SIZE - GAP - side) for _ in "xy")
                box = (x, y, x + side, y + side)
                if not any(_touch(box, other) for other in boxes):
                    boxes.append(box)
                    break
        if len(boxes) == len(kinds):
            return tuple(
                Thing(colour, shape, _jittered(random, COLOURS[colour], COLOUR_JITTER), box)
                for (colour, shape), box in zip(kinds, boxes, strict=True)
            )


def random_shapes_scene(random: Random, count: int) -> Scene:
    """`count` objects of different colours on a light background; shapes may repeat."""
    colours = random.sample(list(COLOURS), count)
    kinds = [(colour, random.choice(SHAPES)) for colour in colours]
    return Scene(_background(random), (0, 0, 0), things=random_things(random, kinds))


def random_text_scene(random: Random) -> Scene:
    """One to three lines with one word of three to seven letters each, dark on light."""
    words = ["".join(random.choices(LETTERS, k=random.randint(3, 7))) for _ in range(random.randint(1, 3))]
    top = random.randint(2, IMAGE_SIZE - LINE_PITCH * len(words) + 4)
    lines = tuple(Line(word, random.randint(2, 8), top + LINE_PITCH * number) for number, word in enumerate(words))
    return Scene(_background(random), _jittered(random, (40, 40, 40), 30), lines=lines)


def grounding_row(thing: Thing) -> Row:
    """The question where an object is; `answer` is its box in the notation of `box_text`."""
    return Row("grounding", f"locate the {thing.colour} {thing.shape}.", box_text(thing.box), thing.box)


def ocr_row(scene: Scene) -> Row:
    """The question what the text of a scene says; the answer has its lines, separated by spaces."""
    return Row("ocr", "read the text.", " ".join(line.text for line in scene.lines))


def existence_row(scene: Scene, colour: str, shape: str) -> Row:
    """The question whether a scene has an object of this colour and shape; the answer is yes or no."""
    present = any((thing.colour, thing.shape) == (colour, shape) for thing in scene.things)
    article = "an" if colour[0] in "aeiou" else "a"
    return Row("existence", f"is there {article} {colour} {shape}?", "yes" if present else "no")


def counting_row(scene: Scene, shape: str) -> Row:
    """The question how many objects of a shape a scene has, of any colour."""
    count = sum(thing.shape == shape for thing in scene.things)
    return Row("counting", f"how many {plural(shape)} are there?", str(count))


def plural(shape: str) -> str:
    """The plural of a shape's name."""
    return shape + ("es" if shape.endswith("s") else "s")


def adversarial_kinds(scene: Scene) -> list[tuple[str, str]]:
    """Absent (colour, shape) kinds whose colour and whose shape both occur in the scene."""
    shapes = sorted({thing.shape for thing in scene.things})
    return [(thing.colour, shape) for thing in scene.things for shape in shapes if shape != thing.shape]


def random_absent_kind(random: Random, scene: Scene) -> tuple[str, str]:
    """A (colour, shape) kind whose colour does not occur in the scene."""
    present = {thing.colour for thing in scene.things}
    return random.choice([colour for colour in COLOURS if colour not in present]), random.choice(SHAPES)


def write_dataset(folder: Path, seed: int, splits: Mapping[str, Mapping[str, int]]) -> Path:
    """Draw `splits[split][task]` scenes each; write `images/*.png` and `data.jsonl` under `folder`.

    Returns the path of `data.jsonl`. No scene occurs twice, within or across splits. Raises
    `ValueError` for an unknown split or task.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    records = []
    for split in splits:
        if split not in SPLITS:
            raise ValueError(f"split `{split}`: expected one of {', '.join(SPLITS)}")
        for task, count in splits[split].items():
            for index in range(count):
                scene, row = _unseen_scene(seen, seed, split, index, task)
                name = f"{split}-{task}-{index:05d}"
                render(scene).save(images / f"{name}.png")
                records.append(_record(name, split, row))
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def _unseen_scene(seen: set[str], seed: int, split: str, index: int, task: str) -> tuple[Scene, Row]:
    attempt = 0
    while True:
        scene, row = scene_and_row(seed, split, index, task, attempt)
        if scene.digest() not in seen:
            seen.add(scene.digest())
            return scene, row
        attempt += 1


def _record(name: str, split: str, row: Row) -> dict[str, object]:
    record: dict[str, object] = {"id": name, "image": f"images/{name}.png", "task": row.task}
    record |= {"question": row.question, "answer": row.answer, "split": split}
    if row.box is not None:
        record["box"] = list(row.box)
    return record


def _grounding(random: Random) -> tuple[Scene, Row]:
    scene = random_shapes_scene(random, random.randint(2, 4))
    return scene, grounding_row(random.choice(scene.things))


def _ocr(random: Random) -> tuple[Scene, Row]:
    scene = random_text_scene(random)
    return scene, ocr_row(scene)


def _existence(random: Random, index: int) -> tuple[Scene, Row]:
    """Of every four questions, two have the answer yes, one no (random) and one no (adversarial),
    as in POPE.
    """
    while True:
        scene = random_shapes_scene(random, random.randint(2, 4))
        if adversarial_kinds(scene):
            break
    match index % 4:
        case 1:
            kind = random_absent_kind(random, scene)
        case 3:
            kind = random.choice(adversarial_kinds(scene))
        case _:
            thing = random.choice(scene.things)
            kind = (thing.colour, thing.shape)
    return scene, existence_row(scene, *kind)


def _counting(random: Random, index: int) -> tuple[Scene, Row]:
    """Answers cycle through 0 to 4, so that guessing does not help."""
    count = index % 5
    total = random.randint(max(2, count), 4)
    counted = random.choice(SHAPES)
    others = [shape for shape in SHAPES if shape != counted]
    shapes = [counted] * count + random.choices(others, k=total - count)
    random.shuffle(shapes)
    kinds = list(zip(random.sample(list(COLOURS), total), shapes, strict=True))
    scene = Scene(_background(random), (0, 0, 0), things=random_things(random, kinds))
    return scene, counting_row(scene, counted)


def _background(random: Random) -> RGB:
    return _jittered(random, (240, 240, 240), 14)


def _jittered(random: Random, rgb: RGB, amount: int) -> RGB:
    red, green, blue = (min(255, max(0, channel + random.randint(-amount, amount))) for channel in rgb)
    return red, green, blue


def _touch(box: Box, other: Box) -> bool:
    return box[0] < other[2] + GAP and other[0] < box[2] + GAP and box[1] < other[3] + GAP and other[1] < box[3] + GAP


def _draw_thing(draw: ImageDraw.ImageDraw, thing: Thing) -> None:
    """Draw one object. PIL's shapes include their last pixel, boxes here exclude it."""
    left, top, right, bottom = thing.box[0], thing.box[1], thing.box[2] - 1, thing.box[3] - 1
    third = (right - left) // 3
    match thing.shape:
        case "circle":
            draw.ellipse((left, top, right, bottom), fill=thing.rgb)
        case "square":
            draw.rectangle((left, top, right, bottom), fill=thing.rgb)
        case "triangle":
            draw.polygon([((left + right) // 2, top), (left, bottom), (right, bottom)], fill=thing.rgb)
        case "diamond":
            middle_x, middle_y = (left + right) // 2, (top + bottom) // 2
            draw.polygon([(middle_x, top), (right, middle_y), (middle_x, bottom), (left, middle_y)], fill=thing.rgb)
        case "cross":
            draw.rectangle((left + third, top, right - third, bottom), fill=thing.rgb)
            draw.rectangle((left, top + third, right, bottom - third), fill=thing.rgb)


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf", FONT_SIZE)
