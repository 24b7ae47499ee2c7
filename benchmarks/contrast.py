"""Cost of contrastive amplification inside vLLM, compared with plain sampling in the same engine
and with transformers.

    python benchmarks/contrast.py --questions 200

Each amplified token takes two forward passes, so a ratio of 2 means no other costs.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from perceptune.contracts.config import EngineBlock, ModelBlock
from perceptune.core.data import shapes
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe
from perceptune.engines.vllm.requests import Contrast, Question
from perceptune.engines.vllm.sampler import Sampler

from tests.parity.contrast import Reference

LONGEST = 24


def questions(count: int, amplified: bool) -> list[Question]:
    """Greedy questions about drawn scenes, limited to the length of the answers."""
    made = []
    for number in range(count):
        scene, row = shapes.scene_and_row(11, "validation", number, shapes.TASKS[number % 4])
        image = shapes.render(scene)
        content = [{"type": "image", "text": None}, {"type": "text", "text": row.question}]
        amateur = Contrast(shown(Recipe("noise", {"sigma": 0.2}, number), [image]), 0.1, 0.1) if amplified else None
        made.append(Question([{"role": "user", "content": content}], [image], 1, 0.0, 1.0, 0, LONGEST, 0, amateur))
    return made


def timed(sampler: Sampler, some: list[Question]) -> tuple[float, int]:
    """(seconds, answer tokens), excluding the preparation of prompts."""
    prepared = [(str(i), sampler.prepared(one)) for i, one in enumerate(some)]
    started = time.perf_counter()
    found = dict(sampler.answers(prepared))
    return time.perf_counter() - started, sum(len(a.token_ids) for answers in found.values() for a in answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="resources/tiny-llava/model")
    settings = parser.parse_args()
    block = ModelBlock(
        path=settings.model, family="llava", dtype="float32", max_model_len=256,
        engine=EngineBlock(enforce_eager=True),
    )  # fmt: skip
    with (
        tempfile.TemporaryDirectory() as folder,
        Sampler(block, None, 1, Path(folder) / "m", contrastive=True) as sampler,
    ):
        rates: dict[str, list[float]] = {"plain": [], "amplified": []}
        timed(sampler, questions(20, True))
        for _ in range(settings.rounds):
            for name in rates:
                seconds, tokens = timed(sampler, questions(settings.questions, name == "amplified"))
                rates[name].append(seconds / tokens)
    reference = Reference(block)
    few = questions(min(settings.questions, 20), True)
    started, count = time.perf_counter(), 0
    for one in few:
        assert one.contrast is not None
        tokens, _ = reference.answer(one.messages, one.images, one.contrast.images, 0.1, 0.1, LONGEST)
        count += len(tokens)
    slow = (time.perf_counter() - started) / count
    best = {name: min(values) for name, values in rates.items()}
    for name, seconds in {**best, "transformers, amplified": slow}.items():
        print(f"{name}: {1e3 * seconds:.3f} ms per token")
    print(
        f"amplified / plain vLLM: {best['amplified'] / best['plain']:.2f} times the time per token (2 forward passes)"
    )
    print(f"transformers / amplified vLLM: {slow / best['amplified']:.1f}")


if __name__ == "__main__":
    main()
