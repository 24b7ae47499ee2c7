"""LoRA training on the groups of one round (GRPO and what builds on it), on the Trainer that the ranked lists use.

The loss is normalised over the whole optimiser step, whatever its micro batches and processes. A method without live views needs
one forward and backward pass per micro batch. One with live views (CPPO) relates passes over several views, and tokens of the
whole step, to each other; so the step is seen twice: without gradient to know every number that the loss depends on and the
loss's slope in each of them, and again with these slopes as constants, so that only one view's graph of one micro batch
is alive at a time (dossier d.4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from peft import PeftModel
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import TrainerCallback

from perceptune.contracts.config import TrainingBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.files import appearing
from perceptune.contracts.seeds import derived_seed
from perceptune.core.methods.rollout import RolloutMethod, Seen, Tokens
from perceptune.core.monitors import Limits, tripped
from perceptune.core.policy_gradient import Step, token_weights
from perceptune.engines.lists import Encoder, Rollout, StoredTokens
from perceptune.engines.shared_prefix import (
    Packed,
    TokenValues,
    full_kl,
    logps_of,
    token_states,
    token_values,
    values_of,
)
from perceptune.engines.training import AdapterTrainer, fitted, prepare

ADAMW = ("exp_avg", "exp_avg_sq", "step")
"""What AdamW remembers of a parameter."""


class Part(NamedTuple):  # a tuple, since the Trainer looks into it
    """The groups of a micro batch, packed once for each view; the training view comes first."""

    packed: Mapping[str, Packed]
    groups: Sequence[Rollout]


class Direct(NamedTuple):
    """A micro batch whose loss needs nothing but itself."""

    packed: Packed
    tokens: Tokens
    """All but what the policy under training says."""


class Replayed(NamedTuple):
    """A micro batch whose loss has been computed; what is left are passes with known slopes, one for each view."""

    packed: Mapping[str, Packed]
    slopes: Mapping[str, Tensor]
    """View to the derivative of the step's loss in each log-probability, (T,)."""
    kl_slopes: Mapping[str, Tensor]
    """View to the derivative in each divergence KL(training view || view), (T,)."""
    states: Mapping[str, Tensor]
    """View to the hidden states of the first pass, where divergences are asked for."""


@dataclass
class _Seen:
    """What one view's pass, or one view's divergence, has given for the micro batches of a step so far."""

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
        state: Path | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.method, self.parameters, self.view, self.longest, self.carried = method, parameters, view, longest, state
        self.views = views_of(method, parameters, view)
        self._known: Tokens
        self._found: list[TokenValues] = []
        self._loss = 0.0

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """A new optimiser, or one that goes on from the state of the round before."""
        optimizer = super().create_optimizer(model)
        if self.carried is not None:
            load_optimizer(optimizer, self.model, self.carried)
        return optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[Part], num_batches: int, device: torch.device
    ) -> tuple[list[Any], int]:
        """The micro batches of one optimiser step on this device, with all that they must know of the whole step."""
        parts, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
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
        """The passes without gradient, the loss of the step, and its slopes."""
        seen, states = self._looked(parts)
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
            loss = self._checked(self.method.loss(tokens, self.parameters))
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
    def _looked(self, parts: Sequence[Part]) -> tuple[dict[str, _Seen], list[dict[str, Tensor]]]:
        """What every view's pass gives, and the hidden states of each micro batch where they will be needed again."""
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
        """This micro batch's part of the step's loss, or for a replayed one a sum with the same gradient."""
        # DistributedDataParallel averages gradients over processes, weights are over all of them
        processes = self.accelerator.num_processes
        if isinstance(inputs, Direct):
            return self._loss_of(model, inputs) * processes
        work: Replayed = inputs
        for name in self.views[1:]:
            if work.slopes[name].any() or (name in work.kl_slopes and work.kl_slopes[name].any()):
                # gradients are exchanged once, after the last pass, which is the caller's
                with self.accelerator.no_sync(model):
                    self.accelerator.backward(self._with_slopes(model, work, name) * processes)
        return self._with_slopes(model, work, self.view) * processes

    def _loss_of(self, model: nn.Module, work: Direct) -> Tensor:
        found = token_values(model, work.packed)
        tokens = replace(work.tokens, logps=found.logps, entropy=found.entropies)
        loss = self._checked(self.method.loss(tokens, self.parameters))
        self._found.append(TokenValues(found.logps.detach(), found.entropies))
        self._loss += loss.item()
        if sum(len(one.logps) for one in self._found) == len(self._known.logps):
            logps, entropies = (torch.cat(pieces) for pieces in zip(*self._found, strict=True))
            self._measure(self._loss, replace(self._known, logps=logps, entropy=entropies))
        return loss

    def _with_slopes(self, model: nn.Module, work: Replayed, name: str) -> Tensor:
        """Of one view: what it says, times the known slopes."""
        batch = work.packed[name]
        head, states = token_states(model, batch)
        total = (logps_of(head, states, batch.targets) * work.slopes[name]).sum()
        for other, slopes in work.kl_slopes.items():
            if name == self.view:
                total = total + (full_kl(head, states, work.states[other]) * slopes).sum()
            elif name == other:
                total = total + (full_kl(head, work.states[self.view], states) * slopes).sum()
        return total

    def _checked(self, loss: Tensor) -> Tensor:
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss of step {self.state.global_step + 1} is {loss.item()}")
        return loss

    @torch.no_grad()
    def _measure(self, loss: float, tokens: Tokens) -> None:
        """Metrics of this process's part of the step; the parts of the loss add up, what is logged are means over processes."""
        metrics = self.method.metrics(tokens, self.parameters)
        self._sums.add({"loss": loss * self.accelerator.num_processes, **metrics})


