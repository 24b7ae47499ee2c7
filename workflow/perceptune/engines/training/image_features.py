"""Cache of image features: what a frozen vision tower and projector make of the images of a prompt.

Entries are found by content: a digest of the tensors that the model takes for the images of one prompt,
in a folder for the model's weights and for what else decides on the bits of a forward pass. Workers look
entries up and send features instead of pixels. The process with the model computes those that are
missing, prompt by prompt, so that they depend neither on the batch nor on what is in the cache.

Nothing but speed depends on the cache: entries that are missing or damaged are computed again.
"""

from __future__ import annotations

import hashlib
import inspect
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.files import appearing
from perceptune.contracts.progress import tell
from perceptune.contracts.provenance.digests import sha256_of_json
from perceptune.models.placement import autocast_dtype, bare, language_model, mixed_precision, on_device

FORMAT = 1
"""Raise it if entries change: their tensors, their checksum, or how their key is computed."""
RESERVE = 5 * 10**9
"""Bytes of the disk that entries leave free."""
WAITING = 32
"""Entries that may wait for the disk; they are in memory."""
POOLED, DEEP = "pooler_output", "deepstack_features"
"""Attributes of what a model's `get_image_features` returns."""
LISTED = f"{POOLED}.list"
"""Name of a tensor that joins those of a list, one per image."""
CHECKSUM = "crc32"
OFF = "set `feature_cache: false` for this model"


@dataclass(frozen=True)
class FeatureCache:
    """The features of one model as one kind of device computes them. Can be sent to other processes."""

    folder: Path
    autocast: str | None = None
    """Dtype of mixed precision in which the forward pass runs; None: without."""

    def images(self, tensors: Mapping[str, Tensor]) -> Images:
        """The images of a prompt, as the model takes them: with their features if these are stored."""
        key = _digest(tensors)
        found = self.read(key)
        return Images(self, key, dict(tensors), False) if found is None else Images(self, key, found, True)

    def read(self, key: str) -> dict[str, Tensor] | None:
        """The features of an entry; None if it is missing or damaged."""
        try:
            with safe_open(self._file(key), "pt") as file:
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
                checksum = (file.metadata() or {}).get(CHECKSUM)
        except (OSError, SafetensorError):
            return None
        return found if checksum == _checksum(found) else None

    def write(self, key: str, features: Mapping[str, Tensor]) -> None:
        """Writes an entry; several processes may write the same. Raises `OSError`."""
        file = self._file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(file.parent).free < RESERVE:
            raise OSError(f"less than {RESERVE / 1e9:.0f} GB are free")
        with appearing(file) as written:
            written.write(save(dict(features), {CHECKSUM: _checksum(features)}))

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"


@dataclass(frozen=True)
class Images:
    """The images of one prompt."""

    cache: FeatureCache
    key: str
    tensors: Mapping[str, Tensor]
    """Features, or what the vision tower computes them from."""
    stored: bool
    """Whether they are features."""


@dataclass(frozen=True)
class PackedImages:
    """The images of a batch."""

    rows: Sequence[str]
    """Keys of the prompts with images, in the order of their placeholders; rows may repeat a prompt."""
    prompts: Mapping[str, Images]
    """Each prompt by its key."""
    known: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Features on the model's device by key, after the first pass."""

    @staticmethod
    def of(rows: Iterable[Images | None]) -> PackedImages | None:
        """The images of rows, some of which may have none; None if all have none."""
        found = [images for images in rows if images is not None]
        return PackedImages([one.key for one in found], {one.key: one for one in found}) if found else None

    def pinned(self) -> PackedImages:
        """The same in page-locked memory."""
        moved = {
            key: replace(one, tensors={name: tensor.pin_memory() for name, tensor in one.tensors.items()})
            for key, one in self.prompts.items()
        }
        return replace(self, prompts=moved)

    def output(self, model: nn.Module) -> ImageFeatures:
        """What the model's `get_image_features` returns for all rows."""
        return ImageFeatures(lambda: [self._features(key, model) for key in self.rows])

    def _features(self, key: str, model: nn.Module) -> dict[str, Tensor]:
        if key not in self.known:
            one = self.prompts[key]
            session = session_of(one.cache)
            if one.stored:
                device = bare(model).device
                self.known[key] = {name: t.to(device, non_blocking=True) for name, t in one.tensors.items()}
            else:
                self.known[key] = computed(model, one.tensors, one.cache.autocast)
                session.write(key, self.known[key])
            session.count(one.stored)
        return self.known[key]


class ImageFeatures:
    """Stands for the output of a model's `get_image_features` in its forward pass (`mm_encoder_outputs`).

    Features are computed when the forward pass asks for them: only then are sharded weights there, and
    mixed precision is on. `pooler_output` has those of all images, as a tensor or as a list of tensors,
    as the model returns them; `deepstack_features` has lists for the first decoder layers (Qwen3-VL).
    Raises `UserError` if the model asks for anything else.
    """

    def __init__(self, compute: Callable[[], list[dict[str, Tensor]]]) -> None:
        self._rows = cache(compute)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in (POOLED, DEEP):
            raise UserError(
                f"the model reads `{name}` of its images, which the cache of image features does not store", OFF
            )
        rows = self._rows()
        if name == POOLED:
            return torch.cat([row[name] for row in rows]) if name in rows[0] else [row[LISTED] for row in rows]
        layers = range(sum(key.startswith(DEEP) for key in rows[0]))
        return [[row[f"{DEEP}.{layer}"] for row in rows] for layer in layers]


