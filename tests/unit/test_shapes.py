"""The demo data: deterministic, disjoint splits, and answers that the pixels confirm."""

import json
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from perceptune.core.data import shapes
from PIL import Image

COUNT = 60


def drawn(task: str, split: str = "test") -> list[tuple[shapes.Scene, shapes.Row]]:
    return [shapes.scene_and_row(0, split, index, task) for index in range(COUNT)]


def pixels_of(image: Image.Image, rgb: tuple[int, int, int]) -> np.ndarray:
    """Mask of the pixels with exactly this colour."""
    return (np.asarray(image) == np.array(rgb)).all(axis=2)


def test_boxes_enclose_the_object_exactly() -> None:
    for scene, row in drawn("grounding"):
        colour, shape = row.question.removeprefix("locate the ").removesuffix(".").split()
        (thing,) = [t for t in scene.things if (t.colour, t.shape) == (colour, shape)]
        ys, xs = np.nonzero(pixels_of(shapes.render(scene), thing.rgb))
        found = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert row.box is not None
        # a triangle's tip or a diamond's corner may miss its border by one pixel
        assert np.abs(np.array(found) - np.array(row.box)).max() <= 1
        assert row.answer == shapes.box_text(row.box)


def test_objects_have_different_colours_and_do_not_touch() -> None:
    for scene, _ in drawn("grounding"):
        assert 2 <= len(scene.things) <= 4
        assert len({t.colour for t in scene.things}) == len(scene.things)
        for i, a in enumerate(scene.things):
            for b in scene.things[i + 1 :]:
                assert a.box[2] <= b.box[0] or b.box[2] <= a.box[0] or a.box[3] <= b.box[1] or b.box[3] <= a.box[1]


def test_existence_is_balanced_and_true() -> None:
    answers = Counter()
    for scene, row in drawn("existence"):
        colour, shape = row.question.removesuffix("?").split()[-2:]
        there = any((t.colour, t.shape) == (colour, shape) for t in scene.things)
        assert row.answer == ("yes" if there else "no")
        answers[row.answer] += 1
    assert answers == {"yes": COUNT // 2, "no": COUNT // 2}


def test_half_of_the_negatives_are_adversarial() -> None:
    tricky = 0
    for scene, row in drawn("existence"):
        colour, shape = row.question.removesuffix("?").split()[-2:]
        tricky += (
            row.answer == "no"
            and colour in {t.colour for t in scene.things}
            and shape in {t.shape for t in scene.things}
        )
    assert tricky == COUNT // 4


def test_counts_are_true_and_cannot_be_guessed() -> None:
    answers = Counter()
    for scene, row in drawn("counting"):
        (shape,) = [s for s in shapes.SHAPES if shapes.plural(s) in row.question.split()]
        assert row.answer == str(sum(t.shape == shape for t in scene.things))
        answers[row.answer] += 1
    assert set(answers.values()) == {COUNT // 5}


def test_text_lies_in_the_image() -> None:
    for scene, row in drawn("ocr"):
        assert row.answer == " ".join(line.text for line in scene.lines)
        assert 1 <= len(scene.lines) <= 3
        dark = np.asarray(shapes.render(scene).convert("L")) < 150
        assert dark.any()
        assert not dark[:, -1].any()  # no text is cut off at the right border


def test_a_scene_is_a_function_of_its_address() -> None:
    for task in shapes.TASKS:
        assert [s.digest() for s, _ in drawn(task)] == [s.digest() for s, _ in drawn(task)]
        first, again = (shapes.render(drawn(task)[0][0]).tobytes() for _ in range(2))
        assert first == again
    assert not {s.digest() for s, _ in drawn("grounding")} & {s.digest() for s, _ in drawn("grounding", "train")}


def test_the_dataset_on_disk(tmp_path: Path) -> None:
    splits = {"train": {"grounding": 30, "ocr": 5}, "test": {"grounding": 20, "existence": 4, "counting": 5}}
    path = shapes.write_dataset(tmp_path / "a", 0, splits)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert Counter((r["split"], r["task"]) for r in rows) == {
        (s, t): n for s, tasks in splits.items() for t, n in tasks.items()
    }
    assert len({r["id"] for r in rows}) == 64
    images = [(path.parent / r["image"]).read_bytes() for r in rows]
    assert len(set(images)) == 64  # no scene twice, in any split
    again = shapes.write_dataset(tmp_path / "b", 0, splits)
    assert again.read_bytes() == path.read_bytes()
    assert [(again.parent / r["image"]).read_bytes() for r in rows] == images
    other = shapes.write_dataset(tmp_path / "c", 1, splits)
    assert other.read_bytes() != path.read_bytes()


def test_unknown_splits_and_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split `dev`"):
        shapes.write_dataset(tmp_path, 0, {"dev": {"ocr": 1}})
    with pytest.raises(ValueError, match="task `pointing`"):
        shapes.write_dataset(tmp_path, 0, {"test": {"pointing": 1}})


def test_random_scenes_find_room() -> None:
    for seed in range(40):
        scene = shapes.random_shapes_scene(Random(seed), 4)
        for thing in scene.things:
            assert min(thing.box) >= 0
            assert max(thing.box) <= shapes.IMAGE_SIZE
