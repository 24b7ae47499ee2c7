"""acc@8 as PAPO's script computes it, and Geometry3K in both variants."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from perceptune.contracts.config import BenchmarkBlock, FileDataset, RewardBlock
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.core.benchmarks.benchmark import Answered
from perceptune.core.benchmarks.bootstrap import run_spread
from perceptune.core.rewards.reward import Answers
from perceptune.planning.protocols import with_protocols
from perceptune.stages.data import import_examples
from perceptune.stages.evaluation import evaluate
from perceptune.stages.preferences import score
from perceptune.stages.sampling import requests

from tests.plugins import BENCHMARKS, PROTOCOLS, REWARDS
from tests.unit.benchmarks.answering import MODEL, through_the_stages, values
from tests.unit.benchmarks.tables import embedded, write_parquet

BOXED = "<think> so </think> \\boxed{%s}"
RUNS = [[1, 1, 1, 0, 1, 1, 0, 1], [0] * 8, [0, 1, 0, 0, 0, 0, 1, 0]]
"""Three problems with eight answers each, right (1) or wrong (0)."""


def scored(reward: str, texts: Sequence[str | None], targets: Sequence[str]) -> list[Answered]:
    present = [i for i, text in enumerate(texts) if text is not None]
    n = len(present)
    scores = REWARDS[reward](
        Answers(
            [str(texts[i]) for i in present],
            [targets[i] for i in present],
            np.full((n, 4), np.nan),
            np.ones((n, 2)),
            "original",
        )
    )
    at = {i: place for place, i in enumerate(present)}
    return [
        Answered(
            f"q{i}", "open", "?", text, targets[i], None,
            {k: float(v[at[i]]) for k, v in scores.components.items()} if i in at else {},
            scores.reasons[at[i]] if i in at else "no answer", {},
        )
        for i, text in enumerate(texts)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("protocol", "reward"), [("geometry3k_papo", "boxed_exact"), ("geometry3k_cppo", "mathvision_vlmevalkit")]
)
def test_acc_at_8_by_hand(protocol: str, reward: str) -> None:
    """Accuracies of .75, 0 and .25 per problem give an acc@8 of 1/3; the spread of the eight runs
    is .178174.
    """
    runs = []
    for run in range(8):
        texts = [BOXED % ("7" if problem[run] else "8") for problem in RUNS]
        runs.append(BENCHMARKS[protocol].columns(scored(reward, texts, ["7"] * 3)))
    columns = {name: np.stack([run[name] for run in runs]) for name in runs[0]}
    per_run = BENCHMARKS[protocol].metrics["accuracy"].metric(columns)
    assert per_run.tolist() == pytest.approx([1 / 3, 2 / 3, 1 / 3, 0, 1 / 3, 1 / 3, 1 / 3, 1 / 3])
    assert per_run.mean() == pytest.approx(1 / 3)
    assert run_spread(per_run[None]) == pytest.approx(0.178174, abs=1e-6)


def test_the_two_protocols_differ_as_published() -> None:
    """CPPO accepts equal numbers and whole texts; PAPO only the box, by MathRuler."""
    texts = [BOXED % "4/2", "2", BOXED % "2", BOXED % "\\frac{1}{2}", "\\boxed{2.5000001}", None]
    targets = ["2", "2", "2", "0.5", "2.5", "2"]
    papo = [a.components.get("accuracy") for a in scored("boxed_exact", texts, targets)]
    cppo = [a.components.get("accuracy") for a in scored("mathvision_vlmevalkit", texts, targets)]
    assert papo == [0, 0, 1, 1, 0, None]
    assert cppo == [1, 1, 1, 1, 1, None]
    assert values("geometry3k_papo", scored("boxed_exact", texts, targets))["accuracy"] == 2 / 6
    assert values("papo_eval", scored("boxed_exact", texts, targets))["format"] == 3 / 6
    assert values("geometry3k_cppo", scored("mathvision_vlmevalkit", texts, targets))["accuracy"] == 5 / 6
    assert all(np.isnan(v) for v in values("papo_eval", []).values())


def test_settings_are_those_of_the_papers_configs() -> None:
    blocks = with_protocols(
        {"benchmarks": {p: {"dataset": "d", "protocol": "geometry3k", "variant": p} for p in ("papo", "cppo")}}
    )["benchmarks"]
    shared = {"n": 8, "temperature": 1.0, "top_p": 1.0, "max_tokens": 2048}
    for name, top_k in (("papo", 50), ("cppo", 0)):
        assert {**shared, "top_k": top_k}.items() <= blocks[name].items()
        assert blocks[name]["reward"] == f"geometry3k_{name}"
        config = (Path(__file__).parents[3] / "config" / "papers" / f"{name}.yaml").read_text()
        assert blocks[name]["prompt"] in " ".join(config.split())


def test_published_file_through_all_stages(tmp_path: Path) -> None:
    rows = [{"images": [embedded(i)], "problem": f"<image>Find x, {i}.", "answer": str(i)} for i in range(3)]
    path = write_parquet(tmp_path / "test-00000-of-00001.parquet", rows)
    data = FileDataset(kind="geometry3k", path=str(path))
    texts = {f"row-{i + 1}": BOXED % 0 for i in range(3)}
    table = through_the_stages(tmp_path, "geometry3k_papo", data, texts)
    assert dict(table.select("metric", "value").iter_rows()) == {"accuracy": 1 / 3, "format": 1}


def test_eight_answers_through_all_stages(tmp_path: Path) -> None:
    """acc@8 is `accuracy` under `mean_of_n`, with the runs' spread, and best of 8 is 2/3."""
    rows = [{"images": [embedded(i)], "problem": f"<image>Find x, {i}.", "answer": "7"} for i in range(3)]
    path = write_parquet(tmp_path / "test-00000-of-00001.parquet", rows)
    tables = {
        name: tmp_path / f"{name}.parquet" for name in ("examples", "requests", "responses", "rewards", "metrics")
    }
    import_examples.run(config=FileDataset(kind="geometry3k", path=str(path)), examples=tables["examples"])
    protocol = BENCHMARKS["geometry3k_papo"]
    keys = {"dataset": "d", "reward": "r", **PROTOCOLS["geometry3k_papo"], "views": ("original",), "resamples": 50}
    block = BenchmarkBlock(**{**protocol.settings, **keys})
    requests.run_benchmarks(
        examples={"d": tables["examples"]}, requests=tables["requests"], benchmarks={"b": block}, views={}
    )
    responses = [
        {
            **{k: request[k] for k in ("request_id", "example_id", "view")}, "sample_index": run, "token_ids": [1], "logprobs": [-1.0],
            "text": BOXED % ("7" if RUNS[int(request["example_id"][-1]) - 1][run] else "8"), "finish_reason": "stop",
            "prompt_tokens": 1, "reason": None,
        }
        for request in read_table(tables["requests"], REQUESTS).to_pylist()
        for run in range(request["n"])
    ]  # fmt: skip
    write_table(tables["responses"], RESPONSES, responses, {})
    score.run(
        requests=tables["requests"], responses=tables["responses"], examples={"d": tables["examples"]}, rewards=tables["rewards"],
        config=RewardBlock(tasks=dict(protocol.rewards)), model=MODEL,
    )  # fmt: skip
    evaluate.run(
        policy="base", base="base", rewards={"b": tables["rewards"]}, base_rewards=None, attention={}, base_attention=None,
        metrics=tables["metrics"], benchmarks={"b": block}, reward_tasks={"r": dict(protocol.rewards)}, model=MODEL,
        examples={"d": tables["examples"]},
    )  # fmt: skip
    found = {(r["condition"], r["k"], r["metric"]): r for r in read_table(tables["metrics"], METRICS).to_pylist()}
    mean = found["mean_of_n", 8, "accuracy"]
    assert (mean["value"], mean["n"]) == (pytest.approx(1 / 3), 24)
    assert mean["ci_low"] < 1 / 3 < mean["ci_high"]
    assert found["mean_of_n", 8, "accuracy_run_std"]["value"] == pytest.approx(0.178174, abs=1e-6)
    assert found["best_of_n", 8, "accuracy"]["value"] == pytest.approx(2 / 3)
    assert found["greedy", 1, "accuracy"]["value"] == pytest.approx(1 / 3)
