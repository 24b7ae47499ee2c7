"""Near duplicates: copies are found, and different images are not."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from perceptune.core.data.perceptual_hash import Hashes, perceptual_hash
from perceptune.core.data.shapes import TASKS, render, scene_and_row
from PIL import Image, ImageDraw


def photograph() -> Image.Image:
    """The photograph of Grace Hopper that comes with Matplotlib, 512 x 600 pixels."""
    with get_sample_data("grace_hopper.jpg") as file:
        return Image.open(file).convert("RGB")


def diagram(seed: int) -> Image.Image:
    """A triangle with thin lines and a circle on white."""
    draw = np.random.default_rng(seed)
    image = Image.new("RGB", (400, 400), "white")
    pen = ImageDraw.Draw(image)
    corners = [tuple(map(int, draw.integers(30, 370, 2))) for _ in range(3)]
    pen.line([*corners, corners[0]], "black", 2)
    x, y = map(int, draw.integers(100, 300, 2))
    pen.ellipse([x - 50, y - 50, x + 50, y + 50], outline="black", width=2)
    return image


def shape(number: int, task: str = "grounding", split: str = "train") -> Image.Image:
    return render(scene_and_row(0, split, number, task)[0])


def encoded(image: Image.Image, kind: str, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, quality=quality)
    return Image.open(file).convert("RGB")


def scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def cropped(image: Image.Image, share: float) -> Image.Image:
    x, y = round(image.width * share), round(image.height * share)
    return image.crop((x, y, image.width - x, image.height - y))


def pairs(images: list[Image.Image], others: list[Image.Image]) -> set[tuple[int, int]]:
    hashes, other_hashes = (Hashes([perceptual_hash(image) for image in some]) for some in (images, others))
    found = hashes.near(0, len(images), other_hashes, 0, len(others))
    return set(zip(*(numbers.tolist() for numbers in found), strict=True))


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: encoded(image, "JPEG", 90),
        lambda image: encoded(image, "JPEG", 25),
        lambda image: encoded(image, "WEBP", 60),
        lambda image: scaled(image, 0.25),
        lambda image: scaled(image, 2),
        lambda image: image.resize((336, 336)),
        lambda image: encoded(scaled(image, 0.5), "JPEG", 60),
        lambda image: cropped(image, 0.01),
    ],
    ids=["jpeg90", "jpeg25", "webp60", "quarter", "double", "square", "half-jpeg60", "crop"],
)
def test_copies_are_near_duplicates(copy: Callable[[Image.Image], Image.Image]) -> None:
    originals = [photograph(), *map(diagram, range(10)), *map(shape, range(10))]
    matched = pairs(originals, [copy(image) for image in originals])
    assert all(one == other for one, other in matched)
    assert len(matched) >= 20  # one of 21 may be missed, as with crops


def test_other_crops_are_other_images() -> None:
    image = photograph()
    assert pairs([image], [cropped(image, 0.1), image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]) == set()


@pytest.mark.parametrize("task", TASKS)
def test_different_drawings_of_the_demo_are_no_near_duplicates(task: str) -> None:
    train, test = [shape(n, task) for n in range(200)], [shape(n, task, "test") for n in range(100)]
    assert pairs(train, test) == set()


def test_the_same_shape_in_another_colour_is_another_image() -> None:
    def circle(colour: str) -> Image.Image:
        image = Image.new("RGB", (112, 112), "white")
        ImageDraw.Draw(image).ellipse([20, 30, 60, 70], fill=colour)
        return image

    colours = ["red", "blue", "black", "green"]
    assert pairs([circle(c) for c in colours], [circle(c) for c in colours]) == {(n, n) for n in range(4)}


def noisy(image: Image.Image) -> Image.Image:
    noise = np.random.default_rng(1).normal(0, 3, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def gradient(step: int) -> Image.Image:
    return Image.fromarray(np.tile((np.arange(200) * step % 256).astype(np.uint8), (200, 1))).convert("RGB")


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (64, 48), "white"),
        Image.new("RGB", (1, 1)),
        Image.new("RGB", (5000, 1), "red"),
        noisy(Image.new("RGB", (300, 200), "grey")),
        encoded(noisy(Image.new("RGB", (300, 200), "grey")), "JPEG", 30),
        gradient(1),
        gradient(20),
        gradient(20).rotate(90),
    ],
    ids=["blank", "pixel", "line", "noise", "jpeg", "gradient", "stripes", "stripes-across"],
)
def test_what_shows_too_little_has_no_hash(image: Image.Image) -> None:
    assert perceptual_hash(image) == b""


def test_a_hash_has_80_bytes_and_a_tiny_image_has_one() -> None:
    assert len(perceptual_hash(photograph())) == len(perceptual_hash(diagram(1))) == 80
    tiny = Image.new("RGB", (2, 2), "white")
    tiny.putpixel((0, 0), (0, 0, 0))
    assert len(perceptual_hash(tiny)) == 80


def test_no_hashes_at_all() -> None:
    one = Hashes([perceptual_hash(photograph())])
    for first, other in ((Hashes([]), one), (one, Hashes([]))):
        assert [len(numbers) for numbers in first.near(0, len(first), other, 0, len(other))] == [0, 0]
