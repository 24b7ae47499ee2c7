"""An edit of the code reruns exactly what uses it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from perceptune.contracts import plugins
from perceptune.contracts.provenance import code
from perceptune.planning.graph import reruns

from .conftest import ROOT, Workflow, difference, named
from .edits import CROP, IMPORT, MASKED, NOTHING, SCORE
from .needs import Job, every, rerun

pytestmark = pytest.mark.slow

ANSWERS = every("sample_responses")
NOISY: set[Job] = {
    ("sample_responses", "tiny shapes/self-made"), ("make_pairs", "self-made"), ("compute_logprobs", "self-made noise"), ("train_adapter", "p2dpo"),
}  # fmt: skip
IMAGES = IMPORT | ANSWERS | {("import_examples", "shapes")} | every(
    "make_pairs", "compute_clip_scores", "compute_saliency_maps", "compute_attention_maps", "compute_logprobs", "train_adapter", "train_round",
)  # fmt: skip
FUTURE = "from __future__ import annotations"
REALLY = (2, 4, 13)
"""Indices in `CODE` of edits that are also tried with Snakemake."""
CODE: list[tuple[str, str, str, set[Job]]] = [
    # file under workflow/, old text, new text, jobs that rerun first
    ("perceptune/core/methods/perpo.py", "from __future__", "# a comment\nfrom __future__", NOTHING),
    ("perceptune/core/methods/perpo.py", '"""', '"""Another docstring. ', NOTHING),
    ("perceptune/core/methods/perpo.py", "(weights * softplus(", "(2 * weights * softplus(", {("train_adapter", "perpo")}),
    ("perceptune/core/methods/method.py", FUTURE, f"{FUTURE}\nVALUE = 1", every("train_adapter", "train_round", "compute_logprobs")),
    # edits that used to cause unnecessary reruns
    ("perceptune/contracts/tables/metrics.py", '    ("judge", pa.string(), NULL)', '    ("added", pa.string(), NULL),\n    ("judge", pa.string(), NULL)', every("evaluate_policy", "collect_metrics", "write_report")),
    ("perceptune/contracts/errors.py", "did you mean", "do you mean", NOTHING),
    ("perceptune/contracts/tables/io.py", "delete the file and rerun", "remove the file and rerun", NOTHING),
    ("perceptune/contracts/plugins.py", '    "view": _kind(', '    "another": _kind("others", "perceptune.core.others", "OTHER", "Other"),\n    "view": _kind(', NOTHING),
    ("perceptune/models/families/another.py", "", "from perceptune.models.families.llava import Llava\n\nFAMILY = Llava()\n", NOTHING),
    ("perceptune/core/rewards/another.py", "", "from perceptune.core.rewards.iou import REWARD\n", NOTHING),
    ("perceptune/stages/sampling/recipes.py", "its attention block must cover", "the attention block must cover", NOTHING),
    ("perceptune/core/data/images.py", "from pathlib", "VALUE = 1\nfrom pathlib", IMAGES),
    ("perceptune/core/rewards/iou.py", "import numpy", "VALUE = 1\nimport numpy", SCORE),
    ("perceptune/core/rewards/yes_no.py", FUTURE, f"{FUTURE}\nVALUE = 1", SCORE),
    ("perceptune/core/views/blank.py", "GREY = (127", "GREY = (126", {job for job in ANSWERS if "benchmarks" in job[1]}),
    ("perceptune/models/families/qwen2_5_vl.py", FUTURE, f"{FUTURE}\nVALUE = 1", NOTHING),
    ("perceptune/models/families/llava.py", FUTURE, f"{FUTURE}\nVALUE = 1", ANSWERS | every("use_dataset_preferences", "compute_logprobs", "train_adapter", "train_round", "compute_attention_maps")),
    ("perceptune/core/benchmarks/bootstrap.py", "import numpy", "VALUE = 1\nimport numpy", every("evaluate_policy")),
    ("perceptune/core/views/adaptive_crop.py", "RATIOS = ", "MORE = 1\nRATIOS = ", CROP),
    ("perceptune/core/views/contrastive_decoding.py", "amax(", "max(", ANSWERS),
    ("perceptune/core/methods/p2dpo.py", "(gain - threshold)", "2 * (gain - threshold)", {("train_adapter", "p2dpo")}),
    ("perceptune/core/views/noise.py", "STEPS = 1000", "STEPS = 1001", NOISY),
    ("perceptune/runtime/journal.py", "import polars", "VALUE = 1\nimport polars", ANSWERS),
    ("perceptune/engines/training/trainer.py", "import torch\n", "import torch\nVALUE = 1\n", every("train_adapter", "train_round")),
    ("perceptune/engines/training/rollout_trainer.py", "import torch\n", "import torch\nVALUE = 1\n", every("train_round")),
    ("perceptune/core/methods/grpo.py", "import math", "import math\nVALUE = 1", every("train_round")),
    ("perceptune/core/methods/papo_g.py", "import math", "import math\nVALUE = 1", {("train_round", "papo@1")}),
    ("perceptune/core/views/masked.py", "from typing", "VALUE = 1\nfrom typing", MASKED),
    ("perceptune/core/views/semantic.py", "from typing", "VALUE = 1\nfrom typing", MASKED),
    ("perceptune/core/preferences/rollout_groups.py", "import polars", "VALUE = 1\nimport polars", every("select_batch")),
]  # fmt: skip


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's code, like a fresh checkout: every file has a new date."""
    target = tmp_path_factory.mktemp("checkout")
    for name in ("workflow", "profiles", "config"):
        shutil.copytree(ROOT / name, target / name, copy_function=shutil.copyfile)
    shutil.copyfile(ROOT / "Snakefile", target / "Snakefile")
    return target


