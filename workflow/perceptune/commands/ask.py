"""Asks one policy one question about an image, and draws the boxes of its answers."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from perceptune.commands.completion import DEMO
from perceptune.commands.config_files import enter, merged
from perceptune.contracts import paths
from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError, listed, near, printable
from perceptune.core.answers.boxes import UNREAD, is_box, parse_box, to_pixels
from perceptune.core.benchmarks.control_prompts import FORMATS, asked_as
from perceptune.core.data.images import open_image
from perceptune.core.views.view import Recipe
from perceptune.core.weights import read_header
from perceptune.engines.vllm.requests import Answer, Question
from perceptune.models.coordinates import coordinate_frame, resized_sizes
from perceptune.models.reasoning import reasoning_of
from perceptune.planning import policies
from perceptune.planning.missing import check_default
from perceptune.planning.model_folders import check_complete, check_models
from perceptune.planning.policies import Plan
from perceptune.stages.sampling.recipes import messages_for

MOST_TOKENS = 256
"""Maximum length of an answer, unless an option says otherwise."""
ASKING = ("benchmarks", "samplings", "rollouts")
"""Sections whose blocks have a prompt and a maximum length."""
COLOURS = ("#e6194b", "#0072b2", "#d98c00", "#009e73", "#8e44ad", "#666666")
"""Of the boxes of several answers, in order."""


@dataclass(frozen=True)
class Options:
    """How to ask and what to print."""

    like: str | None = None
    task: str | None = None
    n: int = 1
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int | None = None
    tokens: bool = False
    out: Path | None = None


@dataclass(frozen=True)
class Found:
    """The box of an answer, (4,) in pixels of the image."""

    number: int
    """Of the answer, from 1."""
    pixels: np.ndarray


def run(policy: str, image: Path, question: str, configs: Sequence[Path], directory: Path, options: Options) -> None:
    """Prints the answers with their log-probs, and writes a PNG if they contain a box.

    Raises `UserError` for an unknown or untrained policy, an unusable image or question, and options
    that contradict each other. The files that are named here are relative to the current directory,
    those in the config to `directory`.
    """
    if options.n > 1 and options.temperature == 0:
        raise UserError(f"--n {options.n}: greedy answers are all the same", "add `--temperature 1`")
    if not question.strip():
        raise UserError("the question is empty")
    out = (options.out or Path(f"{image.stem}-{policy.replace('/', '-')}.png")).absolute()
    _check_out(out, image)
    picture = _opened(image)
    files = [file.absolute() for file in configs]
    if not files and directory.is_dir():
        check_default(directory / DEMO, "--config")
    enter(directory)
    plan = policies.load(merged(files or [DEMO]))
    name, block, adapter = chosen(plan, policy)
    text, longest = asked(plan, name, question, options)
    print(f"loading {name}", file=sys.stderr, flush=True)

    from transformers.utils import logging  # slow to import

    from perceptune.engines.answering import Answerer

    if not sys.stderr.isatty():
        logging.disable_progress_bar()

    answerer = Answerer(block, adapter)
    messages = messages_for(text, Recipe("original"), 1)
    asking = Question(messages, [picture], options.n, options.temperature, 1.0, 0, longest or 1, options.seed)
    try:
        if longest is None:
            asking = replace(asking, max_tokens=min(MOST_TOKENS, answerer.room(asking)))
        answers = answerer.answers(asking)
    except ValueError as error:
        raise UserError(str(error)) from error
    boxes = []
    for number, answer in enumerate(answers, 1):
        if options.n > 1:
            print(f"answer {number}:")
        found = box_in(answer.text, block, picture.size)
        for line in described(answer, found, picture.size):
            print(printable(line))
        for line in _by_token(answer, answerer.processor.tokenizer) if options.tokens else ():
            print(printable(line))
        if found is not None and is_box(found[None])[0]:
            boxes.append(Found(number, found))
    if boxes:
        save(drawn(picture, boxes), out)
        print(f"drawn into {options.out or out.name}")
    elif options.task in (None, "grounding"):
        lost = f"`{options.out}` is not written" if options.out else "no picture is drawn"
        print(f"{why_undrawn(answers[0].text, block)}; {lost}", file=sys.stderr)


def chosen(plan: Plan, policy: str) -> tuple[str, ModelBlock, Path | None]:
    """The policy's full name, its base model, and the folder of its adapter.

    An experiment with rounds stands for the last one. Raises `UserError` if the policy is unknown or
    not trained yet, or if its model or adapter is incomplete.
    """
    config = plan.config
    name = (plan.rounds(policy) or [policy])[-1] if policy in config.experiments else policy
    adapted = [*plan.trained, *plan.kept]
    known = [*config.models, *adapted]
    if name not in known:
        raise UserError(f"policy `{policy}` does not exist, expected one of {listed(known)}", near(policy, known))
    check_models(config)
    block = config.models[plan.base(name)]
    check_complete(block)
    if name in config.models:
        return name, block, None
    results = paths.REHEARSAL["results"] if config.rehearse else "results"
    adapters = {one: Path(paths.ADAPTER.replace("<results>", results).format(experiment=one)) for one in adapted}
    if absent := [file for file in (adapters[name], _config_of(adapters[name])) if not file.is_file()]:
        ready = [one for one, file in adapters.items() if file.is_file()]
        raise UserError(
            f"policy `{name}` is not trained yet: `{absent[0]}` does not exist in `{Path.cwd()}`",
            f"trained are {listed(ready)}" if ready else "run the workflow first, or name its `--directory`",
        )
    try:
        read_header(adapters[name])
    except ValueError as error:
        raise UserError(f"adapter `{adapters[name]}`: {error}", "delete it and run the workflow again") from None
    return name, block, adapters[name].parent


def _config_of(adapter: Path) -> Path:
    return adapter.with_name(Path(paths.ADAPTER_CONFIG).name)


def asked(plan: Plan, policy: str, question: str, options: Options) -> tuple[str, int | None]:
    """The user's turn, and the maximum length of an answer if an option says it.

    Raises `UserError` for an unknown block or task.
    """
    config, prompt, longest = plan.config, "{question}", options.max_tokens
    if options.like is not None:
        blocks = {f"{section}.{name}": one for section in ASKING for name, one in getattr(config, section).items()}
        if options.like not in blocks:
            expected = listed([*blocks])
            raise UserError(
                f"--like: `{options.like}` does not exist, expected one of {expected}", near(options.like, blocks)
            )
        block = blocks[options.like]
        prompt, longest = block.prompt, longest or block.max_tokens
    needed = "{format}" in prompt
    if needed and options.task not in FORMATS:
        found = "no task" if options.task is None else f"`{options.task}`"
        raise UserError(
            f"--task: the prompt of `{options.like}` contains `{{format}}`, expected one of {listed([*FORMATS])}, got {found}"
        )
    if options.task is not None and not needed:
        raise UserError("--task: the prompt does not depend on the task", "leave it out, or name a block with `--like`")
    others = [f"benchmarks.{name}" for name in plan.benchmarks(policy) if config.benchmarks[name].prompt != prompt]
    if options.like is None and others:
        print(f"the question is asked as it is, unlike those of {listed(others)} (see --like)", file=sys.stderr)
    return asked_as(prompt, question, options.task or "open"), longest


def described(answer: Answer, box: np.ndarray | None, size: tuple[int, int]) -> Iterator[str]:
    """The answer, its log-prob, and its box (4,) in an image of `size`."""
    yield answer.text
    total, count = math.fsum(answer.logprobs), len(answer.logprobs)
    end = "" if answer.finish_reason == "stop" else "; cut off there (--max-tokens)"
    yield f"log-prob {total:.4f}, {total / count:.4f} per token, {count} token{'s' if count > 1 else ''}{end}"
    if box is not None:
        strange = "" if is_box(box[None])[0] else "; it is inverted or empty, and not drawn"
        beyond = (box[:2] < 0).any() or (box[2:] > size).any()
        outside = "; it extends beyond the image" if beyond and not strange else ""
        yield f"box {', '.join(f'{value:.1f}' for value in box)} in pixels of {size[0]} x {size[1]}{strange}{outside}"


def _by_token(answer: Answer, tokenizer: Any) -> Iterator[str]:
    texts = [repr(tokenizer.decode([token])) for token in answer.token_ids]
    width = max(map(len, texts))
    yield from (f"  {text:<{width}}  {value:9.4f}" for text, value in zip(texts, answer.logprobs, strict=True))


def box_in(text: str, model: ModelBlock, size: tuple[int, int]) -> np.ndarray | None:
    """The first box of an answer, without its reasoning, (4,) in pixels of the image.

    None if there is none, or if the coordinate format of the model is not known.
    """
    written, frame = parse_box(reasoning_of(model).answer(text) or ""), coordinate_frame(model)
    if written is None or frame is None:
        return None
    sizes = np.array([size], dtype=float)
    resized = resized_sizes(model, sizes) if frame == "resized_pixels" else None
    return to_pixels(np.array([written]), frame, sizes, resized)[0]


def why_undrawn(text: str, model: ModelBlock) -> str:
    """Why no box of an answer is drawn."""
    answer = reasoning_of(model).answer(text)
    if answer is None:
        return "no box: the answer ends within its reasoning"
    if parse_box(answer) is None:
        return UNREAD
    if coordinate_frame(model) is None:
        return "no box: the model's boxes have no coordinate format; set `coordinates` in its block of `models`"
    return "the box is inverted or empty"


def drawn(picture: Image.Image, boxes: Sequence[Found]) -> Image.Image:
    """A copy of the picture with the outlines of the boxes, numbered if there are several.

    The outline is the outermost row and column of pixels inside the box; parts beyond the picture are
    left out.
    """
    canvas = picture.copy()
    pen = ImageDraw.Draw(canvas)
    width = max(1, round(min(picture.size) / 150))
    sides = np.array([*picture.size, *picture.size])
    for place, found in enumerate(boxes):
        x1, y1, x2, y2 = (round(float(value)) for value in np.clip(found.pixels, 0, sides))
        colour = COLOURS[place % len(COLOURS)]
        if x2 > x1 and y2 > y1:
            pen.rectangle((x1, y1, x2 - 1, y2 - 1), outline=colour, width=width)
            if len(boxes) > 1:
                pen.text((x1 + width + 1, y1 + width), str(found.number), fill=colour)
    return canvas


def _opened(image: Path) -> Image.Image:
    try:
        return open_image({"path": str(image)})
    except ValueError as error:
        raise UserError(f"image `{image}`: {error}") from None


def _check_out(out: Path, image: Path) -> None:
    if out.suffix.lower() != ".png":
        raise UserError(f"--out: `{out.name}` expected to end in `.png`")
    if not out.parent.is_dir():
        raise UserError(f"--out: folder `{out.parent}` does not exist")
    if out.exists() and image.exists() and out.samefile(image):
        raise UserError(f"--out: `{out.name}` is the image itself, expected another file")


def save(picture: Image.Image, out: Path) -> None:
    """Writes a PNG. Raises `UserError` if it cannot be written."""
    try:
        picture.save(out)
    except OSError as error:
        raise UserError(f"`{out}` cannot be written: {error.strerror or error}") from error
