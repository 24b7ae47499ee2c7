"""Exports a trained policy as a verified model folder in Hugging Face format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.files import write_text
from perceptune.contracts.plugins import module_of
from perceptune.contracts.provenance.digests import sha256_of_file
from perceptune.contracts.provenance.lineage import FILE, lineage, write_lineage
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.probe import needs_separate_sequences
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.core.data.images import open_image
from perceptune.core.parity import TOLERANCES, difference, disagreement, lost
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe
from perceptune.engines.parity import Answered, answered, scored
from perceptune.engines.vllm.requests import Question
from perceptune.models.loading import merged_model
from perceptune.runtime.folders import appearing_folder
from perceptune.stages.data.example_images import IllustratedExamples

PROMPTS = 8
"""Number of benchmark questions to compare on, each answered greedily and at temperature 1."""
TOKENS = 128
"""Token limit of the compared answers."""
UNWANTED = ("README.md", "*.lock")
"""Files of the base model's folder that are not exported: its card describes another model."""


def run(
    *,
    policy: str,
    requests: Path,
    examples: Mapping[str, Path],
    adapter: Path,
    folder: Path,
    model: ModelBlock,
    weights: str,
    probe: Path | None = None,
    halvings: int = 0,
) -> None:
    """Writes the merged model into `folder`, with `parity.json` and `lineage.json`.

    Compares log-probs of vLLM's answers to benchmark questions (`requests`): vLLM and transformers
    with the export, vLLM and the base model with adapter, and the export and the base model with
    adapter in float32. Raises `UserError`, and leaves no folder, if they differ by more than
    `core.parity` accepts. `weights` is the digest of the base model's files, `probe` the table of a model
    of family `auto`. Each of the `halvings` halves the engine's batch size.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with appearing_folder(folder) as made:
        merged_model(model, adapter, made)
        for pattern in UNWANTED:
            for file in made.glob(pattern):
                file.unlink()
        exported = model.model_copy(update={"path": str(made)})
        answers = answered(exported, _questions(requests, examples, policy), made / ".vllm", halvings)
        if not answers:
            raise UserError(
                f"policy `{policy}`: no benchmark question fits the model, so the export cannot be verified"
            )
        report = _compared(model, exported, adapter, answers, needs_separate_sequences(probe))
        print(json.dumps(report, indent=2))
        wrong = [f"{name.replace('_', ' ')}: {words}" for name, words in report.pop("wrong").items()]
        if wrong:
            raise UserError(f"the export of `{policy}` is not the trained policy: {'; '.join(wrong)}")
        inputs = {"adapter": adapter / "adapter_model.safetensors", "requests": requests}
        inputs |= {f"examples {name}": path for name, path in examples.items()}
        inputs |= {"probe": probe} if probe else {}
        parameters = {"policy": policy, "model": model.model_dump(mode="json"), "weights": weights}
        record = lineage("export.model", parameters, inputs, [module_of("family", model.family)])
        files = sorted(file for file in made.rglob("*") if file.is_file())
        record |= {"files": {file.relative_to(made).as_posix(): sha256_of_file(file) for file in files}}
        write_lineage(made, record | {"adapter": json.loads((adapter / FILE).read_text())})
        write_text(made / "parity.json", json.dumps(report, indent=2) + "\n")


def _questions(requests: Path, examples: Mapping[str, Path], policy: str) -> list[Question]:
    """A few of the policy's greedy questions under the first view, each twice."""
    rows = [row for row in read_table(requests, REQUESTS).to_pylist() if row["condition"] == "greedy"]
    first = {(row["benchmark"], row["example_id"]): row for row in reversed(rows)}
    chosen = list(reversed(first.values()))[:: max(len(first) // PROMPTS, 1)][:PROMPTS]
    known = {name: IllustratedExamples(path) for name, path in examples.items()}
    questions = []
    for row in chosen:
        opened = [open_image(image) for image in known[row["dataset"]].files(row["example_id"])]
        images = shown(Recipe.read(row["recipe"]), opened)
        for temperature in (0.0, 1.0):
            seed = derived_seed("parity", policy, row["request_id"], temperature)
            tokens = min(row["max_tokens"], TOKENS)
            questions.append(Question(row["messages"], images, 1, temperature, 1.0, 0, tokens, seed))
    return questions


def _compared(
    model: ModelBlock, exported: ModelBlock, adapter: Path, answers: Sequence[Answered], separate: bool
) -> dict[str, Any]:
    """The report, with `wrong`: comparison to problem."""
    vllm = [value for one in answers for value in one.logprobs]
    own = scored(exported, None, model.dtype, answers, separate=separate)
    peft = scored(model, adapter, model.dtype, answers, separate=separate)
    exact = model.dtype == "float32"
    single = own if exact else scored(exported, None, "float32", answers, separate=separate)
    trained = peft if exact else scored(model, adapter, "float32", answers, separate=separate)
    base = scored(model, adapter, "float32", answers, plain=True, separate=separate)
    allowed, effect = TOLERANCES[model.dtype], difference(base, trained)
    found = {
        "vllm_and_transformers": difference(vllm, own),
        "vllm_and_base_with_adapter": difference(vllm, peft),
        "export_and_base_with_adapter_in_float32": difference(single, trained),
    }
    wrong = {name: disagreement(found[name], allowed) for name in list(found)[:2]}
    wrong["export_and_base_with_adapter_in_float32"] = lost(found["export_and_base_with_adapter_in_float32"], effect)
    return {
        "dtype": model.dtype,
        "answers": sum(len(one.answers) for one in answers),
        "tokens": len(vllm),
        "unit": "nats per token, absolute",
        "differences": {name: value._asdict() for name, value in found.items()},
        "effect_of_the_adapter": effect._asdict(),
        "accepted": allowed._asdict(),
        "wrong": {name: words for name, words in wrong.items() if words},
    }
