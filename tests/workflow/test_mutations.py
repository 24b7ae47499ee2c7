"""An edit of any config key, the weights, an image or the code reruns exactly what depends on it.
See mutations.py.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from perceptune.contracts import plugins
from perceptune.contracts.config import Config
from perceptune.contracts.provenance import code
from perceptune.planning.graph import reruns
from pydantic import BaseModel

from . import mutations
from .conftest import INSTALLED, ROOT, Workflow, named
from .mutations import BASE, EDITS, GRPO, NEEDS, NOTHING, ROUND, Job, rerun

pytestmark = pytest.mark.slow


def _tested(policy: str) -> set[Job]:
    """The jobs that one more evaluated policy adds."""
    answers = {(rule, f"{policy} benchmarks") for rule in ("sample_responses", "gather_responses", "score_responses")}
    one_each = {(rule, policy) for rule in ("plan_benchmarks", "evaluate_policy")}
    return answers | one_each | {("collect_metrics", ""), ("write_report", "")}


def _on_other(job: Job) -> Job:
    return job[0], job[1].replace("shapes/g4", "shapes/later")


FIRST_ROUND: set[Job] = {
    ("plan_round", BASE), ("select_batch", BASE), ("compute_logprobs", f"{BASE} {GRPO}"),
    *((rule, f"{BASE} shapes/g4") for rule in ("sample_responses", "gather_responses", "score_responses")),
}  # fmt: skip
ROUND_3: set[Job] = {
    ("plan_round", "grpo@2"), ("select_batch", "grpo@2"), ("compute_logprobs", f"grpo@2 {GRPO}"), ("train_round", "grpo@3"),
    *((rule, "grpo@2 shapes/g4") for rule in ("sample_responses", "gather_responses", "score_responses")),
    *_tested("grpo@3"),
}  # fmt: skip
"""The jobs that a third round adds; none of the first two rounds reruns."""

TWIN, OF_GIVEN = "sft-on-best-n20-ranked", "sft-on-best-taken"
TWINS: set[Job] = {("compute_attention_maps", f"{TWIN} shapes test"), *_tested(TWIN), *_tested(OF_GIVEN)} | {
    (rule, twin) for rule in ("train_adapter", "compare_controls") for twin in (TWIN, OF_GIVEN)
}
CONTROLLED = rerun(mutations.ASKED | mutations.REPORT) | {
    ("compare_controls", policy) for policy in (*mutations.EXPERIMENTS, mutations.GIVEN, *mutations.ROUNDS)
}
"""The jobs that the `controls` switch adds beyond the SFT counterparts: every policy answers more
questions and is compared with the controls.
"""

DIAGNOSED = {
    ("measure_gradients", experiment) for experiment in (*mutations.EXPERIMENTS, mutations.GIVEN)
} | mutations.REPORT
"""The jobs that the `diagnostics` section adds: all experiments but those with rounds."""

OF_EXPERIMENT: list[tuple[str, Any, set[Job]]] = [
    (
        "experiments.dpo.model",
        "other",
        rerun({("train_adapter", "dpo")})
        | {(rule, f"other {plan}") for plan in ("shapes/n20", "benchmarks") for rule in ("sample_responses", "gather_responses", "score_responses")}
        | {(rule, "other") for rule in ("plan_samples", "select_preferences", "compute_logprobs", "plan_benchmarks", "evaluate_policy")}
        | {("compute_attention_maps", "other shapes test")},
    ),
    (
        "experiments.dpo.dataset",
        "own",
        rerun({("train_adapter", "dpo")})
        | {("find_leakage", "own n20")}
        | {(rule, "tiny own/n20") for rule in ("sample_responses", "gather_responses", "score_responses")}
        | {(rule, BASE) for rule in ("plan_samples", "select_preferences", "compute_logprobs")},
    ),
    (
        "experiments.dpo.sampling",
        "other",
        rerun({("train_adapter", "dpo")})
        | {("find_leakage", "shapes other")}
        | {(rule, "tiny shapes/other") for rule in ("sample_responses", "gather_responses", "score_responses")}
        | {(rule, BASE) for rule in ("plan_samples", "select_preferences", "compute_logprobs")},
    ),
    (
        "experiments.dpo.reward",
        "other",
        rerun({("train_adapter", "dpo")})
        | {("score_responses", "tiny shapes/n20 other")}
        | {(rule, BASE) for rule in ("select_preferences", "compute_logprobs")},
    ),
    (
        "experiments.dpo.selection",
        "other",
        rerun({("train_adapter", "dpo")}) | {(rule, BASE) for rule in ("select_preferences", "compute_logprobs")},
    ),
    ("experiments.p2dpo.pair_generation", "another", rerun({("train_adapter", "p2dpo")}) | {("find_leakage", "shapes another")} | {(rule, "another") for rule in ("plan_pairs", "make_pairs")} | {("filter_pairs", "central")} | {(rule, "tiny shapes/another") for rule in ("sample_responses", "gather_responses")} | {("compute_logprobs", f"another {view}") for view in ("original", "enhanced", "degraded", "noise")}),
    ("experiments.given.dataset_preference", "others", rerun({("train_adapter", "given")}) | {("find_leakage", "own others"), ("use_dataset_preferences", BASE), ("compute_logprobs", "others original")}),
    ("experiments.p2dpo.filter", "other", rerun({("train_adapter", "p2dpo")}) | {("filter_pairs", "other")}),
    ("rollouts.g4.view trainings.grpo.view trainings.papo.view", "clean", {job for job in rerun(mutations.ASK_ROUND) if job[0] != "compute_logprobs"} | mutations.CLEAN),
    ("experiments.grpo.rounds", 3, ROUND_3),
    ("experiments.grpo.evaluate_every", 1, _tested("grpo@1")),
    ("experiments.grpo.rollout", "later", {("find_leakage", "shapes later")} | {_on_other(job) for job in rerun(ROUND)} | {_on_other(job) for job in FIRST_ROUND}),
    ("experiments.grpo.batch_selection", "other", rerun(ROUND) | {job for job in FIRST_ROUND if job[0] in ("select_batch", "compute_logprobs")}),
    ("experiments.dpo.training", "perpo", rerun({("train_adapter", "dpo")})),
    ("trainings.dpo.epochs trainings.dpo.keep_epochs", (2, True), rerun({("train_adapter", "dpo")}) | {("keep_epoch", "dpo@1"), ("compute_attention_maps", "dpo@1 shapes test"), *_tested("dpo@1")}),
    ("controls.prompts", ["Well? {question}"], CONTROLLED | TWINS),
    ("controls.blank", False, CONTROLLED | TWINS),
    ("controls.sigmas", [0.3], CONTROLLED | TWINS),
    ("controls.n", 5, CONTROLLED | TWINS),
    ("controls.sft_on_best", False, CONTROLLED),
    ("diagnostics.groups", 8, DIAGNOSED),
    ("diagnostics.seed", 1, DIAGNOSED),
    ("diagnostics.experiments", ["dpo"], {("measure_gradients", "dpo"), *mutations.REPORT}),
    ("experiments.dpo.benchmarks", ["own-test"], rerun({("plan_benchmarks", "dpo"), ("evaluate_policy", "dpo"), ("write_report", "")})),
]  # fmt: skip


def config_keys() -> Iterator[str]:
    """`section.key` for every possible config key, from the pydantic models."""
    for section, field in Config.model_fields.items():
        for block in _blocks_in(field.annotation):
            for path in _keys_of(block):
                yield f"{section}.{path}"


def _blocks_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [block for inner in get_args(annotation) for block in _blocks_in(inner)]


def _keys_of(block: type[BaseModel]) -> Iterator[str]:
    for name, field in block.model_fields.items():
        inner = _blocks_in(field.annotation)
        if name == "kind":
            continue  # a different kind of dataset is a different block
        if inner:
            yield from (f"{name}.{key}" for key in _keys_of(inner[0]))
        else:
            yield name


def mentioned(edit: str) -> str:
    """`section.key` of an edited key, without the block's name."""
    section, *rest = edit.split(".")
    return ".".join([section, *(rest if section in ("report", "controls", "diagnostics") else rest[1:])])


