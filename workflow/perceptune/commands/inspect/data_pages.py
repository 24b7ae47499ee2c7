"""The pages about preference groups, examples and rounds: a template, and the values for it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from markupsafe import Markup

from perceptune.commands.inspect import pages, pictures
from perceptune.commands.inspect.contents import Answered, Grouped, inputs_of
from perceptune.commands.inspect.filters import AnswerFilter, ExampleFilter, ExampleOrder, GroupFilter, GroupOrder
from perceptune.commands.inspect.library import Library
from perceptune.commands.inspect.parts import ROWS, Page, Part, histogram_filter, illustrated, orders
from perceptune.commands.inspect.tokens import tokens_of
from perceptune.contracts.errors import UserError, lookup
from perceptune.report import gallery
from perceptune.report.gallery import visible


def groups(library: Library, query: Mapping[str, str]) -> Page:
    """The preference groups of a table."""
    wanted = GroupFilter.read(query)
    table = grouped(library, wanted.table)
    found = library.groups(table.path, wanted)
    part = Part.of(found.chosen.height, wanted.page)
    rows = found.chosen.slice(part.start, ROWS).to_dicts()
    for row in rows:
        row |= {"dataset": table.dataset, "link": "group?" + urlencode({"table": table.name, "id": row["group_id"]})}
    return "groups", {
        "wanted": wanted,
        "orders": orders(GroupOrder),
        "table": table,
        "part": part,
        "rows": rows,
        "facets": library.group_facets(table.path),
        "histograms": [histogram_filter("Margin", found.margins, wanted, "margin_min", "margin_below")],
    }


def group(library: Library, query: Mapping[str, str]) -> Page:
    """One preference group: what its answers were made from, and their numbers."""
    table = grouped(library, query.get("table", ""))
    found = library.group(table.path, query.get("id", ""))
    address = {"table": table.name, "id": found["group_id"]}
    example = library.example(table.dataset, found["example_id"], pictures.EXAMPLE)
    shown: list[tuple[Markup, str]] = []
    problem, outlines = None, dict[str, str]()
    try:
        for picture in pictures.of_group(library, table.path, table.dataset, found["group_id"]):
            source = "picture?" + urlencode({**address, "name": picture.name})
            drawing = gallery.annotated(source, picture.size, picture.outlines, picture.caption)
            shown.append((Markup(drawing), picture.caption))
            outlines |= {outline.label: outline.style for outline in picture.outlines}
    except (UserError, ValueError) as error:
        problem = visible(str(error.args[0]), 300)
    rewards = inputs_of(table.path).get("rewards")
    scored = next((one for one in library.contents.answers.values() if one.path == rewards), None)
    responses, model = library.group_responses(table.path, found)
    return "group", {
        "table": table,
        "group": found,
        "example": example,
        "target": visible(gallery.ground_truth(example), 2000),
        "answered": None if scored is None else pages.question_address(scored.name, found["request_id"]),
        "tokens": [tokens_of(response, model) for response in responses],
        "pictures": shown,
        "legend": list(outlines.items()),
        "problem": problem,
        "question": "".join(i["text"] or "<image> " for m in found["messages"] for i in m["content"]),
    }


def examples(library: Library, query: Mapping[str, str]) -> Page:
    """The examples of a dataset, quarantined ones included."""
    wanted = ExampleFilter.read(query)
    found = library.select_examples(wanted)
    part = Part.of(found.chosen.height, wanted.page)
    shown = found.chosen.slice(part.start, ROWS)
    columns = ("example_id", "task", "split", "question", "target", "box", "reason")
    rows = library.example_rows(wanted.dataset, shown["row"].to_list(), columns)
    for row, numbers in zip(rows, shown.iter_rows(named=True), strict=True):
        row |= {"reward": numbers["reward"], "margin": numbers["margin"], "target": gallery.ground_truth(row)}
        row["link"] = "example?" + urlencode({"dataset": wanted.dataset, "id": row["example_id"]})
    about = library.about(wanted.dataset)
    facets = {**library.example_facets(wanted.dataset), "answers": [(one.name, one.rows) for one in about]}
    answered = [one for one in about if one.name == wanted.answers]
    facets |= {key: library.facets(answered)[key] for key in ("view", "condition")}
    return "examples", {
        "wanted": wanted,
        "orders": orders(ExampleOrder),
        "part": part,
        "rows": rows,
        "facets": facets,
        "histograms": [
            histogram_filter("Mean reward of the answers", found.rewards, wanted, "reward_min", "reward_below"),
            histogram_filter("Margin", found.margins, wanted, "margin_min", "margin_below"),
        ],
    }


def example(library: Library, query: Mapping[str, str]) -> Page:
    """One example, with the tables that have answers to it."""
    dataset, example_id = query.get("dataset", ""), query.get("id", "")
    library.example_path(dataset)
    found = library.example(dataset, example_id, pictures.EXAMPLE)
    if found is None:
        raise UserError(f"dataset `{dataset}` has no usable example `{example_id}`")
    links = [
        (one, "answers?" + AnswerFilter.model_validate({**_names_of(one), "example": example_id}).query())
        for one in library.about(dataset)
    ]
    target = visible(gallery.ground_truth(found), 4000)
    return "example", {"target": target, "links": links, **illustrated(library, dataset, found, [])}


def _names_of(one: Answered) -> dict[str, str]:
    return {"policy": one.policy, "plan": one.plan, "scored": one.scored}


def grouped(library: Library, name: str) -> Grouped:
    return lookup(dict(library.contents.groups), name, "table of preferences")
