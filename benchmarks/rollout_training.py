"""Time saved by the shared-prefix pass in on-policy training: one optimiser step, computed in two
ways.

    python benchmarks/rollout_training.py [--image-tokens 576] [--groups 2] [--responses 8]
        [--tokens 40]

For GRPO, PAPO (including a pass under the masked view) and CPPO (passes with gradient under both
views): rows of shared prefixes compared with one sequence per answer, each with its own copy of
image and prompt, in one padded batch per group. Both do all that the method requires: stored
log-probs without gradient, then the step. CPPO's step has two phases on shared prefixes, and one
graph over all three views on separate sequences. Prints a table with ratios; nothing is asserted.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from perceptune.contracts.config import LoraBlock, TrainingBlock
from perceptune.contracts.plugins import load
from perceptune.core.data.images import open_image
from perceptune.core.methods.rollout import RolloutMethod, Seen, Tokens
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe
from perceptune.engines.training import rollout_trainer as engine
from perceptune.engines.training.groups import Encoder, PartEncoder, Rollout, Shown, StoredTokens, all_under
from perceptune.engines.training.stored_logprobs import stored_terms
from perceptune.engines.training.trainer import with_adapter
from perceptune.models.loading import load_model, load_processor
from PIL import Image
from shared_prefix import FAMILY, build, seconds
from torch.nn.utils.rnn import pad_sequence
from transformers.utils import logging

from tests import tiny_models as tiny
from tests.feeds import fed

VIEWS = {
    "original": Recipe("original"),
    "masked": Recipe("masked", {}, 1),
    "preserving": Recipe("jitter", {}, 1),
    "removing": Recipe("rectangles", {}, 1),
}
METHODS_MEASURED = ("grpo", "papo_g", "cppo")


def groups_of(folder: Path, image_tokens: int, groups: int, responses: int, tokens: int) -> list[Rollout]:
    """Random images and answers; every other answer is right."""
    random = np.random.default_rng(0)
    side = round(image_tokens**0.5) * tiny.PATCH_SIZE
    content = [{"type": "image", "text": None}, {"type": "text", "text": "locate the red circle."}]
    views = {name: Shown(recipe, [{"role": "user", "content": content}]) for name, recipe in VIEWS.items()}
    made = []
    for number in range(groups):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(path)
        answers = [random.integers(270, 380, tokens).tolist() for _ in range(responses)]
        rewards = [float(place % 2) for place in range(responses)]
        images = [{"bytes": None, "path": str(path)}]
        sampled = [[-1.0] * tokens] * responses
        made.append(
            Rollout(
                str(number), images, views, answers, rewards, sampled=sampled, truncated=[False] * responses, stored={}
            )
        )
    return made


class Shared:
    """The engine's shared-prefix passes."""

    def __init__(self, policy: Any, encoder: Encoder, groups: Sequence[Rollout]) -> None:
        self.policy, self.encoder, self.groups = policy, encoder, groups

    def terms(self, method: RolloutMethod, parameters: Any) -> list[Rollout]:
        stored: dict[str, dict[Any, StoredTokens]] = {one.group_id: {} for one in self.groups}
        for term, view in method.stored(parameters, "original"):
            encoder = replace(self.encoder, looks=all_under(view))
            for group, found in stored_terms(self.policy, fed(encoder, self.groups), 1, entropies=True):
                stored[group][term, view] = found
        return [replace(one, stored=stored[one.group_id]) for one in self.groups]

    def round(self, method: RolloutMethod, parameters: Any, folder: Path) -> None:
        block = TrainingBlock(
            method=method.name, batch_size=len(self.groups), micro_batch_size=1, lora=LoraBlock(r=16, alpha=32)
        )
        encoder = PartEncoder(self.encoder, engine.views_of(method, parameters, "original"))
        engine.train_round(
            self.policy, fed(encoder, self.terms(method, parameters)), method=method, parameters=parameters, block=block, round=1,
            longest=64, dtype="float32", checkpoints=folder, fingerprint="",
        )  # fmt: skip


