"""Callbacks of every training: complete checkpoints, and a progress bar."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback

from perceptune.contracts.progress import Progress

COMPLETE = "complete.json"
"""Written last into a checkpoint: without it the checkpoint is incomplete."""


class Checkpoints(TrainerCallback):
    """Marks checkpoints that are complete and synced to disk."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        PartialState().wait_for_everyone()  # each process has written its own random states
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            for file in (f for f in folder.rglob("*") if f.is_file()):
                with file.open("rb") as written:
                    os.fsync(written.fileno())
            (folder / COMPLETE).write_text(json.dumps({"step": state.global_step}))


class FrozenInputs(TrainerCallback):
    """Keeps gradients away from frozen inputs when gradient checkpointing is on.

    transformers then makes the outputs of all embeddings require gradients, also those of a frozen
    vision tower, which would be recomputed and differentiated for nothing. Only reentrant
    checkpoints need that.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.gradient_checkpointing:
            kwargs["model"].disable_input_require_grads()


def newest_checkpoint(folder: Path, fingerprint: str) -> Path | None:
    """The newest complete checkpoint of the same run in `folder`; anything else there is removed.

    `fingerprint` identifies settings and inputs: checkpoints of an edited config are not resumed.
    """
    mark = folder / "fingerprint"
    if folder.exists() and (not mark.exists() or mark.read_text() != fingerprint):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(fingerprint)
    complete = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / COMPLETE).exists():
            complete.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return max(complete, key=lambda c: int(c.name.rpartition("-")[2]), default=None)


class Bar(TrainerCallback):
    """Progress bar of the first process."""

    progress: Progress | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.progress = Progress("training", state.max_steps, "steps", done=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.progress:
            self.progress.advance()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.progress:
            self.progress.__exit__(None, None, None)
