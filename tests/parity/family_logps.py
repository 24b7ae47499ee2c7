"""Log-probs of vLLM's samples, compared with those of transformers, for every model family."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from perceptune.contracts.config import EngineBlock, ModelBlock
from perceptune.engines.training.shared_prefix import Prompted, packed, token_logps
from perceptune.engines.vllm.requests import Question
from perceptune.engines.vllm.sampler import Sampler
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, load_processor
from PIL import Image

PIXELS = {"qwen2_5_vl": (6000, 30000), "qwen3_vl": (6000, 30000)}
"""Pixel limits that differ from the model folder's and that some images exceed or fall below;
Qwen2-VL keeps its folder's limits.
"""
SIZES = ([(112, 112)], [(96, 64)], [(56, 150), (300, 220)], [])


def engine_against_trainer(family_name: str, folder: Path, adapter: Path) -> dict[str, Any]:
    """Whether prompts agree, and the largest difference in log-probability (nats), for the model in
    `folder` with an adapter merged in.
    """
    engine = EngineBlock(enforce_eager=True)
    told = {"path": str(folder), "family": family_name, "dtype": "float32", "pixels": PIXELS.get(family_name)}
    block = ModelBlock(**told, engine=engine)  # type: ignore[arg-type]
    random = np.random.default_rng(0)
    asked = []
    for number, sizes in enumerate(SIZES):
        images = [Image.fromarray(random.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
        content = [*({"type": "image", "text": None} for _ in images), {"type": "text", "text": "is there a circle?"}]
        asked += [
            (
                f"{number}-{length}",
                Question(
                    messages=[{"role": "user", "content": content}],
                    images=images,
                    n=2,
                    temperature=1.2,
                    top_p=1.0,
                    top_k=0,
                    max_tokens=length,
                    seed=number,
                ),
            )
            for length in (1, 8)
        ]
    with tempfile.TemporaryDirectory() as merged, Sampler(block, adapter, 2, Path(merged) / "model") as sampler:
        prepared = [(name, sampler.prepared(question)) for name, question in asked]
        answers = dict(sampler.answers(prepared))
    prompts = {name: list(question.prompt["prompt_token_ids"]) for name, question in prepared}
    family, processor = family_of(block), load_processor(block)
    model = load_model(block)
    reference = PeftModel.from_pretrained(model, str(adapter)).eval()
    worst, equal, lengths = 0.0, True, True
    for name, question in asked:
        prefix = family.prefix(processor, question.messages, list(question.images))
        group = Prompted(prefix, family.positions(model, prefix), [a.token_ids for a in answers[name]])
        with torch.inference_mode():
            logps = token_logps(reference, packed([group], family, 0))
        given = torch.tensor([v for a in answers[name] for v in a.logprobs])
        worst = max(worst, (logps - given).abs().max().item())
        equal &= prefix["input_ids"][0].tolist() == list(prompts[name])
        tokens = family.prompt_ids(processor, question.messages)
        counted = family.prompt_length(processor, tokens, [family.prepare_image(i, processor) for i in question.images])
        lengths &= counted == len(prompts[name]) == answers[name][0].prompt_tokens
    return {
        "worst": worst,
        "prompts_equal": equal,
        "lengths_equal": lengths,
        "tokens": sum(len(a.token_ids) for given in answers.values() for a in given),
        "distinct": len({a.text for given in answers.values() for a in given}),
    }
