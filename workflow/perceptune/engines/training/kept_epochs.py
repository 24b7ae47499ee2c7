"""Keeps the adapter after each epoch before the last."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import TrainerCallback

from perceptune.engines.training.sharding import whole_adapter

FOLDER = "epochs"
"""Subfolder of the checkpoints, with a PEFT folder per epoch."""


class KeptEpochs(TrainerCallback):
    """Saves the adapter in `checkpoints/epochs/<k>` after epoch k.

    A step ends before its checkpoint is saved: a run that resumes after an epoch has its adapter.
    """

    def __init__(self, model: PeftModel, checkpoints: Path) -> None:
        self.model, self.folder = model, checkpoints / FOLDER

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        steps = math.ceil(len(kwargs["train_dataloader"]) / args.gradient_accumulation_steps)
        epoch, rest = divmod(state.global_step, steps)
        if rest or state.global_step >= state.max_steps:
            return
        weights = whole_adapter(self.model)  # in all processes
        if state.is_world_process_zero:
            self._save(epoch, weights)

    def _save(self, epoch: int, weights: dict[str, Any] | None) -> None:
        folder, temporary = self.folder / str(epoch), self.folder / f".{epoch}"
        for old in (folder, temporary):
            shutil.rmtree(old, ignore_errors=True)
        self.model.save_pretrained(temporary, safe_serialization=True, state_dict=weights)
        for file in (f for f in temporary.rglob("*") if f.is_file()):
            with file.open("rb") as written:
                os.fsync(written.fileno())
        temporary.rename(folder)
