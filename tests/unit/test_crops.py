"""The adaptive crop against reference vectors and a brute-force version of algorithm 1."""

import numpy as np
import pytest
from perceptune.core.views.adaptive_crop import RATIOS, Window, adaptive_crop, inverse_crop, window_sums, windows

T1 = [
    [9, 1, 2, 3, 2, 1],
    [1, 2, 3, 4, 3, 2],
    [2, 3, 5, 20, 24, 4],
    [1, 4, 6, 22, 40, 5],
    [2, 3, 4, 6, 7, 3],
    [1, 2, 3, 2, 4, 1],
]
T2 = [
    [1, 2, 1, 3, 2, 4],
    [2, 1, 3, 2, 4, 3],
    [1, 3, 2, 4, 3, 5],
    [3, 2, 4, 3, 6, 7],
    [2, 4, 3, 7, 11, 19],
    [4, 3, 5, 8, 21, 60],
]
T3 = [
    [21, 5, 8, 11, 25, 0], [8, 1, 0, 0, 23, 16], [17, 6, 16, 15, 7, 29], [14, 3, 21, 26, 20, 13], [21, 15, 17, 26, 28, 12],
    [16, 9, 22, 6, 7, 10],
]  # fmt: skip
T5 = [[1, 2, 3, 2], [2, 4, 9, 3], [1, 3, 5, 2], [1, 1, 2, 1]]


def crop(rows: list[list[int]], size: tuple[int, int], base: int, **options: object):  # type: ignore[no-untyped-def]
    return adaptive_crop(np.array(rows, dtype=float), size, (base, base), **options)  # type: ignore[arg-type]


def by_ratio(rows: list[list[int]], size: tuple[int, int], base: int, **options: object) -> dict[float, Window]:
    found = windows(np.array(rows, dtype=float), size, (base, base), **options)  # type: ignore[arg-type]
    return {window.ratio: window for window in found}


@pytest.mark.parametrize("options", [{}, {"variant": "code"}, {"neighbours": 8}])
def test_t1(options: dict[str, object]) -> None:
    assert crop(T1, (600, 600), 200, **options).box == (300, 200, 500, 400)


def test_t1_windows() -> None:
    found = by_ratio(T1, (600, 600), 200)
    for ratio in (1.0, 1.2, 1.4):
        w = found[ratio]
        assert (w.columns, w.rows, w.x, w.y, w.total, w.contrast) == (2, 2, 3, 2, 106, 10.75)
    for ratio in (1.6, 1.8):
        w = found[ratio]
        assert (w.columns, w.x, w.y, w.total) == (3, 2, 2, 134)
        assert w.contrast == pytest.approx(3.083333, abs=1e-6)
    w = found[2.0]
    assert (w.columns, w.x, w.y, w.total) == (4, 2, 1, 158)
    assert w.contrast == pytest.approx(0.333333, abs=1e-6)


def test_t2_a_corner_is_clamped() -> None:
    assert {crop(T2, (640, 480), 200, variant=v).box for v in ("paper", "code")} == {(440, 280, 640, 480)}
    found = by_ratio(T2, (640, 480), 200)
    expected = {1.0: (1, 2, 5, 4, 79, 25.0), 1.2: (2, 3, 4, 3, 124, 11.75), 1.4: (2, 3, 4, 3, 124, 11.75)}
    for ratio, numbers in expected.items():
        w = found[ratio]
        assert (w.columns, w.rows, w.x, w.y, w.total, w.contrast) == numbers
    for ratio, (total, contrast) in {1.6: (154, 6.541667), 1.8: (154, 6.541667), 2.0: (163, 5.233333)}.items():
        assert found[ratio].total == total
        assert found[ratio].contrast == pytest.approx(contrast, abs=1e-6)


def test_t3_tells_the_variants_apart() -> None:
    assert crop(T3, (660, 540), 200, variant="code").box == (320, 240, 560, 480)
    assert crop(T3, (660, 540), 200).box == (330, 270, 570, 510)
    assert crop(T3, (660, 540), 200, neighbours=8).box == (330, 270, 530, 470)
    four, eight = by_ratio(T3, (660, 540), 200), by_ratio(T3, (660, 540), 200, neighbours=8)
    assert [four[r].contrast for r in (1.0, 1.2, 1.4, 1.6)] == [6.125, 6.375, 2.25, 2.25]
    assert [four[r].contrast for r in (1.8, 2.0)] == [pytest.approx(1.722222, abs=1e-6)] * 2
    assert [eight[r].contrast for r in (1.0, 1.2)] == [7.4375, 7.09375]


def test_t4_a_small_image_is_its_own_crop() -> None:
    found = crop(T1, (300, 300), 336)
    assert (found.box, found.flag) == ((0, 0, 300, 300), "whole image")


