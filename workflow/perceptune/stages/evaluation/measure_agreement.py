"""Agreement of a judge with a second judge or with people, on the same answers, or with a method's
selection of tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from perceptune.contracts.config import AgreementBlock, BenchmarkBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.paths import ROUND_MARK
from perceptune.contracts.plugins import module_of
from perceptune.contracts.progress import tell
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables.agreements import AGREEMENTS
from perceptune.contracts.tables.compared import COMPARED
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.labelled_tokens import LABELLED_TOKENS
from perceptune.contracts.tables.verdicts import VERDICTS
from perceptune.core.benchmarks.benchmark import protocol_of
from perceptune.core.comparisons import tokens
from perceptune.core.comparisons.agreement import Rated, counts, measured
from perceptune.core.comparisons.labels import label_of, read_labels
from perceptune.core.comparisons.rubrics import OUTCOMES

ALL, PEOPLE, SELECTION = "all", "people", "selected tokens"
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Verdict:
    """A judge's label of one answer, or of one pair in one order."""

    example_id: str
    part: str
    """The policy, or the comparison."""
    kind: str | None
    key: str
    label: str | None
    """None: the verdict cannot be read."""


def run(
    *,
    agreement: str,
    config: AgreementBlock,
    judge: str,
    agreements: Path,
    people: Path | None = None,
    block: BenchmarkBlock | None = None,
    view: str | None = None,
    verdicts: Mapping[str, Path] = MappingProxyType({}),
    seconds: Mapping[str, Path] = MappingProxyType({}),
    compared: Path | None = None,
    second: Path | None = None,
    labelled: Path | None = None,
    policy: str | None = None,
) -> None:
    """Writes the table `agreements` of one agreement.

    Of a benchmark `block`: `verdicts` are the judge's verdicts by policy, `seconds` the second
    judge's; greedy answers under the view `view` count. Of a comparison: `compared` and `second` are
    the two judges' verdicts. Otherwise `people` is the file with people's labels. Of tokens:
    `labelled` are the judge's labels of the tokens that the round `policy` selects from. Raises
    `UserError` for a broken file of labels, or if no answer has two labels.
    """
    if labelled is not None:
        _measure_tokens(agreement, config, judge, str(policy), labelled, agreements)
        return
    if compared is not None:
        labels: Sequence[str] = OUTCOMES
        found = _of_pairs(compared, str(config.comparison))
        others = _of_pairs(second, str(config.comparison)) if second else {}
    else:
        assert block and view
        labels, read = _labels_of(block)
        found = {key: one for policy, path in verdicts.items() for key, one in _of_answers(path, policy, view, read)}
        others = {key: one for policy, path in seconds.items() for key, one in _of_answers(path, policy, view, read)}
    by_people = read_labels(people, labels, of_policies=compared is None) if people else None
    rated: list[tuple[str, Verdict, str | None, bool]] = []
    for key, one in found.items():
        if by_people is not None:
            label = label_of(by_people, one.key, one.example_id, _names(one.part, config), one.kind)
            rated.append((one.part, one, label, label is not None))
        else:
            rated.append((one.part, one, others[key].label if key in others else None, key in others))
    if not any(labelled for *_, labelled in rated):
        what = f"`{people}` has no label" if people else f"judge `{config.judge}` has no verdict"
        raise UserError(
            f"agreement `{agreement}`: {what} of any of the {len(found)} answers with a verdict of `{judge}`",
            "rows need the `example_id` and, with several policies, the `policy` of an answer" if people else None,
        )
    rows = list(_rows(rated, labels, agreement, config))
    shared = {
        "agreement": agreement,
        "source": config.benchmark or config.comparison,
        "judge": judge,
        "other": config.judge or PEOPLE,
    }
    inputs = {f"verdicts of {p}": path for p, path in verdicts.items()}
    inputs |= {f"second verdicts of {p}": path for p, path in seconds.items()}
    named = {"compared": compared, "second": second, "people": people}
    inputs |= {name: path for name, path in named.items() if path}
    parameters = {"agreement": agreement, "judge": judge, "config": config.model_dump(mode="json")}
    plugins = [module_of("benchmark", str(block.protocol))] if block else []
    table = [{**dict.fromkeys(AGREEMENTS.columns), **shared, **row} for row in rows]
    write_table(agreements, AGREEMENTS, table, lineage("evaluation.measure_agreement", parameters, inputs, plugins))


def _names(part: str, config: AgreementBlock) -> tuple[str, ...]:
    """What people may call a policy: its own name, or `grpo` for the last round if the config says so.
    Of a comparison, pairs have no policy."""
    if config.comparison:
        return ()
    experiment, mark, _ = part.partition(ROUND_MARK)
    asked = not config.policies or (experiment in config.policies and part not in config.policies)
    return (part, experiment) if mark and asked else (part,)


