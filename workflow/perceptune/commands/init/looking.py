"""What the rows of a dataset are: tasks, splits, answers, and how their boxes are written.

The rows come from the importer, and a sample of them goes through the checks of the import.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from perceptune.commands.init.detection import DETECTION, OWN, Found, images_of
from perceptune.contracts.config import Coordinates, FileDataset, Task
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load
from perceptune.core.data.coordinate_frames import LAYOUTS, BoxFits, Reading
from perceptune.core.data.image_facts import FactsOfImages
from perceptune.core.data.inline_images import is_inline, is_url
from perceptune.core.data.row_checks import TASKS
from perceptune.core.importers.importer import Importer, Placed
from perceptune.core.importers.sources import source_of
from perceptune.stages.data.import_examples import check_folder, declared
from perceptune.stages.data.row_batches import Checked, checked_batches, is_test

SAMPLED = 64
"""Rows whose images are opened."""
COUNTED = {"yolo": 100_000, "voc": 100_000, "hf": 20_000}
"""Rows that are counted of formats with many files or with images inside."""
MOST = 500_000
"""Rows that are counted of others, which takes some seconds."""
LONG = 40
"""Characters from which an answer is text to read, not a word or a phrase."""
WHOLE = re.compile(r"\+?\d+(?:\.0+)?")
READ = re.compile(r"\b(?:read|transcribe|ocr|text|written|writing|says?)\b", re.IGNORECASE)
SHARES = (0.1, 0.2, 0.3, 0.5)
READ_IMAGES = 1000
"""Images that are read to count the questions that are held out."""
UNITS: dict[Coordinates, str] = {
    "pixels": "pixels",
    "normalised": "fractions of the image",
    "thousand": "thousandths of the image",
    "padded_normalised": "fractions of the padded image",
    "padded_thousand": "thousandths of the padded image",
}
FEW_IMAGES = 500
"""With fewer images, the share for tests is larger."""


@dataclass
class Look:
    """What was found in a dataset."""

    block: FileDataset
    """As it goes into the config, without `test_share`."""
    rows: int = 0
    """Rows that were counted."""
    partial: bool = False
    """Whether there may be more."""
    tasks: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rows by split and task."""
    shapes: Counter[str] = field(default_factory=Counter)
    """Rows without a task of their own, by what their ground truth looks like."""
    images: set[str] = field(default_factory=set)
    """Names of the images."""
    lengths: dict[str, int] = field(default_factory=dict)
    """Characters of the longest answer, by task."""
    first_images: Counter[str] = field(default_factory=Counter)
    """Rows of the split `train` by the name of their first image, which decides on `test_share`."""
    notes: list[str] = field(default_factory=list)
    """What the importer says, such as the number of objects that are left out."""
    with_truth: int = 0
    with_answers: int = 0
    """Rows with ranked answers, such as preference pairs."""
    questions: list[str] = field(default_factory=list)
    """Those of the sample."""
    columns: list[str] = field(default_factory=list)
    """Those of the sample."""
    facts: list[str] = field(default_factory=list)
    """SHA-256 of the images in the sample, without copies."""
    warnings: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    """What was found about the data and may be wrong."""

    @property
    def splits(self) -> list[str]:
        """The splits, in the order of their first rows."""
        return list(dict.fromkeys(split for split, _ in self.tasks))

    def tasks_of(self, split: str) -> list[str]:
        """The tasks of a split, the most frequent first."""
        return [task for (one, task), _ in self.tasks.most_common() if one == split]

    def count(self, split: str) -> int:
        """The number of rows of a split."""
        return sum(number for (one, _), number in self.tasks.items() if one == split)


def look(found: Found, task: Task | None, images: Path | None, split: str | None = None, *, sure: bool = True) -> Look:
    """What is in a dataset. `task` is that of rows without one if the user says it, and `images` the
    folder of the images, if they are there or if that is `sure`.

    Raises `UserError` if no row can be used, or if rows without a task are of several kinds.
    """
    importer = load("importer", found.kind)
    block = FileDataset(kind=found.kind, path=str(found.path), split=split, **_of_task(found, task))
    sample = list(islice(importer.rows(source_of(block, importer)), SAMPLED))
    if not sample:
        raise UserError(f"data `{found.path}` has no rows")
    if images is None or not (sure or _held(sample, images)):
        images = None if _held(sample, found.path) else _images(found.path, sample)
    block = block.model_copy(update={"images": str(images) if images else None})
    columns = dict.fromkeys(key for _, row in sample if isinstance(row, Mapping) for key in row)
    seen = Look(
        block, columns=[*columns], questions=[str(row["question"]) for _, row in sample if _has(row, "question")]
    )
    _count(seen, importer)
    if found.kind in OWN and seen.shapes:
        inferred = task_of(seen.shapes, seen.questions, found.path)
        seen.warnings += mixed(seen.shapes) if inferred == "open" else []
        seen.block = block.model_copy(update={"task": inferred})
        _count(seen, importer)
    seen.block = _checked(seen, sample, importer)
    return seen


