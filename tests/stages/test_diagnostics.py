"""Diagnostics of trainings: gradients against plain passes in float64, and killed jobs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from perceptune.contracts.config import DiagnosticsBlock, LoraBlock, ModelBlock, TrainingBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.digests import sha256_of_file
from perceptune.contracts.tables.diagnostics import DIAGNOSTICS
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.gradients import GRADIENTS
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.core.diagnostics import uniforms
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe, pixel_digest
from perceptune.engines.training import branch_attention
from perceptune.engines.training.trainer import with_adapter
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, load_processor
from perceptune.planning import policies
from perceptune.planning.graph import graph
from perceptune.runtime.arguments import arguments_of, bound
from perceptune.stages.training import diagnostics
from PIL import Image

from tests import tiny_models as tiny
from tests.parity.adapters import moved
from tests.workflow.inline import snakemake_object

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONTENT = [{"type": "image", "text": None}, {"type": "text", "text": "locate the red circle."}]
MESSAGES = [{"role": "user", "content": CONTENT}]
ROLES = ("focus_chosen", "focus_rejected", "robust_chosen", "robust_rejected")
TRAINING = TrainingBlock(
    method="p2dpo",
    parameters={"calibration": 0},
    lora=LoraBlock(r=2, alpha=4, parts=("language", "projector"), full=("projector",), dropout=0.5),
)
VIEW = {"focus": "original", "robust": "noise"}
SEED = 3


def recipes(number: int) -> dict[str, Recipe]:
    return {"original": Recipe("original"), "noise": Recipe("noise", {"sigma": 0.2}, number), "blank": Recipe("blank")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three records of pairs, the last one without a focus pair, and a trained adapter."""
    folder = tmp_path_factory.mktemp("diagnostics")
    tiny.build_tiny_llava(folder / "model", 0)
    random = np.random.default_rng(0)
    examples, preferences = [], []
    for number in range(3):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (112, 112, 3), dtype=np.uint8)).save(path)
        examples.append({
            "example_id": str(number), "task": "open", "question": "?", "images": [{"bytes": None, "path": str(path)}], "image_sha256": [sha256_of_file(path)],
            "image_hashes": [], "image_sizes": [[112, 112]], "target": None, "box": None, "split": "train", "source": None, "reason": None,
        })  # fmt: skip
        lengths = (4, 2, 1 + number, 3)
        responses = [
            {
                "sample_index": 0,
                "text": "",
                "token_ids": random.integers(270, 380, n).tolist(),
                "reward": 0.0,
                "role": role,
            }
            for role, n in zip(ROLES, lengths, strict=True)
        ]
        noise = shown(recipes(number)["noise"], [Image.open(path)])
        views = [
            {
                "view": "noise",
                "recipe": recipes(number)["noise"].text(),
                "messages": MESSAGES,
                "sha256": pixel_digest(noise),
                "strength": 0.2,
            }
        ]
        pairs = [
            {
                "kind": kind, "chosen": 2 * place, "rejected": 2 * place + 1, "ppl_chosen": 1.0, "ppl_rejected": 1.0,
                "margin": 0.0, "ips": 0.0, "kept": kind == "robust" or number < 2, "reason": "",
            }
            for place, kind in enumerate(VIEW)
        ]  # fmt: skip
        preferences.append({
            "group_id": str(number), "example_id": str(number), "request_id": str(number), "task": "open", "view": "original", "messages": MESSAGES,
            "responses": responses, "views": views, "pairs": pairs, "numbers": [], "kept": True, "reason": None,
        })  # fmt: skip
    write_table(folder / "examples.parquet", EXAMPLES, examples, {})
    write_table(folder / "preferences.parquet", PREFERENCES, preferences, {})
    moved(new_adapter(folder)).save_pretrained(folder / "adapter")
    return folder


def model_block(folder: Path) -> ModelBlock:
    return ModelBlock(path=str(folder / "model"), family="llava", dtype="float32")


def new_adapter(folder: Path) -> PeftModel:
    model = model_block(folder)
    return with_adapter(load_model(model), TRAINING, family_of(model), model.path)


