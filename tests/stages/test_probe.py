"""The stage that probes models of family `auto`, and training as it says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from perceptune.commands.preflight import PromptLengths
from perceptune.contracts.config import EngineBlock, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.io import read_lineage, read_table, write_table
from perceptune.contracts.tables.probe import PROBE, needs_separate_sequences
from perceptune.contracts.tables.terms import TERMS
from perceptune.core.parity import Difference
from perceptune.engines import probing
from perceptune.engines.answering import Answerer
from perceptune.engines.parity import Answered
from perceptune.engines.probing import Comparison
from perceptune.engines.vllm.requests import Answer, Question
from perceptune.models.adapters import decoder_layers
from perceptune.models.families.auto import Auto
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, load_processor
from perceptune.models.placement import language_model
from perceptune.stages.training import probe, stored_logprobs

from tests.tiny_models import OTHERS

from . import trainings
from .trainings import largest_difference, logged, store_logprobs, trained

pytestmark = pytest.mark.slow
folder = trainings.folder

AGREES = Comparison("engine", 32, Difference(1e-6, 5e-6), None)


def model_of(name: str, place: Path) -> ModelBlock:
    engine = EngineBlock(enforce_eager=True)
    path = str(OTHERS[name](place / name, 0))
    return ModelBlock(path=path, family="auto", dtype="float32", max_model_len=512, engine=engine)


def test_a_model_that_cannot_share_prefixes_is_trained_in_separate_sequences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layouts: list[bool] = []

    def compare_engine(*arguments: Any) -> Comparison:
        layouts.append(arguments[4])
        return AGREES

    monkeypatch.setattr(probe, "compare_engine", compare_engine)
    model, table = model_of("paligemma", tmp_path), tmp_path / "results/probe.parquet"
    probe.run(probe=table, model=model, weights="w")
    rows = {row["check"]: row for row in read_table(table, PROBE).to_pylist()}
    assert rows["shared prefix"]["problem"].startswith("log-probs differ by up to ")
    assert rows["separate sequences"]["problem"] is rows["engine"]["problem"] is None
    assert rows["separate sequences"]["max"] < 1e-4 < rows["shared prefix"]["max"]
    assert needs_separate_sequences(table)
    assert layouts == [True]
    warning = f"warning: answers of `{model.path}` are trained in separate sequences, which is slower: log-probs differ"
    assert warning in capsys.readouterr().out
    assert read_lineage(table)["parameters"]["weights"] == "w"


def test_a_folder_without_chat_template_is_refused_before_its_weights_are_loaded(tmp_path: Path) -> None:
    model = model_of("mistral3", tmp_path)
    for file in (*Path(model.path).glob("chat_template*"), *Path(model.path).glob("*.safetensors")):
        file.unlink()
    for use in (lambda: Answerer(model, None), lambda: PromptLengths(model)):
        with pytest.raises(UserError, match="family `auto` cannot use it, because it has no chat template"):
            use()


def test_a_model_that_vllm_computes_differently_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Comparison("engine", 32, Difference(0.3, 2.0), "mean difference 0.3 nats, expected at most 0.0001")
    monkeypatch.setattr(probe, "compare_engine", lambda *_: other)
    model = model_of("mistral3", tmp_path)
    with pytest.raises(UserError) as refused:
        probe.run(probe=tmp_path / "probe.parquet", model=model, weights="w")
    assert str(refused.value).splitlines()[0] == (
        f"error: model folder `{model.path}`: family `auto` cannot use it, because vLLM and transformers do not "
        "agree: mean difference 0.3 nats, expected at most 0.0001"
    )
    assert not (tmp_path / "probe.parquet").exists()


def test_a_forward_pass_that_fails_beside_vllm_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("no kernel\nfor this dtype")

    def answered(_: ModelBlock, asked: list[Question], *__: object) -> list[Answered]:
        return [Answered(one, [Answer("a", [1], [-1.0], "stop", 9)]) for one in asked]

    monkeypatch.setattr(probing, "answered", answered)
    monkeypatch.setattr(probing, "_other_prompt", lambda *_: None)
    monkeypatch.setattr(probing, "scored", fail)
    model = model_of("mistral3", tmp_path)
    found = probing.compare_engine(model, family_of(model), load_processor(model), tmp_path, False)
    assert found == Comparison("engine", 2, None, "training's forward pass fails: ValueError: no kernel")
    monkeypatch.setattr(probing, "of_memory", lambda _: True)
    with pytest.raises(ValueError, match="no kernel"):
        probing.compare_engine(model, family_of(model), load_processor(model), tmp_path, False)


def test_layers_with_unusual_names_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = model_of("mistral3", tmp_path)
    model, family = load_model(block), family_of(block)
    layer = language_model(model).layers[1]
    attention, mlp = layer.self_attn, layer.mlp
    attention.in_proj_qkv, attention.kv_a_proj_with_mqa = attention.q_proj, attention.k_proj
    mlp.mixer, mlp.router = mlp.up_proj, mlp.down_proj
    mlp.experts = torch.nn.ModuleList([mlp.gate_proj])
    del attention.q_proj, attention.k_proj, mlp.up_proj, mlp.down_proj, mlp.gate_proj
    adapted, left_out = decoder_layers(model, family)
    second = "model.language_model.layers.1"
    assert {name for name in adapted if name.startswith(second)} == {
        f"{second}.self_attn.{name}" for name in ("in_proj_qkv", "kv_a_proj_with_mqa", "v_proj", "o_proj")
    }
    assert left_out == [f"{second}.mlp.mixer"]
    probe._check_layers(block, adapted, left_out)
    assert f"warning: LoRA leaves out linear layers of `{block.path}`: `mixer`; " in capsys.readouterr().out


@pytest.mark.parametrize(("spare", "places"), [(0, ["cuda"]), (-1, [])])
def test_a_model_that_does_not_fit_on_the_gpu_is_compared_on_the_cpu(
    spare: int, places: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Placed(torch.nn.Linear):
        def to(self, device: str) -> Any:  # type: ignore[override]
            moved.append(device)
            return self

    moved: list[str] = []
    free = 4 * (1000 * 500 + 500) + probe.ACTIVATIONS + spare
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 10**12))
    probe._placed(Placed(1000, 500))  # type: ignore[arg-type]
    assert moved == places
    assert ("the layouts are compared on the CPU: float32 needs 2 GB" in capsys.readouterr().out) == (not places)


def test_a_model_without_layers_to_adapt_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Auto, "lora_targets", {"language": r".*\.c_attn"})
    model = model_of("mistral3", tmp_path)
    with pytest.raises(UserError, match=r"LoRA finds none of the decoder's linear layers by their usual names, only `"):
        probe.run(probe=tmp_path / "probe.parquet", model=model, weights="w")


def test_log_probs_in_separate_sequences_are_computed_list_by_list(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"check": "shared prefix", "tokens": 1, "mean": 1.0, "max": 1.0, "problem": "they differ"}
    write_table(tmp_path / "probe.parquet", PROBE, [row], {})
    passes: list[tuple[int, int]] = []

    def stored_terms(model: Any, feed: Any, batch_size: int, **options: Any) -> Any:
        for batch in feed.batches([[0]], 0):
            passes.append((batch_size, len(batch.packed.inputs["input_ids"]) // len(batch.lists[0].responses)))
        return engine(model, feed, batch_size, **options)

    engine = stored_logprobs.stored_terms
    monkeypatch.setattr(stored_logprobs, "stored_terms", stored_terms)
    found = []
    for table in (None, tmp_path / "probe.parquet"):
        store_logprobs(folder, tmp_path / "terms.parquet", probe=table)
        rows = read_table(tmp_path / "terms.parquet", TERMS).to_pylist()
        found.append([logp for one in rows for response in one["logprobs"] for logp in response])
    assert passes == [(16, 0), (1, 1)]
    assert found[1] == pytest.approx(found[0], abs=1e-4)


def test_training_in_separate_sequences_gives_the_same_adapter(folder: Path, tmp_path: Path) -> None:
    row = {"check": "shared prefix", "tokens": 1, "mean": 1.0, "max": 1.0, "problem": "they differ"}
    write_table(tmp_path / "probe.parquet", PROBE, [row], {})
    shared, log = trained(folder, tmp_path / "shared", epochs=1)
    separate, log_of_separate = trained(folder, tmp_path / "separate", epochs=1, probe=tmp_path / "probe.parquet")
    assert logged(log_of_separate, "loss") == pytest.approx(logged(log, "loss"), rel=1e-5)
    # AdamW amplifies rounding in small gradients
    assert largest_difference(shared, separate) < 5e-4
    assert "probe" in read_lineage(tmp_path / "separate/training.parquet")["inputs"]


@pytest.mark.extended
def test_a_model_in_separate_sequences_is_served_by_vllm(tmp_path: Path) -> None:
    """Gemma 3, whose image tokens see each other, with a real engine."""
    model, table = model_of("gemma3", tmp_path), tmp_path / "probe.parquet"
    probe.run(probe=table, model=model, weights="w")
    rows = {row["check"]: row for row in read_table(table, PROBE).to_pylist()}
    print(f"vLLM against transformers, gemma3: {rows['engine']}")
    assert rows["engine"]["problem"] is None
    assert rows["engine"]["max"] < 1e-4
    assert rows["engine"]["tokens"] > 30
    assert needs_separate_sequences(table)


@pytest.mark.extended
def test_a_model_whose_prompts_vllm_writes_differently_is_refused(tmp_path: Path) -> None:
    """PaliGemma, with a real engine, which puts the image tokens in front of the prompt itself."""
    with pytest.raises(UserError, match=r"vLLM's prompt has \d+ tokens, the processor's \d+"):
        probe.run(probe=tmp_path / "probe.parquet", model=model_of("paligemma", tmp_path), weights="w")
