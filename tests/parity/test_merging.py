"""Merging an adapter tensor by tensor equals PEFT's own merge, and leaves everything else as it was."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from perceptune.contracts.config import LoraBlock, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.core.weights import header_bytes, read_header
from perceptune.models.adapters import new_adapter
from perceptune.models.loading import load_model, merged_model
from perceptune.models.merging import ADAPTER, INDEX
from safetensors.torch import load_file, save_file

from tests.plugins import FAMILIES
from tests.tiny_models import BUILDERS, stored_as

from .adapters import PARTS, moved


def with_adapter(model: ModelBlock, folder: Path, **settings: Any) -> Path:
    """A random adapter of the model."""
    torch.manual_seed(0)
    settings = {"r": 4, "lora_alpha": 6, "target_modules": FAMILIES[model.family].lora_targets["language"]} | settings
    moved(get_peft_model(load_model(model, torch.float32), LoraConfig(**settings))).save_pretrained(folder)
    return folder


def tensors_of(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Name to file and bytes of each tensor in a model folder."""
    found = {}
    for file in folder.glob("*.safetensors"):
        header, content = read_header(file), file.read_bytes()
        for name, one in header.tensors.items():
            found[name] = (file.name, content[header.length + one.start : header.length + one.end])
    return found


def changed(before: Path, after: Path) -> set[str]:
    """The tensors whose bytes differ. Both folders have the same names in the same files."""
    old, new = tensors_of(before), tensors_of(after)
    assert {name: file for name, (file, _) in old.items()} == {name: file for name, (file, _) in new.items()}
    return {name for name, (_, content) in old.items() if content != new[name][1]}


def assert_merged(model: ModelBlock, adapter: Path, folder: Path) -> None:
    """The model in `folder` is what PEFT makes of model and adapter in float32, bit by bit, once it is
    in the block's dtype."""
    own = load_model(model.model_copy(update={"path": str(folder)}))
    peft = PeftModel.from_pretrained(load_model(model, torch.float32), str(adapter)).merge_and_unload()
    weights = peft.to(getattr(torch, model.dtype)).state_dict()
    assert own.state_dict().keys() == weights.keys()
    assert [name for name, weight in own.state_dict().items() if not torch.equal(weight, weights[name])] == []


LAYERS_OF = {
    "language": r"(^|\.)layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight$",
    "projector": r"(projector|merger(_list\.\d)?)\.((mlp\.\d)|(linear_(fc)?\d))\.(weight|bias)$",
    "vision": r"(vision_tower|visual)\..*(layers?|blocks)\.\d+\.(self_attn|attention|attn|mlp)\.\w+\.weight$",
}
"""Part of a model to its linear layers in a checkpoint."""
TRAINED = {
    "all parts": LoraBlock(r=4, alpha=6, parts=PARTS),
    "projector in full": LoraBlock(r=4, alpha=6, parts=("language", "projector"), full=("projector",)),
    "rsLoRA, DoRA": LoraBlock(
        r=4, alpha=6, parts=("vision", "projector", "language"), full=("projector",), use_rslora=True, use_dora=True
    ),
}


def trainable(family: str, part: str, name: str) -> bool:
    """Whether a tensor of a tiny model is a layer of this part that its output depends on."""
    unread = family in ("llava", "llava_next") and "vision_tower.vision_model.encoder.layers.1." in name
    language = part != "language" or not re.search(LAYERS_OF["vision"], name)
    return bool(re.search(LAYERS_OF[part], name)) and language and not unread


@pytest.mark.parametrize("trained", sorted(TRAINED))
@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_every_family_is_merged_as_by_peft(family: str, trained: str, tmp_path: Path) -> None:
    folder = stored_as(BUILDERS[family](tmp_path / "model", 0), torch.bfloat16, shards=3)
    model, lora = ModelBlock(path=str(folder), family=family, dtype="bfloat16"), TRAINED[trained]
    base = load_model(model, torch.float32)
    adapter = tmp_path / "adapter"
    moved(new_adapter(base, lora, FAMILIES[family])).save_pretrained(adapter)
    merged_model(model, adapter, tmp_path / "merged")
    assert_merged(model, adapter, tmp_path / "merged")
    biases = [n for n in tensors_of(folder) if n.endswith(".bias") and re.search(LAYERS_OF["projector"], n)]
    assert changed(folder, tmp_path / "merged") == {
        name
        for name in tensors_of(folder)
        if any(trainable(family, part, name) for part in lora.parts) and (lora.full or name not in biases)
    }
    for file in folder.iterdir():  # no file is missing, and none has another size
        other = tmp_path / "merged" / file.name
        if file.suffix == ".json":
            assert json.loads(other.read_text()) == json.loads(file.read_text())
        else:
            assert other.stat().st_size == file.stat().st_size, file


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelBlock:
    """A model stored in float32."""
    folder = BUILDERS["llava"](tmp_path_factory.mktemp("tiny") / "model", 0)
    return ModelBlock(path=str(folder), family="llava", dtype="float32")


