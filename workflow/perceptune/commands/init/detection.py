"""Which format a file or folder of data has, and where its images are."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from perceptune.contracts.errors import UserError, listed, near
from perceptune.contracts.files import IMAGE_SUFFIXES
from perceptune.core.data.read_files import Files
from perceptune.core.importers.coco import LISTS
from perceptune.core.importers.importer import split_of

OWN = ("jsonl", "csv", "parquet", "hf")
"""Formats with the columns of perceptune's own."""
DETECTION = ("coco", "yolo", "voc")
"""Formats of object detection."""
SUFFIXES = {".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
"""How names of data files end, each with the format of rows of one's own in it."""
WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".ods")
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
SAVED = ("dataset_dict.json", "state.json")
"""Files that `datasets.save_to_disk` writes."""
ABOUT = ("dataset_infos.json", "dataset_info.json")
"""Files without data that `datasets` writes beside others."""
NAMES = ("data.yaml", "data.yml", "classes.txt", "labels/classes.txt")
"""Files with the names of YOLO's classes."""
TRAIN = re.compile(r"(?P<before>(?:.*[_.-])?)train(?P<after>\d{0,4})", re.IGNORECASE)
"""The name of a folder with training data or the stem of a file, such as `instances_train2017`."""
HELD_OUT = ("test", "val", "valid", "validation", "dev", "eval")
"""What replaces `train` in the names of files and folders with questions for tests, in order of preference."""
SPLIT = re.compile(rf"(?:.*[_.-])?((train|{'|'.join(HELD_OUT)})\d{{0,4}})", re.IGNORECASE)
"""A name that ends in that of a split, with and without a year: `val2017` and `val` in `instances_val2017`."""
TELLS_NOTHING = {
    *("data", "dataset", "metadata", "annotations", "_annotations.coco", "labels", "questions", "train", ""),
    *HELD_OUT,
}
"""Names of files and folders that do not say what the data are."""
PEEKED = 20
"""Records that are looked at to find out the format."""
FOLDERS = 200
"""Folders in which images are looked for."""
EXAMPLE = '{"image": "kitchen.jpg", "question": "locate the red cup.", "task": "grounding", "box": [52, 80, 120, 190]}'


@dataclass(frozen=True)
class Found:
    """A dataset: its format and its file or folder, as a dataset block names them."""

    kind: str
    path: Path
    test: Path | None = None
    """A file or folder of the same format that is named like the one with the test data."""


def detect(path: Path) -> Found:
    """The format of a file or folder. Raises `UserError` if it is not known."""
    if not path.exists():
        beside = [entry.name for entry in islice(path.parent.iterdir(), 1000)] if path.parent.is_dir() else []
        raise UserError(f"data `{path}` does not exist", near(path.name, beside))
    found = _folder(path) if path.is_dir() else _file(path)
    return replace(found, test=_test_of(found))


def _file(path: Path) -> Found:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        raise UserError(
            f"data `{path}` is an image, expected a file with questions about images", f"a line of it: {EXAMPLE}"
        )
    if suffix == ".xml":
        return Found("voc", path.parent.parent if path.parent.name == "Annotations" else path.parent)
    if suffix in (".yaml", ".yml"):
        return Found("yolo", path.parent)
    if unread := _unread(path):
        raise unread
    if suffix not in SUFFIXES:
        raise UserError(f"data `{path}`: expected one of the suffixes {', '.join(SUFFIXES)}, or a folder")
    kind = (
        "coco" if suffix == ".json" and _is_coco(path) else kind_of(_records(path, SUFFIXES[suffix]), SUFFIXES[suffix])
    )
    return Found(kind, path)


def _unread(file: Path) -> UserError | None:
    """What to do with a workbook or an archive; None for other files."""
    suffix = file.suffix.lower()
    if suffix in WORKBOOKS:
        return UserError(f"data `{file}` is a workbook, expected CSV", "save the sheet as `CSV UTF-8`")
    if suffix in ARCHIVES:
        return UserError(f"data `{file}` is an archive, expected what is in it", "unpack it and give that path")
    return None


