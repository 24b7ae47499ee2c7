"""A reward from a user's plug-in folder, from its file to the report."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from perceptune.contracts.config import BenchmarkBlock, ReportBlock, RewardBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import ENVIRONMENT, file_of, use_folders
from perceptune.contracts.provenance.code import code_digest
from perceptune.contracts.tables.controls import CONTROLS
from perceptune.contracts.tables.io import read_lineage, read_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.planning import policies as planning
from perceptune.planning.benchmarks import reward_modules
from perceptune.planning.rules import job_of
from perceptune.report import results, write
from perceptune.stages.evaluation import compare_controls, evaluate

from ..contracts.demo_configs import DEMO
from .scored_tables import MODEL, Tables, example, request

BREVITY = '''
"""Short answers are good."""

import numpy as np

from perceptune.core.rewards.metrics import mean
from perceptune.core.rewards.reward import Reward, RewardMetric, Scores


def score(answers):
    words = np.array([len(text.split()) for text in answers.texts], dtype=float)
    return Scores(1 / np.maximum(words, 1), list(answers.texts), {"words": words}, [None] * len(words))


REWARD = Reward(
    name="brevity",
    summary="1 over the number of words",
    score=score,
    components=("words",),
    metrics={
        "words": RewardMetric(
            mean("words"), "words of an answer", percent=False, lower_is_better=True, component="words"
        ),
        "one_word": RewardMetric(lambda columns: (columns["words"] == 1).mean(axis=-1), "answers of one word"),
    },
)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's plug-in folder, with the reward `brevity`."""
    (tmp_path / "plugins/rewards").mkdir(parents=True)
    (tmp_path / "plugins/rewards/brevity.py").write_text(BREVITY)
    monkeypatch.setenv(ENVIRONMENT, "")
    use_folders([tmp_path / "plugins"])
    _forget()
    yield tmp_path / "plugins"
    _forget()


def _forget() -> None:
    results._declared.cache_clear()
    results._loaded.cache_clear()


def answered(folder: Path, policy: str, greedy: str, sampled: list[str]) -> Tables:
    """Scored answers to one question, greedy and sampled."""
    (folder / policy).mkdir()
    asked = [(request("q", 1, "b", "greedy"), [greedy]), (request("q", len(sampled), "b"), list(sampled))]
    tables = Tables(folder / policy, [example("q", "ocr", target="x")], asked)  # type: ignore[arg-type]
    scored = tables.rewards(RewardBlock(tasks={"ocr": "brevity"}))
    assert scored["reward"][0] == pytest.approx(1 / len(greedy.split()))
    return tables


def test_from_its_file_to_the_report(tmp_path: Path, folder: Path) -> None:
    base = answered(tmp_path, "base", "a b c d", ["a b", "a b c d e f"])
    ours = answered(tmp_path, "ours", "a", ["a", "a b c"])
    blocks, tasks = {"b": BenchmarkBlock(dataset="mine", reward="r", n=2, resamples=50)}, {"r": {"ocr": "brevity"}}
    evaluate.run(
        policy="ours", base="base", rewards={"b": ours["rewards"]}, base_rewards={"b": base["rewards"]}, attention={},
        base_attention=None, metrics=tmp_path / "metrics.parquet", benchmarks=blocks, reward_tasks=tasks, model=MODEL,
    )  # fmt: skip
    rows = read_table(tmp_path / "metrics.parquet", METRICS).to_pylist()
    found = {(r["condition"], r["k"], r["metric"]): (r["value"], r["base_value"]) for r in rows}
    assert found == {
        ("greedy", 1, "words"): (1.0, 4.0),
        ("greedy", 1, "one_word"): (1.0, 0.0),
        ("mean_of_n", 2, "words"): (2.0, 4.0),
        ("mean_of_n", 2, "words_run_std"): (pytest.approx(2**0.5), None),
        ("best_of_n", 1, "words"): (2.0, 4.0),
        ("best_of_n", 2, "words"): (1.0, 2.0),  # the fewest
    }
    code = code_digest("perceptune.stages.evaluation.evaluate", "perceptune.core.rewards.brevity")
    assert read_lineage(tmp_path / "metrics.parquet")["code"] == code
    compare_controls.run(
        policy=compare_controls.Scored("ours", {"b": ours["rewards"]}), base=compare_controls.Scored("base", {"b": base["rewards"]}), twin=None,
        benchmarks=blocks, reward_tasks=tasks, examples={}, controls=tmp_path / "controls.parquet",
    )  # fmt: skip
    controls = read_table(tmp_path / "controls.parquet", CONTROLS).to_pylist()
    assert {(r["control"], r["k"]): (r["metric"], r["difference"]) for r in controls} == {
        ("prompt", 0): ("words", -3.0),
        ("mean_of_n", 2): ("words", -3.0),
    }
    table = pl.DataFrame(pl.from_arrow(read_table(tmp_path / "metrics.parquet", METRICS)))
    text = write.result_text(table, {})
    assert "words of an answer" in text
    assert "Too few questions to tell: ours (-3.000)." in text.replace("\u2212", "-")
    assert "no intervals are" in text
    write.run(
        metrics=tmp_path / "metrics.parquet", training={}, statistics={}, pairs={}, rounds={}, noise={}, predictions={},
        examples={}, benchmarks=blocks, base={"ours": "base", "base": "base"}, report=tmp_path / "report.html",
        result_table=tmp_path / "result.txt", figures={}, config=ReportBlock(),
    )  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    assert "words of an answer" in page and "answers of one word" in page