LAYERS = ["q_proj", "v_proj"]


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True},
        {"use_dora": True, "alpha_pattern": {"v_proj": 9}},
        {"rank_pattern": {"v_proj": 3}, "alpha_pattern": {r"layers\.1\..*q_proj": 5}},
        {"rank_pattern": {"layers.0.self_attn.q_proj": 2}, "use_rslora": True},
        {"layers_to_transform": [1], "layers_pattern": "layers"},
        {"lora_dropout": 0.5, "lora_alpha": 7},
    ],
)
def test_scales_and_layers_are_those_of_peft(tiny: ModelBlock, settings: dict[str, Any], tmp_path: Path) -> None:
    adapter = with_adapter(tiny, tmp_path / "adapter", target_modules=LAYERS, **settings)
    merged_model(tiny, adapter, tmp_path / "merged")
    assert_merged(tiny, adapter, tmp_path / "merged")
    assert changed(Path(tiny.path), tmp_path / "merged")


def test_dora_is_the_papers_formula(tiny: ModelBlock, tmp_path: Path) -> None:
    """W' = m (W + s B A) / ||W + s B A|| with the norm of each row, in float64."""
    adapter = with_adapter(tiny, tmp_path / "adapter", target_modules=LAYERS, use_dora=True)
    merged_model(tiny, adapter, tmp_path / "merged")
    layer = "layers.1.self_attn.q_proj"
    trained = {
        name.rpartition(f"{layer}.")[2]: tensor.double()
        for name, tensor in load_file(adapter / ADAPTER).items()
        if f"language_model.{layer}." in name
    }
    before, after = (
        load_file(folder / "model.safetensors")[f"language_model.model.{layer}.weight"].double()
        for folder in (Path(tiny.path), tmp_path / "merged")
    )
    updated = before + 6 / 4 * trained["lora_B.weight"] @ trained["lora_A.weight"]
    norms = (updated**2).sum(dim=1).sqrt()
    torch.testing.assert_close(
        after, trained["lora_magnitude_vector"][:, None] * updated / norms[:, None], atol=1e-6, rtol=1e-5
    )
    assert (after - updated).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [
        (torch.float32, "bfloat16"),
        (torch.bfloat16, "float32"),
        (torch.bfloat16, "float16"),
        (torch.float16, "float16"),
        (torch.float16, "bfloat16"),
    ],
)
def test_no_dtype_rounds_twice(stored: torch.dtype, dtype: Any, tmp_path: Path) -> None:
    """The weights in the block's dtype are those of the float32 sum, whatever the files have."""
    folder = stored_as(BUILDERS["llava"](tmp_path / "model", 0), stored, shards=2)
    model = ModelBlock(path=str(folder), family="llava", dtype=dtype)
    adapter = with_adapter(model, tmp_path / "adapter")
    merged_model(model, adapter, tmp_path / "merged")
    assert_merged(model, adapter, tmp_path / "merged")
    before, after = tensors_of(folder), tensors_of(tmp_path / "merged")
    wide = torch.promote_types(stored, getattr(torch, dtype)).itemsize // stored.itemsize
    for name in changed(folder, tmp_path / "merged"):
        assert len(after[name][1]) == wide * len(before[name][1])
    total = json.loads((tmp_path / "merged" / INDEX).read_text())["metadata"]["total_size"]
    assert total == sum(len(content) for _, content in after.values())