def test_every_key_of_the_schema_is_edited() -> None:
    edited = {mentioned(key) for keys, *_ in [*EDITS, *OF_EXPERIMENT] for key in keys.split(" ")}
    assert edited - {"datasets.kind"} == set(config_keys())


@pytest.fixture(scope="session")
def chain(finished: Workflow) -> Workflow:
    """The finished chain, with the files that edits refer to."""
    folder = finished.folder
    if not (folder / "same-model").exists():
        shutil.copytree(ROOT / "resources/tiny-llava/model", folder / "same-model")
        shutil.copytree(ROOT / "resources/tiny-clip/model", folder / "same-clip")
        shutil.copytree(folder / "dino", folder / "same-dino")
        for name in ("other.jsonl", "instances.json"):
            shutil.copy(folder / "own/data.jsonl", folder / "own" / name)
    return finished


def difference(found: set[Job], expected: set[Job]) -> str:
    """A description of the differences; empty if there are none."""
    surplus, missing = (sorted(" ".join(job) for job in jobs) for jobs in (found - expected, expected - found))
    return "; ".join(f"{what} {', '.join(jobs)}" for what, jobs in (("needlessly", surplus), ("not", missing)) if jobs)


ALL_EDITS: list[tuple[str, Any, set[Job]]] = [
    *((key, value, rerun(roots)) for key, value, roots in EDITS),
    *OF_EXPERIMENT,
]