def test_without_metrics_of_single_answers_there_is_no_curve(tmp_path: Path, folder: Path) -> None:
    file = folder / "rewards/brevity_of_all.py"
    file.write_text(BREVITY.replace('name="brevity"', 'name="brevity_of_all"').replace(', component="words"', ""))
    (tmp_path / "p").mkdir()
    asked = [(request("q", 1, "b", "greedy"), ["a"]), (request("q", 2, "b"), ["a", "b"])]
    tables = Tables(tmp_path / "p", [example("q", "ocr", target="x")], asked)  # type: ignore[arg-type]
    tables.rewards(RewardBlock(tasks={"ocr": "brevity_of_all"}))
    blocks = {"b": BenchmarkBlock(dataset="mine", reward="r", n=2, resamples=50)}
    policy = compare_controls.Scored("p", {"b": tables["rewards"]})
    compare_controls.run(
        policy=policy, base=policy, twin=None, benchmarks=blocks, reward_tasks={"r": {"ocr": "brevity_of_all"}}, examples={},
        controls=tmp_path / "controls.parquet",
    )  # fmt: skip
    assert {r["control"] for r in read_table(tmp_path / "controls.parquet", CONTROLS).to_pylist()} == {"prompt"}


def test_a_declared_but_missing_component_is_rejected(tmp_path: Path, folder: Path) -> None:
    (folder / "rewards/careless.py").write_text(
        BREVITY.replace('name="brevity"', 'name="careless"').replace('{"words": words}', "{}")
    )
    tables = Tables(tmp_path, [example("q", "ocr", target="x")], [(request("q", 1, "b", "greedy"), ["a"])])
    with pytest.raises(UserError, match="reward `careless` does not return its declared component `words`"):
        tables.rewards(RewardBlock(tasks={"ocr": "careless"}))


SHARED = "return Scores(1 / np.maximum(words, 1), list(answers.texts), {"


@pytest.mark.parametrize(
    ("name", "returned", "said"),
    [
        ("short", "return Scores([1.0], list(answers.texts), {", r"`rewards` has shape \(1,\), expected \(2,\)"),
        ("nested", "return Scores([words], list(answers.texts), {", r"`rewards` has shape \(1, 2\), expected \(2,\)"),
        ("unparsed", "return Scores(words, [None], {", r"`parsed` has shape \(1,\), expected \(2,\)"),
        (
            "scalar",
            "return Scores(words, words, {'words': 3} or {",
            r"`component words` has shape \(\), expected \(2,\)",
        ),
        ("words", "return Scores(['good', 'bad'], words, {", "returns values that are not numbers"),
        ("number", "return 3 or Scores(words, words, {", "returns a `int`, expected `Scores`"),
        (
            "unlisted",
            "return Scores(words, None, {",
            "`parsed` is a `NoneType`, expected a list with a value per answer",
        ),
        (
            "true_reasons",
            "return Scores(words, words, {'words': words}, [True] * len(words)) or ({",
            "a reason is True, expected text or None",
        ),
        (
            "numpy_parsed",
            "return Scores(words, [{'n': np.int64(3)}] * len(words), {",
            "`parsed` cannot be stored as JSON: Object of type int64 is not JSON serializable",
        ),
        ("low", "return Scores(-words, words, {", "is -1 for the answer 'a', expected a number from 0 to 1"),
    ],
)
def test_what_a_reward_returns_is_checked(tmp_path: Path, folder: Path, name: str, returned: str, said: str) -> None:
    changed = BREVITY.replace('name="brevity"', f'name="{name}"').replace(SHARED, returned)
    (folder / f"rewards/{name}.py").write_text(changed)
    tables = Tables(tmp_path, [example("q", "ocr", target="x")], [(request("q", 2, "b"), ["a", "b"])])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"reward `{name}`:? {said}"):
        tables.rewards(RewardBlock(tasks={"ocr": name}))


