"""The pages about answers: a template, and the values for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from pydantic import Field

from perceptune.commands.inspect import pictures
from perceptune.commands.inspect.answers import ranked
from perceptune.commands.inspect.contents import Answered
from perceptune.commands.inspect.filters import (
    Address,
    AnswerFilter,
    AnswerOrder,
    CompareFilter,
    CompareOrder,
    ShownAddress,
)
from perceptune.commands.inspect.library import Library
from perceptune.commands.inspect.parts import ROWS, Page, Part, histogram_filter, illustrated, orders
from perceptune.commands.inspect.tokens import tokens_of
from perceptune.contracts.errors import UserError
from perceptune.report import gallery
from perceptune.report.gallery import Outline, visible

LISTED = (
    "request_id",
    "example_id",
    "task",
    "benchmark",
    "condition",
    "view",
    "sample_index",
    "text",
    "target",
    "reward",
    "reason",
)
"""Columns of an answer in a list."""


def start(library: Library) -> Page:
    """The first page: what the folder contains."""
    library.look_again()
    contents = library.contents
    plans: dict[str, list[Answered]] = {}
    for one in contents.answers.values():
        plans.setdefault(f"{one.plan}/{one.scored}", []).append(one)
    return "start", {
        "contents": contents,
        "plans": plans,
        "compared": {one.name: contents.compared_with(one) for one in contents.answers.values()},
        "experiments": contents.experiments,
    }


def answers(library: Library, query: Mapping[str, str]) -> Page:
    """A list of answers."""
    wanted = AnswerFilter.read(query)
    tables = library.contents.chosen(wanted.policy, wanted.plan, wanted.scored)
    found = library.select(tables, wanted)
    part = Part.of(found.chosen.height, wanted.page)
    shown = found.chosen.slice(part.start, ROWS)
    rows = library.rows(tables, shown, LISTED)
    listed = wanted.query(page=1)
    for place, (row, margin) in enumerate(zip(rows, shown["margin"], strict=True), part.start):
        one = library.contents.answers[row["name"]]
        dataset = library.dataset(one, row["benchmark"])
        row |= {"policy": one.policy, "plan": one.plan, "margin": margin, "dataset": dataset}
        row["question"] = _question(library, dataset, row["example_id"])
        row["link"] = question_address(one.name, row["request_id"], sample=row["sample_index"], list=listed, at=place)
    everything = library.contents.chosen(None, None, None)
    return "answers", {
        "wanted": wanted,
        "orders": orders(AnswerOrder),
        "part": part,
        "rows": rows,
        "facets": {
            **{key: _names(everything, key) for key in ("policy", "plan", "scored")},
            **library.facets(tables),
        },
        "histograms": [
            histogram_filter("Reward", found.rewards, wanted, "reward_min", "reward_below"),
            histogram_filter("Margin", found.margins, wanted, "margin_min", "margin_below"),
        ],
    }


class Question(Address):
    """The address of one question: all answers to one request."""

    table: str
    request: str
    sample: int | None = None
    """The answer to mark."""
    against: str | None = None
    """Another table of answers, to compare with."""
    list: str = ""
    """The query of the list of answers that the question was chosen from."""
    at: int | None = Field(default=None, ge=0)
    """Its place in that list."""


def question(library: Library, query: Mapping[str, str]) -> Page:
    """One question: image with boxes, and all answers, best first."""
    wanted = Question.read(query)
    one = library.answered(wanted.table)
    answered = _answered(library, one, wanted.request, wanted.sample, "s1")
    rows = answered["answers"]
    benchmark, example_id = rows[0]["benchmark"], rows[0]["example_id"]
    dataset = library.dataset(one, benchmark)
    example = library.example(dataset, example_id, pictures.EXAMPLE)
    asked = library.asked(one, wanted.request)
    sides = [answered]
    if wanted.against is not None:
        sides.append(_answered(library, library.answered(wanted.against), wanted.request, None, "s2"))
    outlines = [outline for side in reversed(sides) for outline in side["outlines"]]
    others = [other for other in library.contents.chosen(None, one.plan, one.scored) if other != one]
    return "question", {
        "wanted": wanted,
        "sides": sides,
        "facts": {key: rows[0][key] for key in ("benchmark", "task", "condition", "view")},
        "target": visible(gallery.ground_truth(example) if rows[0]["target"] is None else rows[0]["target"], 2000),
        "asked": _asked(asked),
        **_seen(library, one, asked),
        "others": others,
        "neighbours": _neighbours(library, wanted),
        **illustrated(library, dataset, example, outlines),
    }


def _answered(library: Library, one: Answered, request: str, sample: int | None, style: str) -> dict[str, Any]:
    """The ranked answers of one table to a request, with tokens and boxes. The marked answer's box has the
    given style, or the best answer's; the others are grey."""
    rows = ranked(library.request(one, request))
    responses = library.responses(one, request)
    marked = next((row for row in rows if row["sample_index"] == sample), rows[0])
    outlines: list[Outline] = []
    for rank, row in enumerate(rows, 1):
        box = gallery.pixel_box(row["parsed"])  # type: ignore[arg-type]
        row |= {"rank": rank, "marked": row is marked and len(rows) > 1, "box": box}
        row["tokens"] = tokens_of(responses.get(row["sample_index"]), one.model)  # type: ignore[call-overload]
        if box is not None:
            label = one.policy if len(rows) == 1 else f"{one.policy}, answer {rank}"
            place = len(outlines) if row is marked else 0
            outlines.insert(place, Outline(box, style if row is marked else "rest", label))
    outlines.sort(key=lambda outline: outline.style != "rest")
    return {"table": one, "style": style, "answers": rows, "outlines": outlines, "has_tokens": bool(responses)}


