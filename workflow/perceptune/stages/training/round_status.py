"""Status file of a round, next to its adapter, for later rounds and the report."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from perceptune.contracts.errors import UserError


@dataclass(frozen=True)
class Stop:
    """Why an experiment stopped."""

    round: int
    """The round that was discarded: the adapter is that of the round before."""
    reason: str


@dataclass(frozen=True)
class Ending:
    """The result of a round."""

    round: int
    stopped: Stop | None = None
    """Set if this or an earlier round was discarded."""

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> Ending:
        """Reads the file `path`.

        Raises `UserError` if it is missing or invalid.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            stopped = found["stopped"]
            return cls(
                int(found["round"]), None if stopped is None else Stop(int(stopped["round"]), str(stopped["reason"]))
            )
        except FileNotFoundError:
            raise UserError(f"`{path}` does not exist, expected the status file of a finished round") from None
        except (ValueError, TypeError, KeyError) as invalid:
            raise UserError(
                f"`{path}` is not a valid status file of a round: {invalid}", "delete the file and rerun"
            ) from None
