"""Small datasets of a user's own, in the formats that people have."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

SIZE = (120, 80)
IMAGES = 12
Boxes = list[tuple[int, int, int, int]]


def drawn(folder: Path, suffix: str = ".png", seed: int = 0) -> Boxes:
    """Images `0.png`, `1.png`, ..., each with a red rectangle; returns the rectangles as x1, y1, x2, y2."""
    folder.mkdir(parents=True, exist_ok=True)
    chance, boxes = random.Random(seed), []
    for number in range(IMAGES):
        x1, y1 = chance.randrange(60), chance.randrange(40)
        box = (x1, y1, x1 + 20 + chance.randrange(40), y1 + 10 + chance.randrange(30))
        image = Image.new("RGB", SIZE, (200, 200, 10 * number))
        image.paste("red", box)
        image.save(folder / f"{number}{suffix}")
        boxes.append(box)
    return boxes


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def boxes_jsonl(folder: Path) -> Path:
    """Boxes, with images in a folder beside the file."""
    boxes = drawn(folder / "photos")
    rows = [{"image": f"{n}.png", "question": "locate the red block.", "box": box} for n, box in enumerate(boxes)]
    return write_lines(folder / "boxes.jsonl", rows)


def coco_content(boxes: Boxes) -> dict[str, Any]:
    """COCO's annotations of images that `drawn` makes."""
    return {
        "info": {"year": 2017},
        "images": [{"id": n, "file_name": f"{n}.png", "width": SIZE[0], "height": SIZE[1]} for n in range(IMAGES)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
            for n, (x1, y1, x2, y2) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "block"}],
    }


def coco(folder: Path) -> Path:
    path = folder / "annotations/instances_train2017.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(coco_content(drawn(folder / "train2017"))))
    return path


def yolo(folder: Path) -> Path:
    boxes = drawn(folder / "images/train")
    (folder / "labels/train").mkdir(parents=True)
    for n, (x1, y1, x2, y2) in enumerate(boxes):
        numbers = (x1 + x2) / 2 / SIZE[0], (y1 + y2) / 2 / SIZE[1], (x2 - x1) / SIZE[0], (y2 - y1) / SIZE[1]
        (folder / f"labels/train/{n}.txt").write_text(f"0 {' '.join(f'{one:.4f}' for one in numbers)}\n")
    (folder / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "val": None, "names": ["block"]}))
    return folder


def write_xml(folder: Path, boxes: Boxes) -> None:
    """Pascal VOC's annotations of images that `drawn` makes."""
    for n, (x1, y1, x2, y2) in enumerate(boxes):
        place = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        (folder / f"{n}.xml").write_text(
            f"<annotation><filename>{n}.png</filename><object><name>block</name><bndbox>{place}</bndbox></object></annotation>"
        )


def voc(folder: Path) -> Path:
    for name in ("Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    write_xml(folder / "Annotations", drawn(folder / "JPEGImages"))
    for split, numbers in {"train": range(8), "test": range(8, IMAGES)}.items():
        (folder / f"ImageSets/Main/{split}.txt").write_text("".join(f"{n}\n" for n in numbers))
    return folder


def ocr_csv(folder: Path) -> Path:
    """As Excel exports it in much of Europe: semicolons, a byte order mark, CRLF."""
    drawn(folder / "scans")
    rows = [f'{n}.png;read the text.;"Chapter {n}; with a first line\nand a second one"' for n in range(IMAGES)]
    path = folder / "pages.csv"
    path.write_bytes("\r\n".join(["image;question;answer", *rows, ""]).encode("utf-8-sig"))
    return path


def yes_no(folder: Path) -> Path:
    drawn(folder)
    return write_lines(
        folder / "data.jsonl",
        [
            {"image": f"{n}.png", "question": "Is there a red block?", "answer": "Yes" if n % 2 else "no"}
            | ({"split": "val"} if n > 8 else {})
            for n in range(IMAGES)
        ],
    )


def counting(folder: Path) -> Path:
    drawn(folder)
    rows = [{"image": f"{n}.png", "question": "How many blocks are there?", "answer": n % 3} for n in range(IMAGES)]
    return write_lines(folder / "counts.jsonl", rows)


def preferences(folder: Path) -> Path:
    """Preference pairs as TRL has them."""
    drawn(folder)
    rows = [
        {"images": [f"{n}.png"], "prompt": "What is red?", "chosen": "the block", "rejected": f"the sky {n}"}
        for n in range(IMAGES)
    ]
    return write_lines(folder / "pairs.jsonl", rows)


def ranked(folder: Path) -> Path:
    """Rows of one's own with ranked answers and a ground truth."""
    path = boxes_jsonl(folder)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    given = [{"text": "[0.2, 0.2, 0.4, 0.6]", "reward": 0.7}, {"text": "[0.9, 0.9, 1.0, 1.0]", "reward": 0.0}]
    return write_lines(path, [{**row, "task": "grounding", "answers_given": given} for row in rows])


KINDS: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "boxes": (boxes_jsonl, []),
    "coco": (coco, []),
    "yolo": (yolo, []),
    "voc": (voc, []),
    "excel": (ocr_csv, []),
    "yes-no": (yes_no, []),
    "counting": (counting, []),
    "counted": (yolo, ["--task", "counting"]),
    "pairs": (preferences, []),
    "ranked": (ranked, []),
    "rounds": (boxes_jsonl, ["--rounds", "3"]),
}
"""What people have, each with further words of the command line."""
