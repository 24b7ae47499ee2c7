"""Memory of attention rows compared with eager `output_attentions`, by sequence length.

    python benchmarks/attention_memory.py

Measures the peak memory of a forward pass on the CPU beyond that of the loaded model, as reported
by the operating system. Each measurement runs in its own process.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)
EAGER_UP_TO = 8192
"""Longer sequences' attention matrices do not fit into the memory of a typical machine."""


def measured(kind: str, length: int, folder: str) -> None:
    """Prints the peak in MiB; runs in its own process, because the peak of a process never falls."""
    import torch
    from perceptune.engines.vision.attention_capture import look, watching
    from transformers import AutoModelForImageTextToText

    attention = "eager" if kind == "eager" else "sdpa"
    model = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention
    ).eval()
    model.requires_grad_(False)
    ids = torch.full((1, length), 300)
    inputs = {"input_ids": ids, "position_ids": torch.arange(length)[None]}
    small = {name: tensor[:, :64] for name, tensor in inputs.items()}

    def once(given: dict[str, torch.Tensor], count: int) -> None:
        if kind == "eager":
            with torch.inference_mode():
                model(**given, output_attentions=True, use_cache=False, logits_to_keep=1)
        else:
            layer = 1 if kind == "gradient" else None
            with watching(model):
                look(model, given, count - 1, torch.arange(32), layer)

    once(small, 64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    once(inputs, length)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.one:
        measured(settings.one[0], int(settings.one[1]), settings.one[2])
        return
    from transformers import LlavaForConditionalGeneration

    from tests import tiny_models as tiny

    with tempfile.TemporaryDirectory() as folder:
        config = tiny.llava_config(tiny.LARGE)
        config.text_config.max_position_embeddings = max(LENGTHS)
        tiny.save_llava(LlavaForConditionalGeneration(config), Path(folder))
        print("tokens   rows, MiB   gradient, MiB   eager, MiB   eager / gradient")
        for length in LENGTHS:
            found = []
            for kind in ("rows", "gradient", *(["eager"] if length <= EAGER_UP_TO else [])):
                command = [sys.executable, __file__, "--one", kind, str(length), folder]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found.append(float(done.stdout.split()[-1]))
            rows, gradient, *eager = found
            compared = f"{eager[0]:10.0f}   {eager[0] / gradient:16.1f}" if eager else f"{'-':>10}   {'-':>16}"
            print(f"{length:6}   {rows:9.0f}   {gradient:13.0f}   {compared}")


if __name__ == "__main__":
    main()
