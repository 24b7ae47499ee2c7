"""What a data set is made of, by content: its files, and the images that they name.

Asked whenever Snakemake starts, and in every one of its jobs: what costs time is remembered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from perceptune.contracts.config import FileDataset
from perceptune.contracts.digests import DigestMemory, digest_of_folder, sha256_of_file, sha256_of_json
from perceptune.contracts.plugins import file_of, load, module_of
from perceptune.stages.reading import Files


def data_digest(block: FileDataset, memory: DigestMemory) -> str:
    """Digest of a dataset's file or folder and, with `watch_images`, of the images that it names.

    The names are those of the format's own rows, read once for every content of the file: a file with its images inside is
    read whole that one time, and names none. Of folders written by `datasets.save_to_disk` only the files count: reading them
    takes `datasets`, and as a rule their images are inside. What is absent counts as absent, and so does what may not be read:
    the import says what is wrong.
    """
    try:
        return _digest(block, memory)
    except PermissionError:
        return "unreadable"


def _digest(block: FileDataset, memory: DigestMemory) -> str:
    source = Path(block.path)
    folder = Path(block.images) if block.images else source if source.is_dir() else source.parent
    if source.is_dir():
        digest = digest_of_folder(source, memory)
    else:
        beside = [source.with_name(name) for name in load("importer", block.kind).beside]
        digest, *others = memory.sha256_of_files([source, *beside])
        if digest == "unreadable":
            return digest
        digest = sha256_of_json([digest, *others]) if others else digest
    if not block.watch_images or load("importer", block.kind).reads == "hf" or (source / "state.json").exists():
        return digest
    code = sha256_of_file(Path(str(file_of(module_of("importer", block.kind)))))
    names = memory.recall(f"images of {block.kind} {code} {digest}", lambda: sorted(set(_image_names(block))))
    if not names:
        return digest
    return sha256_of_json([digest, names, memory.sha256_of_files([folder / name for name in names])])


def _image_names(block: FileDataset) -> Iterator[str]:
    """The image files that a data set names; rows that are no such rows are the import's business, and so is what ends them."""
    importer = load("importer", block.kind)
    rows = importer.rows(Files(Path(block.path), importer.reads, block.split))
    while True:
        try:
            _, row = next(rows)
        except Exception:  # the end, a file that cannot be read, a record that no importer thought of
            return
        yield from _named(row)


def _named(row: Any) -> Iterator[str]:
    given = row.get("images") or [row.get("image")] if isinstance(row, Mapping) else []
    for image in given if isinstance(given, list) else []:
        inside = isinstance(image, Mapping) and image.get("bytes") is not None
        name = image.get("path") if isinstance(image, Mapping) else image
        if isinstance(name, str) and not inside and _is_file_name(name):
            yield name


def _is_file_name(name: str) -> bool:
    try:
        return b"\0" not in name.encode()
    except UnicodeEncodeError:  # half a character
        return False
