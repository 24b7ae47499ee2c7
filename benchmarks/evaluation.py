"""Evaluation and the report on large tables, with the code of an earlier commit and of this one.

    python benchmarks/evaluation.py [--quick] [--before COMMIT] [--only report]

Answers are random boxes. `digits` is the sum of all numbers in the metrics or controls: it shows
whether both versions compute the same intervals.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from before_now import Row, main
from PIL import Image

NAME, TASK = "b", "grounding"
CODE = {"stage": "benchmark", "parameters": {}, "inputs": {}, "code": "", "versions": {}}


def write_answers(path: Path, policy: int, questions: int, n: int, conditions: Sequence[str] = ("greedy",)) -> None:
    """The rewards table of a policy: an answer per question and condition, and `n` sampled ones."""
    from perceptune.contracts.tables.io import write_table
    from perceptune.contracts.tables.rewards import REWARDS

    draw = np.random.default_rng(policy)
    counts = {**dict.fromkeys(conditions, 1), "sampled": n}
    answers = pl.concat(
        pl.DataFrame(
            {
                "condition": [condition] * (questions * count),
                "number": np.repeat(np.arange(questions), count),
                "sample_index": np.tile(np.arange(count, dtype=np.int32), questions),
            }
        )
        for condition, count in counts.items()
    )
    edges = pl.DataFrame(draw.uniform(0, 100, (answers.height, 4)).round(2), list("abcd"))
    ious = np.clip(draw.beta(0.7, 0.6, answers.height) + 0.002 * policy, 0, 1)
    box = edges.select(pl.format("[{}, {}, {}, {}]", *edges.columns)).to_series()
    table = answers.select(
        "condition",
        "sample_index",
        request_id=pl.format("{}/e{}/original/{}", pl.lit(NAME), "number", "condition"),
        example_id=pl.format("e{}", "number"),
        task=pl.lit(TASK),
        benchmark=pl.lit(NAME),
        view=pl.lit("original"),
        text=pl.lit(box),
        answer=pl.lit(box),
        target=pl.lit(None, pl.String),
        reward=pl.Series(ious),
        parsed=pl.lit('{"box_pixels": ' + box + "}"),
        reason=pl.lit(None, pl.String),
    )
    item = REWARDS.schema.field("components").type.value_type
    named = pa.StructArray.from_arrays([["iou"] * table.height, pa.array(ious)], fields=list(item))
    lists = pa.ListArray.from_arrays(pa.array(np.arange(table.height + 1), pa.int32()), named)
    write_table(path, REWARDS, table.to_arrow().append_column("components", lists), CODE)


def write_examples(path: Path, questions: int, image: bytes | None = None) -> None:
    """Questions about objects, four about each, as in RefCOCO; all with the same image, if any."""
    from perceptune.contracts.tables.examples import EXAMPLES
    from perceptune.contracts.tables.io import write_table

    images = [] if image is None else [{"bytes": image, "path": None}]
    rows = [
        {
            "example_id": f"e{i}", "task": TASK, "question": "Where is the red circle?", "target": None,
            "images": images, "image_sha256": [hashlib.sha256(one["bytes"]).hexdigest() for one in images],
            "image_hashes": [], "image_sizes": [[640, 480]] * len(images), "box": [10.0, 20.0, 50.0, 60.0],
            "split": "test", "source": json.dumps({"ann_id": i // 4, "file_name": f"{i}.jpg"}), "reason": None,
        }
        for i in range(questions)
    ]  # fmt: skip
    write_table(path, EXAMPLES, rows, CODE)


def photograph() -> bytes:
    """A JPEG that is hard to compress."""
    buffer = io.BytesIO()
    Image.effect_noise((640, 480), 25).convert("RGB").save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_pairs(folder: Path, groups: int, questions: int) -> None:
    """Groups of two pairs with three views each, and their statistics."""
    from perceptune.contracts.tables.io import write_table
    from perceptune.contracts.tables.preferences import PREFERENCES
    from perceptune.core.preferences.pair_filter import pair_statistics
    from perceptune.core.views.view import Recipe

    box = (10.0, 10.0, 300.0, 300.0)
    recipes = {"enhanced": Recipe("enhanced", box=box), "degraded": Recipe("degraded", box=box)}
    recipes["noise"] = Recipe("noise", {"sigma": 0.2}, seed=7)
    messages = [{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "word " * 40}]}]
    views = [
        {"view": view, "recipe": recipe.text(), "messages": messages, "sha256": "0" * 64, "strength": 0.125}
        for view, recipe in recipes.items()
    ]
    roles = [f"{kind}_{role}" for kind in ("focus", "robust") for role in ("chosen", "rejected")]
    margins = np.random.default_rng(0).normal(size=(groups, 2))
    rows: list[dict[str, Any]] = [
        {
            "group_id": f"g{i}", "example_id": f"e{i % questions}", "request_id": "r", "task": TASK, "view": "original",
            "messages": messages, "views": views, "numbers": [], "kept": True, "reason": None,
            "responses": [
                {"sample_index": 0, "text": "an answer " * 20, "token_ids": list(range(40)), "reward": 0.0, "role": role}
                for role in roles
            ],
            "pairs": [
                {
                    "kind": kind, "chosen": 2 * k, "rejected": 2 * k + 1, "ppl_chosen": 1.5, "ppl_rejected": 2.5,
                    "margin": margins[i, k], "ips": 0.5, "kept": True, "reason": None,
                }
                for k, kind in enumerate(("focus", "robust"))
            ],
        }
        for i in range(groups)
    ]  # fmt: skip
    write_table(folder / "pairs.parquet", PREFERENCES, rows, CODE)
    kinds = {kind: pair_statistics([row["pairs"][k] for row in rows]) for k, kind in enumerate(("focus", "robust"))}
    counted = {"groups": groups, "kept": groups, "dropped": {}, "context": "own", "kinds": kinds, "strength": {}}
    counted["limits"] = {"max_ppl": None, "margin": {"focus": None, "robust": None}}
    (folder / "pairs.json").write_text(json.dumps(counted))


def block(protocol: str | None = None, n: int = 20) -> Any:
    from perceptune.contracts.config import BenchmarkBlock

    return BenchmarkBlock(dataset="d", reward="r", n=n, protocol=protocol, views=("original",))


def prepare_pair(folder: Path, questions: int, n: int) -> None:
    for policy, name in enumerate(("base", "policy", "twin")):
        write_answers(folder / f"{name}.parquet", policy, questions, n)
    write_examples(folder / "examples.parquet", questions)


def evaluate(folder: Path, protocol: str | None = None, **_: int) -> Mapping[str, Any]:
    """A policy against its base."""
    from perceptune.contracts.config import ModelBlock
    from perceptune.stages.evaluation import evaluate as stage

    stage.run(
        policy="policy", base="base", rewards={NAME: folder / "policy.parquet"},
        base_rewards={NAME: folder / "base.parquet"}, attention={}, base_attention=None,
        metrics=folder / "metrics.parquet", benchmarks={NAME: block(protocol)}, reward_tasks={"r": {TASK: "iou"}},
        model=ModelBlock(path="nowhere", family="llava"), examples={"d": folder / "examples.parquet"},
    )  # fmt: skip
    return digits(folder / "metrics.parquet")


def evaluate_protocol(folder: Path, **_: int) -> Mapping[str, Any]:
    return evaluate(folder, "refcoco")


def compare(folder: Path, protocol: str | None = None, **_: int) -> Mapping[str, Any]:
    """A policy's gain against its controls: the prompt, the mean of the samples and SFT."""
    from perceptune.stages.evaluation import compare_controls
    from perceptune.stages.evaluation.compare_controls import Scored

    policy, base, twin = (Scored(n, {NAME: folder / f"{n}.parquet"}) for n in ("policy", "base", "twin"))
    compare_controls.run(
        policy=policy, base=base, twin=twin, benchmarks={NAME: block(protocol)}, reward_tasks={"r": {TASK: "iou"}},
        examples={"d": folder / "examples.parquet"}, controls=folder / "controls.parquet",
    )  # fmt: skip
    return digits(folder / "controls.parquet")