def measured(folder: Path, target: Path, training: TrainingBlock = TRAINING, **changes: Any) -> list[dict[str, Any]]:
    """The rows of a run, which leaves no journal behind."""
    diagnostics.run(
        experiment="e", preferences=folder / "preferences.parquet", examples=folder / "examples.parquet", adapter=folder / "adapter",
        diagnostics=target / "out.parquet", journal=target / "journal", model=model_block(folder), weights="w", config=training,
        measured=DiagnosticsBlock(seed=SEED), views={}, **changes,
    )  # fmt: skip
    assert not (target / "journal").exists()
    return read_table(target / "out.parquet", DIAGNOSTICS).to_pylist()


@pytest.fixture(scope="module")
def found(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return measured(folder, tmp_path_factory.mktemp("out"))


class Plain:
    """One answer at a time in float64: a plain forward pass, and autograd."""

    def __init__(self, folder: Path, model: PeftModel) -> None:
        self.folder, self.model = folder, model.double().eval()
        self.family, self.processor = family_of(model_block(folder)), load_processor(model_block(folder))
        for module in model.modules():  # which would round what fully trained layers get
            module._forward_pre_hooks.clear()
            module._forward_hooks.clear()
        names = [name for name, weight in model.named_parameters() if weight.requires_grad]
        self.parts = {name: "vision" if "projector" in name else "language" for name in names}

    def logps(self, number: int, view: str, answer: list[int]) -> torch.Tensor:
        """Log-probs of all tokens at the places of the answer's, (T, V)."""
        images = shown(recipes(number)[view], [Image.open(self.folder / f"{number}.png")])
        inputs = dict(self.family.prefix(self.processor, MESSAGES, images))
        ids = torch.cat([inputs["input_ids"], torch.tensor([answer])], dim=1)
        inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        inputs["pixel_values"] = inputs["pixel_values"].double()
        return self.model(**inputs).logits[0, -len(answer) - 1 : -1].log_softmax(-1)

    def gradient(self, number: int, view: str, answer: list[int], targets: list[int]) -> dict[str, np.ndarray]:
        """The gradient of the targets' summed log-prob by part of the weights, flat."""
        self.model.zero_grad()
        logps = self.logps(number, view, answer)
        logps[range(len(targets)), targets].sum().backward()
        given = {n: p.grad for n, p in self.model.named_parameters() if p.requires_grad and p.grad is not None}
        parts = {
            part: np.concatenate([given[n].numpy().ravel() for n in given if self.parts[n] == part])
            for part in ("language", "vision")
        }
        return {"all": np.concatenate([*parts.values()]), **parts}


def expected(plain: Plain, group: Mapping[str, Any], kind: str) -> dict[str, dict[str, float]]:
    """Each metric of one pair, by part of the weights."""
    number, view = int(group["group_id"]), VIEW[kind]
    answers = [response["token_ids"] for response in group["responses"] if response["role"].startswith(kind)]
    drawn, dependence = [], []
    numbers = uniforms(sum(map(len, answers)), SEED, group["group_id"], kind)
    for answer, uniform in zip(answers, np.split(numbers, [len(answers[0])]), strict=True):
        with torch.no_grad():
            seen, unseen = (plain.logps(number, one, answer).numpy() for one in (view, "blank"))
        drawn.append([int(np.searchsorted(np.exp(row).cumsum(), u)) for row, u in zip(seen, uniform, strict=True)])
        dependence.append(sum(seen[t, token] - unseen[t, token] for t, token in enumerate(answer)))
    own = [plain.gradient(number, view, answer, answer) for answer in answers]
    other = [plain.gradient(number, view, answer, tokens) for answer, tokens in zip(answers, drawn, strict=True)]
    metrics = {}
    for part in own[0]:
        (w, r), norm = (one[part] for one in own), np.linalg.norm
        metrics[part] = {
            "gradient_difference": norm(w - r),
            "gradient_chosen": norm(w),
            "gradient_rejected": norm(r),
            "gradient_cosine": w @ r / norm(w) / norm(r),
            "fisher_trace": np.mean([norm(one[part]) ** 2 for one in other]),
            "empirical_fisher_trace": np.mean([norm(w) ** 2, norm(r) ** 2]),
        }
    metrics["all"] |= {
        "image_dependence_chosen": dependence[0],
        "image_dependence_rejected": dependence[1],
        "image_dependence_difference": dependence[0] - dependence[1],
        "tokens_chosen": len(answers[0]),
        "tokens_rejected": len(answers[1]),
    }
    return metrics


@pytest.mark.parametrize("point", ["start", "end"])
def test_every_metric_is_that_of_plain_passes(folder: Path, found: list[dict[str, Any]], point: str) -> None:
    trained = point == "end"
    model = new_adapter(folder)
    if trained:
        model = PeftModel.from_pretrained(load_model(model_block(folder)), str(folder / "adapter"), is_trainable=True)
    plain = Plain(folder, model)
    groups = read_table(folder / "preferences.parquet", PREFERENCES).to_pylist()
    rows = [row for row in found if row["point"] == point]
    assert {(row["kind"], row["view"], row["n"]) for row in rows} == {("focus", "original", 2), ("robust", "noise", 3)}
    assert len(rows) == 2 * (3 * 6 + 5)
    for kind, count in (("focus", 2), ("robust", 3)):
        each = [expected(plain, group, kind) for group in groups[:count]]
        for row in rows:
            if row["kind"] == kind:
                values = [pair[row["weights"]][row["metric"]] for pair in each]
                assert row["value"] == pytest.approx(np.mean(values), rel=1e-5, abs=1e-5), row
                interval, rounding = (row["ci_low"], row["ci_high"]), 1e-5 * max(map(abs, values)) + 1e-5
                assert min(values) - rounding <= min(interval) <= max(interval) <= max(values) + rounding, row


def test_a_killed_job_measures_only_what_is_missing(
    folder: Path, found: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is written pair by pair here. One of its files is damaged by the crash."""
    monkeypatch.setattr(diagnostics, "COMMIT", 0.0)
    measure, calls = diagnostics.pair_gradients, list[None]()

    def counted(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(diagnostics, "pair_gradients", counted)
    with pytest.raises(KeyboardInterrupt):
        measured(folder, tmp_path)
    files = sorted((tmp_path / "journal").glob("*/*.parquet"))
    assert len(files) == 7
    assert not (tmp_path / "out.parquet").exists()
    files[0].write_bytes(b"damaged")
    assert sum(read_table(path, GRADIENTS).num_rows for path in files[1:]) == 6 * 3
    assert measured(folder, tmp_path) == found
    assert len(calls) == 8 + 10 - 6


def test_saving_memory_and_the_layout_of_gpus_change_nothing(
    folder: Path, found: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations are recomputed, which transformers does in training mode only: without dropout here."""
    monkeypatch.setattr(branch_attention, "suits", lambda *_: True)
    again = measured(folder, tmp_path, halvings=1)
    assert [row["metric"] for row in again] == [row["metric"] for row in found]
    numbers, before = (
        [[row[key] for key in ("value", "ci_low", "ci_high")] for row in rows] for rows in (again, found)
    )
    np.testing.assert_allclose(numbers, before, rtol=1e-4, atol=1e-5)


def test_a_method_without_pairs_is_a_mistake(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="method `p2dpo` compares no two answers of"):
        measured(folder, tmp_path, TRAINING.model_copy(update={"parameters": {"focus": False, "robust": False}}))


def test_a_job_of_the_workflow_fits_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    raw = yaml.safe_load((ROOT / "config/demo-p2dpo.yaml").read_text()) | {"diagnostics": {"groups": 5}}
    nodes = graph(policies.load(raw))
    (key,) = (key for key in nodes if key == ("measure_gradients", (("experiment", "p2dpo"),)))
    arguments = bound(diagnostics.run, {**arguments_of(snakemake_object(key, nodes[key])), "halvings": 0})
    assert arguments["measured"] == DiagnosticsBlock(groups=5)
    assert (arguments["config"].method, arguments["adapter"].name) == ("p2dpo", "p2dpo")