def _test_of(found: Found) -> Path | None:
    """The test data beside training data, if they have the same format."""
    test = _test_beside(found.path)
    if test is None or test.is_file():
        return test
    with suppress(UserError):
        return test if _folder(test) == Found(found.kind, test) else None
    return None


def _test_beside(path: Path) -> Path | None:
    """What is named like the test data: a file or folder beside one with training data, or what has its
    name in the folder beside that of training data."""
    for train, suffix, rest in ((path, "" if path.is_dir() else path.suffix, ""), (path.parent, "", path.name)):
        if match := TRAIN.fullmatch(train.name.removesuffix(suffix)):
            beside = {name.lower(): train.parent / name / rest for name in _names(train.parent)}
            names = (f"{match['before']}{split}{match['after']}{suffix}".lower() for split in HELD_OUT)
            tests = (beside[name] for name in names if name in beside)
            if test := next((one for one in tests if one.exists() and one.is_dir() == path.is_dir()), None):
                return test
    return None


def _is_coco(path: Path) -> bool:
    """Whether a JSON file is one object with lists of images, annotations and categories."""
    with suppress(UserError):
        for key, element in islice(Files(path).members(), PEEKED):
            if key in LISTS:
                return isinstance(element, Mapping)
    return False


def _records(path: Path, reads: Any) -> list[Mapping[str, Any]]:
    """The first records of a file or folder. Raises `UserError` if it cannot be read."""
    source = Files(path, reads, images=False)
    names = source.names("*.parquet") if path.is_dir() else []
    found = islice(source.records(names[0] if names else None), PEEKED)
    return [record for _, record in found if isinstance(record, Mapping)]


def kind_of(records: Sequence[Mapping[str, Any]], own: str) -> str:
    """The format of records by their keys; `own` if they have the columns of perceptune's own."""
    keys = {key for record in records for key in record}
    if {"chosen", "rejected"} <= keys:
        if keys & {"conversations", "instruction"} or {"messages"} <= keys - {"prompt"}:
            return "llama_factory"
        return "trl" if "question" not in keys else "rlhf_v"
    if "messages" in keys and keys & {"rejected_response", "rejected_messages"}:
        return "ms_swift"
    for kind, needed in {
        "verl": {"prompt", "reward_model"},
        "easyr1": {"problem", "answer"},
        "perpo": {"answers_gen", "iou_scores"},
        "ocr_pages": {"image", "conversations"},
    }.items():
        if needed <= keys:
            return kind
    return own


def _folder(path: Path) -> Found:
    names = sorted(entry.name for entry in _entries(path))
    if any((path / name).is_file() for name in SAVED):
        return Found(kind_of(_records(path, "hf"), "hf"), path)
    if any(name.endswith(".parquet") for name in names):
        return Found(kind_of(_records(path, "parquet"), "parquet"), path)
    if any((path / name).is_file() for name in NAMES):
        return Found("yolo", path)
    if any(name.lower().endswith(".xml") for name in (*names, *(e.name for e in _entries(path / "Annotations")))):
        return Found("voc", path)
    files = [path / name for name in names if Path(name).suffix.lower() in SUFFIXES and name not in ABOUT]
    annotations = (file for name in names if name.lower() == "annotations" for file in _entries(path / name))
    files = files or [file for file in annotations if file.suffix.lower() == ".json"]
    # COCO's captions have no boxes
    files = [file for file in files if file.stem.lower().startswith("instances_")] or files
    for file in files:
        if TRAIN.fullmatch(file.stem) and (len(files) == 1 or _test_beside(file)):
            return _file(file)
    if len(files) == 1:
        return _file(files[0])
    if files:
        raise UserError(
            f"data `{path}` has several files, expected one: {listed(files[:5])}", "give the path of one of them"
        )
    return _inner(path, names)


