"""Merging an adapter against serving it by LoRA request: start-up and tokens per second of real vLLM, in one run.

    python benchmarks/lora_serving.py [--model resources/tiny-llava/model] [--questions 200]

The default of `engine: {adapters: ...}` follows from it. Each engine runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def served(model: str, adapter: str, serving: str, questions: int) -> None:
    """Child process: prints seconds to start and to answer, and the number of tokens, as JSON."""
    from perceptune.contracts.config import EngineBlock, ModelBlock
    from perceptune.engines.questions import Question
    from perceptune.engines.sampling import Sampler
    from PIL import Image

    engine = EngineBlock(enforce_eager=True, adapters=serving)  # type: ignore[arg-type]
    block = ModelBlock(path=model, family="llava", dtype="float32", max_model_len=512, engine=engine)
    content = [{"type": "image", "text": None}, {"type": "text", "text": "locate the red circle."}]
    messages = [{"role": "user", "content": content}]

    def asked(count: int) -> list[tuple[str, Question]]:
        return [
            (str(i), Question(messages, [Image.new("RGB", (112, 112), (i % 255, 90, 40))], 20, 1.0, 1.0, 0, 16, i))
            for i in range(count)
        ]

    started = time.perf_counter()
    with Sampler(block, Path(adapter), 1, Path(adapter) / "merged") as sampler:
        sampler.answers([(name, sampler.prepared(question)) for name, question in asked(8)])  # warm-up counts as start
        ready = time.perf_counter()
        tokens = sum(
            len(a.token_ids)
            for given in sampler.answers([(name, sampler.prepared(one)) for name, one in asked(questions)]).values()
            for a in given
        )
    print(json.dumps({"start": ready - started, "seconds": time.perf_counter() - ready, "tokens": tokens}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resources/tiny-llava/model")
    parser.add_argument("--questions", type=int, default=200)
    settings = parser.parse_args()
    from peft import LoraConfig, get_peft_model
    from perceptune.contracts.config import ModelBlock
    from perceptune.contracts.plugins import load
    from perceptune.models.loading import load_model

    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        base = load_model(ModelBlock(path=settings.model, family="llava", dtype="float32"))
        get_peft_model(base, LoraConfig(r=32, target_modules=load("family", "llava").lora_targets)).save_pretrained(
            folder
        )
        for serving in ("merge", "request"):
            command = [sys.executable, __file__, "--child", settings.model, folder, serving, str(settings.questions)]
            run = subprocess.run(
                command, capture_output=True, text=True, check=True, env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"}
            )
            found = json.loads(run.stdout.strip().splitlines()[-1])
            rates[serving] = found["tokens"] / found["seconds"]
            print(
                f"{serving:8} start {found['start']:6.1f} s, {rates[serving]:8.0f} tokens/s ({found['tokens']} tokens)"
            )
    print(f"merge / request: {rates['merge'] / rates['request']:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        served(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
    else:
        main()
