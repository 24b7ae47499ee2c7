"""Exported models load in vLLM and transformers, and a wrong one is not written."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from perceptune.contracts.config import BenchmarkBlock, EngineBlock, FileDataset, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.lineage import write_lineage
from perceptune.core.parity import difference, lost
from perceptune.engines import parity
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, merged_model
from perceptune.stages.data import import_examples
from perceptune.stages.export import model as model_export
from perceptune.stages.sampling import requests
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.tiny_models import build_tiny_llava, stored_as

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Arguments of `export.model.run`: a random model with an adapter, and twenty questions."""
    folder = tmp_path_factory.mktemp("export")
    path = build_tiny_llava(folder / "model", 0)
    (path / "README.md").write_text("the base model's card")
    model = ModelBlock(
        path=str(path), family="llava", dtype="float32", max_model_len=256, engine=EngineBlock(enforce_eager=True)
    )
    torch.manual_seed(3)
    config = LoraConfig(
        r=8, lora_alpha=16, target_modules=family_of(model).lora_targets["language"], init_lora_weights=False
    )
    get_peft_model(load_model(model), config).save_pretrained(folder / "adapter")
    write_lineage(folder / "adapter", {"stage": "train"})
    lines = []
    for number in range(20):
        Image.new("RGB", (60, 40 + number), (10 * number, 80, 0)).save(folder / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "question": "is there a red circle?"}))
    (folder / "data.jsonl").write_text("\n".join(lines))
    dataset = FileDataset(kind="jsonl", path=str(folder / "data.jsonl"), task="open", split="test")
    import_examples.run(config=dataset, examples=folder / "own.parquet")
    benchmark = BenchmarkBlock(dataset="own", reward="none", n=0, views=("original", "blank"), max_tokens=12)
    tables = {"own": folder / "own.parquet"}
    requests.run_benchmarks(
        examples=tables, requests=folder / "arguments.parquet", benchmarks={"test": benchmark}, views={}
    )
    return {
        "policy": "trained", "requests": folder / "arguments.parquet", "examples": tables, "adapter": folder / "adapter", "model": model, "weights": "w",
    }  # fmt: skip


def test_an_export_is_the_trained_policy_for_both_libraries(arguments: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "models" / "trained"
    model_export.run(folder=folder, **arguments)
    report = json.loads((folder / "parity.json").read_text())
    assert report["answers"] == 2 * model_export.PROMPTS
    assert report["tokens"] >= 2 * report["answers"]
    # both libraries, merged or not, agree up to float32 rounding
    assert all(found["max"] < 2e-4 for found in report["differences"].values())
    assert report["effect_of_the_adapter"]["mean"] > 0.1
    record = json.loads((folder / "lineage.json").read_text())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(record["files"])
    assert record["adapter"] == {"stage": "train"}
    assert not (folder / "README.md").exists()  # the base model's card does not describe the export
    assert [path.name for path in folder.parent.iterdir()] == ["trained"]
    loaded = AutoModelForImageTextToText.from_pretrained(folder, use_safetensors=True)
    assert AutoProcessor.from_pretrained(folder).tokenizer.chat_template
    base = load_model(arguments["model"])
    name = next(
        n for n, _ in base.named_parameters() if n.endswith("layers.0.self_attn.q_proj.weight") and "language" in n
    )
    assert not torch.equal(loaded.get_parameter(name), base.get_parameter(name))


def test_an_adapter_that_was_not_merged_is_noticed(
    arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgotten(model: ModelBlock, adapter: Path, folder: Path) -> None:
        shutil.copytree(model.path, folder, dirs_exist_ok=True)

    monkeypatch.setattr(model_export, "merged_model", forgotten)
    folder = tmp_path / "trained"
    folder.mkdir()
    (folder / "model.safetensors").write_text("of an earlier export")
    with pytest.raises(UserError) as caught:
        model_export.run(folder=folder, **arguments)
    assert "the export of `trained` is not the trained policy: vllm and base with adapter: mean difference" in str(
        caught.value
    )
    assert "export and base with adapter in float32: mean difference" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_rounding_to_16_bits_leaves_the_adapter_in(arguments: dict[str, Any], tmp_path: Path) -> None:
    """The comparison in float32 detects what vLLM's 16-bit arithmetic would hide."""
    folder = stored_as(shutil.copytree(arguments["model"].path, tmp_path / "model"), torch.bfloat16)
    model = arguments["model"].model_copy(update={"path": str(folder), "dtype": "bfloat16"})
    merged_model(model, arguments["adapter"], tmp_path / "merged")
    questions = model_export._questions(arguments["requests"], arguments["examples"], "trained")[:2]
    tokens = some_tokens(questions)
    exported = parity.scored(model.model_copy(update={"path": str(tmp_path / "merged")}), None, "float32", tokens)
    trained = parity.scored(model, arguments["adapter"], "float32", tokens)
    base = parity.scored(model, arguments["adapter"], "float32", tokens, plain=True)
    effect = difference(base, trained)
    assert lost(difference(exported, trained), effect) is None
    assert lost(difference(exported, base), effect) is not None


def some_tokens(questions: Any) -> list[parity.Answered]:
    """Tokens that stand in for an engine's answers."""
    answer = parity.Answer(
        text="", token_ids=[300, 301, 302, 303], logprobs=[0.0] * 4, finish_reason="stop", prompt_tokens=0
    )
    return [parity.Answered(question, [answer]) for question in questions]
