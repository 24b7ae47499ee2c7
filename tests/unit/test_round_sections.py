"""The report of experiments that train in rounds: curves over rounds, sentences, and training logs."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from perceptune.contracts.config import BenchmarkBlock, ReportBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.io import to_table, write_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.contracts.tables.training import TRAINING
from perceptune.report import charts, read, results, write
from perceptune.report.sections import rounds as round_sections
from perceptune.report.sections.rounds import Rounds

from tests.report_pages import MADE, Page, cells, metric_row, write_examples, write_rewards, write_training
from tests.unit.test_charts import of_class, places

ROUNDS = 4
PLACE = {"benchmark": "shapes-rounds-test", "n": 200}
CURVES = {
    "grpo": [0.575, 0.59, 0.60, 0.615],
    "papo": [0.57, 0.605, 0.605, 0.605],
    "cppo": [0.58, 0.61, 0.65, 0.66],
}
"""Greedy accuracy after each round; the base scores 0.55."""
REASON = "`perception_kl_growth` is 3.4 at step 2, above its limit 3"
STOPPED = {"papo": (3, REASON)}
STYLES = {"tiny": "base", "grpo": "s1", "papo": "s2", "cppo": "s3"}
WATCHED = (
    "reward", "zero_variance", "length", "truncated", "loss", "entropy", "clip_fraction", "clip_low", "old_kl", "engine_gap",
    "reference_kl", "policy_gap",
)  # fmt: skip
OWN = {"papo": ("perception_kl", "masked_nll"), "cppo": ("contrast_margin", "selected", "removed_entropy")}


def measured(policy: str, value: float, base: float | None) -> list[dict[str, Any]]:
    """All metric rows of one policy: greedy, blank image, eight sampled answers."""
    made = []
    for metric, scale in (("accuracy_iou_0.5", 1.0), ("mean_iou", 0.95)):
        for condition, view, k, shown, width in (
            ("greedy", "original", 1, value, 0.068),
            ("greedy", "blank", 1, 0.045 + value / 50, 0.03),
            ("mean_of_n", "original", 8, value - 0.06, 0.05),
            *(("best_of_n", "original", k, min(0.95, value - 0.06 + 0.08 * math.log2(k)), 0.05) for k in (1, 2, 4, 8)),
        ):
            shift = (value - base) * (1 / 50 if view == "blank" else 1.0) * scale if base is not None else None
            row = metric_row(
                policy, metric, shown * scale, condition=condition, view=view, k=k, gain=shift,
                ci_low=shown * scale - width, ci_high=shown * scale + width, n_failed=4, **PLACE,
            )  # fmt: skip
            made.append(row)
        spread = dict.fromkeys(("ci_low", "ci_high"))
        made.append(metric_row(policy, f"{metric}_run_std", 0.018, condition="mean_of_n", k=8, **PLACE, **spread))
    return made


def table(rows: list[dict[str, Any]]) -> pl.DataFrame:
    frame = pl.from_arrow(to_table(METRICS, rows))
    assert isinstance(frame, pl.DataFrame)
    return frame


def rows_of_rounds(every: int = 1, once: bool = False) -> list[dict[str, Any]]:
    made = measured("tiny", 0.55, None) + (measured("perpo", 0.60, 0.55) if once else [])
    for experiment, values in CURVES.items():
        for number, value in enumerate(values, 1):
            if number % every == 0 or number == ROUNDS:
                made += measured(f"{experiment}@{number}", value, 0.55)
    return made


def experiments(every: int = 1) -> list[Rounds]:
    return [Rounds(e, {k: f"{e}@{k}" for k in range(1, 5) if k % every == 0}, ROUNDS, STOPPED.get(e)) for e in CURVES]


BASE = {"tiny": "tiny", **{f"{e}@{k}": "tiny" for e in CURVES for k in range(1, 5)}}


def write_round(path: Path, experiment: str, number: int, steps: int = 12) -> None:
    """Writes the training table of a round: two steps if training stopped in it, none after a stop."""
    draw = random.Random(f"{experiment}{number}")
    stop = STOPPED.get(experiment, (9, ""))[0]
    rows = []
    for step in range(1, (2 if number == stop else 0 if number > stop else steps) + 1):
        done = (number - 1 + step / steps) / ROUNDS
        values = {
            "reward": 0.45 + 0.2 * done, "zero_variance": 0.3 + 0.3 * done, "length": 18 - 2 * done, "truncated": 0.04 - 0.03 * done,
            "loss": 0.01, "entropy": 0.9 - 0.4 * done, "clip_fraction": 0.002 * step, "clip_low": 0.001 * step,
            "old_kl": 0.001 * step, "engine_gap": 0.002, "reference_kl": 0.02 * done, "policy_gap": 1e-4,
            "perception_kl": 0.4 + 0.3 * done + (0.9 * step if number == stop else 0), "masked_nll": 1.4 + done,
            "contrast_margin": 2 * done, "selected": 4 + done, "removed_entropy": 1.5,
        }  # fmt: skip
        for metric in (*WATCHED, *OWN.get(experiment, ())):
            value = values[metric] * (1 + draw.gauss(0, 0.08))
            rows.append({"experiment": f"{experiment}@{number}", "step": step, "metric": metric, "value": value})
        if experiment == "grpo":
            rows.append({"experiment": "grpo@1", "step": step, "metric": "perception_kl", "value": math.nan})
    write_table(path, TRAINING, rows, MADE)


def written(folder: Path, every: int = 1, once: bool = False) -> Path:
    """Writes all tables of three experiments with four rounds, runs the stage and returns the page."""
    folder.mkdir(exist_ok=True)
    write_table(folder / "metrics.parquet", METRICS, rows_of_rounds(every, once), MADE)
    examples = write_examples(folder / "examples.parquet", 12)
    evaluated = {e.experiment: e.policies for e in experiments(every)}
    policies = ["tiny", *(["perpo"] if once else []), *(p for of in evaluated.values() for p in of.values())]
    training = {f"{e}@{k}": folder / f"training-{e}@{k}.parquet" for e in CURVES for k in range(1, ROUNDS + 1)}
    for policy in policies:
        write_rewards(folder / f"rewards-{policy}.parquet", examples, policy, False, 14 if policy == "tiny" else 7)
        rewards = pl.read_parquet(folder / f"rewards-{policy}.parquet").with_columns(
            benchmark=pl.lit(PLACE["benchmark"])
        )
        write_table(folder / f"rewards-{policy}.parquet", REWARDS, rewards, MADE)
    for policy, path in training.items():
        experiment, _, number = policy.partition("@")
        write_round(path, experiment, int(number))
    if once:
        training = {"perpo": folder / "training-perpo.parquet", **training}
        write_training(training["perpo"], "perpo", 30)
    rounds: dict[str, read.RoundsOf] = {}
    for experiment, of in evaluated.items():
        stop = STOPPED.get(experiment)
        marks = {"round": ROUNDS, "stopped": {"round": stop[0], "reason": stop[1]} if stop else None}
        (folder / f"{experiment}.json").write_text(json.dumps(marks))
        rounds[experiment] = read.RoundsOf(of, folder / f"{experiment}.json")
    write.run(
        metrics=folder / "metrics.parquet", training=training, statistics={}, pairs={}, noise={},
        predictions={p: {PLACE["benchmark"]: folder / f"rewards-{p}.parquet"} for p in policies},
        examples={"shapes-rounds": folder / "examples.parquet"},
        benchmarks={PLACE["benchmark"]: BenchmarkBlock(dataset="shapes-rounds", reward="perception")},
        base=dict.fromkeys(policies, "tiny"), report=folder / "report.html", result_table=folder / "result.txt",
        figures={name: folder / f"{name}.svg" for name in ("result", "best_of_n", "training", "rewards")},
        config=ReportBlock(title="Learning in rounds", gallery=4), rounds=rounds,
    )  # fmt: skip
    return folder / "report.html"


def of(values: list[float], experiment: str = "grpo", widths: float = 0.05, gain: float = 0.01) -> list[dict[str, Any]]:
    """Greedy metric rows of the rounds of an experiment."""
    return [
        metric_row(f"{experiment}@{k}", "accuracy", v, gain=gain, ci_low=v - widths, ci_high=v + widths, **PLACE)
        for k, v in enumerate(values, 1)
    ]


def followed(*rows: dict[str, Any]) -> list[round_sections.Curve]:
    frame = table([metric_row("tiny", "accuracy", 0.5, **PLACE), *rows])
    return round_sections.curves(frame, results.results(frame)[0])


def rounds(experiment: str, count: int) -> Rounds:
    return Rounds(experiment, {k: f"{experiment}@{k}" for k in range(1, count + 1)}, count)


def test_only_the_last_round_is_in_the_result(tmp_path: Path) -> None:
    page = Page(written(tmp_path))
    result = page.source[page.source.index('<section id="result">') : page.source.index('<section id="rounds">')]
    assert re.findall(r"<span>(\w+po@\d)</span>", result) == ["grpo@4", "papo@4", "cppo@4"]
    assert cells(page, "result", "grpo@4") == (
        "grpo@4 61.5 [54.7, 68.3] +6.5 [+3.5, +9.5] 55.5 [50.5, 60.5] 0.584 [0.516, 0.652] 4"
    )
    assert cells(page, "result", "papo@4").startswith("papo@4 round 2&#39;s adapter 60.5")
    for part in ("sampled", "blank", "training", "gallery"):
        start = page.source.index(f'<section id="{part}">')
        assert not re.search(r"@[123]\b", page.source[start : page.source.index("</section>", start)])
    text = (tmp_path / "result.txt").read_text()
    assert max(map(len, text.splitlines())) <= 100
    assert re.findall(r"^\w+@\d", text, re.MULTILINE) == ["grpo@4", "papo@4", "cppo@4"]
    assert not {tag for tag, _ in page.elements} & {"script", "iframe", "object", "embed", "link", "form", "base"}
    assert "nan" not in page.text.lower().split()


def test_the_section_on_rounds_has_the_numbers_of_the_metrics(tmp_path: Path) -> None:
    page = Page(written(tmp_path))
    assert cells(page, "rounds", "tiny") == ("tiny 0 55.0 [48.2, 61.8] 49.0 [44.0, 54.0] · sd 1.8 5.6 [2.6, 8.6]")
    assert cells(page, "rounds", "grpo") == (
        "grpo 1 57.5 [50.7, 64.3] +2.5 [\u22120.5, +5.5] 51.5 [46.5, 56.5] · sd 1.8 +2.5 [\u22120.5, +5.5] "
        "5.6 [2.6, 8.6] 0.0 [\u22123.0, +3.0]"
    )
    assert page.text.count("round 2's adapter") == 4  # the result's row, the sentence, rounds 3 and 4
    assert "papo: stopped in round 3: perception_kl_growth is 3.4 at step 2, above its limit 3" in page.text
    assert "Last round, greedy: grpo (+6.5 points [+3.5, +9.5]), papo".lower() in page.text.lower()
    assert "greedy intervals all overlap; acc@8 intervals all overlap" in page.text
    text = (tmp_path / "result.txt").read_text()
    assert "grpo, greedy    55.0  57.5  59.0*  60.0*  61.5*" in text
    assert "cppo, acc@8     49.0  52.0  55.0*  59.0*  60.0*" in text
    assert f"papo: stopped in round 3: {REASON}; rounds 3 to 4" in text
    assert "shapes-rounds-test / grounding: accuracy at IoU 0.5, % by round (0 = base model)" in text


def test_rounds_that_were_not_evaluated_have_no_point(tmp_path: Path) -> None:
    page = Page(written(tmp_path, every=2, once=True))
    assert "grpo, greedy    55.0  59.0*  61.5*" in (tmp_path / "result.txt").read_text()
    assert cells(page, "result", "perpo").startswith("perpo 60.0")
    assert "In rounds" in page.text
    start = page.source.index('<section id="training">')
    part = page.source[start : page.source.index("</section>", start)]
    assert re.findall(r"<span>(\w+)</span>", part) == ["perpo", "grpo", "papo", "cppo"]
    assert "mean reward of the sampled answers" in (tmp_path / "training.svg").read_text()
    assert "margin, best minus worst answer" in (tmp_path / "training.svg").read_text()
    assert "po@" not in (tmp_path / "training.svg").read_text()


def test_curves_start_at_the_base_and_markers_are_side_by_side() -> None:
    frame = table(rows_of_rounds())
    section = round_sections.rounds_section(frame, results.results(frame)[0], experiments(), BASE, STYLES)
    assert section is not None
    assert section["columns"] == ["greedy, %", "acc@8, %", "no image, %"]
    assert section["names"] == ["tiny", "grpo", "papo", "cppo"]
    panel = section["panels"][0]
    assert "acc@8: accuracy at IoU 0.5, mean of 8 answers" in charts.text(section["panels"][1])
    lines = {line.get("class", "").split()[1]: places(line) for line in of_class(panel, "curve")}
    assert [len(lines[s]) for s in ("s1", "s2", "s3", "base")] == [5, 5, 5, 1]
    assert len({lines[s][0] for s in ("s1", "s2", "s3", "base")}) == 1  # all start at the base model's point
    assert len({lines[s][1][0] for s in ("s1", "s2", "s3")}) == 3
    assert len(of_class(panel, "spread")) == 3 * 4 + 1
    assert len(of_class(panel, "mark")) == 3 * 4 + 1
    bottom = [t.text for t in panel.iter("text") if t.get("y") == f"{charts.HEIGHT - charts.BOTTOM + 15:g}"]
    assert bottom == ["0", "1", "2", "3", "4"]


def test_without_rounds_there_are_no_sections() -> None:
    frame = table(measured("tiny", 0.55, None) + measured("perpo", 0.6, 0.55))
    found = results.results(frame)
    assert round_sections.rounds_section(frame, found[0], [], {}, {}) is None
    assert round_sections.rounds_section(frame, found[0], experiments(), BASE, {}) is None  # not evaluated here
    assert round_sections.round_lines(frame, found, [], {}) == []
    training = pl.DataFrame({"experiment": ["perpo"], "step": [1], "metric": ["reward"], "value": [1.0]})
    assert round_sections.training_section(training, experiments(), {}) is None
    assert round_sections.trained_once(training, experiments()).height == 1


@pytest.mark.parametrize(
    ("stopped", "count", "sentence"),
    [
        (None, 4, ""),
        ((3, "why"), 4, "grpo: stopped in round 3: why; rounds 3 to 4 use round 2's adapter"),
        ((4, "why"), 4, "grpo: stopped in round 4: why; round 4 uses round 3's adapter"),
        ((1, "why"), 2, "grpo: stopped in round 1: why; rounds 1 to 2 use the base model"),
    ],
)
def test_the_sentence_on_a_stop(stopped: tuple[int, str] | None, count: int, sentence: str) -> None:
    assert Rounds("grpo", {count: f"grpo@{count}"}, count, stopped).stop_sentence == sentence


def test_only_intervals_that_do_not_overlap_set_experiments_apart() -> None:
    found = followed(*of([0.5, 0.6]), *of([0.5, 0.75], "cppo"), *of([0.5, 0.62], "papo"))
    tested = [rounds(e, 2) for e in ("grpo", "cppo", "papo")]
    sentence = round_sections.apart_sentence(found, tested)
    expected = "greedy intervals do not overlap for grpo below cppo, cppo above papo and overlap for the others."
    assert expected in sentence
    assert round_sections.apart_sentence(found, tested[:1]) == ""


def test_the_sentences_on_last_rounds_against_the_base() -> None:
    (curve,) = followed(*of([0.5, 0.6], gain=0.1), *of([0.5, 0.4], "cppo", gain=-0.1), *of([0.5, 0.51], "papo"))
    sentence = round_sections.gain_sentence(curve, [rounds(e, 2) for e in ("grpo", "cppo", "papo")]).replace(
        "\u00a0", " "
    )
    assert sentence == (
        "last round, greedy: grpo (+10.0 points [+7.0, +13.0]) better than the base; "
        "cppo (\u221210.0 points [\u221213.0, \u22127.0]) worse than the base; "
        "papo (+1.0 points [\u22122.0, +4.0]) not distinguishable from the base"
    )
    assert round_sections.gain_sentence(curve, [rounds("unknown", 2)]) == ""


def test_a_fall_below_the_interval_of_the_best_round_is_reported() -> None:
    (curve,) = followed(*of([0.6, 0.7, 0.64]), *of([0.5, 0.6, 0.56], "cppo"), *of([0.7], "papo"))
    sentence = round_sections.fall_sentence(curve, [rounds("grpo", 3), rounds("cppo", 3), rounds("papo", 2)])
    assert sentence.replace("\u00a0", " ").startswith(
        "last round worse than the best round, greedy: grpo (70.0 in round 2, last 64.0); selecting"
    )
    assert round_sections.fall_sentence(curve, [rounds("cppo", 3)]) == ""


def test_many_pairs_of_experiments_are_counted() -> None:
    names = [f"e{i}" for i in range(5)]
    found = followed(*(row for i, e in enumerate(names) for row in of([0.1 + i * 0.2], e)))
    sentence = round_sections.apart_sentence(found, [rounds(e, 1) for e in names])
    assert "greedy intervals do not overlap for 10 of 10 pairs." in sentence


def test_steps_run_through_all_rounds() -> None:
    rows = [("grpo@10", 1), ("grpo@9", 1), ("grpo@9", 2), ("grpo@9", 3), ("cppo@1", 1)]
    logs = pl.DataFrame(
        [(e, step, "reward", 0.5) for e, step in rows], schema=["experiment", "step", "metric", "value"], orient="row"
    )
    counted, ends = round_sections.cumulative(logs)
    assert list(counted.select("experiment", "step").iter_rows()) == [
        ("grpo", 4.0), ("grpo", 1.0), ("grpo", 2.0), ("grpo", 3.0), ("cppo", 1.0),
    ]  # fmt: skip
    assert ends == {"cppo": [1.0], "grpo": [3.0, 4.0]}


def test_training_has_one_line_per_experiment_and_marks_the_end_of_rounds(tmp_path: Path) -> None:
    paths = [tmp_path / f"{e}@{k}.parquet" for e in CURVES for k in range(1, 5)]
    for path in paths:
        write_round(path, path.stem.partition("@")[0], int(path.stem[-1]))
    logs = pl.concat([read.frame(path, TRAINING) for path in paths])
    section = round_sections.training_section(logs, experiments(), STYLES)
    assert section is not None
    assert section["names"] == ["grpo", "papo", "cppo"]
    assert section["others"] == ["clip_low", "policy_gap"]
    assert section["window"] == 2  # 48 steps / 20
    reward, *_ = section["panels"]
    assert len(section["panels"]) == 15
    lines = {line.get("class", "").split()[1]: places(line) for line in of_class(reward, "curve")}
    assert {style: len(line) for style, line in lines.items()} == {"s1": 48, "s2": 26, "s3": 48}  # 12, 12, 2
    turns = sorted(float(line.get("x1", "0")) for line in of_class(reward, "turn"))
    assert len(turns) == 3
    xs = [x for x, _ in lines["s1"]]
    assert [sum(x < turn for x in xs) for turn in turns] == [12, 24, 36]
    masked = next(p for p in section["panels"] if "KL between full and masked image" in charts.text(p))
    assert len(of_class(masked, "curve")) == 1  # GRPO did not measure it
    assert len(of_class(masked, "turn")) == 2  # the third is after the last step
    assert round_sections.training_section(logs.filter(pl.col("step") > 99), experiments(), STYLES) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"round": 4}', '{"round": "x", "stopped": null}', '{"round": 4, "stopped": 3}']
)
def test_a_broken_status_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "grpo.json").write_text(text)
    with pytest.raises(UserError, match=r"grpo.json"):
        read.rounds_of({"grpo": read.RoundsOf({4: "grpo@4"}, tmp_path / "grpo.json")})


def test_a_reason_stays_text(tmp_path: Path) -> None:
    reason = "<script>1</script>\u202e" + "x" * 1000
    (tmp_path / "grpo.json").write_text(json.dumps({"round": 2, "stopped": {"round": 2, "reason": reason}}))
    (found,) = read.rounds_of({"grpo": read.RoundsOf({2: "grpo@2"}, tmp_path / "grpo.json")})
    assert found.stopped is not None
    assert "\u202e" not in found.stop_sentence
    assert len(found.stop_sentence) < 500
    assert found.count == 2
