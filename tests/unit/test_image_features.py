"""Entries of the cache of image features: damage, several writers, a full disk, a deleted folder."""

import errno
import os
import shutil
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from perceptune.contracts.errors import UserError
from perceptune.engines.training import image_features
from perceptune.engines.training.image_features import FeatureCache, PackedImages, Session, computed, session_of
from torch import Tensor

FEATURES = {
    "pooler_output.list": torch.arange(12, dtype=torch.bfloat16).view(4, 3),
    "deepstack_features.0": torch.ones(4, 3),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureCache:
    monkeypatch.setattr(image_features, "RESERVE", 0)
    return FeatureCache(tmp_path / "features")


def pixels(**changes: Tensor) -> dict[str, Tensor]:
    return {"pixel_values": torch.arange(8.0).view(2, 4), "image_grid_thw": torch.tensor([[1, 2, 2]]), **changes}


def entry(cache: FeatureCache) -> Path:
    (file,) = cache.folder.rglob("*.safetensors")
    return file


def test_images_are_found_by_content(cache: FeatureCache) -> None:
    first = cache.images(pixels())
    assert not first.stored
    assert first.tensors.keys() == pixels().keys()
    cache.write(first.key, FEATURES)
    found = cache.images(pixels())
    assert found.stored
    assert found.tensors.keys() == FEATURES.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in FEATURES.items())
    assert all(found.tensors[name].dtype == tensor.dtype for name, tensor in FEATURES.items())
    values = pixels()["pixel_values"]
    others = [
        pixels(pixel_values=values.nextafter(torch.tensor(9.0))),
        pixels(pixel_values=values.to(torch.bfloat16)),
        pixels(pixel_values=values.view(4, 2)),
        pixels(image_grid_thw=torch.tensor([[1, 4, 1]])),
        {"pixel_values": values},
        {"pixels": values, "image_grid_thw": pixels()["image_grid_thw"]},
    ]
    keys = {first.key, *(cache.images(other).key for other in others)}
    assert len(keys) == 1 + len(others)
    assert not any(cache.images(other).stored for other in others)
    assert FeatureCache(cache.folder.with_name("other")).images(pixels()).key == first.key
    assert not FeatureCache(cache.folder.with_name("other")).images(pixels()).stored


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "content", "zeros", "folder", "other"])
def test_damaged_entries_are_computed_again(cache: FeatureCache, damage: str) -> None:
    key = cache.images(pixels()).key
    cache.write(key, FEATURES)
    file = entry(cache)
    content = file.read_bytes()
    if damage == "folder":
        file.unlink()
        file.mkdir()
    elif damage == "other":  # a complete file, but of something else
        from safetensors.torch import save_file

        save_file({"x": torch.ones(1)}, file)
    else:
        middle = len(content) - 9
        file.write_bytes({
            "empty": b"",
            "cut": content[:-1],
            "header": content[:4] + b"\xff" + content[5:],
            "content": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "zeros": bytes(len(content)),
        }[damage])  # fmt: skip
    assert not cache.images(pixels()).stored
    if damage != "folder":
        cache.write(key, FEATURES)
        assert cache.images(pixels()).stored


def test_several_write_the_same_entry(cache: FeatureCache) -> None:
    key = cache.images(pixels()).key
    seen = []
    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(cache.write, key, FEATURES) for _ in range(40)]
        while not all(one.done() for one in writing):
            seen.append(cache.read(key))
    assert all(one.result() is None for one in writing)
    first = next((number for number, one in enumerate(seen) if one is not None), len(seen))
    assert all(one is not None for one in seen[first:])  # never half an entry
    assert [file.name for file in entry(cache).parent.iterdir()] == [f"{key}.safetensors"]


def test_a_full_disk_ends_writing_with_one_warning(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = cache.images(pixels()).key
    cache.write(key, FEATURES)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(image_features, "appearing", full)
    session = Session(cache)
    for number in range(3):
        session.write(f"{number:064d}", FEATURES)
    session.finish()
    said = capsys.readouterr().out.splitlines()
    assert (
        said[0] == f"warning: no more image features are stored in `{cache.folder}`: [Errno 28] No space left on device"
    )
    assert [line.partition(":")[0] for line in said[1:]] == ["image features"]
    assert cache.images(pixels()).stored  # entries are still read


def test_some_of_the_disk_stays_free(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", ("total", "used", "free"))
    monkeypatch.setattr(image_features, "RESERVE", 5 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**12, 10**12 - 10**9, 10**9))
    session = Session(cache)
    session.write("0" * 64, FEATURES)
    session.finish()
    assert f"stored in `{cache.folder}`: less than 5 GB are free" in capsys.readouterr().out
    assert not list(cache.folder.rglob("*.safetensors"))


def test_the_folder_can_be_deleted_at_any_time(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(cache)
    session.write("1" * 64, FEATURES)
    session.finish()
    shutil.rmtree(cache.folder)
    plain = image_features.appearing

    def deleted(*_: object) -> None:  # just before the file is created
        monkeypatch.setattr(image_features, "appearing", plain)
        raise FileNotFoundError

    monkeypatch.setattr(image_features, "appearing", deleted)
    for key in ("2" * 64, "3" * 64):
        session.write(key, FEATURES)
    session.finish()
    assert "warning" not in capsys.readouterr().out
    assert entry(cache).stem == "3" * 64


def test_an_error_of_the_code_is_raised(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_features, "save", lambda *_: 1 / 0)
    session = Session(cache)
    session.write("1" * 64, FEATURES)
    with pytest.raises(ZeroDivisionError):
        session.finish()


def test_rows_repeat_prompts(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt is in page-locked memory once for all of its rows."""
    keys = [cache.images(one).key for one in (pixels(), pixels(image_grid_thw=torch.tensor([[1, 4, 1]])))]
    for key in keys:
        cache.write(key, {"pooler_output.list": torch.full((2, 3), float(keys.index(key)))})
    one, other = cache.images(pixels()), cache.images(pixels(image_grid_thw=torch.tensor([[1, 4, 1]])))
    images = PackedImages.of([one, None, one, other])
    assert images is not None
    locked: list[Tensor] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: locked.append(tensor) or tensor)
    images = images.pinned()
    assert len(locked) == 2
    output = images.output(SimpleNamespace(device=torch.device("cpu")))  # type: ignore[arg-type]
    assert [part[0, 0].item() for part in output.pooler_output] == [0, 0, 1]
    assert all(part.dtype == torch.float32 for part in output.pooler_output)  # as stored
    assert output.deepstack_features == []
    session_of(cache).finish()
    assert PackedImages.of([None, None]) is None


def test_features_in_an_unknown_form_are_refused() -> None:
    """Granite 4 Vision pairs features with the number of a layer."""

    def encode(pixel_values: Tensor, return_dict: bool) -> Any:
        return SimpleNamespace(pooler_output=[torch.ones(2, 3)], deepstack_features=[(0, [torch.ones(2, 3)])])

    vision = SimpleNamespace(get_image_features=encode)
    model: Any = SimpleNamespace(model=vision, device=torch.device("cpu"), dtype=torch.float32)
    with pytest.raises(UserError, match="in a form that cannot be stored\nhint: set `feature_cache: false`"):
        computed(model, pixels(), None)
