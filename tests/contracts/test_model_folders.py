"""Model folders: the declared family, and weights that were not downloaded completely."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load, names
from perceptune.planning import policies
from perceptune.planning.model_folders import check_models, model_digest
from safetensors.numpy import load_file, save_file

from .demo_configs import DEMO, edited

ROOT = Path(__file__).parents[2]
TINY = ROOT / "resources/tiny-llava/model"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "a" + "\nsize 1234\n"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with weights in two shards."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llava"}')
    shards = {"a": "one.safetensors", "b": "two.safetensors"}
    for name, file in shards.items():
        save_file({name: np.arange(6, dtype=np.float32)}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    return folder


def damage(folder: Path) -> str:
    """What is wrong with a model folder; empty if nothing is."""
    try:
        model_digest(ModelBlock(path=str(folder), family="llava"))
    except UserError as error:
        assert error.hint == "was it downloaded completely?"
        return str(error.args[0]).replace(f"{folder}/", "")
    return ""


def test_complete_weights_are_accepted(folder: Path) -> None:
    assert damage(folder) == damage(TINY) == damage(ROOT / "resources/tiny-clip/model") == ""
    save_file({}, folder / "two.safetensors")
    assert damage(folder) == ""


def test_every_cut_of_a_file_of_weights_is_noticed(folder: Path) -> None:
    file = folder / "two.safetensors"
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert damage(folder).startswith(f"model file `two.safetensors`: {length} bytes, expected "), length
    file.write_bytes(whole + b"x")
    assert (
        damage(folder) == f"model file `two.safetensors`: {len(whole) + 1} bytes, expected {len(whole)} by its header"
    )


@pytest.mark.parametrize(
    "content",
    [
        b"x" * 200,
        b"<html>not found</html>",
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a": {}}',
    ],
)
def test_other_formats_are_no_weights(folder: Path, content: bytes) -> None:
    (folder / "one.safetensors").write_bytes(content)
    assert damage(folder) == "model file `one.safetensors`: not in safetensors format"


@pytest.mark.parametrize("name", ["one.safetensors", "config.json", "tokenizer.json", "model.safetensors.index.json"])
def test_a_pointer_of_git_lfs_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text(LFS)
    assert damage(folder) == f"model file `{name}`: a Git LFS pointer, not the file itself"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("config.json", '{"model_', "model file `config.json`: no valid JSON object"),
        ("config.json", "[]", "model file `config.json`: no valid JSON object"),
        ("model.safetensors.index.json", "{", "model file `model.safetensors.index.json`: has no `weight_map`"),
        ("model.safetensors.index.json", "{}", "model file `model.safetensors.index.json`: has no `weight_map`"),
    ],
)
def test_damaged_json_is_named(folder: Path, name: str, text: str, expected: str) -> None:
    (folder / name).write_text(text)
    assert damage(folder).startswith(expected)


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "two.safetensors").unlink()
    assert damage(folder) == "model file `two.safetensors`: does not exist, but `model.safetensors.index.json` names it"


def test_large_weights_are_not_read_whole(folder: Path) -> None:
    """A sparse file of a terabyte takes no time."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}).encode()
    with (folder / "one.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2**40 - 1)
    assert damage(folder).startswith("model file `one.safetensors`: ")


def family_error(**model: Any) -> str:
    config = policies.load(edited("models.tiny", {**DEMO["models"]["tiny"], **model})).config
    try:
        check_models(config)
    except UserError as error:
        return str(error)
    return ""


def test_a_family_is_compared_with_the_folder(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "m")
    assert family_error(path="m") == ""
    assert family_error(path="m", family="qwen2_5_vl") == (
        "error: config\n  key `models.tiny.family`: `qwen2_5_vl`, but `model_type` is `llava` in `m/config.json`; did you mean `llava`?"
    )
    (tmp_path / "m/config.json").write_text('{"model_type": "llava_llama"}')
    assert family_error(path="m").endswith(
        "`m/config.json`, expected `llava`; no family supports `llava_llama`, but `auto` may"
    )
    (tmp_path / "m/config.json").write_text("{}")
    assert "`model_type` is `` in `m/config.json`, expected `llava`" in family_error(path="m")


def test_a_context_longer_than_the_model_is_named(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "m")
    assert family_error(path="m", max_model_len=2048) == ""
    expected = "key `models.tiny.max_model_len`: 2049, expected at most the 2048 of model `m`"
    assert family_error(path="m", max_model_len=2049) == f"error: config\n  {expected}"
    config = json.loads((tmp_path / "m/config.json").read_text())
    config["text_config"]["rope_parameters"] = {"rope_type": "yarn", "factor": 4.0}
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    assert family_error(path="m", max_model_len=2049) == ""  # only vLLM knows the limit of scaled positions
    del config["text_config"]["max_position_embeddings"]
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    assert family_error(path="m", max_model_len=2049) == ""


@pytest.mark.parametrize("names", [["q_proj"], ["self_attn.v_proj", "mlp.down_proj"]])
def test_layers_of_an_adapter_exist(names: list[str]) -> None:
    config = edited("trainings.dpo.lora", {"r": 4, "target_modules": names})
    config["models"]["tiny"]["path"] = str(TINY)
    check_models(policies.load(config).config)
    config["trainings"]["dpo"]["lora"]["target_modules"] = [*names, "qproj"]
    expected = "key `trainings.dpo.lora.target_modules`: `qproj` matches no layer of `language` in "
    with pytest.raises(UserError, match=expected) as stopped:
        check_models(policies.load(config).config)
    assert str(stopped.value).endswith("expected one of down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj")
    config["models"]["tiny"]["path"] = "nowhere"
    check_models(policies.load(config).config)


def test_layers_of_an_adapter_are_in_its_parts(tmp_path: Path) -> None:
    config = edited("trainings.dpo.lora", {"parts": ["projector", "vision"], "full": ["projector"]})
    config["models"]["tiny"]["path"] = str(TINY)
    lora = config["trainings"]["dpo"]["lora"]
    for named in (["fc1"], ["self_attn.out_proj", "q_proj"]):
        lora["target_modules"] = named
        check_models(policies.load(config).config)
    for name in ("linear_1", "gate_proj"):  # one is trained in full, the other in another part
        lora["target_modules"] = ["fc1", name]
        with pytest.raises(UserError) as stopped:
            check_models(policies.load(config).config)
        assert f"`{name}` matches no layer of `vision` in " in str(stopped.value)
        assert str(stopped.value).endswith("expected one of fc1, fc2, k_proj, out_proj, q_proj, v_proj")
    shutil.copytree(TINY, tmp_path / "m")
    tensors = load_file(TINY / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if "multi_modal" not in n}, tmp_path / "m/model.safetensors")
    config["models"]["tiny"]["path"], lora["target_modules"] = str(tmp_path / "m"), []
    with pytest.raises(UserError, match=r"key `trainings\.dpo\.lora\.parts`: `projector` has no linear layer in "):
        check_models(policies.load(config).config)


def test_folders_that_cannot_be_read_are_left_to_the_jobs_that_need_them(tmp_path: Path) -> None:
    assert family_error(path="nowhere") == ""
    (tmp_path / "config.json").write_text("{")
    assert family_error(path=".") == ""


def test_the_model_of_a_judge_is_checked_and_an_endpoint_is_not(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    config = edited("models.judge", {"path": ".", "family": "llava"})
    config["models"]["tiny"]["path"] = str(TINY)
    config["benchmarks"]["shapes-test"] |= {"protocol": "mmhal", "judge": "one"}
    config["judges"] = {"one": {"model": "judge", "url": "http://localhost:1/v1"}}
    check_models(policies.load(config).config)
    config["judges"] = {"one": {"model": "judge"}}
    with pytest.raises(UserError, match=r"key `models\.judge\.family`: `llava`, but `model_type` is `qwen3`"):
        check_models(policies.load(config).config)


def test_no_model_type_belongs_to_two_families() -> None:
    types = [one for name in names("family") for one in load("family", name).model_types]
    assert len(types) == len(set(types)) >= 7
