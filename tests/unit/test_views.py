"""Views: same pixels for the same recipe."""

from perceptune.core.views import VIEWS
from PIL import Image


def test_original_changes_nothing() -> None:
    image = Image.new("RGB", (5, 3), (1, 2, 3))
    assert VIEWS["original"]([image])[0].tobytes() == image.tobytes()


def test_blank_keeps_size_and_number_and_shows_nothing() -> None:
    images = [Image.effect_noise((8, 4), 50).convert("RGB"), Image.new("RGB", (3, 9))]
    blank = VIEWS["blank"](images)
    assert [i.size for i in blank] == [(8, 4), (3, 9)]
    assert {colour for i in blank for _, colour in i.getcolors()} == {(127, 127, 127)}


def test_no_view_changes_its_input() -> None:
    for view in VIEWS:
        image = Image.new("RGB", (4, 4), (9, 9, 9))
        VIEWS[view]([image])
        assert image.getcolors() == [(16, (9, 9, 9))]
