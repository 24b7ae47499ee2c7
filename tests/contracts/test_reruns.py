"""Which jobs an edit of a module reruns, among importers, scores, verdicts, metrics and exports."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts import paths
from perceptune.contracts.plugins import file_of, module_of
from perceptune.contracts.provenance import code
from perceptune.planning import policies as planning
from perceptune.planning.benchmarks import scored_settings
from perceptune.planning.graph import TARGETS, graph
from perceptune.planning.jobs import data
from perceptune.planning.rules import RULES, job_of

from .demo_configs import edited

PROTOCOLS = {
    "pope": "pope", "hallusionbench": "hallusionbench", "amber": "amber", "mathvista": "mathvista", "page_ocr": "ocr_pages",
    "mmhal": "mmhal", "refcoco": "refer",
}  # fmt: skip
"""Protocol to the format of its dataset."""


def configured() -> dict[str, Any]:
    """The demo, also evaluated on published benchmarks named like their protocols."""
    config = edited("judges", {"stub": {"model": "stub", "url": "http://localhost:8000/v1"}})
    for protocol, kind in PROTOCOLS.items():
        config["datasets"][protocol] = {"kind": kind, "path": "nowhere"}
        config["benchmarks"][protocol] = {"dataset": protocol, "protocol": protocol}
    config["benchmarks"]["mmhal"]["judge"] = "stub"
    config["models"]["tiny"]["max_model_len"] = 4096  # the protocols' answers have up to 2048 tokens
    config["experiments"]["perpo"]["benchmarks"] = ["shapes-test", *PROTOCOLS]
    config["experiments"]["dpo"]["benchmarks"] = ["shapes-test", "pope"]
    config["dataset_preferences"] = {"taken": {}}
    config["exports"] = {"out": {"experiment": "perpo", "format": "trl"}}
    return config


@pytest.fixture(scope="module")
def rules() -> dict[str, tuple[str, ...]]:
    """Job to the modules that define its code, as in `planning.rules`."""
    plan = planning.load(configured())
    policies = {p: {"policy": p} for p in ("perpo", "dpo")}
    answers = {"policy": "tiny", "plan": "benchmarks"}
    jobs: dict[str, tuple[str, dict[str, str]]] = {
        **{f"import {d}": ("import_examples", {"dataset": d}) for d in plan.config.datasets},
        **{f"score {r}": ("score_responses", {**answers, "reward": r}) for r in plan.config.rewards},
        **{f"evaluate {p}": ("evaluate_policy", wildcards) for p, wildcards in policies.items()},
        "ask": ("plan_benchmarks", policies["perpo"]),
        "sample": ("sample_responses", {**policies["perpo"], "plan": "benchmarks", "scatteritem": "1-of-1"}),
        "select": ("select_preferences", {**SAMPLED, "reward": "perception", "selection": "ranked"}),
        "take": ("use_dataset_preferences", {"policy": "tiny", "dataset": "shapes", "dataset_preference": "taken"}),
        "train": ("train_adapter", {"experiment": "perpo"}),
        "judge": ("judge_answers", {**policies["perpo"], "benchmark": "mmhal"}),
        "export": ("export_preferences", {"export": "out"}),
    }
    return {name: (RULES[rule].module, *_modules(plan, rule, wildcards)) for name, (rule, wildcards) in jobs.items()}


SAMPLED = {"policy": "tiny", "dataset": "shapes", "sampling": "n20"}


def _modules(plan: planning.Plan, rule: str, wildcards: dict[str, str]) -> tuple[str, ...]:
    if rule == "import_examples":  # its job needs the data, most of which is missing here
        return (module_of("importer", plan.import_block(wildcards["dataset"]).kind),)
    return job_of(plan, rule, wildcards).modules


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a module read as if its code had been edited."""
    read = code._read

    def append(module: str) -> None:
        assert file_of(module)
        monkeypatch.setattr(code, "_read", lambda name: ("edited", read(name)[1]) if name == module else read(name))
        code.code_digests.cache_clear()

    code.code_digests.cache_clear()
    yield append
    code.code_digests.cache_clear()