def _of_task(found: Found, task: Task | None) -> dict[str, Any]:
    """Keys of a dataset block that make its rows questions of a task. Raises `UserError`."""
    if found.kind not in DETECTION or task is None:
        return {"task": task}
    if task not in ("grounding", "counting"):
        raise UserError(
            f"`{found.kind}` has boxes and no answers, expected task `grounding` or `counting`, got `{task}`"
        )
    return {"parameters": {"per": "category"}} if task == "counting" else {}


def _has(row: Any, key: str) -> bool:
    return isinstance(row, Mapping) and row.get(key) is not None


def _names(row: Any) -> Iterator[str]:
    """The names of the image files of a row."""
    if not isinstance(row, Mapping):
        return
    named = row.get("images") or [row.get("image")]
    for image in named if isinstance(named, list) else []:
        path = image.get("path") if isinstance(image, Mapping) and image.get("bytes") is None else image
        if isinstance(path, str) and not is_inline(path) and not is_url(path):
            yield path


def _held(sample: Sequence[Placed], folder: Path) -> bool:
    return all((folder / name).is_file() for _, row in sample for name in _names(row))


def _images(path: Path, sample: Sequence[Placed]) -> Path | None:
    names = list(dict.fromkeys(name for _, row in sample for name in _names(row)))[:8]
    return images_of(path, names) if names else None


def _count(seen: Look, importer: Importer) -> None:
    """Counts rows by split and task."""
    for counts in (seen.tasks, seen.shapes, seen.lengths):
        counts.clear()
    seen.rows = seen.with_truth = seen.with_answers = 0
    most = COUNTED.get(importer.name, MOST)
    files = source_of(seen.block, importer, images=False)
    seen.notes, seen.first_images = files.notes, Counter()
    for place, row in islice(importer.rows(files), most):
        seen.rows += 1
        seen.partial = seen.rows == most
        if not isinstance(row, Mapping):
            continue
        shape = shape_of(row)
        own = row.get("task") or seen.block.task or importer.task
        if own is None:
            seen.shapes[shape] += 1
        elif own not in TASKS:
            continue  # the import says what is wrong
        split = str(row.get("split") or seen.block.split or "train").strip()
        seen.tasks[split, str(own)] += 1
        named = [*_names(row)]
        seen.images.update(named or [place])
        seen.first_images.update([named[0] if named else place] if split == "train" else [])
        seen.with_truth += shape != NOTHING
        seen.with_answers += _has(row, "answers_given")
        longest = max([len(str(row.get("answer") or "")), *map(len, _given(row))])
        seen.lengths[str(own)] = max(seen.lengths.get(str(own), 0), longest)


def _given(row: Mapping[str, Any]) -> Iterator[str]:
    answers = row.get("answers_given")
    for one in answers if isinstance(answers, list) else []:
        yield str(one.get("text", "")) if isinstance(one, Mapping) else ""


BOX, YES_NO, NUMBER, TEXT, WORDS, NOTHING = "a box", "yes or no", "a whole number", "text", "words", "no ground truth"


def shape_of(row: Mapping[str, Any]) -> str:
    """What the ground truth of a row looks like."""
    if row.get("box") is not None:
        return BOX
    answer = row.get("answer")
    if answer is None:
        return NOTHING
    text = str(answer).strip()
    if text.lower() in ("yes", "no"):
        return YES_NO
    if WHOLE.fullmatch(text):
        return NUMBER
    return TEXT if len(text) >= LONG or "\n" in text else WORDS


def task_of(shapes: Counter[str], questions: Sequence[str], path: Path) -> Task:
    """The task of rows that name none. Raises `UserError` if one task cannot be that of all."""
    kinds = [shape for shape, _ in shapes.most_common() if shape != NOTHING]
    if BOX in kinds:
        if len(kinds) > 1:
            counts = ", ".join(f"{number} with {shape}" for shape, number in shapes.most_common())
            raise UserError(
                f"data `{path}`: rows without `task` are of several kinds ({counts}), expected the key `task` in each",
                f"add it to the rows: {', '.join(TASKS)}",
            )
        return "grounding"
    if kinds == [YES_NO]:
        return "existence"
    if kinds == [NUMBER]:
        return "counting"
    reading = sum(READ.search(question) is not None for question in questions) > len(questions) / 2
    if shapes[TEXT] > shapes.total() / 2 or (reading and kinds and YES_NO not in kinds):
        return "ocr"
    return "open"


