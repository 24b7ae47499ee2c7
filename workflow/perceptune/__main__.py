"""Commands that complement Snakemake's: `perceptune COMMAND`, or `python -m perceptune COMMAND`.

Only declares the commands. What they do is imported when they run, so that `--help` and shell
completion are fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from perceptune.commands import completion
from perceptune.commands.kinds import KINDS
from perceptune.contracts.errors import UserError, printable
from perceptune.contracts.plugins import plugin_errors

app = typer.Typer(
    help="Commands that complement Snakemake's. `perceptune COMMAND --help` explains each.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
ForPlugins = Annotated[
    list[Path] | None,
    typer.Option("--config", metavar="FILE", help="Config file with `plugins`: includes your own plug-ins."),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 1 for a mistake, which is printed, and 2 for
    wrong usage."""
    try:
        with plugin_errors():
            app(arguments, prog_name="perceptune")
    except UserError as error:
        print(printable(str(error)), file=sys.stderr)
        return 1
    except OSError as error:  # such as a folder that cannot be read, or a name that is too long
        if error.filename is None:
            raise
        print(printable(f"error: `{error.filename2 or error.filename}`: {error.strerror}"), file=sys.stderr)
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@app.command()
def init(
    data: Annotated[
        Path | None,
        typer.Argument(metavar="DATA", help="File or folder with questions, boxes or preference pairs about images."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Config file to write.")] = Path("my.yaml"),
    model: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Model in Hugging Face format.  [default: the bundled tiny model]"),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.importers, help="Format, as in `perceptune list importer`.  [default: detected]"
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder that image names are relative to.  [default: found]")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.tasks,
            help="Task of rows that name none: grounding (boxes), ocr, existence (yes or no), counting or open.",
        ),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Other data for tests.  [default: a split of DATA]")
    ] = None,
    pairs: Annotated[
        bool | None, typer.Option("--pairs/--no-pairs", help="Learn from preference pairs in the data, or not.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Train on-policy in N rounds (docs/rounds.md).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the config file.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: take the defaults.")] = False,
) -> None:
    """Write a commented config for your data.

    \b
    perceptune init data/photos.jsonl
    perceptune init data/street --model models/Qwen2.5-VL-7B-Instruct --out street.yaml
    perceptune init pairs.csv --test questions.csv

    Looks at the data: JSON lines, CSV, Parquet, `save_to_disk` folders, COCO, YOLO, Pascal VOC, or
    preference pairs. Finds out tasks, splits, the folder of images and how boxes are written, asks a
    few questions on a terminal, and says what it assumed elsewhere.
    """
    from perceptune.commands.init.run import Options, run

    if pairs and rounds:
        raise typer.BadParameter("excludes --rounds", param_hint="--pairs")
    run(data, Options(out, model, kind, images, task, test, pairs, rounds, force, yes))


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Config files; later ones override earlier.")],
) -> None:
    """Check a config, its models and data before a run.

    \b
    perceptune check my.yaml
    perceptune check base.yaml changes.yaml

    Says what the run would stop at or leave out. Reads nothing but files, in seconds. Checks the rows and
    images of datasets, the first ones of large datasets until they are imported (`snakemake --cores all
    data`), and tokenizes questions and ground truths. The exit status is 1 if the run would stop.
    """
    from perceptune.commands.check import run

    raise typer.Exit(run(files))


@app.command()
def explain(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Directory of a run, or its folder of results."),
    ] = Path(),
    policy: Annotated[str | None, typer.Option(autocompletion=completion.measured, help="Default: all.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="Default: all.")] = None,
    task: Annotated[str | None, typer.Option(help="Default: all.")] = None,
    view: Annotated[str | None, typer.Option(help="Default: original.")] = None,
    condition: Annotated[str | None, typer.Option(help="Default: greedy.")] = None,
    metric: Annotated[str | None, typer.Option(help="Default: all.")] = None,
    control: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.controls,
            help="Explain a control (docs/controls.md) instead: prompt, blank, mean_of_n or sft_on_best.",
        ),
    ] = None,
) -> None:
    """Trace a number of the report back to images and weights.

    \b
    perceptune explain --policy perpo --metric accuracy_iou_0.5
    perceptune explain --policy perpo --control sft_on_best
    perceptune explain runs/mine --policy perpo

    Prints every table, parameter, digest and version behind it. The exit status is 1 if a file has
    changed since the number was computed.
    """
    from perceptune.commands.explain import run

    named = {"policy": policy, "benchmark": benchmark, "task": task, "view": view, "condition": condition}
    wanted = {**named, "metric": metric, "control": control}
    raise typer.Exit(run(folder, {column: value for column, value in wanted.items() if value is not None}))