def compare_protocol(folder: Path, **_: int) -> Mapping[str, Any]:
    return compare(folder, "refcoco")


def digits(path: Path) -> Mapping[str, Any]:
    """The sum of all numbers of a table."""
    total = pl.read_parquet(path).select(pl.col(pl.Float64).fill_nan(None).sum()).sum_horizontal().item()
    return {"digits": f"{total:.12f}"}


def prepare_report(folder: Path, policies: int, questions: int, n: int, steps: int, groups: int) -> None:
    """What policies leave: answers, metrics, training logs and pairs."""
    from perceptune.contracts.tables.io import write_table
    from perceptune.contracts.tables.metrics import METRICS
    from perceptune.contracts.tables.training import TRAINING

    write_examples(folder / "examples.parquet", questions, photograph())
    write_pairs(folder, groups, questions)
    draw = np.random.default_rng(0)
    rows = []
    for policy in range(policies):
        write_answers(folder / f"p{policy}.parquet", policy, questions, n)
        fixed = dict.fromkeys(METRICS.schema.names) | {"policy": f"p{policy}", "benchmark": NAME, "split": "test"}
        fixed |= {"task": TASK, "view": "original", "n": questions, "n_failed": 3}
        ways = [("greedy", 1), ("mean_of_n", n), *(("best_of_n", k) for k in (1, 2, 4, 8, 16, n))]
        for metric in ("accuracy_iou_0.5", "mean_iou"):
            for condition, k in ways:
                value, gain = 0.4 + 0.01 * policy, 0.01 * policy
                row = {**fixed, "condition": condition, "k": k, "metric": metric, "value": value}
                row |= {"ci_low": value - 0.01, "ci_high": value + 0.01}
                if policy:
                    row |= {"base_value": 0.4, "gain": gain, "gain_ci_low": gain - 0.02, "gain_ci_high": gain + 0.02}
                rows.append(row)
        if policy:
            names = ["loss", "margin", "chosen_logps", "rejected_logps", "grad_norm", "tokens_per_second"]
            log = pl.DataFrame({"step": np.arange(1, steps + 1, dtype=np.int32)}).join(
                pl.DataFrame({"metric": names}), how="cross"
            )
            values = draw.normal(size=log.height)
            log = log.with_columns(experiment=pl.lit(f"p{policy}"), value=pl.Series(values))
            write_table(folder / f"training{policy}.parquet", TRAINING, log, CODE)
    write_table(folder / "metrics.parquet", METRICS, rows, CODE)


