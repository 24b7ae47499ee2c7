"""User plug-ins in a folder of their own are found, checked, run and tracked."""

import ast
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from perceptune.contracts import plugins
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_lineage, read_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.contracts.tables.training import TRAINING
from perceptune.planning import policies as planning

from tests.user_plugins import BENCHMARK, CONFIG, FILES, REWARD, write_plugins, written
from tests.workflow.inline import run_jobs


def one_by_one(text: str, truth: list[float], size: list[int]) -> float | None:
    """GIoU of an answer in LLaVA's padded frame by the definition, with plain numbers; None without a box."""
    match = re.search(r"\[([^\]]*)\]", text)
    try:
        x1, y1, x2, y2 = (float(number) for number in match[1].split(",")) if match else (0.0,) * 4
    except ValueError:
        return None
    side = max(size)
    left, top = ((side - length) // 2 for length in size)
    x1, y1, x2, y2 = x1 * side - left, y1 * side - top, x2 * side - left, y2 * side - top
    if x2 <= x1 or y2 <= y1:
        return None
    a1, b1, a2, b2 = truth
    shared = max(0.0, min(x2, a2) - max(x1, a1)) * max(0.0, min(y2, b2) - max(y1, b1))
    union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - shared
    around = (max(x2, a2) - min(x1, a1)) * (max(y2, b2) - min(y1, b1))
    return shared / union - (around - union) / around


def rewards_by_hand(
    folder: Path, policy: str, plan: str, benchmark: str | None
) -> dict[tuple[str, int], tuple[float, str, str]]:
    """(request, sample) to GIoU, example and view, from the answers alone."""
    place = folder / "results"
    examples = {row["example_id"]: row for row in read_table(place / "examples/mine.parquet", EXAMPLES).to_pylist()}
    asked = {
        row["request_id"]: row for row in read_table(place / f"requests/{policy}/{plan}.parquet", REQUESTS).to_pylist()
    }
    found = {}
    for row in read_table(place / f"responses/{policy}/{plan}.parquet", RESPONSES).to_pylist():
        request = asked[row["request_id"]]
        if request["benchmark"] != benchmark:
            continue
        example = examples[request["example_id"]]
        giou = one_by_one(row["text"], example["box"], example["image_sizes"][0])
        key = row["request_id"], row["sample_index"]
        found[key] = (-1.0 if giou is None else giou, example["example_id"], request["view"])
    return found


def rules_of(jobs: set[tuple[str, str]], whose: str) -> set[str]:
    return {rule for rule, of in jobs if of.split(" ")[0] == whose}


@pytest.mark.slow
def test_user_plugins_run_from_the_data_to_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plugins.ENVIRONMENT, "")
    workflow = written(tmp_path)
    assert {"import_examples", "score_responses", "train_adapter", "evaluate_policy"} <= workflow.planned()
    run_jobs(tmp_path)
    workflow.run("--touch", "--forceall")
    results = tmp_path / "results"
    for policy, plan, reward, benchmark in (
        ("tiny", "mine/n6", "overlap", None),
        ("tiny", "benchmarks", "my_boxes", "mine"),
        ("taught", "benchmarks", "my_boxes", "mine"),
        ("taught", "benchmarks", "overlap", "plain"),
    ):
        by_hand = rewards_by_hand(tmp_path, policy, plan, benchmark)
        rows = read_table(results / f"rewards/{policy}/{plan}/{reward}.parquet", REWARDS).to_pylist()
        assert {(row["request_id"], row["sample_index"]) for row in rows} == by_hand.keys()
        for row in rows:
            giou = by_hand[row["request_id"], row["sample_index"]][0]
            components = {one["name"]: one["value"] for one in row["components"]}
            assert components == {"giou": pytest.approx(giou, abs=1e-6)}
            assert row["reward"] == pytest.approx((giou + 1) / 2, abs=1e-6)
        assert len({giou for giou, *_ in by_hand.values()}) > 3
    measured = read_table(results / "metrics/taught.parquet", METRICS).to_pylist()
    for view in ("original", "striped"):
        mine, base = (
            [
                giou
                for giou, _, shown in rewards_by_hand(tmp_path, policy, "benchmarks", "mine").values()
                if shown == view
            ]
            for policy in ("taught", "tiny")
        )
        (row,) = (r for r in measured if (r["benchmark"], r["metric"], r["view"]) == ("mine", "mean_giou", view))
        assert len(mine) == row["n"] == 4
        assert row["value"] == pytest.approx(math.fsum(mine) / 4, abs=1e-6)
        assert row["gain"] == pytest.approx(math.fsum(mine) / 4 - math.fsum(base) / 4, abs=1e-6)
    plain = [r["condition"] for r in measured if (r["benchmark"], r["metric"]) == ("plain", "mean_giou")]
    assert {"greedy", "mean_of_n"} <= set(plain)  # the reward's own metric, of single answers, too
    log = read_table(results / "training/taught.parquet", TRAINING).to_pylist()
    gaps = [row["value"] for row in log if row["metric"] == "image_gap"]
    assert gaps[0] == pytest.approx(0, abs=1e-3)
    assert read_lineage(results / "training/taught.parquet")["parameters"]["views"].keys() == {"striped"}
    assert (results / "report.html").exists()
    assert workflow.planned() == set()

    reward = tmp_path / "my_plugins/rewards/giou.py"
    reward.write_text(reward.read_text().replace('"""Reward: ', '"""A reward: ') + "# a remark\n")
    assert workflow.planned() == set()  # only its docstring and comments changed
    later = {"score_responses", "select_preferences", "compute_logprobs", "train_adapter", "evaluate_policy"}
    again = {"sample_responses", "gather_responses"}
    for edited in (reward, reward.with_name("_corners.py")):
        before = edited.read_text()
        edited.write_text(before + "EDITED = 1\n")
        jobs = workflow.jobs()
        edited.write_text(before)
        assert rules_of(jobs, "tiny") - {"evaluate_policy"} == {
            "score_responses",
            "select_preferences",
            "compute_logprobs",
        }
        assert {rule for rule, _ in jobs} - {"collect_metrics", "write_report"} == later | again
        assert {of for rule, of in jobs if rule in again} == {"taught benchmarks"}
    view = tmp_path / "my_plugins/views/stripes.py"
    view.write_text(view.read_text().replace("width - 1", "width"))
    jobs = workflow.jobs()
    assert not any(rule in ("import_examples", "select_preferences") for rule, _ in jobs)
    assert {"compute_logprobs", "train_adapter", "sample_responses"} <= {rule for rule, _ in jobs}


