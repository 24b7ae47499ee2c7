"""Groups that are read when they are needed, against plain loops over whole tables."""

import hashlib
import io
import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perceptune.contracts.config import ModelBlock, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables import io as tables
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table, table_writer, write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.contracts.tables.terms import TERMS
from perceptune.core.methods.method import Stored
from perceptune.core.views.view import Recipe
from perceptune.engines.training.groups import RankedList, Rollout, Shown, StoredTokens
from perceptune.stages.sampling.recipes import messages_for, recipe_of, with_pictures
from perceptune.stages.training.encodable import Prompts
from perceptune.stages.training.groups import kept_lists, kept_rollouts
from PIL import Image
from torch.utils.data import DataLoader

from tests import tiny_models as tiny

COUNT = 60
BLOCKS = {
    "corrupted": ViewBlock(type="random_crop"),
    "blurred": ViewBlock(type="blur"),
    "one": ViewBlock(choice=("corrupted", "blurred")),
}
QUESTIONS = ("locate the cup.", "where?", "is it an <image>?", "")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Prompts:
    folder = tiny.build_tiny_llava(tmp_path_factory.mktemp("model"), 0)
    return Prompts(ModelBlock(path=str(folder), family="llava", dtype="float32"))


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of several row groups."""
    monkeypatch.setattr(tables, "IMAGE_ROWS", 7)
    monkeypatch.setattr(tables, "GROUP_ROWS", 11)


def encoded(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20 + number, 30), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def written(folder: Path, seed: int) -> Path:
    """Examples with 0 to 3 images, in files or in the table; groups of other lengths and order."""
    chance = np.random.default_rng(seed)
    examples, groups = [], []
    for number in range(COUNT):
        numbers = chance.integers(0, 8, chance.integers(0, 4)).tolist()
        images = []
        for one in numbers:
            file = folder / f"{one}.png"
            file.write_bytes(encoded(one))
            inside = bool(chance.integers(2))
            images.append({"bytes": encoded(one) if inside else None, "path": None if inside else str(file)})
        examples.append({
            "example_id": f"e{number}", "task": "open", "question": "?", "images": images, "image_hashes": [],
            "image_sha256": [hashlib.sha256(encoded(one)).hexdigest() for one in numbers],
            "image_sizes": [[20 + one, 30] for one in numbers], "target": "a", "box": None, "split": "train", "source": None, "reason": None,
        })  # fmt: skip
    for number in chance.permutation(COUNT).tolist():
        count = len(examples[number]["images"])
        messages = messages_for(str(chance.choice(QUESTIONS)), Recipe("original"), count)
        responses = [
            {"sample_index": n, "text": "", "token_ids": chance.integers(5, 90, chance.integers(1, 6)).tolist(), "reward": chance.random(), "role": None}
            for n in range(chance.integers(1, 5))
        ]  # fmt: skip
        own, pairs = [], []
        if count and chance.integers(2):
            crop = Recipe("enhanced", box=(0.0, 0.0, 9.0, 9.0))
            own = [
                {
                    "view": "enhanced",
                    "recipe": crop.text(),
                    "messages": with_pictures(messages, crop, count),
                    "sha256": "0",
                    "strength": 0.5,
                }
            ]
        if chance.integers(2):
            pairs = [
                {"kind": kind, "chosen": 0, "rejected": len(responses) - 1, "kept": bool(chance.integers(2))}
                for kind in ("focus", "robust")
            ]
        groups.append({
            "group_id": f"g{number}", "example_id": f"e{number}", "request_id": f"g{number}", "task": "open", "view": "original",
            "messages": messages, "responses": responses, "views": own, "pairs": pairs,
            "numbers": [{"name": "clip", "value": 0.5}] if own else [], "kept": bool(chance.integers(4)), "reason": None,
        })  # fmt: skip
    write_table(folder / "examples.parquet", EXAMPLES, examples, {})
    write_table(folder / "preferences.parquet", PREFERENCES, groups, {})
    return folder


def expected(folder: Path, views: tuple[str, ...], prompts: Prompts, redrawn: bool = False) -> list[RankedList]:
    """All lists at once."""
    examples = {row["example_id"]: row for row in read_table(folder / "examples.parquet", EXAMPLES).to_pylist()}
    lists = []
    for group in read_table(folder / "preferences.parquet", PREFERENCES).to_pylist():
        example = examples[group["example_id"]]
        files = [one["bytes"] or Path(one["path"]).read_bytes() for one in example["images"]]
        sizes = tuple((width, height) for width, height in example["image_sizes"])
        shown = {own["view"]: Shown(Recipe.read(own["recipe"]), own["messages"], "0") for own in group["views"]}
        for view in views:
            if view not in shown and not (view == "enhanced" and group["pairs"]):
                drawn = (group["group_id"],) if redrawn and view != "original" else ()
                recipe = recipe_of(view, BLOCKS, example["image_sha256"], occasion=drawn)
                shown[view] = Shown(recipe, with_pictures(group["messages"], recipe, len(files)))
        shown = {view: shown[view] for view in views if view in shown}
        try:
            assert [prompts.length(view, sizes) for view in shown.values()]
        except ValueError:
            continue
        if group["kept"]:
            pairs = {p["kind"]: (p["chosen"], p["rejected"]) for p in group["pairs"] if p["kept"]}
            lists.append(
                RankedList(
                    group_id=group["group_id"],
                    images=[{"bytes": file, "path": None} for file in files],
                    views=shown,
                    responses=[one["token_ids"] for one in group["responses"]],
                    rewards=[one["reward"] for one in group["responses"]],
                    pairs=pairs,
                    numbers={one["name"]: one["value"] for one in group["numbers"]},
                    sizes=sizes,
                )
            )
    return lists


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize(
    ("views", "redrawn"),
    [(("original",), False), (("original", "blurred"), False), (("original", "one"), True), (("corrupted",), True)],
)
def test_lists_are_those_of_a_plain_loop(
    views: tuple[str, ...], redrawn: bool, tmp_path: Path, prompts: Prompts
) -> None:
    folder = written(tmp_path, seed=len(views[-1]) + redrawn)
    lists = kept_lists(folder / "preferences.parquet", folder / "examples.parquet", views, BLOCKS, prompts, redrawn)
    known = expected(folder, views, prompts, redrawn)
    assert 20 < len(known) == len(lists) < COUNT
    order = np.random.default_rng(0).permutation(len(known)).tolist()
    assert [lists[n] for n in order] == [known[n] for n in order]
    assert list(lists) == lists[:] == known
    assert lists[-3:] == known[-3:]
    with pytest.raises(IndexError):
        lists[len(known)]
    assert lists.tokens() == [one.tokens for one in known]
    assert list(lists.ranks()) == [(one.rewards, one.pairs) for one in known]
    assert lists.ops == sorted({view.recipe.op for one in known for view in one.views.values()})
    chosen = lists.where(len(one.rewards) > 1 for one in known)
    assert list(pickle.loads(pickle.dumps(chosen))) == [one for one in known if len(one.rewards) > 1]


@pytest.mark.usefixtures("small_groups")
def test_a_data_loader_reads_lists_in_its_workers(tmp_path: Path, prompts: Prompts) -> None:
    folder = written(tmp_path, seed=9)
    lists = kept_lists(folder / "preferences.parquet", folder / "examples.parquet", ["original"], {}, prompts)
    loaded = DataLoader(lists, batch_size=4, collate_fn=list, num_workers=2)
    assert [one for batch in loaded for one in batch] == expected(folder, ("original",), prompts)


def stored(lists: list[RankedList], terms: tuple[Stored, ...], seed: int = 0) -> list[dict[str, Any]]:
    """Rows of log-probs in another order than the lists."""
    chance = np.random.default_rng(seed)
    rows = [
        {
            "group_id": one.group_id, "term": term.term, "view": term.view,
            "logprobs": [chance.normal(size=len(answer)).astype(np.float32).tolist() for answer in one.responses],
            "entropies": [chance.random(len(answer)).astype(np.float32).tolist() for answer in one.responses],
        }
        for term in terms
        for one in lists
        if term.view in one.views
    ]  # fmt: skip
    return [rows[n] for n in chance.permutation(len(rows))]


@pytest.mark.usefixtures("small_groups")
def test_references_are_those_of_a_plain_loop(tmp_path: Path, prompts: Prompts) -> None:
    """Under two views, one of which some groups lack."""
    folder, views = written(tmp_path, seed=5), ("original", "enhanced")
    paths = {view: folder / f"{view}.parquet" for view in views}
    pairs = read_table(folder / "preferences.parquet", PREFERENCES).to_pylist()
    write_table(folder / "preferences.parquet", PREFERENCES, [one for one in pairs if one["pairs"] or one["views"]], {})
    lists = kept_lists(folder / "preferences.parquet", folder / "examples.parquet", views, {}, prompts)
    known = expected(folder, views, prompts)
    assert 0 < len(lists.under("enhanced")) < len(lists) == len(known)
    assert list(lists.under("enhanced")) == [one for one in known if "enhanced" in one.views]
    sums: dict[tuple[str, str], list[float]] = {}
    for view, path in paths.items():
        rows = stored(known, (Stored("reference", view),))
        write_table(path, TERMS, rows, {})
        sums |= {(row["group_id"], view): [sum(values) for values in row["logprobs"]] for row in rows}
    referenced = lists.with_reference(paths)
    assert list(referenced) == [
        replace(one, reference={view: sums[one.group_id, view] for view in one.views}) for one in known
    ]
    assert len(referenced[3:5]) == 2
    for change in ("more", "missing"):
        rows = stored(known, (Stored("reference", "original"),))
        (row,) = (row for row in rows if row["group_id"] == known[7].group_id)
        row["logprobs"][-1].append(-1.0)
        rows = rows if change == "more" else [one for one in rows if one is not row]
        write_table(paths["original"], TERMS, rows, {})
        with pytest.raises(
            UserError, match=rf"original\.parquet` does not match group `{known[7].group_id}`: its resp"
        ):
            lists.with_reference(paths)


@pytest.mark.usefixtures("small_groups")
def test_rollouts_are_those_of_a_plain_loop(tmp_path: Path, prompts: Prompts) -> None:
    folder, views = written(tmp_path, seed=6), ("original", "one")
    terms = (Stored("old", "original"), Stored("reference", "one"))
    known = expected(folder, views, prompts, redrawn=True)
    chance, answers = np.random.default_rng(1), []
    for group in read_table(folder / "preferences.parquet", PREFERENCES).to_pylist():
        for answer in reversed(group["responses"]):
            logprobs = chance.normal(size=len(answer["token_ids"])).astype(np.float32).tolist()
            ended = str(chance.choice(["length", "stop"]))
            answers.append({
                "request_id": group["request_id"], "example_id": group["example_id"], "view": "original", "sample_index": answer["sample_index"],
                "text": "", "token_ids": answer["token_ids"], "logprobs": logprobs, "finish_reason": ended, "prompt_tokens": 3, "reason": None, "key": None,
            })  # fmt: skip
    rows = stored(known, terms)
    write_table(folder / "responses.parquet", RESPONSES, answers, {})
    write_table(folder / "terms.parquet", TERMS, rows, {})
    arguments: dict[str, Any] = {
        **{name: folder / f"{name}.parquet" for name in ("preferences", "responses", "examples", "terms")},
        "views": views, "blocks": BLOCKS, "stored": terms, "saliencies": {}, "prompts": prompts,
    }  # fmt: skip
    rollouts = kept_rollouts(**arguments)
    assert len(rollouts) == len(known)
    for place in chance.permutation(len(known)).tolist():
        one = known[place]
        own = [row for row in reversed(answers) if row["request_id"] == one.group_id]
        found = {Stored(r["term"], r["view"]): r for r in rows if r["group_id"] == one.group_id}
        assert rollouts[place] == Rollout(
            **{part.name: getattr(one, part.name) for part in fields(one)},
            sampled=[row["logprobs"] for row in sorted(own, key=lambda row: row["sample_index"])],
            truncated=[row["finish_reason"] == "length" for row in sorted(own, key=lambda row: row["sample_index"])],
            stored={term: StoredTokens(found[term]["logprobs"], found[term]["entropies"]) for term in terms},
        )
    answers[-1]["logprobs"].append(-1.0)
    write_table(folder / "responses.parquet", RESPONSES, answers, {})
    changed = answers[-1]["request_id"]
    if changed not in [one.group_id for one in known]:
        pytest.fail("the changed group must be kept")
    with pytest.raises(UserError, match=rf"responses\.parquet` does not match group `{changed}`"):
        kept_rollouts(**arguments)


def test_an_example_that_is_missing_is_named(tmp_path: Path, prompts: Prompts) -> None:
    folder = written(tmp_path, seed=7)
    rows = read_table(folder / "examples.parquet", EXAMPLES).to_pylist()
    (kept, *_) = (g for g in read_table(folder / "preferences.parquet", PREFERENCES).to_pylist() if g["kept"])
    others = [row for row in rows if row["example_id"] != kept["example_id"]]
    write_table(folder / "examples.parquet", EXAMPLES, others, {})
    with pytest.raises(UserError, match=rf"preferences\.parquet`: example `{kept['example_id']}` is not in `"):
        kept_lists(folder / "preferences.parquet", folder / "examples.parquet", ["original"], {}, prompts)


def test_a_changed_image_is_refused_when_it_is_read(tmp_path: Path, prompts: Prompts) -> None:
    """A missing one before that."""
    folder = written(tmp_path, seed=8)
    paths = (folder / "preferences.parquet", folder / "examples.parquet")
    lists = kept_lists(*paths, ["original"], {}, prompts)
    used = {image["path"] for row in read_table(paths[1], EXAMPLES).to_pylist() for image in row["images"]}
    assert len(list(lists)) == len(lists)
    for name in used - {None}:
        Path(name).write_bytes(encoded(9))
    lists = kept_lists(*paths, ["original"], {}, prompts)
    with pytest.raises(UserError, match=r"\.png` of example `e\d+`: the image has changed since the import"):
        list(lists)
    for name in used - {None}:
        Path(name).unlink()
    with pytest.raises(UserError, match=r"\.png` of example `e\d+`: the file does not exist"):
        kept_lists(*paths, ["original"], {}, prompts)


def megabytes(name: str) -> float:
    """Memory of this process: `VmRSS` now, `VmHWM` at its peak."""
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(name))
    return int(line.split()[1]) / 1024


def test_memory_does_not_grow_with_the_images(tmp_path: Path, prompts: Prompts) -> None:
    """Reading 100 MB of images in a table, with all of their groups, takes a part of that."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "BMP")
    content = [{"type": "image", "text": None}, {"type": "text", "text": "?"}]
    answer = {"sample_index": 0, "text": "", "token_ids": [5], "reward": 1.0, "role": None}
    groups = []
    with table_writer(tmp_path / "examples.parquet", EXAMPLES) as examples:
        for number in range(100):
            data = file.getvalue() + number.to_bytes(4, "big") * 2**18
            examples.write([{
                "example_id": str(number), "task": "open", "question": "?", "images": [{"bytes": data, "path": None}], "image_hashes": [],
                "image_sha256": [hashlib.sha256(data).hexdigest()], "image_sizes": [[8, 8]], "target": "a", "box": None, "split": "train", "source": None, "reason": None,
            }])  # fmt: skip
            groups.append({
                "group_id": str(number), "example_id": str(number), "request_id": str(number), "task": "open", "view": "original",
                "messages": [{"role": "user", "content": content}], "responses": [answer], "views": [], "pairs": [], "numbers": [], "kept": True, "reason": None,
            })  # fmt: skip
        examples.lineage = {}
    write_table(tmp_path / "preferences.parquet", PREFERENCES, groups, {})
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now the memory in use
    before = megabytes("VmRSS")
    lists = kept_lists(tmp_path / "preferences.parquet", tmp_path / "examples.parquet", ["original"], {}, prompts)
    assert sum(len(image["bytes"]) for one in lists for image in one.images) > 100 * 2**20
    assert megabytes("VmHWM") - before < 70