def test_every_edited_key_reruns_exactly_what_it_concerns(chain: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain.folder)
    monkeypatch.syspath_prepend(INSTALLED)
    before, wrong = chain.graph(), 0
    for key, value, expected in ALL_EDITS:
        jobs = named(reruns(before, chain.graph(chain.edited(key, value))))
        verdict = difference(jobs, expected)
        wrong += bool(verdict)
        print(f"{key} = {value}: {len(jobs)} of {len(NEEDS)} jobs, {verdict or 'as expected'}")
    print(f"{len(ALL_EDITS)} keys edited, {wrong} wrong")
    assert wrong == 0


@pytest.mark.parametrize("edit", ALL_EDITS[:: len(ALL_EDITS) // 11], ids=lambda edit: edit[0].replace(" ", ","))
def test_snakemake_reruns_what_the_graph_says(chain: Workflow, edit: tuple[str, Any, set[Job]]) -> None:
    key, value, expected = edit
    assert difference(chain.jobs(config=chain.edited(key, value, "dry.yaml")), expected) == ""


def test_the_graph_has_the_jobs_of_snakemake(chain: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain.folder)
    assert named(chain.graph()) == chain.jobs("--forceall") == NEEDS.keys()


def test_unused_blocks_other_words_and_more_cores_rerun_nothing(chain: Workflow) -> None:
    text = (chain.folder / "config.yaml").read_text()
    config = yaml.safe_load(text)
    (chain.folder / "comment.yaml").write_text(f"# a comment\n{text}")
    swapped = {key: config[key] for key in reversed(config)}
    (chain.folder / "swapped.yaml").write_text(yaml.safe_dump(swapped, sort_keys=False))
    spare = chain.edited("samplings.spare", {"n": 2}, "spare.yaml")
    for name in ("comment.yaml", "swapped.yaml", spare):
        assert chain.jobs(config=name) == NOTHING, name
    assert chain.jobs("--cores", "16") == NOTHING
    assert chain.jobs("--set-scatter", "shard=5") == NOTHING


def test_touched_files_rerun_nothing(chain: Workflow) -> None:
    files = [p for p in chain.folder.rglob("*") if p.is_file() and ".snakemake" not in p.parts]
    assert len(files) > 100
    for path in files:
        os.utime(path)
    assert chain.jobs() == NOTHING


def test_one_byte_of_one_image_reruns_what_looks_at_it(chain: Workflow) -> None:
    image = chain.folder / "own/3.png"
    before = image.read_bytes()
    image.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        assert difference(chain.jobs(), rerun(mutations.IMPORT)) == ""
    finally:
        image.write_bytes(before)
    assert chain.jobs() == NOTHING


def test_swapped_weights_under_the_same_path_rerun_what_used_them(chain: Workflow) -> None:
    config = chain.edited("models.tiny.path", "same-model", "same.yaml")
    weights = chain.folder / "same-model/model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        assert difference(chain.jobs(config=config), rerun(mutations.MODEL)) == ""
    finally:
        weights.write_bytes(before)
    assert chain.jobs(config=config) == NOTHING


ANSWERS = {job for job in NEEDS if job[0] == "sample_responses"}
NOISY: set[Job] = {
    ("sample_responses", "tiny shapes/self-made"), ("make_pairs", "self-made"), ("compute_logprobs", "self-made noise"), ("train_adapter", "p2dpo"),
}  # fmt: skip
IMAGES = (
    mutations.IMPORT
    | {("import_examples", "shapes")}
    | ANSWERS
    | mutations.every(
        "make_pairs",
        "compute_clip_scores",
        "compute_saliency_maps",
        "compute_attention_maps",
        "compute_logprobs",
        "train_adapter",
        "train_round",
    )
)
REALLY = (2, 4, 13)
"""Indices in `CODE` of edits that are also tried with Snakemake."""
CODE: list[tuple[str, str, str, set[Job]]] = [
    # file under workflow/, old text, new text, jobs that rerun first
    ("perceptune/core/methods/perpo.py", "from __future__", "# a comment\nfrom __future__", NOTHING),
    ("perceptune/core/methods/perpo.py", '"""', '"""Another docstring. ', NOTHING),
    ("perceptune/core/methods/perpo.py", "(weights * softplus(", "(2 * weights * softplus(", {("train_adapter", "perpo")}),
    ("perceptune/core/methods/method.py", "from __future__ import annotations", "from __future__ import annotations\nVALUE = 1", mutations.every("train_adapter", "train_round", "compute_logprobs")),
    # edits that used to cause unnecessary reruns
    ("perceptune/contracts/tables/metrics.py", '    ("judge", pa.string(), NULL)', '    ("added", pa.string(), NULL),\n    ("judge", pa.string(), NULL)', mutations.every("evaluate_policy", "collect_metrics", "write_report")),
    ("perceptune/contracts/errors.py", "did you mean", "do you mean", NOTHING),
    ("perceptune/contracts/tables/io.py", "delete the file and rerun", "remove the file and rerun", NOTHING),
    ("perceptune/contracts/plugins.py", '    "view": _kind(', '    "another": _kind("others", "perceptune.core.others", "OTHER", "Other"),\n    "view": _kind(', NOTHING),
    ("perceptune/models/families/another.py", "", "from perceptune.models.families.llava import Llava\n\nFAMILY = Llava()\n", NOTHING),
    ("perceptune/core/rewards/another.py", "", "from perceptune.core.rewards.iou import REWARD\n", NOTHING),
    ("perceptune/stages/sampling/recipes.py", "its attention block must cover", "the attention block must cover", NOTHING),
    ("perceptune/core/data/images.py", "from pathlib", "VALUE = 1\nfrom pathlib", IMAGES),
    ("perceptune/core/rewards/iou.py", "import numpy", "VALUE = 1\nimport numpy", mutations.SCORE),
    ("perceptune/core/rewards/yes_no.py", "from __future__ import annotations", "from __future__ import annotations\nVALUE = 1", mutations.SCORE),
    ("perceptune/core/views/blank.py", "GREY = (127", "GREY = (126", {job for job in ANSWERS if "benchmarks" in job[1]}),
    ("perceptune/models/families/qwen2_5_vl.py", "from __future__ import annotations", "from __future__ import annotations\nVALUE = 1", NOTHING),
    ("perceptune/models/families/llava.py", "from __future__ import annotations", "from __future__ import annotations\nVALUE = 1", ANSWERS | mutations.every("use_dataset_preferences", "compute_logprobs", "train_adapter", "train_round", "compute_attention_maps")),
    ("perceptune/core/benchmarks/bootstrap.py", "import numpy", "VALUE = 1\nimport numpy", mutations.every("evaluate_policy")),
    ("perceptune/core/views/adaptive_crop.py", "RATIOS = ", "MORE = 1\nRATIOS = ", mutations.CROP),
    ("perceptune/core/views/contrastive_decoding.py", "amax(", "max(", ANSWERS),
    ("perceptune/core/methods/p2dpo.py", "(gain - threshold)", "2 * (gain - threshold)", {("train_adapter", "p2dpo")}),
    ("perceptune/core/views/noise.py", "STEPS = 1000", "STEPS = 1001", NOISY),
    ("perceptune/runtime/journal.py", "import polars", "VALUE = 1\nimport polars", ANSWERS),
    ("perceptune/engines/training/trainer.py", "import torch\n", "import torch\nVALUE = 1\n", mutations.every("train_adapter", "train_round")),
    ("perceptune/engines/training/rollout_trainer.py", "import torch\n", "import torch\nVALUE = 1\n", mutations.every("train_round")),
    ("perceptune/core/methods/grpo.py", "import math", "import math\nVALUE = 1", mutations.every("train_round")),
    ("perceptune/core/methods/papo_g.py", "import math", "import math\nVALUE = 1", {("train_round", "papo@1")}),
    ("perceptune/core/views/masked.py", "from typing", "VALUE = 1\nfrom typing", mutations.MASKED),
    ("perceptune/core/views/semantic.py", "from typing", "VALUE = 1\nfrom typing", mutations.MASKED),
    ("perceptune/core/preferences/rollout_groups.py", "import polars", "VALUE = 1\nimport polars", mutations.every("select_batch")),
]  # fmt: skip


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's code, like a fresh checkout: every file has a new date."""
    target = tmp_path_factory.mktemp("checkout")
    for name in ("workflow", "profiles", "config"):
        shutil.copytree(ROOT / name, target / name, copy_function=shutil.copyfile)
    shutil.copyfile(ROOT / "Snakefile", target / "Snakefile")
    return target


def test_another_checkout_reruns_nothing(chain: Workflow, copied: Path) -> None:
    assert chain.jobs(root=copied) == NOTHING


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
def in_copy(chain: Workflow, copied: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute digests from the copied files."""
    monkeypatch.chdir(chain.folder)
    monkeypatch.setattr(plugins, "ROOT", copied / "workflow/perceptune")
    _forget()
    yield
    _forget()


@pytest.mark.parametrize(("file", "old", "new", "roots"), CODE)
def test_edited_code_reruns_what_uses_it(
    chain: Workflow, copied: Path, in_copy: None, file: str, old: str, new: str, roots: set[Job]
) -> None:
    before = chain.graph()
    with changed(copied, file, old, new):
        _forget()
        assert difference(named(reruns(before, chain.graph())), rerun(roots)) == ""


@pytest.mark.parametrize(("file", "old", "new", "roots"), [CODE[number] for number in REALLY])
def test_snakemake_reruns_edited_code_as_the_graph_says(
    chain: Workflow, copied: Path, file: str, old: str, new: str, roots: set[Job]
) -> None:
    with changed(copied, file, old, new):
        assert difference(chain.jobs(root=copied), rerun(roots)) == ""


def test_a_comment_in_a_rules_file_reruns_nothing(chain: Workflow, copied: Path) -> None:
    with changed(copied, "rules/training.smk", "rule train_adapter", "# a comment\n\n\nrule train_adapter"):
        assert chain.jobs(root=copied) == NOTHING


def test_the_dry_run_says_which_edit_reruns_a_stage(chain: Workflow, copied: Path) -> None:
    path = copied / "workflow/perceptune/core/methods/perpo.py"
    before = path.read_text()
    path.write_text(before.replace("(weights * softplus(", "(3 * weights * softplus(", 1))
    try:
        output = chain.run("--dry-run", root=copied).stdout
    finally:
        path.write_text(before)
    lines = output.splitlines()
    reason = next(number for number, line in enumerate(lines) if "Params have changed" in line)
    assert lines[reason].endswith("Params have changed since last execution:")
    assert lines[reason + 1] == "        code changed: perceptune.core.methods.perpo"
    assert lines[reason + 2].startswith("    wildcards: ")


def test_explain_leads_from_a_number_to_images_and_weights(chain: Workflow) -> None:
    command = [sys.executable, "-m", "perceptune", "explain", "--policy", "perpo", "--metric", "accuracy_iou_0.5"]
    done = subprocess.run(command, cwd=chain.folder, capture_output=True, text=True, check=True)
    for part in (
        "images: 72", "resources/tiny-llava/model", "training.parameters.gamma=0.5", "results/adapters/perpo/adapter_model.safetensors",
        "results/rewards/tiny/benchmarks/perception.parquet", "own/data.jsonl", "vllm", "torch 2.",
    ):  # fmt: skip
        assert part in done.stdout, part
    assert "changed" not in done.stdout


def test_explain_says_what_has_changed_since(chain: Workflow) -> None:
    table = chain.folder / "results/preferences/tiny/shapes/n20/perception/ranked.parquet"
    before = table.read_bytes()
    table.write_bytes(before + b" ")
    command = [sys.executable, "-m", "perceptune", "explain", "--policy", "perpo"]
    done = subprocess.run(command, cwd=chain.folder, capture_output=True, text=True, check=False)
    table.write_bytes(before)
    assert done.returncode == 1
    assert f"{table.relative_to(chain.folder)} has changed since the number was computed" in done.stdout
