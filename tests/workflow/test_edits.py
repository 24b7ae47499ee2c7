"""An edit of any config key, of the weights or of an image reruns exactly what depends on it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from perceptune.contracts.config import Config
from perceptune.planning.graph import reruns
from pydantic import BaseModel

from .conftest import INSTALLED, Workflow, difference, named
from .edits import EDITS, IMPORT, MODEL, NOTHING
from .experiment_edits import EXPERIMENT_EDITS
from .needs import NEEDS, Job, rerun

pytestmark = pytest.mark.slow

ALL_EDITS = [*((keys, value, rerun(roots)) for keys, value, roots in EDITS), *EXPERIMENT_EDITS]


def config_keys() -> Iterator[str]:
    """`section.key` for every possible config key, from the pydantic models."""
    for section, field in Config.model_fields.items():
        for block in _blocks_in(field.annotation):
            for path in _keys_of(block):
                yield f"{section}.{path}"


def _blocks_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [block for inner in get_args(annotation) for block in _blocks_in(inner)]


def _keys_of(block: type[BaseModel]) -> Iterator[str]:
    for name, field in block.model_fields.items():
        inner = _blocks_in(field.annotation)
        if name == "kind":
            continue  # a different kind of dataset is a different block
        if inner:
            yield from (f"{name}.{key}" for key in _keys_of(inner[0]))
        else:
            yield name


def mentioned(edit: str) -> str:
    """`section.key` of an edited key, without the block's name."""
    section, *rest = edit.split(".")
    return ".".join([section, *(rest if section in ("report", "controls", "diagnostics") else rest[1:])])


def test_every_key_of_the_schema_is_edited() -> None:
    edited = {mentioned(key) for keys, *_ in ALL_EDITS for key in keys.split(" ")}
    assert edited - {"datasets.kind"} == set(config_keys())


def test_every_edited_key_reruns_exactly_what_it_concerns(finished: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.folder)
    monkeypatch.syspath_prepend(INSTALLED)
    before, wrong = finished.graph(), 0
    for keys, value, expected in ALL_EDITS:
        jobs = named(reruns(before, finished.graph(finished.edited(keys, value))))
        verdict = difference(jobs, expected)
        wrong += bool(verdict)
        print(f"{keys} = {value}: {len(jobs)} of {len(NEEDS)} jobs, {verdict or 'as expected'}")
    print(f"{len(ALL_EDITS)} keys edited, {wrong} wrong")
    assert wrong == 0


@pytest.mark.parametrize("edit", ALL_EDITS[:: len(ALL_EDITS) // 11], ids=lambda edit: edit[0].replace(" ", ","))
def test_snakemake_reruns_what_the_graph_says(finished: Workflow, edit: tuple[str, Any, set[Job]]) -> None:
    keys, value, expected = edit
    assert difference(finished.jobs(config=finished.edited(keys, value, "dry.yaml")), expected) == ""


def test_the_graph_has_the_jobs_of_snakemake(finished: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.folder)
    assert named(finished.graph()) == finished.jobs("--forceall") == NEEDS.keys()


def test_unused_blocks_other_words_and_more_cores_rerun_nothing(finished: Workflow) -> None:
    text = (finished.folder / "config.yaml").read_text()
    config = yaml.safe_load(text)
    (finished.folder / "comment.yaml").write_text(f"# a comment\n{text}")
    swapped = {key: config[key] for key in reversed(config)}
    (finished.folder / "swapped.yaml").write_text(yaml.safe_dump(swapped, sort_keys=False))
    spare = finished.edited("samplings.spare", {"n": 2}, "spare.yaml")
    for name in ("comment.yaml", "swapped.yaml", spare):
        assert finished.jobs(config=name) == NOTHING, name
    assert finished.jobs("--cores", "16") == NOTHING
    assert finished.jobs("--set-scatter", "shard=5") == NOTHING


def test_touched_files_rerun_nothing(finished: Workflow) -> None:
    files = [p for p in finished.folder.rglob("*") if p.is_file() and ".snakemake" not in p.parts]
    assert len(files) > 100
    for path in files:
        os.utime(path)
    assert finished.jobs() == NOTHING


@contextmanager
def another_byte(path: Path) -> Iterator[None]:
    """The file has another last byte."""
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        yield
    finally:
        path.write_bytes(before)


def test_one_byte_of_one_image_reruns_what_looks_at_it(finished: Workflow) -> None:
    image = finished.folder / "own/3.png"
    with another_byte(image):
        assert difference(finished.jobs(), rerun(IMPORT)) == ""
    assert finished.jobs() == NOTHING


def test_swapped_weights_under_the_same_path_rerun_what_used_them(finished: Workflow) -> None:
    config = finished.edited("models.tiny.path", "same-model", "same.yaml")
    weights = finished.folder / "same-model/model.safetensors"
    with another_byte(weights):
        assert difference(finished.jobs(config=config), rerun(MODEL)) == ""
    assert finished.jobs(config=config) == NOTHING
