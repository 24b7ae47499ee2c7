"""Rounds of GRPO and derived methods: compared with plain loops and separate forward passes, and
settings that must not change the result.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from perceptune.contracts.config import LoraBlock, ModelBlock, TrainingBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.seeds import derived_seed
from perceptune.core.data.images import open_image
from perceptune.core.methods.rollout import RolloutMethod
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe
from perceptune.engines.training import branch_attention, shared_prefix, stored_logprobs, trainer
from perceptune.engines.training import rollout_trainer as engine
from perceptune.engines.training.groups import Encoder, PartEncoder, Rollout, Shown, all_under
from perceptune.engines.training.rollout_trainer import RoundLog, train_round, views_of
from perceptune.engines.training.stored_logprobs import stored_terms
from perceptune.engines.training.trainer import with_adapter
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, load_processor, load_trained
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from tests.feeds import fed
from tests.plugins import METHODS

from .adapters import EVERYTHING

pytestmark = pytest.mark.slow

TINY = Path(__file__).parents[2] / "resources" / "tiny-llava" / "model"
VIEWS = {
    "original": Recipe("original"),
    "masked": Recipe("masked", {}, 5),
    "preserving": Recipe("noise", {"sigma": 0.05}, 3),
    "removing": Recipe("rectangles", {}, 7),
}
LONGEST = 8
ALL_PARTS = EVERYTHING.model_copy(update={"use_dora": False})
"""Without DoRA, which cannot scale the rows of zeros of the bundled model."""


@pytest.fixture(scope="module")
def model() -> ModelBlock:
    return ModelBlock(path=str(TINY), family="llava", dtype="float32")


def block(**changes: Any) -> TrainingBlock:
    settings: dict[str, Any] = {
        "method": "grpo", "lora": LoraBlock(r=4, alpha=8), "learning_rate": 5e-3, "batch_size": 2, "micro_batch_size": 2,
        "save_steps": 1, "scheduler": "constant",
    }  # fmt: skip
    return TrainingBlock(**{**settings, **changes})


def encoder_for(model: ModelBlock, base: Any, view: str = "original", budget: int | None = None) -> Encoder:
    return Encoder(family_of(model), load_processor(model), base, all_under(view), budget)


def with_terms(
    model: ModelBlock,
    policy: Any,
    bare: Sequence[Rollout],
    views: Sequence[str] = tuple(VIEWS),
    at_once: int = 3,
    autocast: str | None = None,
) -> list[Rollout]:
    """The groups with all stored log-probs; the engine's are slightly lower than the trainer's."""
    base = load_model(model)
    stored: dict[str, dict[Any, Any]] = {one.group_id: {} for one in bare}
    asked = [("reference", base, "original"), *(("old", policy, view) for view in views)]
    for term, answering, view in asked:
        encoder = encoder_for(model, base, view)
        for group, found in stored_terms(answering, fed(encoder, bare), at_once, entropies=True, autocast=autocast):
            stored[group][term, view] = found
    made = []
    for one in bare:
        old = stored[one.group_id]["old", "original"].logps
        sampled = [[value - 0.01 for value in row] for row in old]
        made.append(replace(one, sampled=sampled, stored=stored[one.group_id]))
    return made


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> list[Rollout]:
    """Five groups of four answers of different lengths; with two groups per step, the last step has
    one. One group has equal rewards.
    """
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("images")
    made = []
    for number in range(5):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (112, 112, 3), dtype=np.uint8)).save(path)
        content: list[dict[str, Any]] = [{"type": "image", "text": None}, {"type": "text", "text": "read the text."}]
        messages = [{"role": "user", "content": content}]
        lengths = random.integers(1, LONGEST + 1, 4).tolist()
        responses = [random.integers(270, 380, length).tolist() for length in lengths]
        rewards = [1.0, 0.0, 1.0, 0.1] if number != 3 else [1.0] * 4
        views = {name: Shown(recipe, messages) for name, recipe in VIEWS.items()}
        images = [{"bytes": None, "path": str(path)}]
        cut = [length == LONGEST for length in lengths]
        made.append(Rollout(f"g{number}", images, views, responses, rewards, sampled=[], truncated=cut, stored={}))
    return made


@pytest.fixture(scope="module")
def rollouts(model: ModelBlock, bare: list[Rollout]) -> list[Rollout]:
    """The groups with stored log-probs of a fresh adapter, which equals the base model."""
    return with_terms(model, load_model(model), bare)


def adapter_of(policy: PeftModel) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in policy.named_parameters() if p.requires_grad}


def fresh(model: ModelBlock, spread: float = 0.0, **changes: Any) -> PeftModel:
    """A new adapter; with `spread`, one that differs from the base model."""
    policy = with_adapter(load_model(model), block(**changes), family_of(model), model.path)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad and spread:
                parameter.add_(spread * torch.randn_like(parameter))
    return policy


def a_round(
    model: ModelBlock,
    groups: Sequence[Rollout],
    folder: Path,
    name: str = "grpo",
    given: dict[str, Any] | None = None,
    policy: PeftModel | None = None,
    number: int = 1,
    budget: int | None = None,
    files: dict[str, Path] | None = None,
    **changes: Any,
) -> tuple[dict[str, Tensor], RoundLog]:
    method = METHODS[name]
    assert isinstance(method, RolloutMethod)
    policy = policy or fresh(model)
    parameters = method.Parameters.model_validate(given or {})
    encoder = encoder_for(model, policy.get_base_model(), budget=budget)
    log = train_round(
        policy, fed(PartEncoder(encoder, views_of(method, parameters, "original")), groups), method=method,
        parameters=parameters, block=block(**{"method": name, **changes}), round=number,
        longest=LONGEST, dtype="float32", checkpoints=folder, fingerprint="same", **(files or {}),
    )  # fmt: skip
    return adapter_of(policy), log


def furthest(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


ALL = sorted(name for name, method in METHODS.items() if method.groups == "rollouts")


@pytest.mark.parametrize("name", ALL)
def test_the_first_ratio_is_1_and_all_that_is_watched_is_logged(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path, name: str
) -> None:
    """Stored log-probs come from different batches than the training pass."""
    _, (log, stopped) = a_round(model, rollouts, tmp_path, name)
    assert stopped is None
    assert len(log) == 3
    assert log[0]["policy_gap"] < 1e-6
    assert log[0]["largest_policy_gap"] < 1e-5
    assert log[0]["ratio"] == pytest.approx(1, abs=1e-6)
    assert log[1]["policy_gap"] > 1e-4
    assert log[0]["engine_gap"] == pytest.approx(0.01, abs=1e-6)
    assert log[0]["reward"] == pytest.approx(np.mean([r for entry in log[:1] for r in [entry["reward"]]]))
    always = {"loss", "grad_norm", "learning_rate", "response_tokens", "tokens_per_second", "data_wait_seconds"}
    method: Any = METHODS[name]
    assert always <= log[0].keys() <= {*always, *method.watched, "step", "epoch"}
    assert sum(entry["response_tokens"] for entry in log) == sum(one.tokens for one in rollouts)


@pytest.mark.parametrize(("name", "changes"), [("grpo", {}), ("cppo", {}), ("grpo", {"lora": ALL_PARTS})])
def test_the_first_ratio_is_1_in_mixed_precision(
    model: ModelBlock,
    bare: list[Rollout],
    tmp_path: Path,
    name: str,
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Mixed precision as on a GPU, run on the CPU: exactly 1 if passes have the same size,
    otherwise within bfloat16 precision.
    """
    arguments = trainer.TrainingArguments
    monkeypatch.setattr(trainer, "TrainingArguments", lambda **given: arguments(**{**given, "bf16": True}))
    monkeypatch.setattr(stored_logprobs, "mixed_precision", lambda dtype: torch.autocast("cpu", getattr(torch, dtype)))
    half = model.model_copy(update={"dtype": "bfloat16"})
    groups = with_terms(half, fresh(half, 0.02, **changes), bare, at_once=1, autocast="bfloat16")
    policy = fresh(half, 0.02, **changes)
    _, (log, _) = a_round(half, groups, tmp_path, name, policy=policy, batch_size=6, micro_batch_size=1)
    assert log[0]["largest_policy_gap"] == 0
    assert log[0]["ratio"] == 1