def report(folder: Path, policies: int, **_: int) -> Mapping[str, Any]:
    from perceptune.contracts.config import ReportBlock
    from perceptune.report import write

    names = [f"p{policy}" for policy in range(policies)]
    pairs = {"statistics": folder / "pairs.json", "preferences": folder / "pairs.parquet"}
    pairs["examples"] = folder / "examples.parquet"
    write.run(
        metrics=folder / "metrics.parquet",
        training={f"p{policy}": folder / f"training{policy}.parquet" for policy in range(1, policies)},
        statistics={}, pairs={"p1": pairs}, rounds={}, noise={},
        predictions={name: {NAME: folder / f"{name}.parquet"} for name in names},
        examples={"d": folder / "examples.parquet"}, benchmarks={NAME: block()}, base=dict.fromkeys(names, "p0"),
        report=folder / "report.html", result_table=folder / "report.txt",
        figures={name: folder / f"{name}.svg" for name in ("result", "best_of_n", "training")},
        config=ReportBlock(),
    )  # fmt: skip
    files = {path.name: path.stat().st_size / 1e6 for path in folder.iterdir() if path.suffix in (".html", ".svg")}
    return {"page": f"{files['report.html']:.1f} MB", "largest figure": f"{max(files.values()):.1f} MB"}


LARGE, SMALL = {"questions": 50_000, "n": 20}, {"questions": 1_000, "n": 20}
ROWS = (
    Row("evaluate a policy against its base, `iou`", prepare_pair, evaluate, LARGE, SMALL, "20 s, 1,500 MB"),
    Row("the same with `protocol: refcoco`", prepare_pair, evaluate_protocol, {**LARGE, "questions": 10_000}, SMALL),
    Row("compare a gain with its controls, `iou`", prepare_pair, compare, LARGE, SMALL),
    Row("compare, `protocol: refcoco`", prepare_pair, compare_protocol, {**LARGE, "questions": 10_000}, SMALL),
    Row(
        "report", prepare_report, report,
        {"policies": 12, "questions": 794, "n": 20, "steps": 10_000, "groups": 20_000},
        {"policies": 4, "questions": 50, "n": 4, "steps": 100, "groups": 50}, "60 s, page of 5 MB",
    ),
)  # fmt: skip

if __name__ == "__main__":
    main(ROWS)
