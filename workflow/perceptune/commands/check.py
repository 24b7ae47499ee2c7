"""Checks a config, its model folders and imported data: what a run would stop at or leave out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from perceptune.commands.config_files import merged
from perceptune.contracts.config import ClipBlock, ModelBlock, SaliencyBlock
from perceptune.contracts.errors import UserError, printable
from perceptune.contracts.progress import show_bars_on
from perceptune.planning import policies
from perceptune.planning.disk import ANSWERS, LISTS, OTHER_TARGETS, TEMPORARY, estimate, size
from perceptune.planning.missing import from_the_future, missing
from perceptune.planning.model_folders import check_complete, check_models, models_in_use
from perceptune.planning.policies import Plan
from perceptune.planning.preflight import not_imported, warnings

STOPS, LEFT_OUT, WARNING, UNCHECKED = "stops", "left out", "warning", "not checked"
"""How lines begin, by severity."""


def run(files: Sequence[Path]) -> int:
    """Prints a line per finding, the disk space that the run needs, and a verdict. Returns 1 if the run
    would stop. Raises `UserError` for an invalid config."""
    plan = policies.load(merged(files))
    check_models(plan.config)
    show_bars_on(sys.stderr)
    found = sorted(_findings(plan), key=lambda line: (STOPS, LEFT_OUT, WARNING, UNCHECKED).index(line[0]))
    for kind, text in found:
        print(printable(f"{kind}: {text}"))
    for line in _disk(plan):
        print(line)
    kinds = [kind for kind, _ in found]
    experiments = len(plan.config.experiments)
    valid = f"the config is valid: {experiments} experiment{'' if experiments == 1 else 's'}"
    if number := kinds.count(STOPS):
        print(f"{valid}; the run would stop ({number} reason{'s' if number > 1 else ''} above)")
        return 1
    partly = ", but not everything could be checked" if UNCHECKED in kinds else ""
    print(f"{valid}; nothing found that would stop the run{partly}")
    return 0


def _findings(plan: Plan) -> Iterator[tuple[str, str]]:
    """(Severity, text) of everything found."""
    config = plan.config
    late = set(from_the_future(config))
    yield from ((STOPS, f"missing {line}") for line in missing(config))
    not_yet = not_imported(plan)
    fatal = {f"key `datasets.{name}.path`" for name in not_yet}  # those dated in the future
    for line in warnings(plan):
        yield (STOPS if line in late and line.partition(":")[0] in fatal else WARNING), line
    folders: dict[str, ModelBlock | ClipBlock | SaliencyBlock] = {
        **{f"models.{name}": config.models[name] for name in models_in_use(config)},
        **{f"clip_scores.{name}": block for name, block in config.clip_scores.items()},
        **{f"saliency_maps.{name}": block for name, block in config.saliency_maps.items()},
    }
    broken = set()
    for key, block in folders.items():
        try:
            check_complete(block)
        except UserError as error:
            broken.add(key)
            if (Path(block.path) / "config.json").exists():  # otherwise said to be missing
                yield STOPS, f"{error.args[0]}; {error.hint}"
    for name, why in not_yet.items():
        yield UNCHECKED, f"dataset `{name}` {why}: run `snakemake --cores all data`, then check again"
    models = dict.fromkeys(experiment.model for experiment in config.experiments.values())
    usable = [name for name in models if f"models.{name}" not in broken]
    for name in models:
        if name not in usable:
            yield UNCHECKED, f"prompts of model `{name}`, whose folder cannot be used"
    datasets = [name for name in config.used_datasets() if name not in not_yet]
    if datasets and usable:
        from perceptune.commands.preflight import findings  # slow to import

        for one in findings(plan, usable, datasets):
            yield (STOPS if one.stops else LEFT_OUT), one.text


def _disk(plan: Plan) -> Iterator[str]:
    """The table of disk space."""
    found = estimate(plan, exports=True)
    yield f"disk space that the run still needs in `{found.folder}` (estimate), {size(found.free)} free:"
    notes = {ANSWERS: "at most", LISTS: "at most", **dict.fromkeys(TEMPORARY, "temporary, the largest of them")}
    for kind, number in found.kinds.items():
        if kind not in OTHER_TARGETS:
            yield f"  {kind:30} {size(number):>8}  {notes.get(kind, '')}".rstrip()
    yield f"  {'total':30} {size(found.total):>8}"
    for kind, command in OTHER_TARGETS.items():
        if kind in found.kinds:
            yield f"  {kind:30} {size(found.kinds[kind]):>8}  only with `{command}`"
    if found.uncounted:
        yield f"  not included, because not known yet: {', '.join(found.uncounted)}"
