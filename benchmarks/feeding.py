"""Whether the engine waits for images: processes that prepare them ahead, with a stand-in engine that
takes a fixed time per question, and with vLLM.

    python benchmarks/feeding.py            # the stand-in
    python benchmarks/feeding.py --vllm     # real vLLM with a tiny model, against `LLM.generate`

Questions have JPEGs of 1,280 x 960 pixels, and Qwen2.5-VL's processor with up to one million pixels.
The stand-in takes 15 ms per question, as an H100 would, without using a core.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from perceptune.contracts.config import EngineBlock, ModelBlock
from perceptune.runtime.ahead import Workers
from PIL import Image

ENGINE = 0.015
"""Seconds per question."""
PRELOADED = ("perceptune.engines.vllm.preparation",)


def prepare(folder: Path, images: int) -> ModelBlock:
    """Write the images and the model."""
    from tests.tiny_models import build_tiny_qwen2_5_vl

    random = np.random.default_rng(0)
    for number in range(images):
        rough = np.kron(random.integers(0, 255, (60, 80, 3)), np.ones((16, 16, 1), dtype=int))
        pixels = np.clip(rough + random.integers(-8, 8, rough.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=90)
    engine = EngineBlock(enforce_eager=True)
    path = str(build_tiny_qwen2_5_vl(folder / "model"))
    return ModelBlock(
        path=path, family="qwen2_5_vl", dtype="float32", pixels=(3136, 10**6), max_model_len=2048, engine=engine
    )


def preparing(model: ModelBlock) -> Callable[[Path], tuple[str, Any]]:
    """A function from the path of an image to a prepared question."""
    from perceptune.engines.vllm.preparation import Preparer

    return partial(prepared, Preparer(model, 1))


def prepared(preparer: Any, path: Path) -> tuple[str, Any]:
    """The name of the question, and the question as the engine takes it."""
    from perceptune.engines.vllm.requests import Question

    content = [{"type": "image", "text": None}, {"type": "text", "text": "is there a circle?"}]
    image = Image.open(path).convert("RGB")
    question = Question([{"role": "user", "content": content}], [image], 8, 1.0, 1.0, 0, 22, int(path.stem))
    return path.name, preparer(question)


def stand_in(model: ModelBlock, paths: list[Path], count: int) -> None:
    """Print the wall time of the stand-in engine, fed by this process and by `count` others."""
    function = preparing(model)
    for path in paths[:5]:
        function(path)  # warm
    since, cpu = time.perf_counter(), time.process_time()
    for path in paths:
        function(path)
    each, cpu = ((time.perf_counter() - since) / len(paths), (time.process_time() - cpu) / len(paths))
    print(f"preparing a question: {each * 1000:.1f} ms ({cpu * 1000:.1f} ms of CPU)")
    since = time.perf_counter()
    for path in paths:
        function(path)
        time.sleep(ENGINE)
    alone = (time.perf_counter() - since) / len(paths)
    with Workers(partial(preparing, model), count, PRELOADED) as workers:
        list(workers.results(paths[: 4 * count]))  # until they have started
        since = time.perf_counter()
        for _ in workers.results(paths):
            time.sleep(ENGINE)
        ahead = (time.perf_counter() - since) / len(paths)
    least = max(ENGINE, each / count)
    print(f"prepared in turn: {alone * 1000:.1f} ms per question")
    print(
        f"{count} processes ahead: {ahead * 1000:.1f} ms per question, {ahead / least:.2f} x max(engine, preparation / {count})"
    )


def with_vllm(model: ModelBlock, paths: list[Path], rounds: int) -> None:
    """Print tokens per second of `Sampler.answers` and of `LLM.generate`, which alternate in one engine."""
    from perceptune.engines.vllm.sampler import Sampler
    from vllm.sampling_params import SamplingParams

    with Sampler(model, None, 1, Path(model.path).parent / "merged") as sampler:
        function = partial(prepared, sampler.prepared)
        family, processor = sampler.prepared._family, sampler.prepared._processor
        best: dict[str, float] = {}
        for _ in range(rounds):
            since = time.perf_counter()
            answers = dict(sampler.answers(map(function, paths)))
            seconds = time.perf_counter() - since
            tokens = sum(len(one.token_ids) for found in answers.values() for one in found)
            best["stream"] = max(best.get("stream", 0), tokens / seconds)
            since = time.perf_counter()
            content = [{"type": "image", "text": None}, {"type": "text", "text": "is there a circle?"}]
            ids = family.prompt_ids(processor, [{"role": "user", "content": content}])
            prompts = [
                {"prompt_token_ids": ids, "multi_modal_data": {"image": [Image.open(path).convert("RGB")]}}
                for path in paths
            ]
            never = dict.fromkeys(family.placeholder_ids(processor), -100.0)
            drawing = [
                SamplingParams(n=8, temperature=1.0, max_tokens=22, seed=int(path.stem), logprobs=0, logit_bias=never)
                for path in paths
            ]
            outputs = sampler._engine.generate(prompts, drawing, use_tqdm=False)  # type: ignore[arg-type]
            seconds = time.perf_counter() - since
            same = sum(len(one.token_ids) for output in outputs for one in output.outputs)
            assert same == tokens, "the two answered differently"
            best["generate"] = max(best.get("generate", 0), tokens / seconds)
            sampler._engine.reset_prefix_cache()
            sampler._engine.llm_engine.reset_encoder_cache()
    print(
        f"stream {best['stream']:,.0f} tokens/s, LLM.generate {best['generate']:,.0f}: "
        f"{best['stream'] / best['generate']:.2f} times"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--vllm", action="store_true")
    settings = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = prepare(folder, settings.images)
        paths = [folder / f"{number}.jpg" for number in range(settings.images)]
        if settings.vllm:
            with_vllm(model, paths, settings.rounds)
        else:
            stand_in(model, paths, settings.workers)


if __name__ == "__main__":
    main()