class Reference:
    """The loss by plain loops over tokens, with one float64 forward pass of the plain model per
    response.
    """

    def __init__(self, model: ModelBlock, policy: PeftModel, groups: Sequence[Rollout]) -> None:
        self.family, self.processor = family_of(model), load_processor(model)
        self.policy, self.groups = policy.double(), groups

    def logits(self, one: Rollout, view: str, answer: Sequence[int]) -> Tensor:
        images = shown(one.views[view].recipe, [open_image(image) for image in one.images])
        prefix = self.family.prefix(self.processor, one.views[view].messages, images)
        inputs, last = self.family.with_answer(self.policy.get_base_model(), prefix, answer)  # type: ignore[arg-type]
        inputs = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
        return self.policy(**inputs, use_cache=False).logits[0, last : last + len(answer)].log_softmax(-1)

    def answers(self) -> Iterator[tuple[Rollout, int, float]]:
        """(group, index of an answer in it, its advantage)."""
        for one in self.groups:
            mean = sum(one.rewards) / len(one.rewards)
            std = (sum((reward - mean) ** 2 for reward in one.rewards) / (len(one.rewards) - 1)) ** 0.5
            for place, reward in enumerate(one.rewards):
                yield one, place, (reward - mean) / (std + 1e-6)

    def loss(self, name: str, given: dict[str, Any]) -> Tensor:
        settings: Any = METHODS[name].Parameters.model_validate(given)
        per_answer = [self.answer(settings, *which) for which in self.answers()]
        total = self.mean([losses for losses, _, _ in per_answer], settings)
        contrasts = [c for _, _, contrasts in per_answer for c in contrasts]
        if contrasts:
            total = total + settings.contrast * sum(contrasts) / len(contrasts)
        everything = [value for _, values, _ in per_answer for value in values]
        return total + (sum(everything) / len(everything) if everything else 0)

    def mean(self, losses: Sequence[Sequence[Tensor]], settings: Any) -> Tensor:
        if settings.aggregation == "token_mean":
            return sum(map(sum, losses)) / sum(map(len, losses))  # type: ignore[return-value, arg-type]
        if settings.aggregation == "seq_mean_token_mean":
            return sum(sum(one) / len(one) for one in losses) / len(losses)  # type: ignore[return-value]
        if settings.aggregation == "seq_mean_token_sum_norm":
            return sum(map(sum, losses)) / (len(losses) * LONGEST)  # type: ignore[return-value, arg-type]
        chunks = [losses[i : i + settings.chunk] for i in range(0, len(losses), settings.chunk)]
        return sum(sum(map(sum, c)) / sum(map(len, c)) for c in chunks) / len(chunks)  # type: ignore[return-value, misc, arg-type]

    def answer(
        self, settings: Any, one: Rollout, place: int, advantage: float
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Losses per token, entropy terms per token, contrasts of the selected tokens."""
        tokens = one.responses[place]

        def logps_of(view: str) -> Tensor:
            return self.logits(one, view, tokens)

        def k3(x: Tensor) -> Tensor:
            return (torch.exp(-x.clamp(-20, 20)) + x - 1).clamp(-10, 10)

        here = logps_of("original")
        logps = [here[t, token] for t, token in enumerate(tokens)]
        old = one.stored["old", "original"].logps[place]
        ratios = [torch.exp(logp - o) for logp, o in zip(logps, old, strict=True)]
        weights = [min(np.exp(o - s), settings.correction_cap) for o, s in zip(old, one.sampled[place], strict=True)]
        losses, everything = [], []
        recomputed = logps_of("masked") if getattr(settings, "masked_kl", "stored") == "live" else None
        for t, ratio in enumerate(ratios):
            loss = torch.max(
                -advantage * ratio, -advantage * ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
            )
            if advantage < 0 and settings.dual_clip:
                loss = torch.min(loss, torch.tensor(-advantage * settings.dual_clip).double())
            loss = loss * (1 if settings.correction == "none" else weights[t])
            if settings.beta:
                loss = loss + settings.beta * k3(logps[t] - one.stored["reference", "original"].logps[place][t])
            if getattr(settings, "gamma", 0):
                hidden = one.stored["old", "masked"].logps[place][t] if recomputed is None else recomputed[t, tokens[t]]
                loss = loss - settings.gamma * k3(logps[t] - hidden)
            losses.append(loss)
            if getattr(settings, "eta", 0):
                everything.append(-settings.eta * logps[t])
        if getattr(settings, "eta_masked", 0):
            live = settings.masked_entropy == "live"
            masked = logps_of("masked") if live else None
            for t, token in enumerate(tokens):
                logp = one.stored["old", "masked"].logps[place][t] if masked is None else masked[t, token]
                everything[t] = everything[t] - settings.eta_masked * logp
        contrasts: list[Tensor] = []
        if getattr(settings, "contrast", 0) and (advantage > 0 or not settings.gate):
            kept, lacking = logps_of("preserving"), logps_of("removing")
            clear, without = ([-(row.exp() * row).sum().item() for row in rows] for rows in (here, lacking))
            scores = [
                max(w - c, 0) / (w + 1e-6 if settings.score == "normalised" else 1)
                for c, w in zip(clear, without, strict=True)
            ]
            rising = sorted((score for score in scores if score > 0), reverse=True)
            for t, token in enumerate(tokens):
                take = max(1, int(len(rising) * settings.share))
                if settings.tokens == "perception" and (not rising or scores[t] < rising[take - 1] or scores[t] == 0):
                    continue
                if settings.divergence == "full":
                    near, far = ((here[t].exp() * (here[t] - rows[t])).sum() for rows in (kept, lacking))
                else:
                    xs = [logps[t] - rows[t, token] for rows in (kept, lacking)]
                    near, far = xs if settings.divergence == "k1" else map(k3, xs)
                contrasts.append(torch.log1p(torch.exp((near - far) / settings.temperature)))
        return losses, everything, contrasts


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Records the gradients of every following optimiser step, after clipping."""
    seen: list[dict[str, Tensor]] = []
    original = engine.fitted

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            seen.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    def watched(trainer: Any, resume: Path | None) -> Any:
        trainer.add_callback(Keep())
        return original(trainer, resume)

    monkeypatch.setattr(engine, "fitted", watched)
    return seen


STRONG = {"contrast": 0.5, "temperature": 1.0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "grpo": ("grpo", {"beta": 0.1}),
    "per response": ("grpo", {"aggregation": "seq_mean_token_mean"}),
    "by longest": ("grpo", {"aggregation": "seq_mean_token_sum_norm"}),
    "by chunk": ("grpo", {"aggregation": "chunk_token_mean", "chunk": 3}),
    "dapo": ("dapo", {}),
    "token correction": ("grpo", {"correction": "token_truncate", "correction_cap": 1.01}),
    "papo": ("papo_g", {"gamma": 0.2, "eta": 0.3, "eta_masked": 0.3}),
    "papo live": ("papo_g", {"gamma": 0.2, "eta": 0.3, "eta_masked": 0.3, "masked_entropy": "live"}),
    "papo recomputed": (
        "papo_g",
        {"gamma": 0.2, "eta": 0.1, "eta_masked": 0.3, "masked_entropy": "live", "masked_kl": "live"},
    ),
    "papo per response": ("papo_d", {"aggregation": "seq_mean_token_mean"}),
    "cppo k3": ("cppo", STRONG),
    "cppo k1": ("cppo", {**STRONG, "divergence": "k1"}),
    "cppo full": ("cppo", {**STRONG, "divergence": "full", "gate": False}),
    "cppo all tokens": ("cppo", {**STRONG, "tokens": "all", "aggregation": "seq_mean_token_mean"}),
    "cppo raw": ("cppo", {**STRONG, "score": "difference", "share": 0.2}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_equals_plain_loops_over_separate_passes(
    model: ModelBlock,
    rollouts: list[Rollout],
    gradients: list[dict[str, Tensor]],
    tmp_path: Path,
    case: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loss and gradient of a policy that differs from the sampling policy, with micro-batches and
    split rows and logits; CPPO's in the layout of GPUs.
    """
    (name, given), groups = CASES[case], rollouts[2:]
    monkeypatch.setattr(branch_attention, "suits", lambda *_: name == "cppo")
    monkeypatch.setattr(shared_prefix, "LOGITS_AT_ONCE", 11 * load_model(model).get_output_embeddings().weight.shape[0])
    changes = {"batch_size": 6, "micro_batch_size": 2, "max_grad_norm": 1e9}
    _, (log, _) = a_round(model, groups, tmp_path, name, given, fresh(model, 0.02), budget=9, **changes)
    policy = fresh(model, 0.02)
    # the order matters for chunks
    loss = Reference(model, policy, order_of_the_first_step(groups, 1, 6)).loss(name, given)
    loss.backward()
    assert len(log) == len(gradients) == 1
    assert log[0]["largest_policy_gap"] > 0.05
    assert log[0]["loss"] == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
    expected = {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}
    size = max(float(g.abs().max()) for g in expected.values())
    assert size > 1e-3
    assert (
        furthest({n: g.double() for n, g in gradients[0].items()}, expected) < 1e-4 * size
    )  # k3 of small differences loses precision in float32
    if name.startswith("cppo"):
        assert log[0]["selected"] > 0
        assert not np.isnan(log[0]["contrast_margin"])


def order_of_the_first_step(rollouts: list[Rollout], number: int, count: int) -> list[Rollout]:
    """The order that the Trainer draws."""
    generator = torch.Generator().manual_seed(derived_seed(block().seed, number) % 2**32)
    return [rollouts[i] for i in torch.randperm(len(rollouts), generator=generator).tolist()][:count]


@pytest.mark.parametrize(
    ("name", "none"),
    [
        ("papo_g", {"gamma": 0}),
        ("papo_d", {"gamma": 0, "eta": 0, "eta_masked": 0, "clip_high": 0.3, "beta": 0.01}),
        ("cppo", {"contrast": 0, "clip_high": 0.3}),
    ],
)
def test_without_coefficients_the_adapter_is_grpos_bit_for_bit(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path, name: str, none: dict[str, Any]
) -> None:
    """With zero coefficients, PAPO and CPPO reduce to GRPO."""
    expected, _ = a_round(model, rollouts, tmp_path / "grpo")
    found, _ = a_round(model, rollouts, tmp_path / name, name, none)
    assert furthest(found, expected) == 0


def test_a_mask_that_hides_nothing_has_no_perception_kl(model: ModelBlock, bare: list[Rollout], tmp_path: Path) -> None:
    """Both views are the same image, so the KL between them is 0."""
    views = {
        "original": bare[0].views["original"],
        "masked": Shown(Recipe("masked", {"share": 0.0}, 5), bare[0].views["original"].messages),
    }
    groups = with_terms(model, load_model(model), [replace(one, views=views) for one in bare], ("original", "masked"))
    _, (log, _) = a_round(model, groups, tmp_path, "papo_g")
    assert log[0]["perception_kl"] == pytest.approx(0, abs=1e-9)
    _, (masked, _) = a_round(model, with_terms(model, load_model(model), bare), tmp_path / "b", "papo_g")
    assert masked[0]["perception_kl"] > 1e-4


def test_identical_views_have_no_gradient(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path, gradients: list[dict[str, Tensor]]
) -> None:
    """The contrast is log 2 for every token if all are selected, and the gradient is that of GRPO."""
    same = [replace(one, views=dict.fromkeys(VIEWS, one.views["original"])) for one in rollouts]
    changes = {"batch_size": 6, "max_grad_norm": 1e9, "policy": fresh(model, 0.02)}
    _, (log, _) = a_round(model, same, tmp_path / "a", "cppo", {**STRONG, "tokens": "all", "gate": False}, **changes)
    changes["policy"] = fresh(model, 0.02)
    _, (plain, _) = a_round(model, same, tmp_path / "b", "grpo", {"clip_high": 0.2}, **changes)
    assert log[0]["loss"] - plain[0]["loss"] == pytest.approx(0.5 * np.log(2), abs=1e-6)
    size = max(float(g.abs().max()) for g in gradients[1].values())
    assert furthest(*gradients) < 1e-6 * size


def test_the_gradients_of_the_contrast_sum_to_zero(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Summed over the three views, they cancel, so the sum does not depend on the contrast's
    weight.
    """
    works: list[Any] = []
    original = engine.RolloutTrainer._replayed

    def kept(self: Any, *args: Any) -> Any:
        works.append(original(self, *args))
        return works[-1]

    monkeypatch.setattr(engine.RolloutTrainer, "_replayed", kept)
    for weight in (0.5, 5.0):
        given = {"contrast": weight, "tokens": "all"}
        a_round(model, rollouts, tmp_path / str(weight), "cppo", given, batch_size=6)
    sums = [torch.cat([sum(work.slopes.values()) for work in step]) for step in works]  # type: ignore[misc]
    assert (sums[0] - sums[1]).abs().max() < 1e-5
    of_view = [torch.cat([work.slopes["removing"] for work in step]) for step in works]
    assert (of_view[0] - of_view[1]).abs().max() > 0.01


@pytest.mark.parametrize("case", ["grpo", "papo live", "by longest", "cppo full"])
@pytest.mark.parametrize("changes", [{"micro_batch_size": 1}, {"micro_batch_size": 2, "gradient_checkpointing": True}])
def test_memory_settings_do_not_change_a_round(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path, case: str, changes: dict[str, Any]
) -> None:
    """Also if the last step has one group."""
    name, given = CASES[case]
    expected, (expected_log, _) = a_round(
        model, rollouts, tmp_path / "a", name, given, batch_size=4, micro_batch_size=4
    )
    found, (log, _) = a_round(model, rollouts, tmp_path / "b", name, given, batch_size=4, **changes)
    for here, there in zip(log, expected_log, strict=True):
        for metric in ("loss", "grad_norm", *METHODS[name].watched):  # type: ignore[attr-defined]
            assert here.get(metric) == pytest.approx(there.get(metric), rel=1e-3, abs=1e-5), metric
    assert (
        furthest(found, expected) < 5e-4
    )  # AdamW divides by the gradient's size, which amplifies rounding in small ones


@pytest.mark.parametrize("case", ["grpo", "cppo full"])
def test_two_processes_train_the_same_adapter(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path, case: str
) -> None:
    name, given = CASES[case]
    expected, (expected_log, _) = a_round(model, rollouts[:4], tmp_path / "one", name, given)
    torch.save((model, rollouts[:4], name, given), tmp_path / "job.pt")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*torchrun, "-m", __name__, str(tmp_path)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found, log = torch.load(tmp_path / "done.pt", weights_only=False)
    # AdamW is invariant to the scale of gradients
    for metric in ("loss", "grad_norm", "response_tokens", "step"):
        values = [[entry[metric] for entry in one] for one in (log, expected_log)]
        assert values[0] == pytest.approx(values[1], rel=1e-3, abs=2e-6), metric
    assert furthest(found, expected) < 5e-4


def one_of_two(folder: Path) -> None:
    """The work of one process in the two-process test."""
    model, groups, name, given = torch.load(folder / "job.pt", weights_only=False)
    adapter, (log, _) = a_round(model, groups, folder / "two", name, given)
    if os.environ["RANK"] == "0":
        torch.save((adapter, log), folder / "done.pt")


@pytest.mark.parametrize("case", ["grpo", "cppo k3"])
def test_a_killed_round_goes_on_from_its_newest_complete_checkpoint(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path, case: str
) -> None:
    """With the optimiser state of an earlier round, which the checkpoint's state replaces."""
    name, given = CASES[case]
    before = {"save_optimizer": tmp_path / "before"}
    a_round(model, rollouts, tmp_path / "first", name, given, files=before)
    files = {"optimizer": tmp_path / "before", "save_optimizer": tmp_path / "after"}
    expected, (expected_log, _) = a_round(model, rollouts, tmp_path / "whole", name, given, number=2, files=files)
    state = load_file(tmp_path / "after")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoint-3")
    (tmp_path / "killed" / "checkpoint-3").mkdir()  # half-written
    found, (log, _) = a_round(model, rollouts, tmp_path / "killed", name, given, number=2, files=files)
    assert furthest(found, expected) == 0
    assert furthest(load_file(tmp_path / "after"), state) == 0
    assert [e["loss"] for e in log] == [e["loss"] for e in expected_log]


def test_a_carried_optimiser_goes_on_bit_for_bit(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path, gradients: list[dict[str, Tensor]]
) -> None:
    """Two rounds, the second from the first's adapter and state, equal one AdamW over the same
    gradients.
    """
    start = fresh(model)
    plain = {n: p.detach().clone().requires_grad_() for n, p in start.named_parameters() if p.requires_grad}
    a_round(model, rollouts, tmp_path / "one", policy=start, files={"save_optimizer": tmp_path / "state"})
    start.save_pretrained(tmp_path / "adapter")
    policy = load_trained(load_model(model), tmp_path / "adapter")
    files = {"optimizer": tmp_path / "state", "save_optimizer": tmp_path / "state 2"}
    carried, _ = a_round(model, rollouts, tmp_path / "two", policy=policy, number=2, files=files)
    reset, _ = a_round(
        model, rollouts, tmp_path / "three", policy=load_trained(load_model(model), tmp_path / "adapter"), number=2
    )
    optimizer = torch.optim.AdamW(plain.values(), lr=5e-3, weight_decay=0.0)
    assert len(gradients) == 9
    for step in gradients[:6]:
        for name, parameter in plain.items():
            parameter.grad = step[name]
        optimizer.step()
    assert furthest(carried, {n: p.detach() for n, p in plain.items()}) == 0
    assert furthest(reset, carried) > 1e-4
    state = load_file(tmp_path / "state 2")
    assert {float(value) for name, value in state.items() if name.endswith(".step")} == {6.0}
    assert len(state) == 3 * len(plain)


def test_an_optimiser_of_another_adapter_is_refused(model: ModelBlock, rollouts: list[Rollout], tmp_path: Path) -> None:
    save_file({"other.step": torch.tensor(1.0)}, tmp_path / "state")
    with pytest.raises(UserError, match="optimiser state of another adapter"):
        a_round(model, rollouts, tmp_path / "checkpoints", files={"optimizer": tmp_path / "state"})


def test_rounds_have_their_own_order(model: ModelBlock, rollouts: list[Rollout], tmp_path: Path) -> None:
    orders = [[one.group_id for one in order_of_the_first_step(rollouts, number, 5)] for number in (1, 3)]
    assert orders[0] != orders[1]
    for number in (1, 3):
        _, (log, _) = a_round(model, rollouts, tmp_path / str(number), number=number)
        first = order_of_the_first_step(rollouts, number, 2)
        assert log[0]["response_tokens"] == sum(one.tokens for one in first)


def test_a_limit_ends_the_round_and_a_killed_one_ends_there_again(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path
) -> None:
    limits = {"policy_gap": (None, 1e-4), "policy_gap_at_start": (None, 1e-3)}
    expected, (log, stopped) = a_round(model, rollouts, tmp_path / "a", limits=limits)
    assert len(log) == 2
    assert stopped is not None
    assert stopped.startswith("`policy_gap` is")
    assert "at step 2, above its limit 0.0001" in stopped
    assert not (tmp_path / "a" / "checkpoint-2").exists()
    found, again = a_round(model, rollouts, tmp_path / "a", limits=limits)
    assert again.stopped == stopped
    assert furthest(found, expected) == 0


def test_a_loss_that_is_not_finite_is_the_users(model: ModelBlock, rollouts: list[Rollout], tmp_path: Path) -> None:
    old = rollouts[0].stored["old", "original"]
    broken = replace(old, logps=[[float("nan")] * len(row) for row in old.logps])
    groups = [replace(one, stored={**one.stored, ("old", "original"): broken}) for one in rollouts[:1]]
    for name in ("grpo", "cppo"):
        with pytest.raises(UserError, match="the loss of step 1 is nan"):
            a_round(model, groups, tmp_path / name, name)


def test_stored_numbers_of_other_answers_are_refused(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path
) -> None:
    groups = [replace(rollouts[0], stored=rollouts[1].stored)]
    with pytest.raises(ValueError, match="group `g0`: old original log-probabilities do not match its responses"):
        a_round(model, groups, tmp_path)


def test_a_live_view_of_another_size_is_refused(model: ModelBlock, rollouts: list[Rollout], tmp_path: Path) -> None:
    one = rollouts[0]
    (message,) = one.views["original"].messages
    two = Shown(
        Recipe("enhanced", {}, 0, (20.0, 30.0, 80.0, 90.0)),
        [{**message, "content": [message["content"][0], *message["content"]]}],
    )
    with pytest.raises(
        UserError, match=r"group `g0`, view `preserving`: the prompt's positions differ, \d+ tokens under `preserving`"
    ):
        a_round(model, [replace(one, views={**one.views, "preserving": two})], tmp_path, "cppo")


def test_dora_refuses_rows_of_zeros(model: ModelBlock) -> None:
    expected = (
        r"layer `model\.language_model\.layers\.2\.self_attn\.q_proj` has 20 rows of zeros, which DoRA cannot scale"
    )
    with pytest.raises(UserError, match=expected):
        fresh(model, lora=EVERYTHING)


def test_dropout_is_refused(model: ModelBlock, rollouts: list[Rollout], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"key `lora.dropout`: 0.1, expected 0"):
        a_round(model, rollouts, tmp_path, lora=LoraBlock(r=4, alpha=8, dropout=0.1))


def test_stored_terms_equal_separate_passes(model: ModelBlock, bare: list[Rollout]) -> None:
    """Of a policy with an adapter, compared with float64 passes of one sequence each."""
    policy = fresh(model, 0.02)
    encoder = encoder_for(model, policy.get_base_model(), "masked", 9)
    found = dict(stored_terms(policy, fed(encoder, bare), 2, entropies=True))
    without = dict(stored_terms(policy, fed(encoder, bare), 5))
    plain = Reference(model, policy, bare)
    for one in bare:
        numbers = found[one.group_id]
        assert without[one.group_id].entropies is None
        assert numbers.entropies is not None
        for place, answer in enumerate(one.responses):
            with torch.no_grad():
                logps = plain.logits(one, "masked", answer)
            assert numbers.logps[place] == pytest.approx([float(logps[t, a]) for t, a in enumerate(answer)], abs=1e-4)
            assert without[one.group_id].logps[place] == pytest.approx(numbers.logps[place], abs=1e-5)
            assert numbers.entropies[place] == pytest.approx((-(logps.exp() * logps).sum(1)).tolist(), abs=1e-4)


@pytest.mark.parametrize(
    ("dtype", "changes"),
    [("float32", {}), ("bfloat16", {}), ("float32", {"lora": ALL_PARTS}), ("bfloat16", {"lora": ALL_PARTS})],
)
def test_a_loaded_adapter_is_like_a_fresh_one(
    model: ModelBlock, tmp_path: Path, dtype: Any, changes: dict[str, Any]
) -> None:
    """Moved by less than 16 bits resolve."""
    here = model.model_copy(update={"dtype": dtype})
    new = fresh(here, 1e-5, **changes)
    new.save_pretrained(tmp_path)
    loaded = load_trained(load_model(here), tmp_path)
    frozen = load_trained(load_model(here), tmp_path, trainable=False)

    def formats(policy: PeftModel) -> dict[str, tuple[torch.dtype, bool]]:
        return {name: (p.dtype, p.requires_grad) for name, p in policy.named_parameters()}

    assert formats(loaded) == formats(new)
    assert {dtype for dtype, learns in formats(loaded).values() if learns} == {torch.float32}
    assert not any(learns for _, learns in formats(frozen).values())
    assert furthest(adapter_of(loaded), adapter_of(new)) == 0
    assert loaded.peft_config["default"].base_model_name_or_path == model.path
    assert not loaded.peft_config["default"].inference_mode


if __name__ == "__main__":
    one_of_two(Path(sys.argv[1]))
