"""How a round went, as a file beside its adapter: later rounds and the report read it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from perceptune.contracts.errors import UserError


@dataclass(frozen=True)
class Stop:
    """Why an experiment goes no further."""

    round: int
    """The round that was undone: the adapter is the one before it."""
    reason: str


@dataclass(frozen=True)
class Ending:
    """The end of a round."""

    round: int
    stopped: Stop | None = None
    """In this round or in an earlier one."""

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> Ending:
        """From the file `path`; a `UserError` names a broken one."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            stopped = found["stopped"]
            return cls(
                int(found["round"]), None if stopped is None else Stop(int(stopped["round"]), str(stopped["reason"]))
            )
        except FileNotFoundError:
            raise UserError(f"`{path}` does not exist, expected how a round went") from None
        except (ValueError, TypeError, KeyError) as invalid:
            raise UserError(f"`{path}` does not say how a round went: {invalid}", "delete it and run again") from None