@pytest.mark.parametrize(
    ("name", "parsed", "stored"),
    [
        ("dicts", "[{'said': text} for text in answers.texts]", ['{"said":"a"}', None, '{"said":"b c"}']),
        ("structs", "pl.Series([{'said': text} for text in answers.texts])", ['{"said":"a"}', None, '{"said":"b c"}']),
        ("plain", "pl.Series(answers.texts)", ['"a"', None, '"b c"']),
        ("nothing", "[None] * len(words)", [None] * 3),
    ],
)
def test_parsed_answers_are_lists_or_series(
    tmp_path: Path, folder: Path, name: str, parsed: str, stored: list[str | None]
) -> None:
    changed = BREVITY.replace('name="brevity"', f'name="{name}"').replace(
        "import numpy as np", "import numpy as np\nimport polars as pl"
    )
    changed = changed.replace(SHARED, f"return Scores(1 / np.maximum(words, 1), {parsed}, {{")
    (folder / f"rewards/{name}.py").write_text(changed)
    tables = Tables(tmp_path, [example("q", "ocr", target="x")], [(request("q", 3, "b"), ["a", None, "b c"])])
    table = tables.rewards(RewardBlock(tasks={"ocr": name}, max_failed_share=1.0))
    assert table["parsed"].to_list() == stored
    assert table["reward"].to_list() == [1.0, None, 0.5]


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("quoted", "[{'box': text} for text in answers.texts]"),
        ("cornered", "[{'box': {'x': 1}} for text in answers.texts]"),
        ("halved", "[{'box': [1, 2]} for text in answers.texts]"),
        ("mixed", "[{'box': [1, '2', 3, 4]} for text in answers.texts]"),
        ("column", "parsed_columns({'box': list(answers.texts)})"),
    ],
)
def test_what_is_parsed_as_a_box_may_be_anything(tmp_path: Path, folder: Path, name: str, parsed: str) -> None:
    """Only the log compares coordinates of boxes."""
    changed = BREVITY.replace('name="brevity"', f'name="{name}"').replace(
        "RewardMetric, Scores", "RewardMetric, Scores, parsed_columns"
    )
    (folder / f"rewards/{name}.py").write_text(changed.replace(SHARED, f"return Scores(words, {parsed}, {{"))
    asked = [(request("q", 1, "b", "greedy"), ["a"])]
    tables = Tables(tmp_path, [example("q", "grounding", box=[1.0, 2.0, 3.0, 4.0])], asked)  # type: ignore[arg-type]
    assert tables.rewards(RewardBlock(tasks={"grounding": name}))["reward"].to_list() == [1.0]


def test_a_reward_may_be_a_list_with_none(tmp_path: Path, folder: Path) -> None:
    """As trainers whose rewards skip an answer by None."""
    changed = BREVITY.replace('name="brevity"', 'name="skips"').replace(SHARED, "return Scores([1, None], words, {")
    (folder / "rewards/skips.py").write_text(changed)
    tables = Tables(tmp_path, [example("q", "ocr", target="x")], [(request("q", 2, "b"), ["a", "b"])])  # type: ignore[arg-type]
    tables.rewards(RewardBlock(tasks={"ocr": "skips"}))
    rows = pl.read_parquet(tables["rewards"]).select("reward", "reason").rows()
    assert rows == [(1.0, None), (None, "the reward is nan, expected a finite number")]


def test_the_plan_rejects_an_incomplete_reward(folder: Path) -> None:
    def planned(reward: str) -> Any:
        raw = copy.deepcopy(DEMO)
        raw["rewards"]["perception"]["tasks"]["ocr"] = reward
        raw["plugins"] = [str(folder)]
        return planning.load(raw)

    module = "perceptune.core.rewards.brevity"
    plan = planned("brevity")
    assert module in reward_modules(plan, "perception")
    assert module in job_of(plan, "evaluate_policy", {"policy": "tiny"}).modules
    assert file_of(module) == folder / "rewards/brevity.py"
    half = folder / "rewards/half.py"
    half.write_text(BREVITY.replace('name="brevity"', 'name="half"').replace('components=("words",)', "components=()"))
    with pytest.raises(UserError) as caught:
        planned("half")
    assert caught.value.args[0] == (
        f"config\n  key `rewards.perception.tasks.ocr`: reward `half` cannot be loaded from `{half}`, line 15: ValueError: `components` is "
        "empty, expected the names of the components that `score` returns"
    )