IMPORTS = {f"import {d}" for d in (*PROTOCOLS, "shapes")}
SCORES = {f"score {r}" for r in (*PROTOCOLS, "perception")}
EVALUATIONS = {"evaluate perpo", "evaluate dpo"}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("contracts.config", set()),  # values count individually
        ("contracts.config.training", set()),
        ("contracts.errors", set()),  # how results are written and reported
        ("contracts.provenance.lineage", set()),
        ("contracts.tables.io", set()),
        ("contracts.tables.metrics", EVALUATIONS),
        (
            "contracts.tables.examples",
            IMPORTS | SCORES | EVALUATIONS | {"ask", "sample", "take", "train", "judge", "export"},
        ),
        ("core.importers.importer", IMPORTS | EVALUATIONS),
        ("core.importers.refer", {"import refcoco"}),
        ("core.data.row_checks", IMPORTS | EVALUATIONS | {"export", "take"}),
        ("core.data.embedded_images", IMPORTS | EVALUATIONS),
        ("core.data.conversations", {"import page_ocr"}),
        ("core.data.read_files", IMPORTS),
        ("core.benchmarks.confusion", EVALUATIONS),
        ("core.answers.text_overlap", {"score page_ocr", "evaluate perpo"}),
        ("core.answers.nouns", {"score page_ocr", "score amber", "evaluate perpo"}),
        ("core.answers.extraction", {"score mathvista", "evaluate perpo"}),
        ("core.rewards.reward", SCORES | EVALUATIONS),  # rewards declare metrics
        ("core.rewards.iou", {"score perception", "score refcoco", *EVALUATIONS}),
        ("core.benchmarks.page_ocr.page_text", {"score page_ocr", "evaluate perpo"}),
        ("core.benchmarks.hallusionbench.vlmevalkit_yes_no", {"score hallusionbench", "evaluate perpo"}),
        ("core.benchmarks.pope.answers", {"score pope", *EVALUATIONS}),
        ("core.answers.yes_no", EVALUATIONS),  # POPE's second rule is applied in evaluation
        ("core.benchmarks.benchmark", EVALUATIONS | {"judge"}),
        ("core.benchmarks.pope.metrics", EVALUATIONS),
        ("core.benchmarks.pope.data", {"import pope", *EVALUATIONS}),  # the names of its categories
        ("core.benchmarks.page_ocr.metrics", {"evaluate perpo"}),
        ("core.benchmarks.mmhal.metrics", {"evaluate perpo", "judge"}),  # with the prompt of its judge
        ("core.data.source_columns", SCORES | EVALUATIONS | {"judge"}),
        ("core.rewards.metrics", SCORES | EVALUATIONS | {"judge"}),
        ("core.benchmarks.bootstrap", EVALUATIONS | {"judge"}),
        ("stages.evaluation.protocol_metrics", EVALUATIONS),
        ("stages.evaluation.judged_answers", EVALUATIONS | {"judge"}),
        ("engines.judging", {"judge"}),
        ("core.benchmarks.control_prompts", {"ask", "take", "judge", *EVALUATIONS}),
        ("core.exporters.trl", {"export"}),
        ("core.exporters.verl", set()),
        ("core.methods.perpo", {"train"}),
        ("models.families.llava", SCORES | {"sample", "take", "train"}),
        ("models.families.internvl", set()),
        ("models.coordinates", SCORES | {"sample", "take", "train", "judge"}),
    ],
)
def test_an_edit_reruns_what_uses_it(
    module: str, expected: set[str], rules: dict[str, tuple[str, ...]], edit: Any
) -> None:
    before = {name: code.code_digests(*modules) for name, modules in rules.items()}
    edit(f"perceptune.{module}")
    assert {name for name, modules in rules.items() if code.code_digests(*modules) != before[name]} == expected


def test_the_official_settings_are_settings_of_the_rules_that_use_them() -> None:
    plan = planning.load(configured())
    asked = job_of(plan, "plan_benchmarks", {"policy": "perpo"}).settings["asked"]
    evaluated = job_of(plan, "evaluate_policy", {"policy": "perpo"}).settings
    assert asked["mathvista"]["max_tokens"] == 2048
    assert evaluated["reward_tasks"]["pope"] == {"existence": "pope"}
    assert evaluated["blocks"]["pope"]["protocol"] == "pope"
    assert "protocol" not in asked["pope"]
    scored = scored_settings(plan, "perpo", "benchmarks", "pope")
    assert (scored["tasks"], scored["benchmarks"]) == ({"existence": "pope"}, ["pope"])
    assert scored_settings(plan, "tiny", "shapes/n20", "perception")["benchmarks"] is None


