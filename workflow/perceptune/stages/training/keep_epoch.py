"""Makes the adapter that a training kept after an epoch the adapter of a policy."""

from __future__ import annotations

import shutil
from pathlib import Path

from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.lineage import lineage
from perceptune.runtime.distributed import appearing_adapter


def run(*, experiment: str, trained: Path, kept: Path, adapter: Path) -> None:
    """Writes `adapter`, the folder of policy `experiment`: a copy of the folder `kept`.

    `trained` is the file of the adapter that the training ended with. Raises `UserError` if the folder
    is missing.
    """
    if not kept.is_dir():
        raise UserError(
            f"`{kept}`: not found, expected the adapter of an epoch",
            f"delete `{trained.parent}` and run the workflow again: the training writes both",
        )
    record = lineage("training.keep_epoch", {"policy": experiment}, {"trained": trained})
    with appearing_adapter(adapter, record) as folder:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
