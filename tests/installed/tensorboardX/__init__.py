"""Stands for tensorboardX, where tests need a tracker that is installed."""  # noqa: N999

import json
from pathlib import Path


class SummaryWriter:
    """Appends scalars to a file as lines of JSON."""

    def __init__(self, log_dir: str) -> None:
        self.file = Path(log_dir) / "scalars.jsonl"
        self.file.parent.mkdir(parents=True, exist_ok=True)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """One value of a metric."""
        with self.file.open("a") as file:
            file.write(json.dumps([name, value, step]) + "\n")

    def add_text(self, name: str, text: str) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...