def test_only_files_that_transformers_loads_are_copied(tiny: ModelBlock, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in Path(tiny.path).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
        (folder / file.name).chmod(0o444)
    (folder / "model.safetensors").chmod(0o600)
    stored_as(folder, torch.float32, shards=2)
    for name in ("consolidated.safetensors", "pytorch_model.bin", ".git/lfs/object", "original/model.pth"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"weights")
    (folder / "code.py").write_text("")
    model = tiny.model_copy(update={"path": str(folder)})
    adapter = with_adapter(model, tmp_path / "adapter")
    merged_model(model, adapter, tmp_path / "merged")
    found = {file.relative_to(tmp_path / "merged").as_posix() for file in (tmp_path / "merged").rglob("*")}
    kept = {
        file.name
        for file in folder.iterdir()
        if file.name not in ("consolidated.safetensors", "pytorch_model.bin", ".git")
    }
    assert found == kept
    assert all(file.stat().st_mode & 0o600 == 0o600 for file in (tmp_path / "merged").iterdir())


def refused(model: ModelBlock, adapter: Path, folder: Path) -> str:
    with pytest.raises(UserError) as error:
        merged_model(model, adapter, folder / "merged")
    assert not (folder / "merged").exists()
    return str(error.value)


@pytest.mark.filterwarnings(
    "ignore:Setting `save_embedding_layers` to `True`", "ignore:Adapter 'default'. 2 LoRA tensor"
)
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"bias": "all"}, "is not part of LoRA on a linear layer, or of `modules_to_save`: `base_model.model."),
        ({"lora_bias": True, "target_modules": ["fc1"]}, "mlp.fc1.lora_B.bias`"),
        ({"target_modules": ["patch_embedding"]}, "embeddings.patch_embedding` is not LoRA or DoRA on a linear layer"),
        ({"target_modules": ["embed_tokens"]}, "embed_tokens` is not LoRA or DoRA on a linear layer"),
    ],
)
def test_adapters_with_more_than_lora_are_refused(
    tiny: ModelBlock, settings: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    adapter = with_adapter(tiny, tmp_path / "adapter", **{"target_modules": LAYERS, **settings})
    assert expected in refused(tiny, adapter, tmp_path)


def edited(adapter: Path, **changes: Any) -> None:
    """Edits an adapter's tensors by the end of their name; None removes one."""
    tensors = load_file(adapter / ADAPTER)
    for ending, change in changes.items():
        for name in [name for name in tensors if name.endswith(ending.replace("__", "."))]:
            tensors[name] = change(tensors[name])
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, adapter / ADAPTER)


def with_number(number: float) -> Any:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor[-1, -1] = number
        return tensor

    return change


def test_other_modules_trained_in_full_are_taken_over(tiny: ModelBlock, tmp_path: Path) -> None:
    adapter = with_adapter(tiny, tmp_path / "adapter", modules_to_save=["lm_head", "multi_modal_projector"])
    merged_model(tiny, adapter, tmp_path / "merged")
    assert_merged(tiny, adapter, tmp_path / "merged")
    names = changed(Path(tiny.path), tmp_path / "merged")
    assert {"language_model.lm_head.weight", "multi_modal_projector.linear_2.bias"} < names


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_an_adapter_that_is_not_finite_is_refused(tiny: ModelBlock, number: float, tmp_path: Path) -> None:
    adapter = with_adapter(tiny, tmp_path / "adapter")
    edited(adapter, layers__1__mlp__up_proj__lora_B__weight=with_number(number))
    name = "base_model.model.model.language_model.layers.1.mlp.up_proj.lora_B.weight"
    assert (
        refused(tiny, adapter, tmp_path)
        == f"error: adapter `{adapter / ADAPTER}`: `{name}` has NaN or infinite numbers"
    )


def test_an_update_beyond_the_range_of_the_weights_is_refused(tmp_path: Path) -> None:
    folder = stored_as(BUILDERS["llava"](tmp_path / "model", 0), torch.float16)
    model = ModelBlock(path=str(folder), family="llava", dtype="float16")
    adapter = with_adapter(model, tmp_path / "adapter", target_modules=LAYERS)
    edited(adapter, language_model__layers__0__self_attn__q_proj__lora_B__weight=lambda tensor: 1e8 * tensor)
    assert "`model.language_model.layers.0.self_attn.q_proj` is NaN or infinite in torch.float16" in refused(
        model, adapter, tmp_path
    )


