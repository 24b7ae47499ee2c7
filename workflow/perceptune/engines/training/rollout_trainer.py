"""LoRA training on the groups of one round (GRPO and its descendants).

The loss is normalised over the whole optimiser step, independent of micro batches and processes. A
method without live views needs one forward and backward pass per micro batch. A method with live
views (CPPO) relates log-probs under several views, and of all tokens of the step, to each other.
The step is then run twice: first without gradient, to compute the loss and its derivative with
respect to every log-prob; then with these derivatives as constants, so that only the graph of one
view of one micro batch is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from peft import PeftModel
from safetensors.torch import save
from torch import Tensor, nn
from transformers import TrainerCallback

from perceptune.contracts.config import TrainingBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.files import appearing
from perceptune.contracts.seeds import derived_seed
from perceptune.core.methods.limits import Limits, tripped
from perceptune.core.methods.policy_gradient import Step, token_weights
from perceptune.core.methods.rollout import RolloutMethod, Seen, Tokens
from perceptune.core.methods.scalar import scalar
from perceptune.engines.training.carried_optimizer import Carried, optimizer_state
from perceptune.engines.training.feeding import Feed, Places
from perceptune.engines.training.groups import Part, Rollout, StoredTokens
from perceptune.engines.training.image_features import FeatureCache
from perceptune.engines.training.shared_prefix import (
    Packed,
    TokenValues,
    full_kl,
    logps_of,
    token_states,
    token_values,
    values_of,
)
from perceptune.engines.training.trackers import Run
from perceptune.engines.training.trainer import AdapterTrainer, fitted, prepare


class Direct(NamedTuple):
    """A micro batch whose loss is independent of the others."""

    packed: Packed
    tokens: Tokens
    """Everything except the current policy's values."""


class Replayed(NamedTuple):
    """A micro batch whose loss is known; one pass per view with fixed derivatives remains."""

    packed: Mapping[str, Packed]
    slopes: Mapping[str, Tensor]
    """View to the derivative of the step's loss with respect to each log-prob, (T,)."""
    kl_slopes: Mapping[str, Tensor]
    """View to the derivative with respect to each divergence KL(training view || view), (T,)."""
    states: Mapping[str, Tensor]
    """View to the hidden states of the first pass, for full KL divergences."""


@dataclass
class _Seen:
    """Values and divergences of one view, one entry per micro batch of the step so far."""

    values: list[TokenValues] = field(default_factory=list)
    kl: list[Tensor] = field(default_factory=list)


