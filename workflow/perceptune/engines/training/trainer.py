"""LoRA training: the common parts of all trainers, and the trainer for methods over ranked lists.

For several GPUs, start the same job through `torchrun` or `accelerate launch`, as
`stages.training.train` does if `devices` is above 1. The lists of an optimiser step do not depend
on the number of processes or the micro batch size. (The only exception: if the lists of an epoch's
last step cannot be shared evenly, accelerate repeats some, so that every process has work.)
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import tee
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments, set_seed

from perceptune.contracts.config import TrainingBlock
from perceptune.contracts.errors import UserError
from perceptune.core.methods.logprob_queries import Look
from perceptune.core.methods.method import Group, GroupMethod
from perceptune.core.methods.scalar import NOT_QUERIED, scalar
from perceptune.engines.training import branch_attention, sharding
from perceptune.engines.training.callbacks import Bar, Checkpoints, FrozenInputs, newest_checkpoint
from perceptune.engines.training.feeding import Feed, Layout, Places
from perceptune.engines.training.groups import Batch, RankedList, per_look
from perceptune.engines.training.image_features import FeatureCache
from perceptune.engines.training.kept_epochs import KeptEpochs
from perceptune.engines.training.shared_prefix import response_logps
from perceptune.engines.training.trackers import Run, mistakes_of_trackers
from perceptune.models.adapters import leave_casts_to_autocast, new_adapter
from perceptune.models.families.family import Family
from perceptune.models.placement import bare

DIVERGED = "lower `learning_rate`, or use `dtype: bfloat16` instead of float16"
"""Hint for a training run with NaN or infinite numbers."""


def with_adapter(model: PreTrainedModel, block: TrainingBlock, family: Family, base_path: str) -> PeftModel:
    """The model with a new adapter on the parts in `lora.parts`; the rest is frozen.

    Raises `UserError` for names in `lora.target_modules` that these parts do not have.
    """
    set_seed(block.seed)
    adapted = new_adapter(model, block.lora, family)
    adapted.peft_config["default"].base_model_name_or_path = base_path
    return adapted


def micro_batches(block: TrainingBlock, processes: int) -> tuple[int, int]:
    """(lists per device and pass, passes per optimiser step), with the largest micro batch that
    divides the device's share.

    Raises `UserError` if the processes cannot share a batch evenly.
    """
    share, rest = divmod(block.batch_size, processes)
    if rest:
        raise UserError(f"key `batch_size`: {block.batch_size} lists cannot be shared evenly by {processes} processes")
    micro = max(size for size in range(1, min(block.micro_batch_size, share) + 1) if share % size == 0)
    return micro, share // micro


def with_less_memory(block: TrainingBlock, halvings: int) -> TrainingBlock:
    """The settings for an attempt after `halvings` attempts that ran out of memory: fewer lists per
    pass, and activations are computed again. The lists of an optimiser step stay the same.
    """
    if not halvings:
        return block
    micro = max(block.micro_batch_size >> halvings, 1)
    return block.model_copy(update={"micro_batch_size": micro, "gradient_checkpointing": True})


@dataclass
class _Sums:
    """Sums of the metrics since the last log."""

    values: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    """Number of groups that had the metric."""
    tokens: int = 0
    since: float = field(default_factory=time.perf_counter)
    """Start time of the sums, in seconds."""

    def add(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            missing = math.isnan(value)
            self.values[name] = self.values.get(name, 0.0) + (0.0 if missing else value)
            self.counts[name] = self.counts.get(name, 0) + (not missing)


class AdapterTrainer(Trainer):
    """Logs the metrics collected by its loss; `compute_loss` must return the step's mean itself.

    Its data loader returns places of groups, in the Trainer's order; `feed` makes the batches.
    """

    is_fsdp_enabled: bool

    def __init__(
        self, *args: Any, model: PeftModel, feed: Feed[Any], features: FeatureCache | None = None, **kwargs: Any
    ) -> None:
        count = len(feed.sources[0].groups)
        super().__init__(*args, model=model, data_collator=list, train_dataset=range(count), **kwargs)
        # the losses below are already divided by the number of lists in the step
        self.model_accepts_loss_kwargs = True
        self._layout = Layout(branch_attention.suits(bare(model), self.accelerator.device), features)
        if self.accelerator.native_amp:
            leave_casts_to_autocast(model)
        self.feed = feed
        self._sums = _Sums()
        self._least = 0  # batches to make ahead
        self._epoch: Iterator[Places] | None = None
        self._places: Iterator[Places]
        self._batches: Iterator[Any]

    def get_batch_samples(
        self, epoch_iterator: Iterator[Places], num_batches: int, device: torch.device
    ) -> tuple[list[Any], int | None]:
        """One optimiser step: the places of its micro batches on this device. `_batches` has the batches
        themselves, and later ones are already being made.
        """
        if epoch_iterator is not self._epoch:
            self._epoch = epoch_iterator
            self._places, ahead = tee(epoch_iterator)
            self._batches = self.feed.batches(ahead, layout=self._layout, least=self._least)
        return super().get_batch_samples(self._places, num_batches, device)

    def create_accelerator_and_postprocess(self) -> None:
        """With FSDP on CPUs as well."""
        super().create_accelerator_and_postprocess()
        if self.args.fsdp and not self.is_fsdp_enabled:
            sharding.enable_on_cpu(self.args, self.accelerator.state)
            self.is_fsdp_enabled = True

    def floating_point_ops(self, inputs: Any) -> int:
        """Not estimated: the Trainer's formula does not account for shared prefixes."""
        return 0

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs  # `token_states` moves them

    def _total(self, *counts: int) -> list[int]:
        """Each count summed over all processes."""
        here = torch.tensor(counts, device=self.accelerator.device)
        return self.accelerator.reduce(here, "sum").tolist()

    def _for_all(self, loss: Tensor) -> Tensor:
        """The loss with a gradient for every weight, if only of zero; sharded, `sharding.InStep` does it.

        Without images, a batch uses no weight of the vision tower and the projector; but
        DistributedDataParallel waits for all of them, and a loss of none has no gradient.
        """
        if self.is_fsdp_enabled:
            return loss
        trained = [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]
        return sum((0 * w.sum() for name, w in trained if "language_model" not in name.split(".")), start=loss)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds metrics, averaged over all groups (of all processes) that had them since the last
        log.
        """
        if "loss" in logs and self._sums.values:
            sums, names = self._sums, sorted(self._sums.values)
            waited, self.feed.waited = self.feed.waited, 0.0
            numbers = [*(sums.values[n] for n in names), *(sums.counts[n] for n in names), sums.tokens, waited]
            here = torch.tensor(numbers, dtype=torch.float64, device=self.accelerator.device)
            *totals, tokens, waited = self.accelerator.reduce(here, "sum").tolist()
            counted = zip(names, totals[: len(names)], totals[len(names) :], strict=True)
            logs |= {name: total / count for name, total, count in counted if count}
            logs |= {"response_tokens": tokens, "tokens_per_second": tokens / (time.perf_counter() - sums.since)}
            logs |= {"data_wait_seconds": waited / self.accelerator.num_processes}
            self._sums = _Sums()
        super().log(logs, start_time)


class ListTrainer(AdapterTrainer):
    """Minimises a method's loss, averaged over the lists of the whole optimiser step."""

    def __init__(self, *args: Any, method: GroupMethod, parameters: Any, view: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.method, self.parameters, self.view = method, parameters, view

    def get_batch_samples(
        self, epoch_iterator: Iterator[Places], num_batches: int, device: torch.device
    ) -> tuple[list[Places], int]:
        """One optimiser step: the places of its micro batches on this device, its number of lists on
        all devices.
        """
        places, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return places, self._total(sum(map(len, places)))[0]

    def _prepare_inputs(self, inputs: Places) -> Batch:
        """The batch of the next micro batch: only this one, not the whole step, is in memory."""
        return next(self._batches)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Sum of the lists' losses over the number of lists in the step; collects metrics."""
        batch: Batch = inputs
        logps = per_look(response_logps(model, batch.packed), batch)
        losses = []
        for one, looks, policy in zip(batch.lists, batch.looks, logps, strict=True):
            group = group_of(one, looks, policy, self.view)
            loss = scalar(self.method.loss(group, self.parameters), self.method.name, policy[0])
            if not torch.isfinite(loss):
                hint = NOT_QUERIED if all(torch.isfinite(found).all() for found in policy) else DIVERGED
                what = f"the loss of list `{one.group_id}` is {loss.item()}"
                raise UserError(f"method `{self.method.name}`: {what}", hint)
            losses.append(loss)
            with torch.no_grad():
                self._sums.add({"loss": loss.item(), **self.method.metrics(group, self.parameters)})
        self._sums.tokens += batch.tokens
        count = len(batch.lists) if num_items_in_batch is None else num_items_in_batch
        # gradients are averaged over processes; the count is global
        return self._for_all(torch.stack(losses).sum() * self.accelerator.num_processes / count)


def group_of(one: RankedList, looks: Sequence[Look], policy: Sequence[Tensor], view: str) -> Group:
    """A group as the loss sees it.

    `policy` holds the log-probs of each query; `view` is the training view.
    """
    count, device = len(one.responses), policy[0].device

    def tensor(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    unknown = torch.full((count,), math.nan, device=device)
    queried = {
        look.view: unknown.index_copy(0, torch.tensor(look.responses, device=device), logps)
        for look, logps in zip(looks, policy, strict=True)
    }
    stored = {name: tensor(values) for name, values in (one.reference or {}).items()}
    return Group(
        logps=queried.get(view, unknown),
        reference=None if one.reference is None else stored.get(view, unknown),
        lengths=tensor([len(r) for r in one.responses]),
        rewards=torch.tensor(one.rewards, dtype=torch.float64, device=device),
        views={name: (queried.get(name, unknown), stored.get(name, unknown)) for name in {*queried, *stored} - {view}},
        pairs=one.pairs,
        numbers=one.numbers,
    )


def train(
    model: PeftModel,
    feed: Feed[Batch],
    *,
    method: GroupMethod,
    parameters: Any,
    block: TrainingBlock,
    dtype: str,
    checkpoints: Path,
    fingerprint: str,
    run: Run | None = None,
    features: FeatureCache | None = None,
) -> list[dict[str, float]]:
    """Trains the adapter of `model` in place on the lists of `feed`'s only source; returns the log,
    one dict of metrics per step.

    Resumes from the newest complete checkpoint. `run` is for trackers; `features` says where to look
    for features of images. Raises `UserError` for a non-finite loss or weight.
    """
    prepared = prepare(model, block, block.seed, dtype, checkpoints, fingerprint, run)
    trainer = ListTrainer(
        **prepared.settings,
        feed=feed,
        features=features,
        method=method,
        parameters=parameters,
        view=block.view,
    )
    return fitted(trainer, prepared.resume)


class Prepared(NamedTuple):
    """The start of every training run."""

    settings: dict[str, Any]
    """Keyword arguments of the Trainer."""
    resume: Path | None
    """The checkpoint to resume from, or None."""


def prepare(
    model: PeftModel,
    block: TrainingBlock,
    seed: int,
    dtype: str,
    checkpoints: Path,
    fingerprint: str,
    run: Run | None = None,
) -> Prepared:
    """Trainer settings with steps of `block.batch_size` lists, shuffled by `seed`, and the
    checkpoint to resume from.
    """
    run = run or Run()
    sharded = sharding.settings(model) if block.sharding == "fsdp" else {}
    arguments = _arguments(block, seed, dtype, checkpoints, sharded, run)
    # one process decides for all: another node may see the folder in an earlier state
    found = [newest_checkpoint(checkpoints, fingerprint) if PartialState().is_main_process else None]
    (resume,) = broadcast_object_list(found)
    # one process per GPU; the Trainer would otherwise split a batch over all visible GPUs
    arguments._n_gpu = 1
    micro, accumulation = micro_batches(block, arguments.world_size)
    arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps = micro, accumulation
    kept = [KeptEpochs(model, checkpoints)] if block.keep_epochs else []
    sharded_only = [sharding.InStep()] if sharded else []
    callbacks = [Checkpoints(), Bar(), FrozenInputs(), *kept, *sharded_only, *run.callbacks(block)]
    return Prepared({"model": model, "args": arguments, "callbacks": callbacks}, resume)


def fitted(trainer: AdapterTrainer, resume: Path | None) -> list[dict[str, float]]:
    """Trains to the end and returns the log.

    Raises `UserError` for a non-finite loss or a non-finite weight of the adapter.
    """
    trainer.remove_callback(PrinterCallback)  # the training table has the values of every step
    count, arguments = len(trainer.train_dataset), trainer.args
    step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    steps = math.ceil(count / step * arguments.num_train_epochs)
    print(f"{count} lists, {steps} steps" + (f", resuming from {resume.name}" if resume else ""), flush=True)
    if trainer.is_fsdp_enabled and trainer.accelerator.native_amp:  # without FSDP, accelerate does it by itself
        trainer.accelerator.prepare_model(trainer.model, device_placement=False, evaluation_mode=True)
    try:
        with mistakes_of_trackers():
            trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    except FloatingPointError as error:
        raise UserError(str(error), DIVERGED) from None
    weights = trainer.model.named_parameters()
    trained = {name: sharding.own_share(weight) for name, weight in weights if weight.requires_grad}
    # a loss is computed before its step's update, so no loss shows what the last update did
    if broken := [name for name, weight in trained.items() if not torch.isfinite(weight).all()]:
        raise UserError(
            f"{len(broken)} of {len(trained)} tensors of the adapter are not finite after the last step, "
            f"such as `{broken[0]}`",
            DIVERGED,
        )
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def _arguments(
    block: TrainingBlock, seed: int, dtype: str, checkpoints: Path, sharded: dict[str, Any], run: Run
) -> TrainingArguments:
    cuda = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        learning_rate=block.learning_rate,
        lr_scheduler_type=block.scheduler,
        # the Trainer treats a value below 1 as a share
        warmup_steps=min(block.warmup_ratio, 0.999),
        weight_decay=block.weight_decay,
        max_grad_norm=block.max_grad_norm,
        num_train_epochs=block.epochs,
        gradient_checkpointing=block.gradient_checkpointing and not sharded,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        save_steps=block.save_steps,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        seed=seed,
        data_seed=seed,
        bf16=cuda and dtype == "bfloat16",
        fp16=cuda and dtype == "float16",
        use_cpu=not cuda,
        ddp_backend="gloo" if not cuda and "WORLD_SIZE" in os.environ else None,
        remove_unused_columns=False,
        optim="adamw_torch",
        dataloader_num_workers=0,  # it only returns places
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        average_tokens_across_devices=False,
        **sharded,
        **run.arguments(block),
    )
    if sharded:
        sharding.keep_dtypes(arguments)
        # set afterwards: it would recommend accelerate's own, which draws other dropout masks when it recomputes
        arguments.gradient_checkpointing = block.gradient_checkpointing
    return arguments
