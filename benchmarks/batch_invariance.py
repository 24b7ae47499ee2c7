"""Does an answer depend on the rest of its batch? The same requests in batches of different sizes
and orders, on real vLLM.

    python benchmarks/batch_invariance.py [--questions 100] [--n 8] [--dtype bfloat16]
        [--batch-invariant]

Prints, compared with the first setting, the number of answers whose tokens differ, and the largest
difference in log-probability between answers with equal tokens. `--batch-invariant` enables vLLM's
batch-invariant mode (NVIDIA GPUs only).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SETTINGS = [
    # (name, concurrent sequences, requests per call, reversed)
    ("as usual", 256, 1000, False),
    ("again", 256, 1000, False),
    ("in parts of 10", 256, 10, False),
    ("32 sequences at once", 32, 1000, False),
    ("one sequence at once", 1, 1000, False),
    ("in reverse order", 256, 1000, True),
]


def answered(
    model: str, questions: int, n: int, sequences: int, part: int, backwards: bool, dtype: str, invariant: bool
) -> None:
    """Child process: prints a JSON object {name: [[tokens, log-probabilities], ...]}."""
    from perceptune.contracts.config import EngineBlock, ModelBlock
    from perceptune.core.data.shapes import write_dataset
    from perceptune.engines.vllm.requests import Question
    from perceptune.engines.vllm.sampler import Sampler
    from PIL import Image

    engine = EngineBlock(enforce_eager=True, max_num_seqs=sequences, batch_invariant=invariant)
    block = ModelBlock(path=model, family="llava", dtype=dtype, max_model_len=512, engine=engine)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_dataset(folder, 0, {"train": {"grounding": questions}})
        questions_by_name = []
        for number, line in enumerate((folder / "data.jsonl").read_text().splitlines()):
            row = json.loads(line)
            image = Image.open(folder / row["image"]).convert("RGB")
            content = [{"type": "image", "text": None}, {"type": "text", "text": row["question"]}]
            questions_by_name.append(
                (str(number), Question([{"role": "user", "content": content}], [image], n, 1.0, 1.0, 0, 24, number))
            )
        if backwards:
            questions_by_name.reverse()
        found = {}
        with Sampler(block, None, 1, folder / "merged") as sampler:
            for start in range(0, len(questions_by_name), part):
                for name, answers_of in sampler.answers(
                    [(name, sampler.prepared(one)) for name, one in questions_by_name[start : start + part]]
                ):
                    found[name] = [[a.token_ids, a.logprobs] for a in answers_of]
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resources/tiny-llava/model")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch-invariant", action="store_true")
    settings = parser.parse_args()
    first: dict[str, list[list[list[float]]]] = {}
    for name, *rest in SETTINGS:
        child = [settings.model, settings.questions, settings.n, *rest, settings.dtype, settings.batch_invariant]
        done = subprocess.run(
            [sys.executable, __file__, "--child", json.dumps(child)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        found = json.loads(done.stdout.splitlines()[-1])
        first = first or found
        pairs = [(a, b) for key in first for a, b in zip(first[key], found[key], strict=True)]
        same = [(a, b) for a, b in pairs if a[0] == b[0]]
        largest = max(abs(x - y) for a, b in same for x, y in zip(a[1], b[1], strict=True))
        exact = sum(a == b for a, b in pairs)
        print(f"{name}: {len(pairs) - len(same)} of {len(pairs)} answers differ, {exact} equal to the last bit, "
              f"largest difference in log-probability {largest:.1e}", flush=True)  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        answered(*json.loads(sys.argv[2]))
    else:
        main()