class RolloutTrainer(AdapterTrainer):
    """Minimises a method's loss over the tokens of all groups of the optimiser step."""

    def __init__(
        self,
        *args: Any,
        method: RolloutMethod,
        parameters: Any,
        view: str,
        longest: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.method, self.parameters, self.view, self.longest = method, parameters, view, longest
        self.views = views_of(method, parameters, view)
        self._least = self.args.gradient_accumulation_steps  # a step starts with all of its batches
        self._known: Tokens
        self._found: list[TokenValues] = []
        self._loss = 0.0

    def get_batch_samples(
        self, epoch_iterator: Iterator[Places], num_batches: int, device: torch.device
    ) -> tuple[list[Any], int]:
        """The micro batches of one optimiser step on this device, prepared for `compute_loss`."""
        places, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        parts: list[Part] = [next(self._batches) for _ in places]
        groups = [one for part in parts for one in part.groups]
        lengths = [len(response) for one in groups for response in one.responses]
        total, responses = self._total(sum(lengths), len(lengths))
        step = Step(total, responses, self.longest, self.accelerator.num_processes)
        weights = token_weights(lengths, step, *self.method.aggregation(self.parameters))
        tokens = tokens_of(groups, self.method, self.parameters, self.view, weights.to(device), 1 / total)
        counts = [sum(one.tokens for one in part.groups) for part in parts]
        self._sums.tokens += sum(counts)
        if self.method.live(self.parameters):
            return self._replayed(tokens, parts, counts), total
        self._known, self._found, self._loss = self._with_selection(tokens), [], 0.0
        return self._direct(parts, counts), total

    def _with_selection(self, tokens: Tokens) -> Tokens:
        with torch.no_grad():
            selected = self.method.select(tokens, self.parameters)
        if selected is None:
            return tokens
        (count,) = self._total(int(selected.sum()))
        return replace(tokens, selected=selected, selected_share=1 / max(count, 1))

    def _direct(self, parts: Sequence[Part], counts: list[int]) -> list[Direct]:
        step = self._known
        selected = [None] * len(parts) if step.selected is None else step.selected.split(counts)
        made = []
        for part, weights, chosen in zip(parts, step.weights.split(counts), selected, strict=True):
            tokens = tokens_of(part.groups, self.method, self.parameters, self.view, weights, step.share)
            tokens = replace(tokens, selected=chosen, selected_share=step.selected_share)
            made.append(Direct(part.packed[self.view], tokens))
        return made

    def _replayed(self, tokens: Tokens, parts: Sequence[Part], counts: list[int]) -> list[Replayed]:
        """The passes without gradient, the step's loss, and its derivatives."""
        seen, states = self._first_pass(parts)
        leaves = {name: torch.cat([v.logps for v in seen[name].values]).requires_grad_() for name in self.views}
        kls = {name: torch.cat(seen[name].kl).requires_grad_() for name in self.views if seen[name].kl}
        entropies = {name: torch.cat([v.entropies for v in seen[name].values]) for name in self.views}
        tokens = self._with_selection(
            replace(
                tokens,
                logps=leaves[self.view],
                entropy=entropies[self.view],
                live={
                    name: Seen(leaves[name], entropies[name], kls.get(name))
                    for name in self.method.live(self.parameters)
                },
            )
        )
        with torch.enable_grad():
            loss = self._loss_for(tokens)
        slopes = torch.autograd.grad(loss, [*leaves.values(), *kls.values()], allow_unused=True, materialize_grads=True)
        self._measure(loss.item(), replace(tokens, logps=tokens.logps.detach()))
        cut = [slope.split(counts) for slope in slopes]
        made = []
        for number, part in enumerate(parts):
            here = [pieces[number] for pieces in cut]
            of_logps = dict(zip(leaves, here[: len(leaves)], strict=True))
            of_kls = dict(zip(kls, here[len(leaves) :], strict=True))
            made.append(Replayed(part.packed, of_logps, of_kls, states[number]))
        return made

    @torch.no_grad()
    def _first_pass(self, parts: Sequence[Part]) -> tuple[dict[str, _Seen], list[dict[str, Tensor]]]:
        """Values of every view, and each micro batch's hidden states if the second pass needs
        them.
        """
        seen: dict[str, _Seen] = {name: _Seen() for name in self.views}
        kept: list[dict[str, Tensor]] = []
        for part in parts:
            states: dict[str, Tensor] = {}
            for name, batch in part.packed.items():
                head, found = token_states(self.model, batch)
                seen[name].values.append(values_of(head, found, batch.targets))
                if self.method.wants_full_kl(self.parameters):
                    states[name] = found
                    if name in self.method.live(self.parameters):
                        seen[name].kl.append(full_kl(head, states[self.view], found))
            kept.append(states)
        return seen, kept

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """This micro batch's part of the step's loss; if replayed, a sum with the same gradient."""
        # gradients are averaged over processes; the weights are global
        processes = self.accelerator.num_processes
        if isinstance(inputs, Direct):
            return self._for_all(self._loss_of(model, inputs) * processes)
        work: Replayed = inputs
        for name in self.views[1:]:
            matters = work.slopes[name].any() or (name in work.kl_slopes and work.kl_slopes[name].any())
            if any(self._total(int(matters))):  # sharded, all processes must make the same passes
                # gradients are exchanged once, after the last pass, which the Trainer runs
                with self.accelerator.no_sync(model):
                    self.accelerator.backward(self._with_slopes(model, work, name) * processes)
        return self._for_all(self._with_slopes(model, work, self.view) * processes)

    def _loss_of(self, model: nn.Module, work: Direct) -> Tensor:
        found = token_values(model, work.packed)
        tokens = replace(work.tokens, logps=found.logps, entropy=found.entropies)
        loss = self._loss_for(tokens)
        self._found.append(TokenValues(found.logps.detach(), found.entropies))
        self._loss += loss.item()
        if sum(len(one.logps) for one in self._found) == len(self._known.logps):
            logps, entropies = (torch.cat(pieces) for pieces in zip(*self._found, strict=True))
            self._measure(self._loss, replace(self._known, logps=logps, entropy=entropies))
        return loss

    def _with_slopes(self, model: nn.Module, work: Replayed, name: str) -> Tensor:
        """One view's values times their fixed derivatives."""
        batch = work.packed[name]
        head, states = token_states(model, batch)
        total = (logps_of(head, states, batch.targets) * work.slopes[name]).sum()
        for other, slopes in work.kl_slopes.items():
            if name == self.view:
                total = total + (full_kl(head, states, work.states[other]) * slopes).sum()
            elif name == other:
                total = total + (full_kl(head, work.states[self.view], states) * slopes).sum()
        return total

    def _loss_for(self, tokens: Tokens) -> Tensor:
        loss = scalar(self.method.loss(tokens, self.parameters), self.method.name, tokens.logps)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss of step {self.state.global_step + 1} is {loss.item()}")
        return loss

    @torch.no_grad()
    def _measure(self, loss: float, tokens: Tokens) -> None:
        """Metrics of this process's part of the step.

        Losses add up over processes; the log has means over processes.
        """
        metrics = self.method.metrics(tokens, self.parameters)
        self._sums.add({"loss": loss * self.accelerator.num_processes, **metrics})


def views_of(method: RolloutMethod, parameters: Any, view: str) -> list[str]:
    """The views that the current policy is evaluated under, the training view first."""
    return list(dict.fromkeys([view, *method.live(parameters)]))


def tokens_of(
    groups: Sequence[Rollout], method: RolloutMethod, parameters: Any, view: str, weights: Tensor, share: float
) -> Tokens:
    """The tokens of groups before the forward pass, with the old policy's log-probs.

    `weights` (T,) and `share` as in `Tokens`. Raises `ValueError` if stored values do not match the
    responses.
    """
    device = weights.device
    responses = [response for one in groups for response in one.responses]
    lengths = torch.tensor([len(response) for response in responses])

    def flat(term: str, nested: Sequence[Sequence[Sequence[float]]]) -> Tensor:
        for one, rows in zip(groups, nested, strict=True):
            if [len(row) for row in rows] != [len(response) for response in one.responses]:
                raise ValueError(f"group `{one.group_id}`: {term} log-probabilities do not match its responses")
        return torch.tensor(list(chain.from_iterable(chain.from_iterable(nested))), dtype=torch.float32, device=device)

    def of(term: Literal["reference", "old"], name: str) -> Seen:
        found: list[StoredTokens] = [one.stored[term, name] for one in groups]
        logps = flat(f"{term} {name}", [numbers.logps for numbers in found])
        entropies = [numbers.entropies for numbers in found if numbers.entropies is not None]
        return Seen(logps, flat(f"{term} {name}", entropies) if len(entropies) == len(found) else None)

    required = method.stored(parameters, view)
    stored = {name: of(term, name) for term, name in required if term == "old"}
    old = stored[view]
    unknown = torch.full_like(old.logps, torch.nan)
    return Tokens(
        logps=old.logps,
        old=old.logps,
        sampled=flat("sampled", [one.sampled for one in groups]),
        reference=of("reference", view).logps if ("reference", view) in required else None,
        entropy=unknown if old.entropy is None else old.entropy,
        old_entropy=unknown if old.entropy is None else old.entropy,
        owners=torch.arange(len(responses)).repeat_interleave(lengths).to(device),
        groups=torch.tensor([number for number, one in enumerate(groups) for _ in one.responses], device=device),
        rewards=torch.tensor([reward for one in groups for reward in one.rewards], dtype=torch.float64, device=device),
        truncated=torch.tensor([cut for one in groups for cut in one.truncated], device=device),
        weights=weights,
        share=share,
        stored=stored,
    )


class RoundLog(NamedTuple):
    """The result of a round of training, apart from the adapter."""

    log: list[dict[str, float]]
    """Metrics of every optimiser step."""
    stopped: str | None
    """The limit that ended the round early, or None."""


def train_round(
    model: PeftModel,
    feed: Feed[Part],
    *,
    method: RolloutMethod,
    parameters: Any,
    block: TrainingBlock,
    round: int,
    longest: int,
    dtype: str,
    checkpoints: Path,
    fingerprint: str,
    optimizer: Path | None = None,
    save_optimizer: Path | None = None,
    run: Run | None = None,
    features: FeatureCache | None = None,
) -> RoundLog:
    """Trains the adapter of `model` in place on the groups of one round, `feed`'s only source.

    `longest` is the token limit of a response. `optimizer` and `save_optimizer` are safetensors
    files of the optimiser's state at the start and at the end. The views of `feed` are those of
    `views_of`. `run` is for trackers; `features` says where to look for features of images. Resumes
    from the newest complete checkpoint. Raises `UserError` for a non-finite loss, and for a view that
    changes the size of an image.
    """
    if block.lora.dropout:
        raise UserError(
            f"key `lora.dropout`: {block.lora.dropout}, expected 0 with method `{block.method}`",
            "with dropout, the trained policy differs from the one that generated the responses",
        )
    prepared = prepare(model, block, derived_seed(block.seed, round) % 2**32, dtype, checkpoints, fingerprint, run)
    watch = _Watch(block.limits)
    trainer = RolloutTrainer(
        **prepared.settings,
        feed=feed,
        features=features,
        method=method,
        parameters=parameters,
        view=block.view,
        longest=longest,
    )
    trainer.add_callback(watch)
    if optimizer is not None:
        trainer.add_callback(Carried(optimizer))
    log = fitted(trainer, prepared.resume)
    if save_optimizer is not None:
        state = optimizer_state(trainer.optimizer, trainer.model)
        if trainer.is_world_process_zero():
            with appearing(save_optimizer) as written:
                written.write(save(state))
    return RoundLog(log, tripped(log, block.limits))


class _Watch(TrainerCallback):
    """Ends training as soon as a limit is exceeded.

    All processes agree, since they log the same values.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if tripped(state.log_history, self.limits):
            # without a checkpoint of this step, a killed run repeats it and ends here again
            control.should_training_stop, control.should_save = True, False