def mixed(shapes: Counter[str]) -> list[str]:
    """A warning if questions of task `open` have answers of other tasks among them."""
    tasks = {YES_NO: "existence", NUMBER: "counting"}
    if not {*tasks} & {*shapes}:
        return []
    plural = {YES_NO: "yes or no", NUMBER: "whole numbers", WORDS: "words", TEXT: "text"}
    first, *others = [f"{shapes[shape]:,} {{}}are {what}" for shape, what in plural.items() if shapes[shape]]
    counts = ", ".join([first.format("answers "), *(one.format("") for one in others)])
    names = " and ".join(f"`{task}`" for shape, task in tasks.items() if shapes[shape])
    return [f"{counts}: add a column `task`, with {names} for these; without it, all are `open`"]


def _checked(seen: Look, sample: Sequence[Placed], importer: Importer) -> FileDataset:
    """The block with the coordinates and order that fit the boxes of the sample, whose rows go through
    the checks of the import. Raises `UserError` if none of them can be used."""
    block, images = seen.block, FactsOfImages()
    rows = _import(block, sample, importer, images)
    fits = _fits(rows, block, importer)
    if other := next(iter(fits.likelier(units=importer.coordinates is None)), None):
        seen.assumed.append(_assumption(other, fits))
        changed: dict[str, Any] = {"boxes": other.order} if other.order != fits.order else {}
        changed |= {"coordinates": other.unit} if other.unit != fits.declared else {}
        block = block.model_copy(update=changed)
        rows = _import(block, sample, importer, images)
        fits = _fits(rows, block, importer)
    if doubt := fits.doubt():
        seen.warnings.append(doubt)
    wrong = [f"{one.place}: {one.row['reason']}" for one in rows if one.row["reason"] is not None]
    if len(wrong) == len(rows):
        hint = "`--images FOLDER` says where the images are" if "looked in" in wrong[0] else fits.better_fit()
        raise UserError(f"data `{block.path}`, {wrong[0]}", hint)
    if wrong:
        seen.warnings.append(
            f"{len(wrong)} of the first {len(rows)} rows cannot be used, at which the import stops "
            f"(`max_failed_share` allows some): {wrong[0]}"
        )
    seen.facts = list(dict.fromkeys(sha for one in rows for sha in one.row["image_sha256"][:1]))
    return block


def _assumption(found: Reading, fits: BoxFits) -> str:
    """The unit and order of the boxes that were found, with the counts from which they follow."""
    usual = Reading(fits.order, fits.declared)
    return (
        f"boxes are {LAYOUTS[found.order]} in {UNITS[found.unit]} (`boxes: {found.order}`,"
        f" `coordinates: {found.unit}`), which fit {fits.count(found)} of {fits.boxes};"
        f" the usual `{usual.order}` in `{usual.unit}` fit {fits.count(usual)}"
    )


def _fits(rows: Sequence[Checked], block: FileDataset, importer: Importer) -> BoxFits:
    """How the boxes of a sample, as they are written, fit their images."""
    complete = block.model_copy(update=declared(block, importer))
    fit = BoxFits(complete.coordinates or "pixels", complete.boxes or "xyxy", importer.orders)
    found = [(one.box, one.image) for one in rows if one.box is not None and one.image is not None]
    if found:
        fit.add(
            np.array([box for box, _ in found], dtype=float),
            np.array([image.size for _, image in found], dtype=float),
            np.array([image.turned for _, image in found]),
        )
    return fit


def _import(block: FileDataset, sample: Sequence[Placed], importer: Importer, images: FactsOfImages) -> list[Checked]:
    """The rows as the import checks them. Raises `UserError` if there is no folder of images."""
    path = Path(block.path)
    folder = Path(block.images) if block.images else path if path.is_dir() else path.parent
    check_folder(folder)
    block = block.model_copy(update=declared(block, importer))
    batches = checked_batches(iter(sample), block, folder, importer.imageless, images)
    return list(itertools.chain.from_iterable(batches))


def held_out(seen: Look, share: float) -> int | None:
    """The number of questions that `test_share` holds out, as the import does; None if it would take long
    or if the images are no files."""
    path = Path(seen.block.path)
    folder = Path(seen.block.images) if seen.block.images else path if path.is_dir() else path.parent
    if seen.partial or len(seen.first_images) > READ_IMAGES:
        return None
    count = 0
    for name, rows in seen.first_images.items():
        try:
            digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except (OSError, ValueError):
            return None
        count += rows * is_test(digest, share)
    return count


def share_for_tests(seen: Look) -> float:
    """The share of the images to hold out: a tenth of many, more of few.

    If the sample has all images, some are in each split.
    """
    share = SHARES[0] if len(seen.images) >= FEW_IMAGES else SHARES[1]
    if len(seen.facts) < len(seen.images):
        return share
    for one in itertools.dropwhile(lambda other: other < share, SHARES):
        if 0 < sum(is_test(sha, one) for sha in seen.facts) < len(seen.facts):
            return one
    raise UserError(
        f"data `{seen.block.path}` has {len(seen.facts)} different images, too few to hold some out for tests",
        "`--test DATA` names other data for tests",
    )
