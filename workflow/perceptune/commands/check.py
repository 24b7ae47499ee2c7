"""Checks a config, its model folders and data: what a run would stop at or leave out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from perceptune.commands.config_files import merged
from perceptune.contracts.config import ClipBlock, DatasetBlock, ModelBlock, SaliencyBlock, ShapesDataset
from perceptune.contracts.errors import UserError, printable
from perceptune.contracts.paths import EXAMPLES
from perceptune.contracts.progress import show_bars_on
from perceptune.planning import policies
from perceptune.planning.disk import ANSWERS, LISTS, OTHER_TARGETS, TEMPORARY, estimate, size
from perceptune.planning.missing import from_the_future, missing, missing_data
from perceptune.planning.model_folders import check_complete, check_models, models_in_use
from perceptune.planning.policies import Plan
from perceptune.planning.preflight import UNUSABLE, not_imported, warnings

STOPS, LEFT_OUT, WARNING, UNCHECKED = "stops", "left out", "warning", "not checked"
"""How lines begin, by severity."""


def run(files: Sequence[Path]) -> int:
    """Prints a line per finding, the disk space that the run needs, and a verdict. Returns 1 if the run
    would stop. Raises `UserError` for an invalid config, and what an importer of the user's raises."""
    plan = policies.load(merged(files))
    check_models(plan.config)
    show_bars_on(sys.stderr)
    tables: dict[str, Path] = {}
    with TemporaryDirectory() as folder:
        findings = [*_findings(plan, Path(folder), tables)]
        disk = [*_disk(plan, tables)]
    found = sorted(findings, key=lambda line: (STOPS, LEFT_OUT, WARNING, UNCHECKED).index(line[0]))
    for kind, text in found:
        print(printable(f"{kind}: {text}"))
    for line in disk:
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


def _findings(plan: Plan, folder: Path, tables: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """(Severity, text) of everything found.

    Adds the `examples` tables of datasets to `tables`; those of datasets that are not imported yet are
    written into `folder`.
    """
    config = plan.config
    late = {line.partition(":")[0] for line in from_the_future(config)}
    for line in missing(config):
        key, _, what = line.partition(": ")
        yield STOPS, f"key `{key}`: {what}"
    not_yet = not_imported(plan)
    stopping = {f"key `datasets.{name}.path`" for name in not_yet}.intersection(late)
    for line in warnings(plan):
        yield (STOPS if line.partition(":")[0] in stopping else WARNING), line
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
    models = dict.fromkeys(experiment.model for experiment in config.experiments.values())
    usable = [name for name in models if f"models.{name}" not in broken]
    for name in models:
        if name not in usable:
            yield UNCHECKED, f"prompts of model `{name}`, whose folder cannot be used"
    tables |= {name: Path(EXAMPLES.format(dataset=name)) for name in config.used_datasets() if name not in not_yet}
    for name, why in not_yet.items():
        if f"key `datasets.{name}.path`" not in late and not [*missing_data(name, config)]:
            table = folder / f"{name}.parquet"
            yield from _of_rows(name, why, config.datasets[name], table)
            if table.exists():
                tables[name] = table
    if config.plugins:
        from perceptune.commands.plugin_trials import mistakes  # slow to import

        wrong = [*mistakes(plan, usable, tables)]
        yield from ((STOPS, line) for line in wrong)
        if wrong:
            yield UNCHECKED, "prompts, until the plug-ins above work"
            return
    if tables and usable:
        from perceptune.commands.preflight import findings  # slow to import

        for one in findings(plan, usable, tables):
            yield (STOPS if one.stops else LEFT_OUT), one.text


def _of_rows(name: str, why: str, block: DatasetBlock, table: Path) -> Iterator[tuple[str, str]]:
    """What the import of a dataset will say. Writes its table if it has few rows, all of them good enough."""
    then = "run `snakemake --cores all data`, then check again"
    if isinstance(block, ShapesDataset) or why.startswith(UNUSABLE):
        yield UNCHECKED, f"dataset `{name}` {why}: {then}"
        return
    from perceptune.commands.data_check import check_rows  # slow to import

    rows, about = check_rows(name, block, table), f"`datasets.{name}`"
    if rows.mistake:
        certain = rows.complete or not block.max_failed_share
        hint = f"\n  hint: {rows.mistake.hint}" if rows.mistake.hint else ""
        yield STOPS if certain else WARNING, f"{about}: {rows.mistake.args[0]}{hint}"
    if rows.left_out:
        yield LEFT_OUT, f"{about}: {rows.left_out}"
    yield from ((WARNING, f"{about}: {line}") for line in rows.doubts)
    if not rows.complete:
        yield UNCHECKED, f"dataset `{name}` {why}, and has more than the {rows.count:,} rows checked: {then}"
    if rows.mistake or not rows.complete:
        table.unlink(missing_ok=True)


def _disk(plan: Plan, tables: Mapping[str, Path]) -> Iterator[str]:
    """The table of disk space."""
    found = estimate(plan, exports=True, tables=tables)
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