INCOMPLETE = {
    "reward without function": ("rewards/giou.py", "    score=giou,\n", "", "giou", "TypeError"),
    "reward of another name": ("rewards/giou.py", 'name="giou"', 'name="iou2"', "giou", "is named `iou2`, expected the stem of its file"),
    "reward with an unknown component": ("rewards/giou.py", 'mean("giou")', 'mean("overlap")', "giou", "reads unknown component 'overlap'"),
    "file with a slip": ("rewards/giou.py", "def giou(", "def giou(:", "giou", "SyntaxError"),
    "method without loss": ("methods/two_images.py", "def loss(", "def losses(", "two_images", "abstract"),
    "method without name": ("methods/two_images.py", 'name = "two_images"', "", "two_images", "the method does not define `name`"),
    "method without parameters": ("methods/two_images.py", "Parameters = TwoImagesParameters", "", "two_images", "the method does not define `Parameters`"),
    "method that is a class": ("methods/two_images.py", "METHOD = TwoImages()", "METHOD = TwoImages", "two_images", "`METHOD` is the class `TwoImages`, expected an object, `TwoImages()`"),
    "method with a slip in what it stores": ("methods/two_images.py", 'Stored("reference", parameters.spoilt)', 'Stored("reference", parameters.spoild)', "two_images", "in `stored`: AttributeError: 'TwoImagesParameters' object has no attribute 'spoild'"),
    "view without pixels": ("views/stripes.py", "def apply(", "def shown(", "stripes", "abstract"),
    "view without name": ("views/stripes.py", 'name = "stripes"', "", "stripes", "the view does not define `name`"),
    "view without masks": ("views/stripes.py", '    name = "stripes"\n', '    name = "stripes"\n    needs_saliency = True\n', "stripes", "`Stripes` has `needs_saliency = True` and must define `settled`"),
    "importer without rows": ("benchmarks/my_boxes.py", '"my_boxes", each(row), ', '"my_boxes", ', "my_boxes", "TypeError"),
    "benchmark without metrics": ("benchmarks/my_boxes.py", "    metrics=", "    measures=", "my_boxes", "key `benchmarks.mine.protocol`: benchmark `my_boxes` cannot be loaded"),
    "benchmark that quotes an unknown metric": ("benchmarks/my_boxes.py", "    settings=", "    quoted=('giou',), settings=", "my_boxes", "`quoted` has unknown `giou`, expected one of `mean_giou`, `near`"),
    "benchmark without a comma": ("benchmarks/my_boxes.py", 'components={"grounding": ("giou",)}', "components={'grounding': ('giou')}", "my_boxes", "`components` has text for a task, expected a tuple: `('giou',)`"),
    "benchmark of an unknown task": ("benchmarks/my_boxes.py", 'components={"grounding": ', 'components={"ground": ', "my_boxes", "`components` has unknown `ground`, expected one of `grounding`"),
    "benchmark with a function as metric": ("benchmarks/my_boxes.py", 'Measured(known_share("near", "asked"), "positive GIoU", needs="questions")', 'known_share("near", "asked")', "my_boxes", "metric `near` is a `function`, expected a `Measured`"),
    "no reward at all": ("rewards/giou.py", "REWARD = ", "MINE = ", "giou", "does not define `REWARD`; start the names of helper files with `_`"),
}  # fmt: skip
"""Case: file, text to replace, its replacement, name of the plug-in, and expected message."""


