"""What config files, model folders and the disk say before anything runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from perceptune.contracts.config import ShapesDataset
from perceptune.contracts.errors import UserError
from perceptune.contracts.paths import EXAMPLES
from perceptune.contracts.provenance.code import MEMORY
from perceptune.contracts.provenance.digests import digest_of
from perceptune.contracts.provenance.lineage import FILE
from perceptune.contracts.tables.io import read_lineage
from perceptune.planning.cross_checks import equal_samples, trained_on_test, without_benchmarks
from perceptune.planning.disk import estimate, too_little
from perceptune.planning.missing import from_the_future
from perceptune.planning.policies import Plan
from perceptune.planning.trained_parts import trained_images

BY_FORMAT = ("boxes", "coordinates", "task")
"""Keys of a dataset that its format sets where the config does not."""
UNUSABLE = "has no usable table"
"""Why a dataset will not be imported again, although its table cannot be read."""


def warnings(plan: Plan) -> Iterator[str]:
    """A line per circumstance that may spoil a run: inputs dated in the future, training on test
    questions, no evaluation, samples that are all equal, features of images that are trained, too little disk space."""
    yield from from_the_future(plan.config)
    if plan.config.leakage == "warn":
        yield from trained_on_test(plan.config)
    yield from without_benchmarks(plan.config)
    yield from equal_samples(plan.config)
    yield from trained_images(plan.config)
    try:
        yield from too_little(estimate(plan, exports=False))
    except OSError as error:
        yield f"the disk space that the run needs cannot be estimated: {error}"


def not_imported(plan: Plan) -> dict[str, str]:
    """Dataset in use to the reason why its table of examples cannot be used, where there is one."""
    found = {}
    for name in plan.config.used_datasets():
        table = Path(EXAMPLES.format(dataset=name))
        if not table.exists():
            found[name] = "is not imported yet"
            continue
        try:
            imported = read_lineage(table)
        except UserError as error:
            found[name] = f"{UNUSABLE}: {error.args[0]}"
            continue
        if _other_settings(plan, name, imported.get("parameters", {})):
            found[name] = "has other settings since its import"
        elif _other_files(imported.get("inputs", {})):
            found[name] = "has changed since its import"
    return found


def _other_settings(plan: Plan, name: str, imported: Mapping[str, Any]) -> bool:
    """Whether the settings differ from those of the import, or of the generation."""
    block = plan.config.datasets[name]
    settings = block.model_dump(mode="json")
    if isinstance(block, ShapesDataset):
        record = Path(plan.data_file(name)).with_name(FILE)
        return not record.is_file() or json.loads(record.read_text())["parameters"] != settings
    del settings["watch_images"]  # does not change the table
    return any(
        imported.get(key) != value for key, value in settings.items() if value is not None or key not in BY_FORMAT
    )


def _other_files(imported: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether the contents of the data files, not their dates, differ from those of the import."""
    return any(digest_of(Path(file["path"]), MEMORY) != file["sha256"] for file in imported.values())
