"""Views: the same pixels for the same recipe, and what all of them keep to; original, blank, crops."""

import numpy as np
import pytest
from perceptune.core.views.apply import pictures_shown, shown, strength
from perceptune.core.views.view import Recipe, pixel_digest

from tests.plugins import VIEWS

from .pictures import picture, recipe


def test_original_changes_nothing() -> None:
    image = picture()
    assert shown(recipe("original"), [image])[0].tobytes() == image.tobytes()


def test_blank_keeps_size_and_number_and_shows_nothing() -> None:
    blank = shown(recipe("blank"), [picture(8, 4), picture(3, 9)])
    assert [i.size for i in blank] == [(8, 4), (3, 9)]
    assert {colour for i in blank for _, colour in i.getcolors()} == {(127, 127, 127)}


@pytest.mark.parametrize("op", sorted(VIEWS))
def test_no_view_changes_its_input_and_each_is_reproducible(op: str) -> None:
    image = picture()
    before = image.tobytes()
    first, second = shown(recipe(op), [image]), shown(Recipe.read(recipe(op).text()), [image])
    assert image.tobytes() == before
    assert pixel_digest(first) == pixel_digest(second)
    assert len(first) == pictures_shown(recipe(op), 1)
    assert shown(recipe(op), []) == []


def test_the_pixels_are_the_same_on_every_machine() -> None:
    """Recorded digests, so that a library that changes the pixels does not go unnoticed."""
    settings: dict[str, dict[str, object]] = {
        "noise": {"sigma": 0.2}, "perspective": {"probability": 1.0}, "rotation": {"degrees": 90}, "masked": {"cell": 3}
    }  # fmt: skip
    digests = {
        op: pixel_digest(shown(recipe(op, **settings.get(op, {})), [picture()]))[:12]
        for op in VIEWS
        if op != "original"
    }
    digests["diffusion"] = pixel_digest(shown(recipe("noise", kind="diffusion", step=500), [picture()]))[:12]
    assert digests == DIGESTS


DIGESTS = {
    "blank": "cb216b1a004c",
    "blur": "e7ed8cef4854",
    "degraded": "073f3007143a",
    "enhanced": "66cc8c19ceda",
    "jitter": "073bd22f80c1",
    "masked": "e120445eb75e",
    "motion_blur": "5ca722e0e20d",
    "noise": "47fe7c6a6614",
    "perspective": "96c0e24a2ffa",
    "random_crop": "a4525f188100",
    "rectangles": "2b83b5511af3",
    "rotation": "c23d5c75d5fc",
    "semantic": "1a49556ec2a9",
    "zoom": "55bf35daca5b",
    "diffusion": "086d0d6d1404",
}


def test_enhanced_shows_the_crop_as_a_second_image() -> None:
    image = picture()
    first, second = shown(recipe("enhanced"), [image])
    assert first.tobytes() == image.tobytes()
    assert second.tobytes() == image.crop((4, 2, 12, 10)).tobytes()
    assert strength(recipe("enhanced"), [image], [first, second]) == pytest.approx(64 / 280)


@pytest.mark.parametrize(("edge", "erased"), [("exclusive", 64), ("inclusive", 81)])
def test_degraded_erases_the_box_and_nothing_else(edge: str, erased: int) -> None:
    image = picture()
    (after,) = shown(recipe("degraded", edge=edge), [image])
    changed = (np.asarray(after) != np.asarray(image)).any(axis=2)
    mean = tuple(np.asarray(image).reshape(-1, 3).mean(axis=0).astype(int))
    side = 8 if edge == "exclusive" else 9
    assert (np.asarray(after)[2 : 2 + side, 4 : 4 + side] == mean).all()
    outside = np.ones(changed.shape, dtype=bool)
    outside[2 : 2 + side, 4 : 4 + side] = False
    assert not changed[outside].any()
    assert erased == side * side


@pytest.mark.parametrize("fill", ["mean", "grey", "black", "blur"])
def test_degraded_uses_the_requested_fill(fill: str) -> None:
    image = picture()
    (after,) = shown(recipe("degraded", fill=fill), [image])
    colours = after.crop((4, 2, 12, 10)).getcolors()
    single = {"grey": (127, 127, 127), "black": (0, 0, 0)}
    if fill in single:
        assert colours == [(64, single[fill])]
    assert after.crop((4, 2, 12, 10)).tobytes() != image.crop((4, 2, 12, 10)).tobytes()


@pytest.mark.parametrize(
    "op", sorted(op for op, view in VIEWS.items() if view.keeps_size(view.Parameters()) and not view.needs_box)
)
@pytest.mark.parametrize("size", [(20, 14), (1, 1), (3, 50), (450, 337)])
def test_views_that_keep_sizes_keep_them(op: str, size: tuple[int, int]) -> None:
    images = [picture(*size), picture(5, 7)]
    assert [i.size for i in shown(recipe(op, pictures=2), images)] == [size, (5, 7)]


def test_a_view_that_breaks_its_word_on_sizes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VIEWS["zoom"], "apply", lambda images, *_: [i.crop((0, 0, 2, 2)) for i in images])
    with pytest.raises(ValueError, match=r"`zoom` changed sizes \[\(20, 14\)\] to \[\(2, 2\)\]"):
        shown(recipe("zoom"), [picture()])


SEEDED = sorted(op for op, view in VIEWS.items() if view.seeded)


@pytest.mark.parametrize("op", SEEDED)
def test_another_seed_shows_another_picture(op: str) -> None:
    parameters = {"perspective": {"probability": 1.0}, "rotation": {"degrees": 90}}.get(op, {})
    found = {shown(Recipe(op, parameters, seed), [picture(60, 40)])[0].tobytes() for seed in range(8)}
    assert len(found) == 8