@torch.no_grad()
def computed(model: nn.Module, tensors: Mapping[str, Tensor], autocast: str | None) -> dict[str, Tensor]:
    """What the model's vision tower and projector make of the images of one prompt, without gradient.

    Tensors of a list are joined, as the model does it next. Raises `UserError` for features in an
    unknown form.
    """
    inner = bare(model)
    wanted = inspect.signature(inner.model.get_image_features).parameters
    given = {name: tensor for name, tensor in on_device(tensors, inner).items() if name in wanted}
    with mixed_precision(autocast):
        output = inner.model.get_image_features(**given, return_dict=True)
    pooled, deep = getattr(output, POOLED), getattr(output, DEEP, None) or ()
    lists = {f"{DEEP}.{layer}": parts for layer, parts in enumerate(deep)}
    if not isinstance(pooled, Tensor):
        lists[LISTED] = pooled
    if not all(isinstance(part, Tensor) for parts in lists.values() for part in parts):
        raise UserError(f"`{type(inner).__name__}` has features of images in a form that cannot be stored", OFF)
    found = {name: torch.cat(tuple(parts)) for name, parts in lists.items()}
    return found if LISTED in found else {POOLED: pooled, **found}


def feature_cache(
    root: Path, block: ModelBlock, weights: str, model: nn.Module, autocast: str | None
) -> FeatureCache | None:
    """The cache for forward passes of a model in this process; None if its block asks for none, or, with a
    notice, if none can be used.

    `weights` is the digest of the model's files. `autocast`: the dtype of a model whose forward pass runs
    in mixed precision as in training.
    """
    if not block.feature_cache:
        return None
    if reason := why_not(model):
        tell(f"`feature_cache` is not used: {reason}")
        return None
    mixed = autocast_dtype(autocast)
    cuda = torch.cuda.is_available()
    facts = {
        "weights": weights,
        "dtype": block.dtype,
        "autocast": str(mixed),
        "device": torch.cuda.get_device_name() if cuda else torch.backends.cpu.get_cpu_capability(),
        "versions": [FORMAT, torch.__version__, transformers.__version__],
    }
    return FeatureCache(root / sha256_of_json(facts)[:16], autocast if mixed else None)


def why_not(model: nn.Module) -> str | None:
    """Why features of images differ from pass to pass, or cannot be given to the model; None if neither."""
    inner = bare(model)
    if "mm_encoder_outputs" not in inspect.signature(inner.forward).parameters:
        return f"`{type(inner).__name__}` takes no features of images"
    decoder = set(language_model(model).modules())
    others = [(name, module) for name, module in inner.named_modules() if module not in decoder]
    for name, module in others:
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            return f"`{name}` is trained, not only the language model"
        if (isinstance(module, _DropoutNd) and module.p > 0) or isinstance(module, _BatchNorm):
            return f"`{name}` ({type(module).__name__}) computes something else in training"
    vision = getattr(inner.config, "vision_config", None)
    for key, value in (vision.to_dict() if vision is not None else {}).items():
        if "drop" in key and isinstance(value, int | float) and value > 0:
            return f"`{key}` of its vision tower is {value}, which draws random numbers in training"
    return None


class Session:
    """Writes new entries in a thread, so that no step waits for the disk, until the disk refuses one; counts."""

    def __init__(self, cache: FeatureCache) -> None:
        self._cache = cache
        self._thread = ThreadPoolExecutor(1, "image-features")
        self._waiting: deque[Future[None]] = deque()
        self._refused = False
        self._counts = {True: 0, False: 0}

    def write(self, key: str, features: Mapping[str, Tensor]) -> None:
        """Writes an entry soon."""
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= WAITING):
            self._waiting.popleft().result()
        if not self._refused:
            copies = {name: tensor.cpu().contiguous() for name, tensor in features.items()}
            self._waiting.append(self._thread.submit(self._write, key, copies))

    def count(self, stored: bool) -> None:
        """Counts a prompt whose features were stored, or computed."""
        self._counts[stored] += 1

    def finish(self) -> None:
        """See `finish`."""
        while self._waiting:
            self._waiting.popleft().result()
        folder = self._cache.folder
        print(f"image features: {self._counts[True]} prompts read from `{folder}`, {self._counts[False]} computed")
        self._counts = {True: 0, False: 0}

    def _write(self, key: str, features: Mapping[str, Tensor]) -> None:
        if self._refused:
            return
        try:
            self._cache.write(key, features)
        except FileNotFoundError:  # the folder was deleted at this moment
            return
        except OSError as error:
            self._refused = True
            tell(f"warning: no more image features are stored in `{self._cache.folder}`: {error}")


@cache
def session_of(cache: FeatureCache) -> Session:
    """The session of a cache in this process."""
    return Session(cache)


def finish(cache: FeatureCache | None) -> None:
    """Waits until this process's entries are written, and prints how many were read and computed."""
    if cache is not None:
        session_of(cache).finish()


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors, with their names, dtypes and shapes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(_bytes(tensors[name]), zlib.crc32(name.encode(), value))
    return str(value)


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