def test_variants_of_a_benchmark_have_their_own_settings_and_rewards() -> None:
    raw = configured()
    for variant in ("papo", "cppo"):
        raw["benchmarks"][variant] = {"dataset": "mathvista", "protocol": "geometry3k", "variant": variant}
    raw["benchmarks"]["described"] = {"dataset": "amber", "protocol": "amber", "variant": "generative"}
    raw["experiments"]["perpo"]["benchmarks"] += ["papo", "cppo", "described"]
    plan = planning.load(raw)
    blocks = plan.config.benchmarks
    assert [blocks[name].top_k for name in ("papo", "cppo")] == [50, 0]
    assert [blocks[name].tasks for name in ("amber", "described")] == [(), ("open",)]
    assert {
        name: dict(plan.config.rewards[blocks[name].reward].tasks) for name in ("papo", "cppo", "amber", "described")
    } == {
        "papo": {"open": "boxed_exact"},
        "cppo": {"open": "mathvision_vlmevalkit"},
        "amber": {"existence": "amber", "open": "amber_nouns"},
        "described": {"open": "amber_nouns"},
    }
    asked, evaluated = (job_of(plan, rule, {"policy": "perpo"}) for rule in ("plan_benchmarks", "evaluate_policy"))
    assert "perceptune.core.benchmarks.geometry3k.metrics" in evaluated.modules
    assert evaluated.settings["blocks"]["cppo"]["variant"] == "cppo"
    assert "variant" not in asked.settings["asked"]["cppo"]


def test_a_resource_counts_by_its_content(tmp_path: Path) -> None:
    def settings(folder: str) -> Any:
        raw = configured()
        raw["rewards"] = {**raw["rewards"], "amber": {"resources": str(tmp_path / folder)}}
        return scored_settings(planning.load(raw), "perpo", "benchmarks", "amber")["resources"]

    for folder, text in (("one", "a"), ("same", "a"), ("other", "b")):
        (tmp_path / folder / "nltk_data").mkdir(parents=True)
        (tmp_path / folder / "nltk_data/words").write_text(text)
    assert settings("one") == settings("same") != settings("other")


def test_markers_of_reasoning_are_a_setting_of_scoring_alone() -> None:
    """Sampling and training do not depend on them; judging and evaluation read the rewards."""
    raw = configured()
    before = _settings(planning.load(raw))
    raw["models"]["tiny"]["reasoning"] = ["<r>", "</r>"]
    after = _settings(planning.load(raw))
    assert {job for job in before if before[job] != after[job]} == {"score training", "score pope"}
    assert after["score pope"]["reasoning"] == ["<r>", "</r>"]


def _settings(plan: planning.Plan) -> dict[str, dict[str, Any]]:
    jobs = {
        "score training": ("score_responses", {"policy": "tiny", "plan": "shapes/n20", "reward": "perception"}),
        "score pope": ("score_responses", {"policy": "perpo", "plan": "benchmarks", "reward": "pope"}),
        "ask": ("plan_benchmarks", {"policy": "perpo"}),
        "sample": ("sample_responses", {"policy": "perpo", "plan": "benchmarks", "scatteritem": "1-of-1"}),
        "take": ("use_dataset_preferences", {"policy": "tiny", "dataset": "shapes", "dataset_preference": "taken"}),
        "train": ("train_adapter", {"experiment": "perpo"}),
        "evaluate": ("evaluate_policy", {"policy": "perpo"}),
        "judge": ("judge_answers", {"policy": "perpo", "benchmark": "mmhal"}),
    }
    return {name: dict(job_of(plan, rule, wildcards).settings) for name, (rule, wildcards) in jobs.items()}


def test_only_the_import_reads_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job on a cluster plans its own rule: none may look at tens of thousands of images."""
    jobs = graph(planning.load(configured()), [*TARGETS, paths.EXPORT.format(export="out")])

    def read(block: object, memory: object) -> str:
        raise RuntimeError("data is read")

    monkeypatch.setattr(data, "data_digest", read)
    plan, planned = planning.load(configured()), set()
    for rule, wildcards in jobs:
        if rule != "import_examples":
            job_of(plan, rule, dict(wildcards))
            planned.add(rule)
    assert planned > {"plan_samples", "sample_responses", "train_adapter", "evaluate_policy", "export_preferences"}