def _inner(path: Path, names: Sequence[str]) -> Found:
    """The format of the data in a folder of a folder that has none itself. Raises `UserError`."""
    folders = [folder for folder in _entries(path) if folder.is_dir()]
    inner = [folder for folder in folders if any(folder.glob("*.parquet"))]
    if len(inner) == 1:
        return _folder(inner[0])
    wrong = None
    for folder in folders:
        if TRAIN.fullmatch(folder.name):
            try:
                return _folder(folder)
            except UserError as mistake:
                wrong = wrong or mistake
    if inner:
        raise UserError(
            f"data `{path}` has several folders of Parquet files, expected one: {listed(inner[:5])}",
            "give the path of one of them",
        )
    unread = (found for name in names if (found := _unread(path / name)))
    if error := next(unread, wrong):
        raise error
    images = sum(name.lower().endswith(IMAGE_SUFFIXES) for name in names)
    counted = f"{images} image{'s' if images != 1 else ''}"
    what = f"has {counted} and no file with questions about them" if images else "has no data that is recognised"
    raise UserError(
        f"data `{path}` {what}, expected JSON lines, CSV, Parquet, COCO, YOLO or Pascal VOC",
        f"write a file with a line for each question: {EXAMPLE}",
    )


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, without hidden files; empty if there is none. Raises `UserError`."""
    if not folder.is_dir():
        return []
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"data `{folder}` cannot be listed: {error.strerror}") from None


def _names(folder: Path) -> list[str]:
    """The names in a folder, sorted; empty if it cannot be listed."""
    with suppress(OSError):
        return sorted(entry.name for entry in folder.iterdir())
    return []


def images_of(path: Path, names: Sequence[str]) -> Path | None:
    """The folder that image names are relative to; None for the folder of the data itself.

    Looks beside the data, and two folders deep. Where most of the images are is taken; of several such
    folders, the one that is named like the split in the name of the data.
    """
    default = path if path.is_dir() else path.parent
    if absolute := [name for name in names if Path(name).is_absolute()]:
        return Path(os.path.commonpath([str(Path(name).parent) for name in absolute]))
    match = SPLIT.fullmatch(path.stem)
    named = {part.lower() for part in match.groups()} if match else set[str]()
    best, most = None, (_present(default, names), False)
    for folder in islice(_around(default), FOLDERS):
        if most[0] == len(names) and (best is None or most[1] or not named):
            break
        if (found := (_present(folder, names), folder.name.lower() in named)) > most:
            best, most = folder, found
    return best


def _present(folder: Path, names: Sequence[str]) -> int:
    def exists(name: str) -> bool:
        with suppress(OSError, ValueError):
            return (folder / name).is_file()
        return False

    return sum(map(exists, names))


def _around(default: Path) -> Iterator[Path]:
    """Folders in and beside the folder of the data, near ones first."""
    seen = {default.resolve()}
    above = default.parent if default.name else Path("..") if default.resolve().parent != default.resolve() else default
    for base in (default, above):
        level = [base]
        for _ in range(3):
            yield from (folder for folder in level if folder.resolve() not in seen)
            seen.update(folder.resolve() for folder in level)
            level = [one for folder in level for one in _folders_in(folder)][:FOLDERS]


def _folders_in(folder: Path) -> list[Path]:
    with suppress(OSError), os.scandir(folder) as opened:  # image folders have very many entries
        return sorted(folder / entry.name for entry in opened if entry.is_dir() and not entry.name.startswith("."))
    return []


def name_of(text: str, otherwise: str) -> str:
    """A text as the name of a block, in lower case and ASCII."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("._-").lower() or otherwise


def dataset_name(path: Path) -> str:
    """The name of a dataset: that of its file or folder, or of the folder above if it says nothing."""
    whole = path.absolute()
    names = [whole.name if path.is_dir() else whole.stem, *(folder.name for folder in whole.parents)]
    telling = (name for name in names if name.lower() not in TELLS_NOTHING and not split_of(f"{name}.parquet"))
    return name_of(next(telling, "") or names[0], "data")
