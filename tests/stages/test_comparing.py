"""A gain against its controls: hand-computed values, and intervals from plain loops."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perceptune.contracts.config import BenchmarkBlock
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables.controls import CONTROLS
from perceptune.contracts.tables.io import read_lineage, read_table
from perceptune.core.benchmarks.pope import metrics as pope
from perceptune.stages.evaluation import compare_controls

from .scored_tables import HIT, HITS, MISS, Tables, example, request

METRIC = "accuracy_iou_0.5"
RESAMPLES = 200


def answered(
    folder: Path,
    policy: str,
    greedy: str,
    blank: str = "",
    prompts: tuple[str, ...] = (),
    sampled: tuple[str, ...] = (),
) -> compare_controls.Scored:
    """A policy that is right on question i if letter i is `+`; `sampled`: a word per question."""
    (folder / policy).mkdir()
    examples = [example(str(i), "grounding", box=[10.0, 10, 50, 50]) for i in range(len(greedy))]
    answers: list[tuple[dict[str, Any], list[str | None]]] = []

    def told(letters: str) -> list[str | None]:
        return [HIT if letter == "+" else MISS for letter in letters]

    for i, letter in enumerate(greedy):
        answers.append((request(str(i), 1, "b", "greedy"), told(letter)))
        if blank:
            unseen = request(str(i), 1, "b", "greedy") | {"view": "blank", "request_id": f"b/{i}/blank/greedy"}
            answers.append((unseen, told(blank[i])))
        for k, letters in enumerate(prompts, 1):
            answers.append((request(str(i), 1, "b", f"prompt-{k}"), told(letters[i])))
        if sampled:
            answers.append((request(str(i), len(sampled[i]), "b"), told(sampled[i])))
    tables = Tables(folder / policy, examples, answers)
    scored = tables.rewards()
    assert set(scored["view"]) == ({"original", "blank"} if blank else {"original"})
    return compare_controls.Scored(policy, {"b": tables["rewards"]})


OURS, BASE, SFT = "++++++--", "++------", "+++++---"
BLANK, BASE_BLANK = "++------", "+-------"
PROMPTS = ("-+-+-+--", "--------")
SAMPLED = ("++", "+-", "+-", "--", "--", "--", "--", "-+")


def compared(folder: Path, twin: bool = True, **changes: Any) -> list[dict[str, Any]]:
    block = BenchmarkBlock(dataset="mine", reward="r", n=2, resamples=RESAMPLES, **changes)
    base = answered(folder, "base", BASE, BASE_BLANK, PROMPTS, SAMPLED)
    compare_controls.run(
        policy=answered(folder, "ours", OURS, BLANK),
        base=base,
        twin=answered(folder, "twin", SFT) if twin else None,
        benchmarks={"b": block},
        reward_tasks={"r": {"grounding": "iou"}},
        examples={"mine": folder / "base/examples.parquet"},
        controls=folder / "controls.parquet",
    )
    return read_table(folder / "controls.parquet", CONTROLS).to_pylist()


@pytest.mark.parametrize("protocol", [None, "pope"])
def test_every_control_is_a_paired_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str | None
) -> None:
    monkeypatch.setattr(pope, "BENCHMARK", HITS)
    rows = compared(tmp_path, protocol=protocol)
    found = {(r["control"], r["k"]): r for r in rows}
    assert {key: (r["against"], r["value"], r["control_value"], r["gain"], r["n"]) for key, r in found.items()} == {
        ("prompt", 0): ("base", 0.75, 0.25, 0.5, 8),
        ("prompt", 1): ("base", 0.75, 0.375, 0.5, 8),
        ("prompt", 2): ("base", 0.75, 0.0, 0.5, 8),
        ("blank", 1): ("ours", 0.5, 0.125, 0.5, 8),  # gains, with and without the image
        ("mean_of_n", 2): ("base", 0.75, 5 / 16, 0.5, 8),
        ("sft_on_best", 1): ("twin", 0.75, 0.625, 0.5, 8),
    }
    metric = "hits" if protocol else METRIC
    assert {r["metric"] for r in rows} == {metric}

    def hits(letters: str) -> list[float]:
        return [float(letter == "+") for letter in letters]

    means = [sum(hits(word)) / 2 for word in SAMPLED]
    each = {
        ("prompt", 0): np.subtract(hits(OURS), hits(BASE)),
        ("prompt", 1): np.subtract(hits(OURS), hits(PROMPTS[0])),
        ("prompt", 2): np.subtract(hits(OURS), hits(PROMPTS[1])),
        ("blank", 1): np.subtract(hits(OURS), hits(BASE)) - np.subtract(hits(BLANK), hits(BASE_BLANK)),
        ("mean_of_n", 2): np.subtract(hits(OURS), means),
        ("sft_on_best", 1): np.subtract(hits(OURS), hits(SFT)),
    }
    seed = derived_seed("bootstrap", 0, "b", "grounding", "original")
    draws = np.random.default_rng(seed).integers(0, 8, size=(RESAMPLES, 8))
    for key, differences in each.items():
        loops = [sum(differences[i] for i in chosen) / 8 for chosen in draws]
        expected = (float(np.mean(differences)), *np.quantile(loops, [0.025, 0.975]))
        assert [found[key][c] for c in ("difference", "ci_low", "ci_high")] == pytest.approx(expected), key


def test_controls_without_answers_have_no_row(tmp_path: Path) -> None:
    rows = compared(tmp_path, twin=False)
    assert "sft_on_best" not in {r["control"] for r in rows}
    base = answered(tmp_path, "plain", BASE)
    compare_controls.run(
        policy=answered(tmp_path, "again", OURS), base=base, twin=None,
        benchmarks={"b": BenchmarkBlock(dataset="mine", reward="r", n=0, resamples=9)},
        reward_tasks={"r": {"grounding": "iou"}}, examples={}, controls=tmp_path / "controls.parquet",
    )  # fmt: skip
    table = read_table(tmp_path / "controls.parquet", CONTROLS).to_pylist()
    assert [(r["control"], r["k"]) for r in table] == [("prompt", 0)]
    assert set(read_lineage(tmp_path / "controls.parquet")["inputs"]) == {"rewards b of again", "rewards b of plain"}


def test_only_questions_that_both_have_are_compared(tmp_path: Path) -> None:
    """The base lacks the last two questions, which the policy misses: 6 of 6 against 2 of 6."""
    base = answered(tmp_path, "base", BASE[:6])
    compare_controls.run(
        policy=answered(tmp_path, "ours", OURS), base=base, twin=None,
        benchmarks={"b": BenchmarkBlock(dataset="mine", reward="r", n=0, resamples=9)},
        reward_tasks={"r": {"grounding": "iou"}}, examples={}, controls=tmp_path / "controls.parquet",
    )  # fmt: skip
    (row,) = read_table(tmp_path / "controls.parquet", CONTROLS).to_pylist()
    assert (row["n"], row["value"], row["control_value"]) == (6, 1.0, pytest.approx(1 / 3))


def test_a_metric_of_several_answers_has_another_for_single_ones(tmp_path: Path) -> None:
    """Existence questions have F1 of yes as primary metric; the mean of samples is accuracy."""
    targets = ["yes", "yes", "no", "no"]

    def scored(policy: str, greedy: list[str], sampled: list[list[str]] | None = None) -> compare_controls.Scored:
        (tmp_path / policy).mkdir()
        asked: list[tuple[dict[str, Any], list[str | None]]] = []
        for i, text in enumerate(greedy):
            asked.append((request(str(i), 1, "b", "greedy"), [text]))
            asked += [(request(str(i), 2, "b"), list(sampled[i]))] if sampled else []
        tables = Tables(
            tmp_path / policy, [example(str(i), "existence", target=t) for i, t in enumerate(targets)], asked
        )
        tables.rewards()
        return compare_controls.Scored(policy, {"b": tables["rewards"]})

    compare_controls.run(
        policy=scored("ours", ["yes", "yes", "no", "yes"]),
        base=scored("base", ["no", "no", "no", "no"], [["yes", "no"], ["yes", "no"], ["no", "no"], ["no", "no"]]),
        twin=None, benchmarks={"b": BenchmarkBlock(dataset="mine", reward="r", n=2, resamples=9)},
        reward_tasks={"r": {"existence": "yes_no"}}, examples={}, controls=tmp_path / "controls.parquet",
    )  # fmt: skip
    rows = {r["control"]: r for r in read_table(tmp_path / "controls.parquet", CONTROLS).to_pylist()}
    assert (rows["prompt"]["metric"], rows["prompt"]["value"], rows["prompt"]["control_value"]) == ("f1", 0.8, 0.0)
    mean = rows["mean_of_n"]
    assert (mean["metric"], mean["value"], mean["control_value"], mean["gain"]) == ("accuracy", 0.75, 0.75, 0.25)
