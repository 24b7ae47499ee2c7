"""Digest of a dataset: its files and the images they refer to.

Computed at every start of Snakemake and in every job, so slow results are cached.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from perceptune.contracts.config import FileDataset
from perceptune.contracts.plugins import file_of, load, module_of
from perceptune.contracts.provenance.digests import DigestMemory, digest_of_folder, sha256_of_file, sha256_of_json
from perceptune.core.data.inline_images import is_inline, is_url
from perceptune.core.importers.sources import source_of

SAVED = ("state.json", "dataset_dict.json")
"""Files of folders that `datasets.save_to_disk` writes: of a dataset, and of one with splits."""

NAME = re.compile("[^\0]+")
"""One of the names of image files, which are kept as one text: a list of a million takes far more
memory."""


def data_digest(block: FileDataset, memory: DigestMemory) -> str:
    """Digest of a dataset's file or folder and, with `watch_images`, of the images it refers to.

    Image names come from the importer's rows, which are read once per content of the file. Folders
    written by `datasets.save_to_disk` count only as files: reading them needs the slow import of
    `datasets`, and they usually contain their images. Missing and unreadable files do not raise here;
    the import reports them.
    """
    try:
        return _digest(block, memory)
    except PermissionError:
        return "unreadable"


def _digest(block: FileDataset, memory: DigestMemory) -> str:
    source = Path(block.path)
    folder = Path(block.images) if block.images else source if source.is_dir() else source.parent
    if source.is_dir():
        digest = digest_of_folder(source, memory, images=block.watch_images)
    else:
        companions = [source.with_name(name) for name in load("importer", block.kind).beside]
        digest, *others = memory.sha256_of_files([source, *companions])
        if digest == "unreadable":
            return digest
        digest = sha256_of_json([digest, *others]) if others else digest
    saved = load("importer", block.kind).reads == "hf" or any((source / name).exists() for name in SAVED)
    if not block.watch_images or saved:
        return digest
    file = file_of(module_of("importer", block.kind))
    assert file is not None
    code = sha256_of_file(file)
    settings = sha256_of_json([block.parameters, block.boxes, block.split])
    key, names = f"images of {block.kind} {code} {digest} {settings}", ""
    with suppress(Exception):  # an unreadable file, or an unexpected record
        names = memory.recall(key, lambda: "\0".join(sorted(_image_names(block))))
    if not names:
        return digest
    together = hashlib.sha256()
    for image in memory.sha256_of_files(f"{folder}/{name[0]}" for name in NAME.finditer(names)):
        together.update(image.encode())
    return sha256_of_json([digest, names, together.hexdigest()])


def _image_names(block: FileDataset) -> set[str]:
    """The image files that a dataset refers to. Invalid rows are skipped; the import reports
    them."""
    importer = load("importer", block.kind)
    found = set[str]()
    for _, row in importer.rows(source_of(block, importer, images=False)):
        found.update(name for name in _named(row) if name not in found and _is_file_name(name))
    return found


def _named(row: Any) -> Iterator[str]:
    """The texts in place of a row's images, which are not inside the file."""
    images = row.get("images") or [row.get("image")] if isinstance(row, Mapping) else []
    for image in images if isinstance(images, list) else []:
        if isinstance(image, str):
            yield image
        elif isinstance(image, Mapping) and image.get("bytes") is None and isinstance(image.get("path"), str):
            yield image["path"]


def _is_file_name(name: str) -> bool:
    if is_inline(name) or is_url(name):
        return False
    try:
        return b"\0" not in name.encode()
    except UnicodeEncodeError:  # unpaired surrogate
        return False