def shown_images(library: Library, one: Answered, request: str) -> tuple[tuple[bytes, str], ...]:
    """The images as a request showed them to the model, as files with their media types.

    Raises `UserError` or `ValueError` if there are none.
    """
    asked = library.asked(one, request)
    if asked is None:
        raise UserError("the table of requests is not there any more")
    return pictures.as_asked(library, asked["dataset"], asked["example_id"], asked["recipe"])


def _seen(library: Library, one: Answered, asked: Mapping[str, Any] | None) -> dict[str, Any]:
    """The addresses of the images that the model saw, where a view has changed them, or the `unseen` reason."""
    if asked is None or asked["view"] == "original":
        return {"seen": [], "unseen": None}
    try:
        count = len(shown_images(library, one, asked["request_id"]))
    except (UserError, ValueError, KeyError) as error:
        return {"seen": [], "unseen": visible(str(error.args[0]), 300)}
    numbered = [ShownAddress(table=one.name, request=asked["request_id"], number=i) for i in range(count)]
    return {"seen": ["shown?" + address.query() for address in numbered], "unseen": None}


def _asked(request: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """How a request was asked: the text of its messages, and how answers were drawn."""
    if request is None:
        return None
    texts = [
        f"{message['role']}: " + "".join(item["text"] or "<image>" for item in message["content"])
        for message in request["messages"]
    ]
    drawn = {key: request[key] for key in ("n", "temperature", "top_p", "top_k", "max_tokens", "seed")}
    return {"text": visible("\n".join(texts), 4000), "drawn": drawn, "recipe": visible(request["recipe"], 600)}


def _neighbours(library: Library, wanted: Question) -> dict[str, str]:
    """The addresses of the list that a question was chosen from, and of its neighbours there."""
    if wanted.at is None:
        return {}
    listed = AnswerFilter.read(dict(parse_qsl(wanted.list)))
    tables = library.contents.chosen(listed.policy, listed.plan, listed.scored)
    chosen = library.select(tables, listed).chosen
    found = {"back": "answers?" + listed.query(page=wanted.at // ROWS + 1)}
    for name, at in (("previous", wanted.at - 1), ("next", wanted.at + 1)):
        if 0 <= at < chosen.height:
            row = library.rows(tables, chosen.slice(at, 1), ("request_id", "sample_index"))[0]
            found[name] = question_address(
                row["name"], row["request_id"], sample=row["sample_index"], list=wanted.list, at=at
            )
    return found


def compare(library: Library, query: Mapping[str, str]) -> Page:
    """Two policies on the same questions."""
    wanted = CompareFilter.read(query)
    tables = library.contents.chosen(None, wanted.plan, wanted.scored)
    sides = [library.side(policy, wanted.plan, wanted.scored) for policy in (wanted.a, wanted.b) if policy is not None]
    context: dict[str, Any] = {
        "wanted": wanted,
        "orders": orders(CompareOrder),
        "facets": {"policy": _names(tables, "policy")},
        "found": None,
    }
    for key in ("plan", "scored"):
        context["facets"][key] = _names(library.contents.chosen(None, None, None), key)
    if len(sides) < 2:
        return "compare", context
    before, after = sides
    found = library.compare(before, after, wanted)
    part = Part.of(found.chosen.height, wanted.page)
    shown = found.chosen.slice(part.start, ROWS)
    rows = shown.to_dicts()
    texts = [
        library.rows_at(one, shown[f"row_{side}"], ("text", "benchmark", "example_id"))
        for side, one in zip("ab", sides, strict=True)
    ]
    for row, was, now in zip(rows, *texts, strict=True):
        dataset = library.dataset(after, now["benchmark"])
        row |= {**now, "text_a": was["text"], "text_b": now["text"], "dataset": dataset}
        row["question"] = _question(library, dataset, now["example_id"])
        row["link"] = question_address(after.name, row["request_id"], against=before.name)
    histogram = histogram_filter("Change of the reward", found.differences, wanted, "change_min", "change_below")
    context["facets"] |= {k: v for k, v in library.facets(sides).items() if k != "reason"}
    return "compare", context | {"found": found, "part": part, "rows": rows, "histograms": [histogram]}


def _question(library: Library, dataset: str | None, example_id: str) -> str | None:
    """The question of an example; None if it is not in a table of examples any more."""
    example = library.example(dataset, example_id, ("question",))
    return None if example is None else str(example["question"])


def _names(tables: Sequence[Answered], key: str) -> list[tuple[str, int]]:
    """Each policy, plan or reward block, with its number of answers."""
    found: dict[str, int] = {}
    for one in tables:
        found[getattr(one, key)] = found.get(getattr(one, key), 0) + one.rows
    return list(found.items())


def question_address(table: str, request: str, **more: Any) -> str:
    """The address of the page about one question."""
    return "question?" + Question(table=table, request=request, **more).query()
