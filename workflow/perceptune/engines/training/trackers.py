"""Live metrics: what the Trainer reports to TensorBoard, Weights & Biases or Trackio.

What they write is no output: no job reads it, and it may be deleted at any time. Their keys never reach
a config; they come from the environment or from where the tools' own logins store them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceptune.contracts.config import TrainingBlock
from perceptune.contracts.errors import UserError

PROJECT = "perceptune"
"""Name of the project in trackers, unless the user's environment has another."""
HINTS = {
    "wandb": "`wandb login` stores a key for all your projects; `WANDB_MODE=offline` needs none",
    "trackio": "remove `trackio` from `report_to` to train without it",
}


@dataclass(frozen=True)
class Run:
    """How a training run appears in trackers."""

    name: str = "training"
    folder: Path = Path("logs/trackers")
    """For what the trackers write."""

    def arguments(self, block: TrainingBlock) -> dict[str, Any]:
        """Keyword arguments of `TrainingArguments`, for all trackers but TensorBoard. Their packages read
        the rest from the environment, where the user's own values stay."""
        mine = str(self.folder.absolute())
        if block.report_to:
            self.folder.mkdir(parents=True, exist_ok=True)
        if "wandb" in block.report_to:
            os.environ.setdefault("WANDB_DIR", mine)  # it makes a folder `wandb` there
            os.environ.setdefault("WANDB_PROJECT", PROJECT)
        if "trackio" in block.report_to:
            os.environ.setdefault("TRACKIO_DIR", f"{mine}/trackio")
        others = [tracker for tracker in block.report_to if tracker != "tensorboard"]
        return {"report_to": others, "run_name": self.name, "project": PROJECT}

    def callbacks(self, block: TrainingBlock) -> list[Any]:
        """TensorBoard's callback, which would otherwise write into the checkpoints."""
        if "tensorboard" not in block.report_to:
            return []
        from transformers.integrations import TensorBoardCallback

        callback = TensorBoardCallback()
        callback.logging_dir = str(self.folder / "tensorboard" / self.name)
        return [callback]


@contextmanager
def mistakes_of_trackers() -> Iterator[None]:
    """Turns an error of a tracker, such as a missing key, into a `UserError`."""
    try:
        yield
    except Exception as error:
        tracker = type(error).__module__.partition(".")[0]
        if tracker not in HINTS:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"key `report_to`: `{tracker}`: {reason}", HINTS[tracker]) from error