def views_of(method: RolloutMethod, parameters: Any, view: str) -> list[str]:
    """What the policy under training is shown, the training view first."""
    return list(dict.fromkeys([view, *method.live(parameters)]))


def tokens_of(
    groups: Sequence[Rollout], method: RolloutMethod, parameters: Any, view: str, weights: Tensor, share: float
) -> Tokens:
    """What is known of groups before the policy under training is asked; until then it is the policy that answered.

    `weights` (T,) and `share` as in `Tokens`. Raises `ValueError` where stored numbers do not belong to the responses.
    """
    device = weights.device
    responses = [response for one in groups for response in one.responses]
    lengths = torch.tensor([len(response) for response in responses])

    def flat(term: str, nested: Sequence[Sequence[Sequence[float]]]) -> Tensor:
        for one, rows in zip(groups, nested, strict=True):
            if [len(row) for row in rows] != [len(response) for response in one.responses]:
                raise ValueError(f"group `{one.group_id}`: {term} log-probabilities are not those of its responses")
        return torch.tensor(list(chain.from_iterable(chain.from_iterable(nested))), dtype=torch.float32, device=device)

    def of(term: Literal["reference", "old"], name: str) -> Seen:
        found: list[StoredTokens] = [one.stored[term, name] for one in groups]
        logps = flat(f"{term} {name}", [numbers.logps for numbers in found])
        entropies = [numbers.entropies for numbers in found if numbers.entropies is not None]
        return Seen(logps, flat(f"{term} {name}", entropies) if len(entropies) == len(found) else None)

    wanted = method.stored(parameters, view)
    stored = {name: of(term, name) for term, name in wanted if term == "old"}
    old = stored[view]
    unknown = torch.full_like(old.logps, torch.nan)
    return Tokens(
        logps=old.logps,
        old=old.logps,
        sampled=flat("sampled", [one.sampled for one in groups]),
        reference=of("reference", view).logps if ("reference", view) in wanted else None,
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
    """What a round of training has given, besides the adapter."""

    log: list[dict[str, float]]
    """Metrics of every optimiser step."""
    stopped: str | None
    """The limit that ended the round early."""


def train_round(
    model: PeftModel,
    encoder: Encoder,
    rollouts: Sequence[Rollout],
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
) -> RoundLog:
    """Trains the adapter of `model` in place on the groups of one round.

    `longest`: tokens that a response may have. `optimizer` and `save_optimizer`: safetensors of the optimiser's state that
    the round starts from and ends with. The encoder's `looks` are not used: what is shown is up to the method. Resumes
    from the newest complete checkpoint. Raises `UserError` when the loss is no longer finite or a view changes the size of
    an image.
    """
    if block.lora.dropout:
        raise UserError(
            f"key `lora.dropout`: {block.lora.dropout}, expected 0 with method `{block.method}`",
            "with dropout the policy under training is another one than the policy that answered",
        )
    prepared = prepare(model, block, derived_seed(block.seed, round) % 2**32, dtype, checkpoints, fingerprint)
    views = views_of(method, parameters, block.view)
    watch = _Watch(block.limits)
    trainer = RolloutTrainer(
        **prepared.settings,
        data_collator=lambda groups: Part(encoder.per_view(groups, views), groups),
        train_dataset=list(rollouts),
        method=method,
        parameters=parameters,
        view=block.view,
        longest=longest,
        state=optimizer,
    )
    trainer.add_callback(watch)
    log = fitted(trainer, prepared.resume)
    if save_optimizer is not None and trainer.is_world_process_zero():
        store_optimizer(trainer.optimizer, trainer.model, save_optimizer)
    return RoundLog(log, tripped(log, block.limits))


class _Watch(TrainerCallback):
    """Ends training as soon as a limit is passed. All processes agree, since what is logged is the same in all of them."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if tripped(state.log_history, self.limits):
            # without a checkpoint of this step a killed run does it again, and ends here again
            control.should_training_stop, control.should_save = True, False


def store_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, file: Path) -> None:
    """Writes what AdamW remembers, as safetensors under `<parameter>.<quantity>`."""
    tensors = {}
    for name, parameter in model.named_parameters():
        for quantity in ADAMW if parameter in optimizer.state else ():
            tensors[f"{name}.{quantity}"] = optimizer.state[parameter][quantity].detach().cpu().contiguous()
    with appearing(file) as written:
        written.write(save(tensors))


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, file: Path) -> None:
    """The other way round; `UserError` where the file is of other parameters."""
    tensors = load_file(file)
    names = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if tensors and {f"{name}.{quantity}" for name in names for quantity in ADAMW} != tensors.keys():
        raise UserError(f"`{file}`: optimiser state of another adapter", "`optimizer: reset` starts without one")
    for name, parameter in names.items() if tensors else ():
        state = {quantity: tensors[f"{name}.{quantity}"] for quantity in ADAMW}
        # `step` stays on the CPU, where AdamW keeps it
        optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in state.items()}