def test_another_checkout_reruns_nothing(finished: Workflow, copied: Path) -> None:
    assert finished.jobs(root=copied) == NOTHING


@contextmanager
def changed(copied: Path, file: str, old: str, new: str) -> Iterator[None]:
    """The copy with a text replaced in one file, or with a new file if `old` is empty."""
    path = copied / "workflow" / file
    before = path.read_text() if old else None
    assert before is None or old in before
    path.write_text(new if before is None else before.replace(old, new, 1))
    try:
        yield
    finally:
        path.unlink() if before is None else path.write_text(before)


def _forget() -> None:
    for function in (code.code_digests, code._read, code._remembered):
        function.cache_clear()


@pytest.fixture
def in_copy(finished: Workflow, copied: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute digests from the copied files."""
    monkeypatch.chdir(finished.folder)
    monkeypatch.setattr(plugins, "ROOT", copied / "workflow/perceptune")
    _forget()
    yield
    _forget()


@pytest.mark.parametrize(("file", "old", "new", "roots"), CODE)
def test_edited_code_reruns_what_uses_it(
    finished: Workflow, copied: Path, in_copy: None, file: str, old: str, new: str, roots: set[Job]
) -> None:
    before = finished.graph()
    with changed(copied, file, old, new):
        _forget()
        assert difference(named(reruns(before, finished.graph())), rerun(roots)) == ""


@pytest.mark.parametrize(("file", "old", "new", "roots"), [CODE[number] for number in REALLY])
def test_snakemake_reruns_edited_code_as_the_graph_says(
    finished: Workflow, copied: Path, file: str, old: str, new: str, roots: set[Job]
) -> None:
    with changed(copied, file, old, new):
        assert difference(finished.jobs(root=copied), rerun(roots)) == ""


def test_a_comment_in_a_rules_file_reruns_nothing(finished: Workflow, copied: Path) -> None:
    with changed(copied, "rules/training.smk", "rule train_adapter", "# a comment\n\n\nrule train_adapter"):
        assert finished.jobs(root=copied) == NOTHING


def test_the_dry_run_says_which_edit_reruns_a_stage(finished: Workflow, copied: Path) -> None:
    with changed(copied, "perceptune/core/methods/perpo.py", "(weights * softplus(", "(3 * weights * softplus("):
        lines = finished.run("--dry-run", root=copied).stdout.splitlines()
    reason = next(number for number, line in enumerate(lines) if "Params have changed" in line)
    assert lines[reason].endswith("Params have changed since last execution:")
    assert lines[reason + 1] == "        code changed: perceptune.core.methods.perpo"
    assert lines[reason + 2].startswith("    wildcards: ")
