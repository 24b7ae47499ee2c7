"""Writes a config for a dataset and a model, and says what it assumed and what to run next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, get_args

import typer

from perceptune.commands.init.detection import OWN, Found, detect
from perceptune.commands.init.looking import Look, held_out, look, share_for_tests
from perceptune.commands.init.model import FRAMES, Model, bundled, model_in
from perceptune.commands.init.proposal import RESPONSES, Learning, Proposal, summary
from perceptune.commands.init.splits import roles, test_splits
from perceptune.commands.init.text import plain, written
from perceptune.contracts.config import Task
from perceptune.contracts.errors import UserError, listed, near, printable
from perceptune.contracts.files import write_text
from perceptune.contracts.plugins import exists, names
from perceptune.core.data.row_checks import one_line
from perceptune.planning import policies
from perceptune.planning.model_folders import check_models

ROUNDS = 2
"""Rounds of a first try."""


class Options(NamedTuple):
    """What the command line says; None where it says nothing."""

    out: Path
    model: Path | None
    kind: str | None
    images: Path | None
    task: str | None
    test: Path | None
    pairs: bool | None
    rounds: int | None
    force: bool
    yes: bool


@dataclass
class Dialogue:
    """Asks short questions on a terminal; elsewhere it takes the defaults and remembers them."""

    asks: bool
    assumed: list[str] = field(default_factory=list)

    def choice(self, question: str, default: str, allowed: Sequence[str], assumption: str) -> str:
        """One of several words."""
        if not self.asks:
            self.assumed.append(assumption)
            return default
        while True:
            answer = str(typer.prompt(f"{question} ({', '.join(allowed)})", default)).strip()
            if answer in allowed:
                return answer
            typer.echo(f"expected one of {', '.join(allowed)}")

    def path(self, question: str, default: str) -> Path | None:
        """A path, or None for the default."""
        if not self.asks:
            return None
        answer = str(typer.prompt(question, default)).strip()
        return None if answer == default else Path(answer).expanduser()


def run(data: Path | None, options: Options) -> None:
    """Writes the config. Raises `UserError` for data or a model that cannot be used, and for a file that
    exists."""
    dialogue = Dialogue(asks=not options.yes and sys.stdin.isatty() and sys.stdout.isatty())
    _check_out(options)
    task = _task(options.task)
    if data is None and not dialogue.asks:
        raise typer.BadParameter("missing, expected a file or folder with data", param_hint="DATA")
    data = data or Path(typer.prompt("Data: a file or folder")).expanduser()
    found = _found(data, options.kind)
    typer.echo(printable(f"data: `{found.path}`, read as `{found.kind}`"))
    seen = look(found, task, options.images)
    typer.echo(printable(f"found: {summary(seen)}"))
    if seen.block.task and task is None:
        answer = dialogue.choice(
            "Task of rows that name none",
            seen.block.task,
            get_args(Task),
            f"rows without `task` are `{seen.block.task}`",
        )
        if answer != seen.block.task:
            task = _task(answer)
            seen = look(found, task, options.images)
    model = _model(options.model, dialogue)
    learning = _learning(seen, options, dialogue)
    proposal = _divided(seen, found, task, options, dialogue, model, learning)
    if "grounding" in proposal.tasks and model.family.frame is None:
        what = "the model writes boxes as thousandths of width and height (`coordinates`), as most recent ones do"
        frame = dialogue.choice("Coordinates in which the model writes boxes", FRAMES[0], FRAMES, what)
        proposal = replace(proposal, frame=frame)  # type: ignore[arg-type]
    tree = proposal.config()
    check_models(policies.load(plain(tree)).config)
    heading = (
        f"Written by `perceptune init` for `{data}`: {summary(proposal.look)}.\n"
        "config/README.md documents every key. Paths are relative to the working directory."
    )
    write_text(options.out, written(tree, heading))
    looks = [proposal.look] + [proposal.test] * (proposal.test is not proposal.look)
    for line in dict.fromkeys(line for one in looks for line in one.notes):
        typer.echo(f"note: {printable(line)}")
    for line in (*dialogue.assumed, *(line for one in looks for line in one.assumed)):
        typer.echo(f"assumed: {printable(line)}")
    for line in (*(line for one in looks for line in one.warnings), *proposal.warnings()):
        typer.echo(f"warning: {printable(line)}")
    typer.echo(f"\nwrote `{options.out}`. Next:")
    for command, what in _next(options.out, model):
        typer.echo(f"  {command}\n      {what}")


def _check_out(options: Options) -> None:
    out = options.out
    if out.suffix not in (".yaml", ".yml"):
        raise UserError(f"--out: `{out}` expected to end in `.yaml`")
    if out.exists() and not options.force:
        raise UserError(
            f"`{out}` exists, expected a new file", "`--out FILE` names another one, `--force` overwrites it"
        )
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out: folder `{out.parent}` does not exist")


def _task(text: str | None) -> Task | None:
    allowed = get_args(Task)
    if text is not None and text not in allowed:
        raise UserError(f"--task: `{text}`, expected one of {', '.join(allowed)}", near(text, allowed))
    return text  # type: ignore[return-value]


def _found(data: Path, kind: str | None) -> Found:
    """The dataset, of the format that the user names or that is detected."""
    if kind is None:
        return detect(data)
    if not exists("importer", kind):
        raise UserError(f"--kind: `{kind}` is no format, see `perceptune list importer`", near(kind, names("importer")))
    if not data.exists():
        return detect(data)  # raises the reason
    return Found(kind, data)


def _model(folder: Path | None, dialogue: Dialogue) -> Model:
    if folder is None:
        folder = dialogue.path("Model folder", "the bundled tiny model")
    if folder is not None:
        return model_in(folder)
    if not dialogue.asks:
        dialogue.assumed.append(
            "the bundled tiny model, which only shows that everything runs; `--model` names another"
        )
    return bundled()


def _learning(seen: Look, options: Options, dialogue: Dialogue) -> Learning:
    """What to learn from: the pairs in the data, ranked lists of sampled answers, or rounds of them.

    Raises `UserError` if the data do not allow it.
    """
    given = seen.with_answers > 0 and options.pairs is not False and options.rounds is None
    if options.pairs and not seen.with_answers:
        raise UserError(
            f"data `{seen.block.path}` has no preference pairs", "docs/exchange.md shows the columns of each format"
        )
    if seen.with_truth == 0 or (not given and seen.block.kind in RESPONSES):
        if not given:
            raise UserError(
                f"data `{seen.block.path}` has no ground truth to score answers with, expected a column `answer` or "
                f"`box`, found {listed(map(one_line, seen.columns[:20]))}",
                "P2-DPO needs none: config/demo-p2dpo.yaml",
            )
        return "pairs"
    if not given and (without := seen.tasks.total() - seen.with_truth):
        seen.warnings.append(f"{without:,} rows have no ground truth, at which the run stops")
    if options.pairs is not None or options.rounds is not None:
        return "rounds" if options.rounds else "pairs" if options.pairs else "lists"
    default: Learning = "pairs" if given else "lists"
    what = {
        "pairs": "it learns from the preference pairs in the data (`--no-pairs`: from sampled answers)",
        "lists": "it learns from ranked lists of sampled answers (`--rounds N`: in rounds, on-policy)",
    }
    allowed = [*(["pairs"] if given else []), "lists", "rounds"]
    return dialogue.choice("Learn from", default, allowed, what[default])  # type: ignore[return-value]


def _divided(
    seen: Look, found: Found, task: Task | None, options: Options, dialogue: Dialogue, model: Model, learning: Learning
) -> Proposal:
    """The proposal, with splits for training and tests."""
    rounds = options.rounds or ROUNDS
    test = _found(options.test, None) if options.test else Found(found.kind, found.test) if found.test else None
    train, others = roles(seen.splits, found.path, tested=test is None)
    if test:
        tested = look(test, task if test.kind in OWN else None, options.images, "test", sure=False)
        split = next(iter(test_splits(tested.splits)), tested.splits[0])
        dialogue.assumed += [] if options.test else [f"`{test.path}` has the test questions"]
        dialogue.assumed.append(_said(seen, train, tested, split))
        return Proposal(seen, model, learning, rounds, train, tested, split, None)
    if others is not None:
        dialogue.assumed.append(_said(seen, train, seen, others))
        return Proposal(seen, model, learning, rounds, train, seen, others, None)
    if train != "train":
        seen = look(found, task, options.images, "train")  # overrides the splits in names of files
        if "train" not in seen.splits:
            raise UserError(
                f"data `{found.path}` has only the split `{train}`, expected `train` and `test`",
                "call it `train`, so that some images can be held out, or `--test DATA` names other data for tests",
            )
        dialogue.assumed.append(f"all questions of `{train}` are for training and tests")
    share = share_for_tests(seen)
    held = held_out(seen, share)
    counted = f"about {share:.0%} of the" if held is None else f"{held:,} of {seen.count('train'):,}"
    if unused := [f"`{one_line(one)}` ({seen.count(one):,} rows)" for one in seen.splits if one != "train"]:
        dialogue.assumed.append(f"not used: split {', '.join(unused)}")
    dialogue.assumed.append(
        f"no test split: {share:.0%} of the images are held out (`test_share`), {counted} questions"
    )
    return Proposal(seen, model, learning, rounds, "train", seen, "test", share, held)


def _said(seen: Look, train: str, tested: Look, test: str) -> str:
    """Which splits are used, with the numbers of their rows, and which are not."""

    def named(of: Look, split: str) -> str:
        more = "at least " if of.partial else ""
        return f"split `{one_line(split)}` ({more}{of.count(split):,} rows)"

    others = [one for one in seen.splits if one != train and (one != test or tested is not seen)]
    unused = f"; not used: {', '.join(named(seen, one) for one in others)}" if others else ""
    return f"trains on {named(seen, train)}, tests on {named(tested, test)}{unused}"


def _next(out: Path, model: Model) -> list[tuple[str, str]]:
    """Commands to run next, each with what it does."""
    snakefile = Path(__file__).parents[4] / "Snakefile"
    here = any(Path(name).is_file() for name in ("Snakefile", "workflow/Snakefile"))
    snakemake = (
        "snakemake" if here or not snakefile.is_file() else f"snakemake --snakefile {shlex.quote(str(snakefile))}"
    )
    config = shlex.quote(str(out))
    ready = f"{snakemake} --cores all"
    return [
        (f"perceptune check {config}", "checks the config and the model folder in seconds"),
        (f"{ready} data --configfile {config}", "checks every row and image"),
        (f"{ready} --config rehearse=20 --configfile {config}", "tries everything on 20 questions per task")
        if not model.bundled
        else (f"{ready} --configfile {config}", "samples, trains and evaluates; the last lines name the report"),
        *([] if model.bundled else [(f"{ready} --configfile {config}", "the whole run")]),
    ]
