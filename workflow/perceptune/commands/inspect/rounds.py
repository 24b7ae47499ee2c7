"""Experiments that train in rounds: what each round asked, kept and learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

import polars as pl
from markupsafe import Markup

from perceptune.commands.inspect.contents import BENCHMARKS, Contents, Stamp, inputs_of, round_of, stamp
from perceptune.commands.inspect.filters import AnswerFilter, CompareFilter, counting
from perceptune.commands.inspect.library import Library
from perceptune.commands.inspect.parts import Page
from perceptune.contracts.errors import lookup
from perceptune.contracts.paths import ROUND_MARK
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.report.charts import line_panel, text
from perceptune.report.svg import Svg
from perceptune.stages.data.scans import scan

STYLES = ("s1", "s2", "s3", "s4", "s5")


def rounds(library: Library, query: Mapping[str, str]) -> Page:
    """The rounds of an experiment."""
    contents, experiment = library.contents, query.get("experiment", "")
    policies = lookup(contents.experiments, experiment, "experiment with rounds")
    rows = [_round(contents, policy) for policy in policies]
    names = list(dict.fromkeys(name for row in rows for name in row["benchmarks"]))
    points = [
        {"series": series, "x": float(row["round"]), "y": value}
        for row in rows
        for series, value in (("rollouts", row["mean"]), *((n, v) for n, (v, _) in row["benchmarks"].items()))
        if value is not None
    ]
    return "rounds", {
        "experiment": experiment,
        "rows": rows,
        "benchmarks": names,
        "chart": _chart(points, ["rollouts", *names]),
        "styles": dict(zip(["rollouts", *names], STYLES, strict=False)),
    }


def _round(contents: Contents, policy: str) -> dict[str, Any]:
    """The round that made a policy: its rollouts, the groups it was trained on, and its benchmarks."""
    row: dict[str, Any] = {"round": round_of(policy), "policy": policy, "mean": None, "group": None, "links": []}
    training = contents.folder / "training" / f"{policy}.parquet"
    batch = inputs_of(training).get("preferences") if training.is_file() else None
    group = next((one for one in contents.groups.values() if one.path == batch), None)
    if group is not None:
        row["group"] = group
        row["kept"] = _kept(stamp(group.path))
        row["link"] = "groups?" + urlencode({"table": group.name})
        rewards = inputs_of(group.path).get("rewards")
        rollouts = next((one for one in contents.answers.values() if one.path == rewards), None)
        if rollouts is not None:
            row["mean"] = _mean(stamp(rollouts.path))
            address = AnswerFilter(policy=rollouts.policy, plan=rollouts.plan, scored=rollouts.scored)
            row["links"].append(("rollouts", "answers?" + address.query()))
    row["benchmarks"] = {}
    for one in contents.chosen(policy, BENCHMARKS, None):
        for name, view, condition, mean in _benchmarks(stamp(one.path)):
            address = AnswerFilter(
                policy=policy, plan=BENCHMARKS, scored=one.scored, benchmark=name, view=view, condition=condition
            )
            row["benchmarks"][name] = (mean, "answers?" + address.query())
        earlier = f"{policy.rpartition(ROUND_MARK)[0]}{ROUND_MARK}{row['round'] - 1}"
        if contents.chosen(earlier, BENCHMARKS, one.scored):
            compared = CompareFilter(a=earlier, b=policy, plan=BENCHMARKS, scored=one.scored)
            row["links"].append((f"compared with {earlier}", "compare?" + compared.query()))
    return row


def _chart(points: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Markup | None:
    """Mean rewards by round."""
    if not points:
        return None
    frame = pl.DataFrame(points, schema={"series": pl.String, "x": pl.Float64, "y": pl.Float64})
    styles = {name: STYLES[i] if i < len(STYLES) else "rest" for i, name in enumerate(names)}
    panel: Svg = line_panel(frame, title="Mean reward", x_label="round", styles=styles, whole=True)
    return Markup(text(panel))


@lru_cache(256)
def _kept(groups: Stamp) -> tuple[int, int]:
    """Numbers of kept and of all groups."""
    kept = scan(groups.path, PREFERENCES).select(kept=pl.col("kept").sum(), count=pl.len()).collect()
    return int(kept["kept"][0] or 0), int(kept["count"][0])


@lru_cache(256)
def _mean(rewards: Stamp) -> float | None:
    """The mean reward of a table."""
    mean = scan(rewards.path, REWARDS).select(pl.col("reward").mean()).collect()["reward"][0]
    return None if mean is None else float(mean)


@lru_cache(256)
def _benchmarks(rewards: Stamp) -> tuple[tuple[str, str, str, float | None], ...]:
    """Each benchmark with the view and the condition that count, and the mean reward of those answers."""
    counted = scan(rewards.path, REWARDS).filter(counting(CompareFilter()), pl.col("benchmark").is_not_null())
    by = counted.group_by("benchmark", "view", "condition", maintain_order=True)
    return tuple(by.agg(pl.col("reward").mean()).collect().iter_rows())