def _measure_tokens(
    agreement: str, config: AgreementBlock, judge: str, policy: str, labelled: Path, agreements: Path
) -> None:
    columns = ["example_id", "labels", "selected", "random"]
    asked = read_table(labelled, LABELLED_TOKENS, columns).to_pylist()
    answers = [tokens.Labelled(*(row[name] for name in columns)) for row in asked if row["labels"] is not None]
    shared = {
        **dict.fromkeys(AGREEMENTS.columns),
        "agreement": agreement,
        "source": policy,
        "judge": judge,
        "other": SELECTION,
        "n": len(answers),
        "n_unread": len(asked) - len(answers),
        "n_unlabelled": 0,
    }
    rows: list[dict[str, Any]] = []
    seed = derived_seed("bootstrap", config.seed, agreement, "tokens")
    for part, found in tokens.measured(answers, resamples=config.resamples, seed=seed).items():
        for metric, numbers in found.items():
            value, low, high = (None if math.isnan(number) else number for number in numbers)
            missing = "no labels to compare with" if answers else "no answers with labels"
            reason = missing if value is None else None
            rows.append({
                **shared, "part": part, "metric": metric, "value": value, "ci_low": low, "ci_high": high, "reason": reason,
            })  # fmt: skip
    for part in ("selected", "random"):
        total = sum((tokens.table_of(one.labels, getattr(one, part)) for one in answers), np.zeros((2, 2)))
        for (i, label), (j, other) in product(enumerate(tokens.LABELS), enumerate(tokens.CHOICES)):
            counted = {"metric": "count", "label": label, "other_label": other, "value": float(total[i, j])}
            rows.append({**shared, "part": part, **counted})
    parameters = {"agreement": agreement, "judge": judge, "config": config.model_dump(mode="json"), "policy": policy}
    made = lineage("evaluation.measure_agreement", parameters, {"labelled": labelled}, [])
    write_table(agreements, AGREEMENTS, rows, made)


def _labels_of(block: BenchmarkBlock) -> tuple[Sequence[str], Callable[[str | None], str | None]]:
    protocol = protocol_of(block)
    if protocol is None or protocol.judged is None or protocol.judged.label is None:
        raise ValueError(f"verdicts on benchmark `{block.protocol}` are no labels")
    return protocol.judged.labels, protocol.judged.label


def _of_answers(
    path: Path, policy: str, view: str, read: Callable[[str | None], str | None]
) -> Iterator[tuple[Key, Verdict]]:
    """The verdicts on a policy's greedy answers under one view."""
    columns = ["request_id", "example_id", "view", "condition", "key", "text", "model"]
    for row in read_table(path, VERDICTS, columns).to_pylist():
        if row["model"] is not None and row["condition"] == "greedy" and row["view"] == view:
            one = Verdict(row["example_id"], policy, None, row["key"], read(row["text"]))
            yield (policy, row["request_id"]), one


def _of_pairs(path: Path, comparison: str) -> dict[Key, Verdict]:
    """The verdicts on pairs, in each order."""
    return {
        (row["item"], row["one_first"]): Verdict(row["example_id"], comparison, row["kind"], row["key"], row["outcome"])
        for row in read_table(path, COMPARED).to_pylist()
        if row["model"] is not None
    }


def _rows(
    rated: Sequence[tuple[str, Verdict, str | None, bool]],
    labels: Sequence[str],
    agreement: str,
    config: AgreementBlock,
) -> Iterator[dict[str, Any]]:
    """Rows of all answers together, and of each policy if there are several."""
    policies = list(dict.fromkeys(part for part, *_ in rated))
    for part in (ALL, *(policies if len(policies) > 1 else [])):
        own = [(one, label, labelled) for of, one, label, labelled in rated if part in (ALL, of)]
        both = [(one, label) for one, label, labelled in own if labelled]
        items = [Rated(one.example_id, one.label, label) for one, label in both if one.label and label]
        shared = {
            "part": part,
            "n": len(items),
            "n_unread": len(both) - len(items),
            "n_unlabelled": len(own) - len(both),
        }
        seed = derived_seed("bootstrap", config.seed, agreement, part)
        for metric, numbers in measured(items, labels, resamples=config.resamples, seed=seed).items():
            value, low, high = (None if math.isnan(number) else number for number in numbers)
            reason = None
            if value is None:
                reason = "both give all answers the same label" if items else "no answers with two labels"
            yield {**shared, "metric": metric, "value": value, "ci_low": low, "ci_high": high, "reason": reason}
        for (label, other), count in sorted(counts(items).items()):
            yield {**shared, "metric": "count", "label": label, "other_label": other, "value": float(count)}
    if unlabelled := sum(not labelled for *_, labelled in rated):
        tell(f"{len(rated) - unlabelled} of {len(rated)} answers have two labels")