def broken(folder: Path, case: str, suffix: str) -> dict[str, Any]:
    """Plug-ins, one of them incomplete, and a config that uses them."""
    return changed(folder, *INCOMPLETE[case][:3], suffix)


def changed(folder: Path, file: str, old: str, new: str, suffix: str) -> dict[str, Any]:
    """Plug-ins, one of them changed, and a config that uses them. `suffix` keeps their names distinct within
    this process."""
    assert FILES[file].count(old) == 1
    texts = {**FILES, file: FILES[file].replace(old, new)}
    names = [Path(known).stem for known in FILES if not Path(known).stem.startswith("_")]

    def renamed(text: str) -> str:
        return re.sub(rf'(?<=["/])({"|".join(names)})(?=["/.])', rf"\1{suffix}", text)

    write_plugins(folder, {renamed(place): renamed(text) for place, text in texts.items()})
    return dict(json.loads(renamed(json.dumps(CONFIG))))


@pytest.mark.parametrize("case", INCOMPLETE)
def test_an_incomplete_declaration_is_one_line_before_anything_runs(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(plugins.ENVIRONMENT, "")
    monkeypatch.chdir(tmp_path)
    file, *_, name, expected = INCOMPLETE[case]
    suffix = f"_{[*INCOMPLETE].index(case)}"
    with pytest.raises(UserError) as caught:
        planning.load(broken(tmp_path, case, suffix))
    (line,) = [
        line
        for line in str(caught.value).splitlines()
        if line.strip() not in ("error: config", "error: config key `plugins`")
    ]
    assert expected.replace(name, f"{name}{suffix}") in line
    assert file.replace(name, f"{name}{suffix}") in line


@pytest.mark.slow
@pytest.mark.parametrize("case", ["method without loss", "importer without rows", "no reward at all"])
def test_snakemake_reports_an_incomplete_declaration_without_a_traceback(case: str, tmp_path: Path) -> None:
    workflow = written(tmp_path)
    config = broken(tmp_path, case, "")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    done = workflow.run("--dry-run", check=False)
    assert done.returncode != 0
    assert INCOMPLETE[case][-1] in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("nowhere", r"`.*/nowhere` is not a directory; paths are relative to the working directory"),
        ("odd", r"`.*/odd/reward` is not a kind of plug-in, expected one of .*`rewards`"),
        ("taken", r"`.*/taken/rewards/iou\.py`: a built-in plug-in is already named `iou`, expected another name"),
        ("loose", r"`.*/loose/mine\.py` defines `REWARD`, expected it in the sub-folder `rewards`"),
        ("latin", r"`.*/latin/rewards/mine\.py` is not UTF-8 text: invalid continuation byte at byte 4"),
        ("beside", r"`.*/beside/benchmarks/iou\.py`: a built-in plug-in is already named `iou`, expected another name"),
        (
            "dashed",
            r"`.*/dashed/rewards/my-iou\.py`: expected a name of letters, digits and `_` that starts with a letter",
        ),
    ],
)
def test_an_invalid_folder_is_one_line(
    folder: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(plugins.ENVIRONMENT, "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd/reward").mkdir(parents=True)
    (tmp_path / "taken/rewards").mkdir(parents=True)
    (tmp_path / "dashed/rewards").mkdir(parents=True)
    for name in ("loose", "latin/rewards", "beside/benchmarks"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "loose/mine.py").write_text(REWARD)
    (tmp_path / "loose/notes.py").write_text("VIEW = 30, 45\n")
    (tmp_path / "latin/rewards/mine.py").write_bytes(REWARD.replace("Generalised", "Généralised").encode("latin-1"))
    (tmp_path / "beside/benchmarks/iou.py").write_text(f"{BENCHMARK}\n\nREWARD = None\n")
    (tmp_path / "taken/rewards/iou.py").write_text(REWARD)
    (tmp_path / "dashed/rewards/my-iou.py").write_text(REWARD)
    with pytest.raises(UserError, match=expected):
        planning.load({**CONFIG, "plugins": [folder]})


def test_a_name_in_two_folders_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one of them would be loaded."""
    monkeypatch.setenv(plugins.ENVIRONMENT, "")
    monkeypatch.chdir(tmp_path)
    for folder in ("one", "two"):
        (tmp_path / folder / "rewards").mkdir(parents=True)
        (tmp_path / folder / "rewards/mine.py").write_text(REWARD)
    (tmp_path / "two/rewards/__init__.py").touch()
    twice = r"`.*/two/rewards/mine\.py`: `.*/one/rewards/mine\.py` has the same name, expected another one"
    with pytest.raises(UserError, match=twice):
        plugins.use_folders(["one", "two"])
    plugins.use_folders(["one", "one"])


@pytest.mark.parametrize("given", ["my_plugins", 3, [3]])
def test_the_key_takes_a_list_of_folders(given: object) -> None:
    with pytest.raises(UserError, match=r"key `plugins`: expected a list of folders, got `"):
        planning.load({**CONFIG, "plugins": given})


def test_child_processes_know_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script of a job and its workers run in child processes, however they are started."""
    monkeypatch.setenv(plugins.ENVIRONMENT, "")
    monkeypatch.chdir(tmp_path)
    write_plugins(tmp_path, FILES)
    plugins.use_folders(["my_plugins"])
    code = (
        "import multiprocessing as m\n"
        "from perceptune.contracts.plugins import load\n"
        "if __name__ == '__main__':\n"
        "    with m.get_context('spawn').Pool(1) as pool:\n"
        "        print(load('reward', 'giou').name, pool.apply(load, ('view', 'stripes')).name)\n"
    )
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["giou", "stripes"]


def test_the_plugins_here_are_written_as_one_would() -> None:
    """None of them imports from stages."""
    for name, text in FILES.items():
        imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
        modules = {str(node.module) for node in imports}
        assert not any(module.startswith("perceptune.stages") for module in modules), name


def test_an_error_in_a_helper_file_names_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plugins.ENVIRONMENT, "")
    monkeypatch.chdir(tmp_path)
    helper = FILES["rewards/_corners.py"].replace("numpy", "numpie")
    config = changed(tmp_path, "rewards/giou.py", "_corners", "_broken_corners", "_helped")
    write_plugins(tmp_path, {"rewards/_broken_corners.py": helper})
    with pytest.raises(UserError, match=r"cannot be loaded from `.*/_broken_corners\.py`, line 3: ModuleNotFoundError"):
        planning.load(config)


def test_a_component_that_no_reward_returns_is_found_in_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluation would find it only after all answers are sampled."""
    monkeypatch.setenv(plugins.ENVIRONMENT, "")
    monkeypatch.chdir(tmp_path)
    file, old = "benchmarks/my_boxes.py", 'components={"grounding": ("giou",)}'
    config = changed(tmp_path, file, old, old.replace('("giou', '("iou'), "_unmet")
    said = r"key `benchmarks\.mine`: protocol `my_boxes\w+` needs component `iou` for task `grounding`, but reward `giou\w+` returns `giou\w+`"
    with pytest.raises(UserError, match=said):
        planning.load(config)