@app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND", autocompletion=completion.kinds, help=f"One of {', '.join(KINDS)}. Default: all."
        ),
    ] = None,
    config: ForPlugins = None,
) -> None:
    """List methods, views, rewards, benchmarks, formats and models.

    \b
    perceptune list
    perceptune list method
    perceptune list --config my.yaml
    """
    from perceptune.commands.list import run

    run(kind, config or [])


@app.command()
def describe(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            autocompletion=completion.plugins,
            help="A name from `perceptune list`, with its kind in front if several have it.",
        ),
    ],
    config: ForPlugins = None,
) -> None:
    """Describe one of them, with parameters and its use in a config.

    \b
    perceptune describe perpo
    perceptune describe reward mathvista
    perceptune describe my_reward --config my.yaml

    Works for methods, views, rewards, benchmarks, importers, exporters and model families. Prints
    the documentation, the parameters with values, default and meaning, what is needed or measured,
    and the lines that go into a config.
    """
    from perceptune.commands.describe import run

    if len(words) > 2:
        raise typer.BadParameter(f"got {len(words)} words, expected a name, or a kind and a name")
    run(words, config or [])


@app.command()
def ask(
    policy: Annotated[
        str,
        typer.Argument(
            metavar="POLICY", autocompletion=completion.policies, help="A model or an experiment of the config."
        ),
    ],
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Image file.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question, as in the data.")],
    config: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Config file of the run; repeatable.  [default: config/config.yaml]"),
    ] = None,
    directory: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory of the run, as in `snakemake --directory`.")
    ] = Path(),
    like: Annotated[
        str | None,
        typer.Option(
            metavar="BLOCK", help="Ask with the `prompt` and `max_tokens` of this block, such as `benchmarks.test`."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(autocompletion=completion.tasks, help="Task of the question, for prompts with `{format}`."),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of answers.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="Softmax temperature; 0: greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of sampled answers.")] = 0,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum length of an answer.  [default: 256, or what the model has room for]"),
    ] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Print the log-prob of every token.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Image with the boxes drawn.  [default: <image>-<policy>.png]"),
    ] = None,
) -> None:
    """Ask a model or a trained policy one question about an image.

    \b
    perceptune ask tiny kitchen.jpg "locate the red cup." --config my.yaml
    perceptune ask perpo kitchen.jpg "locate the red cup." --config my.yaml --out cup.png
    perceptune ask perpo kitchen.jpg "locate the red cup." --n 4 --temperature 1

    Prints the answer, its log-prob under the policy (summed, and per token), and the box in it in
    pixels of the image, which is also drawn into a PNG file. The prompt is built as in the workflow.

    The answer is computed with transformers, in the dtype of the model block and with the adapter
    beside the weights, because that starts faster than vLLM. Answers can therefore differ from the
    workflow's where two tokens are about equally likely, and sampled ones are other draws.
    """
    from perceptune.commands.ask import Options, run

    run(
        policy,
        image,
        question,
        config or [],
        directory,
        Options(like, task, n, temperature, seed, max_tokens, tokens, out),
    )


@app.command("inspect")
def inspect_(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Directory of a run, or its folder of results."),
    ] = Path(),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine.  [default: any free one]")] = 0,
    at: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Page to start with, as shown at the end of each page.")
    ] = "",
    browser: Annotated[bool, typer.Option("--browser", help="Open the page in the browser.")] = False,
    config: ForPlugins = None,
) -> None:
    """Look at examples, answers and pairs in the browser.

    \b
    perceptune inspect
    perceptune inspect runs/mine --browser
    perceptune inspect rehearsal

    Serves a page on this machine only and prints its address, which contains a secret token. Shows
    ranked answers with rewards, boxes and log-probs, compares policies, and exports selections. Reads
    the tables and writes nothing, so it can run beside the workflow.
    """
    from perceptune.commands.inspect.server import run

    run(folder, port, at, browser, config or [])


@app.command()
def schema() -> None:
    """Write the JSON schema and the key tables of the config.

    Both are generated from the config models and the plug-ins. A test checks that they are up to
    date.
    """
    from perceptune.commands.schema import run

    run()


if __name__ == "__main__":
    sys.exit(main())