class Separate:
    """One sequence per answer, with its own copy of image and prompt; one padded batch per group."""

    def __init__(self, policy: Any, encoder: Encoder, groups: Sequence[Rollout]) -> None:
        self.policy, self.groups = policy, groups
        self.prompts: dict[tuple[str, str], Any] = {}
        for one in groups:
            for name, view in one.views.items():
                images = shown(view.recipe, [open_image(image) for image in one.images])
                self.prompts[one.group_id, name] = FAMILY.prefix(encoder.processor, view.messages, images)

    def values(self, one: Rollout, view: str) -> tuple[torch.Tensor, torch.Tensor]:
        """(log-probabilities, entropies) of a group's tokens."""
        prefix = self.prompts[one.group_id, view]
        ids = pad_sequence(
            [torch.cat([prefix["input_ids"][0], torch.tensor(r)]) for r in one.responses], batch_first=True
        )
        mask = torch.ones_like(ids)
        pixels = prefix["pixel_values"].expand(len(ids), -1, -1, -1)
        start = prefix["input_ids"].shape[1] - 1
        logits = self.policy(
            input_ids=ids, attention_mask=mask, pixel_values=pixels, logits_to_keep=ids.shape[1] - start, use_cache=False
        ).logits[:, :-1].float().log_softmax(-1)  # fmt: skip
        targets = ids[:, start + 1 :]
        entropies = -(logits.detach().exp() * logits.detach()).sum(-1)
        return logits.gather(2, targets[..., None])[..., 0].flatten(), entropies.flatten()

    def round(self, method: RolloutMethod, parameters: Any, folder: Path) -> None:
        stored: dict[str, dict[Any, StoredTokens]] = {one.group_id: {} for one in self.groups}
        with torch.no_grad():
            for term, view in method.stored(parameters, "original"):
                for one in self.groups:
                    shape = (len(one.responses), -1)
                    stored[one.group_id][term, view] = StoredTokens(
                        *(v.view(shape).tolist() for v in self.values(one, view))
                    )
        total = sum(one.tokens for one in self.groups)
        for one in self.groups:
            here = replace(one, stored=stored[one.group_id])
            known = engine.tokens_of(
                [here], method, parameters, "original", torch.full((one.tokens,), 1 / total), 1 / total
            )
            logps, entropies = self.values(one, "original")
            live = {view: Seen(*self.values(one, view)) for view in method.live(parameters)}
            tokens: Tokens = replace(known, logps=logps, entropy=entropies, live=live)
            chosen = method.select(tokens, parameters)
            tokens = replace(
                tokens, selected=chosen, selected_share=0 if chosen is None else 1 / max(int(chosen.sum()), 1)
            )
            method.loss(tokens, parameters).backward()
        self.policy.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-tokens", type=int, default=576, help="64 as in the bundled model, 576 as in LLaVA-1.5")
    parser.add_argument("--groups", type=int, default=4, help="groups per step")
    parser.add_argument("--responses", type=int, default=8, help="answers per group")
    parser.add_argument("--tokens", type=int, default=40, help="tokens per answer")
    parser.add_argument("--repeats", type=int, default=3)
    settings = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = build(folder / "model", settings.image_tokens)
        base, processor = load_model(model), load_processor(model)
        block = TrainingBlock(method="grpo", lora=LoraBlock(r=16, alpha=32))
        policy = with_adapter(base, block, FAMILY, model.path).train()
        groups = groups_of(folder, settings.image_tokens, settings.groups, settings.responses, settings.tokens)
        encoder = Encoder(FAMILY, processor, base, all_under("original"))
        ways: dict[str, Any] = {
            "shared": Shared(policy, encoder, groups),
            "separate": Separate(policy, encoder, groups),
        }

        numbers = itertools.count()

        def timed(way: str, name: str) -> float:
            method: Any = load("method", name)

            def step() -> None:
                with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                    ways[way].round(method, method.Parameters(), folder / f"checkpoints {next(numbers)}")

            return seconds(step, settings.repeats)

        measured = {method: {way: timed(way, method) for way in ways} for method in METHODS_MEASURED}
    answers = f"{settings.groups} groups of {settings.responses} answers of {settings.tokens} tokens"
    threads = f"float32, {torch.get_num_threads()} threads, median of {settings.repeats}"
    print(f"{answers}, {settings.image_tokens} image tokens, {threads}")
    for method, found in measured.items():
        ratio = found["separate"] / found["shared"]
        print(
            f"{method:8} shared prefix {found['shared']:8.3f} s   separate {found['separate']:8.3f} s   {ratio:.1f} times as long"
        )


if __name__ == "__main__":
    main()
