"""Small valid tables of a report, and a parser of the page that is made from them."""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from perceptune.contracts.config import BenchmarkBlock, ReportBlock
from perceptune.contracts.tables.attention import ATTENTION
from perceptune.contracts.tables.crops import CROPS
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.contracts.tables.training import TRAINING
from perceptune.core.data.shapes import render, scene_and_row
from perceptune.core.preferences.pair_filter import clip_statistics, described, pair_statistics
from perceptune.core.views.view import Recipe
from perceptune.report import write

MADE = {"stage": "test", "parameters": {}, "inputs": {}, "code": "0" * 64, "versions": {"perceptune": "0.1.0"}}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\x1b[31mred\x1b[0m \u202egnp.exe\u200b \x00",
    "</dd></article></main>{{ 7 * 7 }}{% raise %}",
    "x" * 100_000,
    "",
    "Z\u0335\u0321\u0322" * 200,
]
VOID = {"wbr", "meta", "br", "img", "link", "hr", "input"}


def metric_row(policy: str, metric: str, value: float | None, **changes: Any) -> dict[str, Any]:
    """One row of the metrics table; a `gain` has an interval of +-0.03 unless `changes` sets another."""
    row = dict.fromkeys(METRICS.schema.names)
    row |= {"policy": policy, "benchmark": "shapes-test", "split": "test", "task": "grounding", "view": "original"}
    row |= {"condition": "greedy", "k": 1, "metric": metric, "value": value, "n": 600, "n_failed": 0}
    if value is not None:
        row |= {"ci_low": value - 0.04, "ci_high": value + 0.04}
    row |= changes
    if row["gain"] is not None:
        row["base_value"] = (value or 0) - row["gain"]
        row["gain_ci_low"] = changes.get("gain_ci_low", row["gain"] - 0.03)
        row["gain_ci_high"] = changes.get("gain_ci_high", row["gain"] + 0.03)
    return row


def metrics_of(gains: dict[str, float | None], sampled: bool = True) -> list[dict[str, Any]]:
    """Metric rows of policies with these gains in accuracy over a base at 48 %; None marks the base."""
    rows = []
    for policy, gain in gains.items():
        for metric, value, scale in (("accuracy_iou_0.5", 0.48, 1.0), ("mean_iou", 0.44, 0.6)):
            change = None if gain is None else gain * scale
            failed = 7 if gain is None else 2
            rows.append(metric_row(policy, metric, value + (change or 0), gain=change, n_failed=failed))
            rows.append(metric_row(policy, metric, 0.05, gain=None if gain is None else 0.0, view="blank"))
        for k in (1, 2, 4, 8, 16, 20) if sampled else ():
            best = 0.4 + (gain or 0) + 0.11 * math.log2(k)
            rows.append(metric_row(policy, "accuracy_iou_0.5", min(best, 0.95), condition="best_of_n", k=k))
            rows.append(metric_row(policy, "mean_iou", min(best, 0.95) * 0.8, condition="best_of_n", k=k))
        if sampled:
            rows.append(metric_row(policy, "accuracy_iou_0.5", 0.4 + (gain or 0), condition="mean_of_n", k=20))
            rows.append(metric_row(policy, "mean_iou", 0.32 + 0.8 * (gain or 0), condition="mean_of_n", k=20))
    return rows


def write_examples(path: Path, count: int) -> list[dict[str, Any]]:
    rows = []
    for i in range(count):
        scene, row = scene_and_row(0, "test", i, "grounding")
        buffer = io.BytesIO()
        render(scene).save(buffer, "PNG")
        assert row.box is not None
        rows.append(
            {
                "example_id": f"e{i:03d}",
                "task": "grounding",
                "question": row.question,
                "images": [{"bytes": buffer.getvalue(), "path": f"e{i}.png"}],
                "image_sha256": [hashlib.sha256(buffer.getvalue()).hexdigest()],
                "image_hashes": [],
                "image_sizes": [[112, 112]],
                "target": row.answer,
                "box": list(map(float, row.box)),
                "split": "test",
                "source": None,
                "reason": None,
            }
        )
    write_table(path, EXAMPLES, rows, MADE)
    return rows


def write_rewards(path: Path, examples: list[dict[str, Any]], policy: str, hostile: bool, noise: float) -> None:
    draw = random.Random(policy)
    rows = []
    for i, example in enumerate(examples):
        box = [min(max(v + draw.gauss(0, noise), 0), 112) for v in example["box"]]
        text: str | None = "[" + ", ".join(f"{v / 112:.2f}" for v in box) + "]"
        parsed: str | None = json.dumps({"box": [v / 112 for v in box], "box_pixels": box})
        reason = None
        if hostile:
            text = HOSTILE[i % len(HOSTILE)]
            parsed = [None, "{", '{"box_pixels": [1, NaN, 3, 4]}', '{"box_pixels": "abcd"}', "[]"][i % 5]
            reason = "no four numbers in <b>answer</b>"
        rows.append(
            {
                "request_id": f"r-{example['example_id']}",
                "example_id": example["example_id"],
                "task": "grounding",
                "benchmark": "shapes-test",
                "condition": "greedy",
                "view": "original",
                "sample_index": 0,
                "text": text,
                "target": example["target"],
                "reward": 0.0
                if hostile
                else max(0.0, 1 - sum(abs(a - b) for a, b in zip(box, example["box"], strict=True)) / 60),
                "parsed": parsed,
                "components": [],
                "reason": reason,
            }
        )
    write_table(path, REWARDS, rows, MADE)


def write_training(path: Path, experiment: str, steps: int = 90) -> None:
    draw = random.Random(experiment)
    rows = []
    for step in range(1, steps + 1):
        rise = 1 - math.exp(-step / 30)
        for metric, value in (
            ("loss", 0.69 - 0.25 * rise + draw.gauss(0, 0.03)),
            ("margin", 3 * rise + draw.gauss(0, 0.3)),
            ("chosen_logps", -9 + rise + draw.gauss(0, 0.5)),
            ("rejected_logps", -11 - 2 * rise + draw.gauss(0, 0.5)),
            ("grad_norm", 1.2 + abs(draw.gauss(0, 0.3)) if step != 7 else math.nan),
            ("tokens_per_second", 2400 + draw.gauss(0, 60)),
        ):
            rows.append({"experiment": experiment, "step": step, "metric": metric, "value": value})
    write_table(path, TRAINING, rows, MADE)


def write_statistics(path: Path) -> None:
    counts = [400, 180, 120, 90, 80, 90, 120, 180, 260, 310]
    edges = [i / 10 for i in range(11)]
    path.write_text(
        json.dumps(
            {
                "groups": 1500,
                "kept": 940,
                "distinct_answers_per_group": 17.25,
                "mean_list_size": 12.0,
                "dropped": {"margin below 0.5": 480, "fewer than 2 distinct answers": 80},
                "reward_histogram": {"edges": edges, "counts": counts},
                "margin_histogram": {"edges": edges, "counts": counts[::-1]},
            }
        )
    )


NOISE = {"original": 0.0, "noise-0.1": 0.1, "noise-0.4": 0.4}
CROP, INVERSE = [10.0, 10.0, 50.0, 50.0], [60.0, 60.0, 100.0, 100.0]
RECIPES = {
    "enhanced": Recipe("enhanced", box=(10.0, 10.0, 50.0, 50.0)),
    "degraded": Recipe("degraded", box=(10.0, 10.0, 50.0, 50.0)),
    "noise": Recipe("noise", {"sigma": 0.2}, seed=7),
}


def noise_and_attention_of(gains: dict[str, float | None]) -> list[dict[str, Any]]:
    """Metric rows of a noise sweep and of the condition `attention` with four layers."""
    rows = []
    for policy, gain in gains.items():
        for view, value in (("noise-0.1", 0.41), ("noise-0.4", 0.23)):
            change = None if gain is None else gain / 2
            rows.append(metric_row(policy, "accuracy_iou_0.5", value + (change or 0), gain=change, view=view))
        layers = [
            (f"{m}_layer_{i:02}", v) for i in range(4) for m, v in (("afr", 2.0 + i), ("image_share", 0.3 + i / 10))
        ]
        for metric, value in [("afr", 4.5), ("image_share", 0.55), ("p_accuracy", 0.61), *layers]:
            rows.append(
                metric_row(
                    policy, metric, value + (gain or 0), gain=gain, condition="attention", n=250 - (metric[0] == "p")
                )
            )
    return rows


def write_pairs(folder: Path, examples: list[dict[str, Any]], hostile: bool) -> dict[str, Path]:
    """Writes groups of pairs and the tables behind them: every third is dropped, margins grow with the number."""
    groups = []
    for i, example in enumerate(examples):
        text = HOSTILE[i % len(HOSTILE)] if hostile else None
        texts = {role: text if text is not None else f"{role} {i}" for role in ROLES}
        pairs = [
            {
                "kind": kind, "chosen": 2 * k, "rejected": 2 * k + 1, "ppl_chosen": 1.5 + i, "ppl_rejected": 2.25 + i,
                "margin": (-1) ** i * (i + k / 2) / 100, "ips": i - 7.5, "kept": i % 3 != 0,
                "reason": None if i % 3 else (text or "margin"),
            }
            for k, kind in enumerate(("focus", "robust"))
        ]  # fmt: skip
        responses = [
            {"sample_index": 0, "text": text, "token_ids": [1], "reward": 0.0, "role": role}
            for role, text in texts.items()
        ]
        views = [
            {"view": view, "recipe": recipe.text(), "messages": [], "sha256": "0" * 64, "strength": 0.125}
            for view, recipe in RECIPES.items()
        ]
        groups.append(
            {
                "group_id": f"g{i:03d}", "example_id": example["example_id"], "request_id": "r", "task": "grounding",
                "view": "original", "messages": [], "responses": responses, "views": views, "pairs": pairs,
                "numbers": [{"name": "clip_image", "value": 0.25}, {"name": "clip_crop", "value": -0.5}],
                "kept": i % 3 != 0, "reason": "why" if i % 3 == 0 else None,
            }
        )  # fmt: skip
    ids = [example["example_id"] for example in examples]
    maps = {"size": [112, 112], "grid": [2, 2], "attention": [0.0, 0.5, 0.25, 0.25], "afr": 3.25}
    maps |= {"layer_afr": [3.25], "image_share": [0.5], "reason": None}
    crops = {"box": CROP, "inverse": INVERSE, "ratio": 1.0, "contrast": 2.0, "flag": None, "reason": None}
    write_table(folder / "preferences.parquet", PREFERENCES, groups, MADE)
    write_table(folder / "attention.parquet", ATTENTION, [{"example_id": i, **maps} for i in ids], MADE)
    write_table(folder / "crops.parquet", CROPS, [{"example_id": i, **crops} for i in ids], MADE)
    counted = {
        "groups": len(groups), "kept": sum(g["kept"] for g in groups), "dropped": {}, "context": "own",
        "limits": {"max_ppl": 2.5, "margin": {"focus": [-0.174, 0.208], "robust": None}},
        "kinds": {kind: pair_statistics([g["pairs"][k] for g in groups]) for k, kind in enumerate(("focus", "robust"))},
        "strength": {"noise": described([0.1, 0.2])},
        "clip": clip_statistics([{"image": 0.5, "crop": 0.25, "inverse": 0.125}, {"image": -1, "crop": 0, "inverse": 0}]),
    }  # fmt: skip
    (folder / "pairs.json").write_text(json.dumps(counted))
    tables = {name: folder / f"{name}.parquet" for name in ("preferences", "attention", "crops", "examples")}
    return {"statistics": folder / "pairs.json", **tables}


ROLES = ("focus_chosen", "focus_rejected", "robust_chosen", "robust_rejected")
LABEL = "tiny/shapes/self-made/central"
BLOCK = BenchmarkBlock(dataset="shapes", reward="perception")


def written(
    folder: Path,
    gains: dict[str, float | None],
    *,
    metrics: list[dict[str, Any]] | None = None,
    hostile: bool = False,
    pairs: bool = False,
    block: BenchmarkBlock = BLOCK,
    also: dict[str, Path] | None = None,
    **config: Any,
) -> Path:
    """Writes all tables for these policies, runs the stage and returns the page.

    `block` is the benchmark, `also` has tables of answers to others by their name, of all policies.
    """
    rows = metrics_of(gains) + (noise_and_attention_of(gains) if pairs else []) if metrics is None else metrics
    folder.mkdir(exist_ok=True)
    write_table(folder / "metrics.parquet", METRICS, rows, MADE)
    examples = write_examples(folder / "examples.parquet", 40)
    base = next((p for p, gain in gains.items() if gain is None), "tiny")
    trained = [p for p, gain in gains.items() if gain is not None]
    for policy in gains:
        write_rewards(folder / f"rewards-{policy}.parquet", examples, policy, hostile, 14 if policy == base else 7)
    for policy in trained:
        write_training(folder / f"training-{policy}.parquet", policy)
    write_statistics(folder / "statistics.json")
    write.run(
        metrics=folder / "metrics.parquet",
        training={p: folder / f"training-{p}.parquet" for p in trained},
        statistics={"tiny/shapes/n20/perception/ranked": folder / "statistics.json"} if trained else {},
        pairs={LABEL: write_pairs(folder, examples, hostile)} if pairs else {},
        rounds={},
        noise=NOISE if pairs else {},
        predictions={p: {"shapes-test": folder / f"rewards-{p}.parquet", **(also or {})} for p in gains},
        examples={"shapes": folder / "examples.parquet"},
        benchmarks={"shapes-test": block},
        base=dict.fromkeys(gains, base),
        report=folder / "report.html",
        result_table=folder / "result.txt",
        figures={name: folder / f"{name}.svg" for name in ("result", "best_of_n", "training", "rewards")},
        config=ReportBlock(**config),
    )
    return folder / "report.html"


DEMO = {"tiny": None, "dpo": 0.021, "perpo": 0.102}
SWEEP: dict[str, float | None] = {
    "tiny": None,
    **{f"perpo-list_size_{n}-min_margin_0.{m}-beta_0.05": 0.01 * (n + m - 8) for n in range(2, 12) for m in (3, 5, 8)},
}


class Page(HTMLParser):
    """The elements of a page; fails for tags that are not opened or not closed."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.source = path.read_text()
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        """The visible text, with single spaces."""
        return " ".join(" ".join(self.words).split())


def attributes(page: Page) -> list[tuple[str, str, str]]:
    return [(tag, name, value or "") for tag, found in page.elements for name, value in found.items()]


def cells(page: Page, section: str, row: str) -> str:
    """The text of the first table row named `row` in a section or the summary."""
    start = page.source.index(f' id="{section}"')
    found = re.search(
        rf'<tr[^>]*><th scope="row">(?:<[^>]*>)*{re.escape(row)}\s*<.*?</tr>', page.source[start:], re.DOTALL
    )
    assert found is not None
    return " ".join(re.sub(r"<[^>]*>", " ", found[0]).split())