def test_every_tensor_of_the_adapter_must_have_its_place(tiny: ModelBlock, tmp_path: Path) -> None:
    adapter = with_adapter(tiny, tmp_path / "adapter", target_modules=LAYERS)
    edited(adapter, language_model__layers__0__self_attn__q_proj__lora_A__weight=lambda _: None)
    assert "is missing: `base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight`" in refused(
        tiny, adapter, tmp_path
    )
    adapter = with_adapter(tiny, tmp_path / "wide", target_modules=LAYERS)
    edited(
        adapter, language_model__layers__0__self_attn__v_proj__lora_A__weight=lambda tensor: tensor[:, 1:].contiguous()
    )
    assert (
        "the update of `model.language_model.layers.0.self_attn.v_proj` has shape (64, 63), expected (64, 64)"
        in refused(tiny, adapter, tmp_path)
    )
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"init_lora_weights": "pissa"}))
    assert "`init_lora_weights` is `pissa`, which also changes the base model's weights" in refused(
        tiny, adapter, tmp_path
    )


def test_weights_that_cannot_be_added_to_are_refused(tiny: ModelBlock, tmp_path: Path) -> None:
    adapter = with_adapter(tiny, tmp_path / "adapter", target_modules=LAYERS)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_bytes((Path(tiny.path) / "config.json").read_bytes())
    tensors = load_file(Path(tiny.path) / "model.safetensors")
    model = tiny.model_copy(update={"path": str(folder)})
    named = "language_model.model.layers.0.self_attn.q_proj"
    save_file(
        tensors | {f"{named}.weight": tensors[f"{named}.weight"].to(torch.float8_e4m3fn)}, folder / "model.safetensors"
    )
    assert f"`{named}.weight` is stored as F8_E4M3, expected F32, BF16, F16 to merge with" in refused(
        model, adapter, tmp_path
    )
    fused = {name.replace("q_proj", "qkv_proj"): tensor for name, tensor in tensors.items()}
    save_file(fused, folder / "model.safetensors")
    message = refused(model, adapter, tmp_path)
    assert f"has no weight of its own in model folder `{folder}`: `model.language_model.layers.0.self_attn" in message
    (folder / "model.safetensors").write_bytes(b"cut")
    assert "model.safetensors`: 3 bytes, expected weights in safetensors format" in refused(model, adapter, tmp_path)


PEAK = """
import resource, sys
from pathlib import Path
from perceptune.contracts.config import ModelBlock
from perceptune.models.loading import merged_model
folder = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
merged_model(ModelBlock(path=str(folder / "model"), family="llava"), folder / "adapter", folder / "merged")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_that_of_a_few_tensors(tiny: ModelBlock, tmp_path: Path) -> None:
    """The weights have 200 MB and the largest tensor with an adapter 8 MB in bfloat16."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = json.loads((Path(tiny.path) / "config.json").read_text())
    layers, width, inner = 8, 1024, 4096
    config["text_config"] |= {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": inner}
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"gate_proj": (inner, width), "up_proj": (inner, width), "down_proj": (width, inner)}
    weights = {
        f"language_model.model.layers.{layer}.mlp.{name}.weight": torch.zeros(shape, dtype=torch.bfloat16)
        for layer in range(layers)
        for name, shape in shapes.items()
    }
    save_file(weights, folder / "model.safetensors")
    adapter = {
        f"base_model.model.model.language_model.layers.{layer}.mlp.{name}.lora_{matrix}.weight": torch.ones(shape)
        for layer in range(layers)
        for name, (rows, columns) in shapes.items()
        for matrix, shape in (("A", (4, columns)), ("B", (rows, 4)))
    }
    (tmp_path / "adapter").mkdir()
    save_file(adapter, tmp_path / "adapter" / ADAPTER)
    LoraConfig(r=4, target_modules=list(shapes)).save_pretrained(tmp_path / "adapter")
    done = subprocess.run([sys.executable, "-c", PEAK, tmp_path], check=True, capture_output=True, text=True)
    assert int(done.stdout) / 1024 < 150
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert all((tensor == 8).all() for tensor in merged.values())  # 4 products of ones, times 8 / 4


def test_headers_are_those_of_safetensors(tiny: ModelBlock, tmp_path: Path) -> None:
    file = Path(tiny.path) / "model.safetensors"
    header, content = read_header(file), file.read_bytes()
    assert json.loads(header_bytes(header.tensors, header.metadata)[8:]) == json.loads(content[8 : header.length])
    tensors = load_file(file)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        name: one.shape for name, one in header.tensors.items()
    }
    assert all(
        one.bytes == tensors[name].nbytes and one.count == tensors[name].numel() for name, one in header.tensors.items()
    )
