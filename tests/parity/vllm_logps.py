"""Log-probs and greedy tokens of vLLM, compared with those of transformers."""

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


def engine_against_transformers(family_name: str, folder: Path, adapter: Path | None) -> dict[str, Any]:
    """The largest difference in log-probability (nats), and whether greedy tokens are equal, for the
    model in `folder`, with an adapter merged in if there is one.
    """
    engine = EngineBlock(enforce_eager=True)
    block = ModelBlock(path=str(folder), family=family_name, dtype="float32", max_model_len=512, engine=engine)
    random = np.random.default_rng(0)
    asked = []
    # one prompt with two images; one non-square image, because padding must be the same in both;
    # one prompt without an image
    for number, sizes in enumerate(([(112, 112)], [(140, 70)], [(112, 112), (70, 126)], [])):
        images = [Image.fromarray(random.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
        content = [{"type": "image", "text": None} for _ in images] + [
            {"type": "text", "text": "locate the red circle."}
        ]
        drawing = {
            "top_p": 1.0,
            "top_k": 0,
            "max_tokens": 12,
            "messages": [{"role": "user", "content": content}],
            "images": images,
        }
        asked.append((f"sampled-{number}", Question(n=3, temperature=1.3, seed=number, **drawing)))  # type: ignore[arg-type]
        asked.append((f"greedy-{number}", Question(n=1, temperature=0.0, seed=0, **drawing)))  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as merged, Sampler(block, adapter, 2, Path(merged)) as sampler:
        answers = dict(sampler.answers([(name, sampler.prepared(question)) for name, question in asked]))
    family, processor = family_of(block), load_processor(block)
    model = load_model(block)
    reference = model if adapter is None else PeftModel.from_pretrained(model, str(adapter))
    reference.eval()
    worst, same = 0.0, True
    never = family.placeholder_ids(processor)
    for name, question in asked:
        prefix = family.prefix(processor, question.messages, list(question.images))
        group = Prompted(prefix, family.positions(model, prefix), [a.token_ids for a in answers[name]])
        with torch.inference_mode():
            logps = token_logps(reference, packed([group], family, 0))
        given = torch.tensor([v for a in answers[name] for v in a.logprobs])
        worst = max(worst, (logps - given).abs().max().item())
        if name.startswith("greedy"):
            limit = len(answers[name][0].token_ids)
            with torch.inference_mode():
                made = reference.generate(**prefix, max_new_tokens=limit, do_sample=False, suppress_tokens=never)
            same &= made[0, prefix["input_ids"].shape[1] :].tolist() == answers[name][0].token_ids
    tokens = sum(len(a.token_ids) for given in answers.values() for a in given)
    return {
        "worst": worst,
        "greedy_equal": same,
        "tokens": tokens,
        "distinct": len({a.text for g in answers.values() for a in g}),
    }
