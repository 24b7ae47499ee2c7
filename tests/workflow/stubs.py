"""Stand-ins for the files of the papers' configs, laid out as in docs/reproduce.md: official
formats with a few rows, drawn images, and tiny random-weight models.
"""

import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from tests.tiny_models import BUILDERS, build_tiny_dinov2
from tests.unit.benchmarks.tables import embedded, in_base64, write_parquet, write_tsv

ROOT = Path(__file__).parents[2]
SIZE = (96, 64)


def lay_out(folder: Path, config: Mapping[str, Any], count: int = 4) -> None:
    """Write everything that a config needs below `folder`, with `count` rows or groups of rows per
    dataset.
    """
    for block in config["models"].values():
        if not (folder / block["path"]).exists():
            BUILDERS[block["family"]](folder / block["path"], 0)
    for block in config.get("clip_scores", {}).values():
        shutil.copytree(ROOT / "resources/tiny-clip/model", folder / block["path"], dirs_exist_ok=True)
    for block in config.get("saliency_maps", {}).values():
        build_tiny_dinov2(folder / block["path"], layers=10)
    for block in config.get("rewards", {}).values():
        if block.get("resources"):  # a new user lacks the resources of METEOR and AMBER's descriptions
            (folder / block["resources"]).mkdir(parents=True, exist_ok=True)
    for block in config["datasets"].values():
        path = folder / block["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        STUBS[block["kind"]](path, folder / block.get("images", Path(block["path"]).parent), count)


def draw(path: Path, number: int = 0) -> None:
    """Draw an image with a rectangle whose position depends on `number`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", SIZE, (250, 250, (7 * number) % 256))
    image.paste((200, 30, 30), _box(number))
    image.save(path)


def _box(number: int) -> tuple[int, int, int, int]:
    return (4 + number % 20, 6, 44 + number % 20, 50)


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _refer(path: Path, images: Path, count: int) -> None:
    splits = [s for s in ("train", "val", "testA", "testB", "test") for _ in range(count)]
    refs, instances, annotations = [], [], []
    for number, split in enumerate(splits):
        name = f"COCO_train2014_{number:012d}.jpg"
        draw(images / name, number)
        x1, y1, x2, y2 = _box(number)
        sentence = {"sent_id": number, "raw": "red square", "sent": "red square", "tokens": ["red", "square"]}
        refs.append(
            {
                "ref_id": number, "ann_id": number, "image_id": number, "split": split, "category_id": 1,
                "file_name": name.replace(".jpg", f"_{number}.jpg"), "sent_ids": [number], "sentences": [sentence],
            }
        )  # fmt: skip
        instances.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]})
    path.write_bytes(pickle.dumps(refs))
    coco = {"images": instances, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (path.parent / "instances.json").write_text(json.dumps(coco))


def _pages(path: Path, images: Path, count: int) -> None:
    records = []
    for number in range(count):
        draw(images / f"page-{number}.png", number)
        turns = [
            {"from": "human", "value": "<image>\nread the page."},
            {"from": "gpt", "value": f"page {number} of many"},
        ]
        records.append({"image": f"page-{number}.png", "conversations": turns})
    path.write_text(json.dumps(records))


def _pope(path: Path, images: Path, count: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for category in ("random", "popular", "adversarial"):
        rows = []
        for number in range(count):
            name = f"COCO_val2014_{number // 2:012d}.jpg"
            draw(images / name, number // 2)
            label = ("yes", "no")[number % 2]
            rows.append(
                {"question_id": number + 1, "image": name, "text": "Is there a dog in the image?", "label": label}
            )
        _lines(path / f"coco_pope_{category}.json", rows)


def _mmhal(path: Path, images: Path, count: int) -> None:
    kinds = ("attribute", "adversarial", "comparison", "counting", "relation", "environment", "holistic", "other")
    records = []
    for number in range(max(count, len(kinds))):
        draw(images / f"{number:08d}_o.jpg", number)
        records.append(
            {
                "question_type": kinds[number % len(kinds)], "question_topic": "outdoor", "image_id": f"{number:016x}",
                "image_src": f"https://example.org/8/{number:08d}_o.jpg", "image_content": ["Rectangle"],
                "question": "What colour is the rectangle?", "gt_answer": "It is red.", "model_answer": "",
            }
        )  # fmt: skip
    path.write_text(json.dumps(records))


def _llava_bench(path: Path, images: Path, count: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    questions, contexts, references = [], [], []
    for number in range(count):
        name, category = f"{number:03d}.jpg", ("conv", "detail", "complex")[number % 3]
        draw(images / name, number)
        questions.append({"question_id": number, "image": name, "text": "What is shown?", "category": category})
        contexts.append({"id": f"{number:03d}", "image": name, "caption": "A red rectangle."})
        references.append({"question_id": number, "text": "A rectangle, red.", "answer_id": f"a{number}"})
    for name, rows in (("questions", questions), ("context", contexts), ("answers_gpt4", references)):
        _lines(path / f"{name}.jsonl", rows)


def _rlhf_v(path: Path, images: Path, count: int) -> None:
    text = {"question": "What is shown?", "chosen": "A red rectangle.", "rejected": "A blue circle and a dog."}
    rows = [
        {
            "ds_name": "RLHF-V", "image": embedded(number), "text": json.dumps(text), "origin_dataset": "VQAv2",
            "origin_split": "{}", "idx": str(number), "image_path": f"{number}.jpg",
        }
        for number in range(count)
    ]  # fmt: skip
    write_parquet(path, rows)


def _textvqa(path: Path, images: Path, count: int) -> None:
    rows = [
        {
            "image": embedded(number), "question": "what is written?", "answer": ["red"] * 8 + ["blue"] * 2,
            "dataset_id": str(number), "bbox": [4.0, 4.0, 20.0, 12.0],
        }
        for number in range(count)
    ]  # fmt: skip
    write_parquet(path / "val.parquet", rows)


def _amber(path: Path, images: Path, count: int) -> None:
    """Descriptions first, then questions; the n-th annotation has number n."""
    path.mkdir(parents=True, exist_ok=True)
    kinds = [
        ("discriminative-attribute-state", "yes"), ("discriminative-attribute-number", "no"), ("discriminative-attribute-action", "no"),
        ("discriminative-hallucination", "no"), ("discriminative-relation", "yes"), ("relation", "no"),
    ]  # fmt: skip
    annotations: list[dict[str, Any]] = [
        {"type": "generative", "truth": ["sky"], "hallu": ["dog"]} for _ in range(count)
    ]
    annotations += [{"type": kinds[n % 6][0], "truth": kinds[n % 6][1]} for n in range(count * 2)]
    queries = []
    for number, annotation in enumerate(annotations, 1):
        image = f"AMBER_{(number - 1) % count + 1}.jpg"
        draw(images / image, number % count)
        annotation["id"] = number
        query = "Describe this image." if number <= count else "Is the sky sunny in this image?"
        queries.append({"id": number, "image": image, "query": query})
    for name, value in (
        ("annotations", annotations),
        ("query_all", queries),
        ("relation", {"sky": [], "dog": ["puppy"]}),
    ):
        (path / f"{name}.json").write_text(json.dumps(value))
    (path / "safe_words.txt").write_text("orange\nline\n")


def _hallusionbench(path: Path, images: Path, count: int) -> None:
    records = []
    for number in range(count):
        for figure in ("0", "1"):
            category = ("VD", "VS")[number % 2]
            shown = not (category == "VS" and figure == "0")
            name = f"{category}/chart/{number}_{figure}.png"
            if shown:
                draw(images / name, number)
            records.append(
                {
                    "category": category, "subcategory": "chart", "visual_input": str(int(figure) + 1) if shown else "0",
                    "set_id": str(number), "figure_id": figure, "sample_note": "", "question_id": "0",
                    "question": "Is the bar red?", "gt_answer": figure, "gt_answer_details": "The bar is red.",
                    "filename": f"./hallusion_bench/{name}" if shown else None,
                }
            )  # fmt: skip
    path.write_text(json.dumps(records))


def _problems(path: Path, images: Path, count: int) -> None:
    rows = [
        {
            "problem": "<image>How many?", "question": "<image>How many?", "answer": str(number), "images": [embedded(number)],
            "id": str(number), "qid": str(number), "category": "counting",
        }
        for number in range(count)
    ]  # fmt: skip
    if path.suffix == ".parquet":
        write_parquet(path, [{k: row[k] for k in ("problem", "answer", "images", "id")} for row in rows])
    else:
        kept = ("problem", "answer", "images", "qid", "id", "category")
        write_parquet(path / "train.parquet", [{k: row[k] for k in kept} for row in rows])


def _table(make: Callable[[int], list[dict[str, Any]]]) -> Callable[[Path, Path, int], None]:
    """Write a TSV file in VLMEvalKit's format; a function gives the row of each number."""

    def write(path: Path, images: Path, count: int) -> None:
        rows = [row for number in range(count) for row in make(number)]
        write_tsv(path, [{"index": place, "image": in_base64(place), **row} for place, row in enumerate(rows)])

    return write


def _we_math(number: int) -> list[dict[str, Any]]:
    keys = (
        ("2steps_1", "2steps_2", "2steps_multi") if number % 2 else ("3steps_1", "3steps_2", "3steps_3", "3steps_multi")
    )
    shared = {
        "ID": number,
        "question": "How many?",
        "option": "A. 1; B. 2",
        "answer": "A",
        "knowledge concept": "numbers",
    }
    return [{**shared, "key": key} for key in keys]


def _mathverse(number: int) -> list[dict[str, Any]]:
    versions = ("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only")
    shared = {
        "question": "How many?", "question_for_eval": "How many?", "answer": "A", "question_type": "multi-choice",
        "metadata": "{'split': 'testmini', 'subfield': 'Area'}", "problem_index": number,
    }  # fmt: skip
    return [{**shared, "problem_version": version} for version in versions]


def _dynamath(number: int) -> list[dict[str, Any]]:
    shared = {"qid": number, "question": "How many?", "answer": "3.0", "answer_type": "float", "subject": "arithmetic"}
    return [{**shared, "varid": variant, "level": "elementary"} for variant in range(1, 11)]


def _papo_eval(path: Path, images: Path, count: int) -> None:
    records = []
    for number in range(count):
        draw(images / f"images/{number}.png", number)
        turns = [{"role": "user", "content": "<image>How many?"}, {"role": "assistant", "content": str(number)}]
        records.append({"messages": turns, "images": [f"images/{number}.png"]})
    path.write_text(json.dumps(records))


STUBS: dict[str, Callable[[Path, Path, int], None]] = {
    "refer": _refer,
    "ocr_pages": _pages,
    "pope": _pope,
    "amber": _amber,
    "hallusionbench": _hallusionbench,
    "mmhal": _mmhal,
    "llava_bench": _llava_bench,
    "rlhf_v": _rlhf_v,
    "textvqa": _textvqa,
    "virl39k": _problems,
    "easyr1": _problems,
    "papo_eval": _papo_eval,
    "we_math": _table(_we_math),
    "mathverse": _table(_mathverse),
    "dynamath": _table(_dynamath),
    "logicvista": _table(lambda _: [{"question": "Which?", "answer": "A", "skill": "['inductive']"}]),
    "mathvista": _table(
        lambda _: [
            {
                "question": "How many?", "answer": "A", "answer_option": "A", "choices": "['1', '2']", "question_type": "multi_choice",
                "answer_type": "text", "task": "geometry problem solving", "skills": "['arithmetic reasoning']", "precision": 0,
            }
        ]
    ),
    "mathvision": _table(lambda _: [{"question": "How many?", "choices": "['1', '2']", "answer": "A", "category": "counting", "level": 1}]),
    "mmmu_pro": _table(lambda _: [{"question": "", "A": "1", "B": "2", "answer": "A", "category": "Art"}]),
}  # fmt: skip