def test_t5_a_crop_wider_than_the_image_becomes_full_width() -> None:
    found = crop(T5, (300, 600), 336, variant="code")
    assert (found.box, found.ratio, found.flag) == ((0, 132, 300, 468), 1.0, None)
    w = by_ratio(T5, (300, 600), 336)
    assert (w[1.0].columns, w[1.0].rows, w[1.0].total, w[1.0].contrast) == (4, 2, 29, 1.0)
    assert (w[1.4].rows, w[1.4].total, w[1.4].contrast) == (3, 37, 0.25)
    assert not {1.8, 2.0} & w.keys()


def test_t6_an_empty_map_is_flagged() -> None:
    found = adaptive_crop(np.zeros((6, 6)), (600, 600), (200, 200))
    assert (found.box, found.flag) == ((0, 0, 200, 200), "empty map")


def test_window_of_llava_on_a_usual_image() -> None:
    w = next(iter(windows(np.random.default_rng(0).random((24, 24)), (640, 480), (336, 336))))
    assert (w.columns, w.rows) == (12, 16)


def brute_force(
    attention: np.ndarray, size: tuple[int, int], base: tuple[int, int], neighbours: int, variant: str
) -> tuple[float, ...]:
    """Algorithm 1 with loops over every window, written from the paper, independently of
    `adaptive_crop`.
    """
    h, w = attention.shape
    cell_w, cell_h = size[0] / w, size[1] / h
    best: tuple[float, float, int, int, int, int] | None = None
    for ratio in RATIOS:
        n_w, n_h = min(w, max(1, int(base[0] * ratio / cell_w))), min(h, max(1, int(base[1] * ratio / cell_h)))
        if n_w == w and n_h == h:
            if ratio == 1.0:
                return (0, 0, size[0], size[1])
            continue
        sums = {}
        for y in range(h - n_h + 1):
            for x in range(w - n_w + 1):
                sums[x, y] = sum(attention[v, u] for v in range(y, y + n_h) for u in range(x, x + n_w))
        order = sorted(sums, key=lambda p: (p[1], p[0])) if variant == "paper" else sorted(sums)
        top = order[0]
        for place in order:
            if sums[place] > sums[top] + 1e-12:
                top = place
        around = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if (dx, dy) != (0, 0)]
        around = [d for d in around if neighbours == 8 or 0 in d]
        near = [sums[p] for dx, dy in around if (p := (top[0] + dx, top[1] + dy)) in sums]
        contrast = (sums[top] - (sum(near) / len(near) if near else sums[top])) / (n_w * n_h)
        if best is None or contrast > best[0] + 1e-12:
            best = (contrast, ratio, top[0], top[1], n_w, n_h)
    assert best is not None
    _, ratio, x, y, n_w, n_h = best
    box = []
    for first, cells, cell, length, side in (
        (x, n_w, cell_w, base[0] * ratio, size[0]),
        (y, n_h, cell_h, base[1] * ratio, size[1]),
    ):
        if variant == "code":
            centre, half = int(first * cell + cell * cells / 2), length // 2
        else:
            centre, half = first * cell + length / 2, length / 2
        if 2 * half <= side:
            centre = min(max(centre, half), side - half)
            low, high = centre - half, centre + half
        else:
            low, high = 0, side
        box.append((int(low), int(high)) if variant == "paper" else (low, high))
    return (max(0, box[0][0]), max(0, box[1][0]), min(size[0], box[0][1]), min(size[1], box[1][1]))


def test_a_thousand_random_maps_against_brute_force() -> None:
    random = np.random.default_rng(1)
    for number in range(1000):
        shape = tuple(random.integers(2, 9, 2))
        attention = random.integers(0, 7, shape).astype(float) if number % 2 else random.random(shape)
        if not attention.any():
            continue
        size = (int(random.integers(40, 700)), int(random.integers(40, 700)))
        base = (int(random.integers(10, 340)), int(random.integers(10, 340)))
        neighbours, variant = (4, 8)[number % 3 == 0], ("paper", "code")[number % 5 < 2]
        found = adaptive_crop(attention, size, base, neighbours=neighbours, variant=variant)  # type: ignore[arg-type]
        expected = brute_force(attention, size, base, neighbours, variant)
        assert found.box == pytest.approx(expected, abs=1e-9), (number, attention, size, base, neighbours, variant)


def test_window_sums_are_sums_of_windows() -> None:
    attention = np.random.default_rng(2).random((7, 5))
    found = window_sums(attention, 2, 3)
    assert found.shape == (5, 4)
    assert found[4, 1] == pytest.approx(attention[4:7, 1:3].sum())


def test_the_inverse_crop_is_as_large_and_elsewhere() -> None:
    attention = np.array(T1, dtype=float)
    salient = adaptive_crop(attention, (600, 600), (200, 200))
    inverse = inverse_crop(attention, (600, 600), (200, 200), salient)
    sides = [(b[2] - b[0], b[3] - b[1]) for b in (salient.box, inverse)]
    assert sides[0] == sides[1]
    x, y = int(inverse[0] // 100), int(inverse[1] // 100)
    assert attention[y : y + 2, x : x + 2].sum() == window_sums(attention, 2, 2).min()
