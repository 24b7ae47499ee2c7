"""What jobs request: on the shapes of published models, and for the jobs of the demos."""

import copy
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from perceptune.contracts.config import LoraBlock, ModelBlock
from perceptune.core.weights import Stored, header_bytes
from perceptune.planning import policies, resources
from perceptune.planning.model_folders import adapter_parameters, linear_layers
from perceptune.planning.resources import LONGEST, UNKNOWN_TABLE, UNKNOWN_WEIGHTS, Needs, Table, Weights
from perceptune.planning.rules import job_of
from perceptune.planning.sizes import folder_weights, import_size, table_of

from .demo_configs import DEMO, P2DPO, ROUNDS, edited

ROOT = Path(__file__).parents[2]
GB = 10**9
SHAPES = {  # hidden size, layers, intermediate size, width of keys and values, vocabulary, tied head
    "3B": (2048, 36, 11008, 256, 151_936, True),
    "7B": (3584, 28, 18944, 512, 152_064, False),
    "32B": (5120, 64, 27648, 1024, 152_064, False),
    "72B": (8192, 80, 29568, 1024, 152_064, False),
}
"""Of Qwen2.5-VL, from the `config.json` of its checkpoints."""
PARAMETERS = {"3B": 3_754_622_976, "7B": 8_292_166_656, "32B": 33_452_718_336, "72B": 73_410_777_344}
"""As published with them."""


def shapes(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors of a checkpoint."""
    hidden, layers, inner, keys, vocabulary, tied = SHAPES[name]
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    yield "model.norm.weight", (hidden,)
    if not tied:
        yield "lm_head.weight", (vocabulary, hidden)
    for layer in range(layers):
        for projection, (rows, columns) in {
            "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden), "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner),
        }.items():  # fmt: skip
            yield f"model.layers.{layer}.{projection}.weight", (rows, columns)
            if projection[10:] in ("q_proj", "k_proj", "v_proj"):
                yield f"model.layers.{layer}.{projection}.bias", (rows,)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{layer}.{norm}.weight", (hidden,)
    vision, mlp = 1280, 3456 if name in ("32B", "72B") else 3420
    yield "visual.patch_embed.proj.weight", (vision, 3, 2, 14, 14)
    for block in range(32):
        at = f"visual.blocks.{block}"
        for layer, shape in {
            "attn.qkv": (3 * vision, vision), "attn.proj": (vision, vision), "mlp.gate_proj": (mlp, vision),
            "mlp.up_proj": (mlp, vision), "mlp.down_proj": (vision, mlp),
        }.items():  # fmt: skip
            yield f"{at}.{layer}.weight", shape
            yield f"{at}.{layer}.bias", shape[:1]
        yield f"{at}.norm1.weight", (vision,)
        yield f"{at}.norm2.weight", (vision,)
    yield "visual.merger.ln_q.weight", (vision,)
    for layer, shape in {"mlp.0": (4 * vision, 4 * vision), "mlp.2": (hidden, 4 * vision)}.items():
        yield f"visual.merger.{layer}.weight", shape
        yield f"visual.merger.{layer}.bias", shape[:1]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders with the headers of checkpoints in bfloat16, and a hole instead of the weights."""
    return {name: folder_of(name, tmp_path_factory.mktemp(name)) for name in SHAPES}


def folder_of(name: str, folder: Path) -> Path:
    tensors: dict[str, Stored] = {}
    start = 0
    for tensor, shape in shapes(name):
        end = start + 2 * math.prod(shape)
        tensors[tensor] = Stored("BF16", shape, start, end)
        start = end
    header = header_bytes(tensors, {"format": "pt"})
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + start)
    return folder


def model_in(folder: Path) -> ModelBlock:
    return ModelBlock(path=str(folder), family="qwen2_5_vl")


def adapter_of(folder: Path) -> int:
    return adapter_parameters(model_in(folder), LoraBlock())


BLOCK = ModelBlock(path="m", family="qwen2_5_vl")
QUESTIONS, ANSWERS, TOKENS, PROMPT = 10_000, 20, 64, 2048


def row(name: str, folder: Path, gpus: int) -> str:
    """A row of the table in docs/cluster.md."""
    weights, adapter = folder_weights(folder, 2), adapter_of(folder)
    answers = QUESTIONS * ANSWERS * TOKENS
    lists = QUESTIONS * PROMPT + answers
    workers = BLOCK.workers_beside(BLOCK.threads)
    found = {
        "sampling": resources.sampling(weights, gpus, QUESTIONS * PROMPT, answers, workers=workers),
        "log-probs": resources.logprobs(weights, lists, workers=workers),
        "training": resources.training(weights, adapter, gpus, lists, workers=BLOCK.workers_beside(16 // gpus)),
        "attention maps": resources.maps(weights, QUESTIONS),
        "export": resources.exporting(weights, adapter, gpus),
    }
    cells = [f"{needs.mem_mb / 1000:.0f} GB, {needs.runtime / 60:.1f} h" for needs in found.values()]
    return f"| {name} | {gpus} | " + " | ".join(cells) + " |"


def test_the_table_in_the_docs_is_up_to_date(published: dict[str, Path]) -> None:
    rows = [row(name, folder, 1 if name in ("3B", "7B") else 4) for name, folder in published.items()]
    table = "\n".join(rows)
    assert table in (ROOT / "docs/cluster.md").read_text(), f"docs/cluster.md, section Resources, expected:\n{table}"


def test_sizes_are_those_of_the_published_checkpoints(published: dict[str, Path]) -> None:
    for name, folder in published.items():
        assert folder_weights(folder, 4) == Weights(PARAMETERS[name], 4 * PARAMETERS[name], 2 * PARAMETERS[name])
        hidden, layers, inner, keys, _, _ = SHAPES[name]
        # rank 128 on seven layers: their inputs and outputs
        sides = 2 * (hidden + hidden) + 2 * (hidden + keys) + 3 * (hidden + inner)
        assert adapter_of(folder) == 128 * layers * sides
        everything = LoraBlock(r=8, parts=("language", "projector", "vision"), full=("projector",), use_dora=True)
        vision, mlp = 1280, 3456 if name in ("32B", "72B") else 3420
        seen = (3 * vision + vision) + (vision + vision) + 3 * (vision + mlp)
        merger = (4 * vision + 1) * 4 * vision + (4 * vision + 1) * hidden
        norms = layers * (3 * hidden + 2 * keys + 2 * inner) + 32 * (3 * vision + vision + 2 * mlp + vision)
        assert adapter_parameters(model_in(folder), everything) == 8 * (layers * sides + 32 * seen) + merger + norms


def test_models_fit_in_what_is_requested(published: dict[str, Path]) -> None:
    """Not less than what is certainly in memory, and not so much more that no node has it."""
    for name, folder in published.items():
        weights, adapter, count = folder_weights(folder, 2), adapter_of(folder), PARAMETERS[name]
        asked = Table(10_000, 10**7)
        certain = {
            resources.sampling(weights, 1, 1e6, 1e6): 2 * count,
            resources.logprobs(weights, 1e6, adapter): 2 * count + 4 * adapter,
            resources.training(weights, adapter, 1, 1e6): 2 * count + 16 * adapter,
            resources.training(weights, adapter, 4, 1e6): 4 * (2 * count + 16 * adapter),
            resources.maps(weights, 100): 2 * count,
            resources.probing(weights, 1): 4 * count,
            resources.exporting(weights, adapter, 1): 4 * count + 4 * adapter,
            resources.tables(asked): 40 * asked.bytes,
        }
        for needs, least in certain.items():
            assert least + GB <= 1e6 * needs.mem_mb <= 1.1 * least + 30 * GB, name
        largest = max(rows * columns for rows, columns, _ in linear_layers(model_in(folder))["language"].values())
        merging = 3 * GB + 10 * largest  # the update in float32, the sum, and both 16-bit weights
        assert merging < 1e6 * resources.sampling(weights, 1, 1e6, 1e6, merged=True).mem_mb


def test_streaming_stages_request_the_same_for_any_number_of_rows() -> None:
    for needs in (resources.scoring, resources.evaluation, resources.report, resources.asking):
        assert needs(10).mem_mb == needs(10**8).mem_mb
        assert needs(10).runtime < needs(10**7).runtime <= LONGEST
    assert resources.importing(10, 10).mem_mb == resources.importing(10**12, 10**7).mem_mb
    # with the process of Snakemake
    assert resources.scoring(1).mem_mb >= 1900
    assert resources.evaluation(1).mem_mb >= 1900
    assert resources.importing(1, 1).mem_mb >= 900


def test_an_import_asks_for_time_by_the_images_that_it_opens(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"images/{number % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"images/{number % 2}/{number}.JPG").touch()
    (tmp_path / "labels.txt").touch()
    (tmp_path / "file.json").write_bytes(b" " * 20_000)

    def size(kind: str, path: Path) -> tuple[int, int]:
        plan = policies.load(edited("datasets.mine", {"kind": kind, "path": str(path)}))
        return import_size(plan, "mine")

    assert size("yolo", tmp_path) == size("voc", tmp_path) == (0, 5)
    assert size("coco", tmp_path / "file.json") == (0, 10)
    assert size("jsonl", tmp_path / "file.json") == (0, 100)


def test_time_grows_with_the_work_and_shrinks_with_gpus() -> None:
    weights = Weights(8 * 10**9, 16 * GB, 16 * GB)
    hours = [resources.sampling(weights, gpus, 1e7, 3e7).runtime / 60 for gpus in (1, 2, 4)]
    # 20 min, 160 s of reading, 8e9 x 2 x (1e7 / 50e12 + 3e7 / 20e12) = 27,200 s
    assert hours[0] == pytest.approx((20 + 160 / 60 + 27_200 / 60) / 60, abs=1 / 6)
    assert hours[0] > hours[1] > hours[2]
    one, four = (resources.training(weights, 1e8, devices, 1e7).runtime for devices in (1, 4))
    assert one == pytest.approx(10 + (160 + 8 * 8e9 * 1e7 / 50e12) / 60, abs=10)
    assert four < one
    assert resources.training(weights, 1e8, 4, 1e7) == replace(
        resources.training(weights, 1e8, 4, 2e7, nodes=2), runtime=four
    )  # twice the work on twice the nodes, and memory is per node
    assert resources.sampling(weights, 1, 1e12, 1e12).runtime == LONGEST


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def requested(config: dict[str, Any], rule: str, **wildcards: str) -> Needs:
    plan = policies.load(copy.deepcopy(config))
    return job_of(plan, rule, wildcards).requested(lambda path: path.replace("<results>", "results"))


def write_rows(file: str, rows: int) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"request_id": range(rows)}), file)


def test_a_job_requests_what_its_tables_need_once_they_exist(elsewhere: Path) -> None:
    lasting = edited("samplings.n20.max_tokens", 1500)
    lasting["models"]["tiny"] |= {"path": str(folder_of("3B", elsewhere)), "max_model_len": 2048}
    (elsewhere / "config.json").write_text("{}")
    # hashing a hole of 7 GB takes too long
    plan = policies.load(copy.deepcopy(lasting))
    plan.memory["model tiny"] = "digest"

    def sampling(shards: int) -> int:
        wildcards = {"policy": "tiny", "plan": "shapes/n20", "scatteritem": f"1-of-{shards}"}
        job = job_of(plan, "sample_responses", wildcards)
        return job.requested(lambda path: path.replace("<results>", "results")).runtime

    unknown = sampling(1)
    assert sampling(10) < unknown
    write_rows("results/requests/tiny/shapes/n20.parquet", 10)
    few = sampling(1)
    write_rows("results/requests/tiny/shapes/n20.parquet", 400)
    assert 60 == few < sampling(1) < unknown


SHARD = {"policy": "tiny", "plan": "shapes/n20", "scatteritem": "1-of-1"}
TERMS = {"policy": "tiny", "dataset": "shapes", "groups": "n20/perception/ranked", "stored": "reference@original"}


def test_every_rule_of_the_demos_requests_memory_and_time(elsewhere: Path) -> None:
    for config in (DEMO, P2DPO, ROUNDS):
        plan = policies.load(copy.deepcopy(config))
        for experiment in plan.trained:
            rule = "train_round" if plan.block(experiment).rounds else "train_adapter"
            found = job_of(plan, rule, {"experiment": experiment}).requested(str)
            workers = 0 if config is ROUNDS else 8  # it has one thread per job
            # a tiny model and its adapter, with processes that prepare images
            assert 5000 < found.mem_mb - workers * resources.BATCHING / 1e6 < 8000
            assert 120 <= found.runtime <= LONGEST
    two = edited("trainings.dpo.devices", 2)
    one, both = (requested(config, "train_adapter", experiment="dpo") for config in (DEMO, two))
    # of 16 threads, one device leaves eight for workers at most, two devices leave seven to each
    assert both.mem_mb == pytest.approx(2 * one.mem_mb - 2 * resources.BATCHING / 1e6, abs=500)
    named = edited("models.tiny.workers", 3)
    for job, each in (
        ({"rule": "train_adapter", "experiment": "dpo"}, resources.BATCHING),
        ({"rule": "compute_logprobs", **TERMS}, resources.BATCHING),
        ({"rule": "sample_responses", **SHARD}, resources.PREPARING),
    ):
        few, many = (requested(config, **job).mem_mb for config in (named, DEMO))
        assert many - few == pytest.approx(5 * each / 1e6, abs=200), job
    spread = {
        **two,
        "trainings": {**two["trainings"], "dpo": {**two["trainings"]["dpo"], "nodes": 3, "batch_size": 12}},
    }
    job_of_three = job_of(policies.load(copy.deepcopy(spread)), "train_adapter", {"experiment": "dpo"})
    assert (job_of_three.nodes, job_of_three.gpus) == (3, 6)
    assert requested(spread, "train_adapter", experiment="dpo").mem_mb == both.mem_mb
    assert requested(DEMO, "score_responses", policy="tiny", plan="shapes/n20", reward="perception").mem_mb < 3000
    assert requested(DEMO, "write_report").mem_mb < 5000


def test_sizes_of_tables_leave_images_out(tmp_path: Path) -> None:
    image = pa.array([[{"bytes": bytes(10**6), "path": "a"}]] * 3)
    pq.write_table(pa.table({"id": [1, 2, 3], "images": image}), tmp_path / "a.parquet", use_dictionary=False)
    one = table_of([str(tmp_path / "a.parquet")])
    assert one.rows == 3
    assert 24 < one.bytes < 1000
    assert table_of([str(tmp_path / "a.parquet")] * 2) == Table(6, 2 * one.bytes)
    assert table_of([str(tmp_path / "a.parquet"), str(tmp_path / "missing.parquet"), "a.json"]) == one
    (tmp_path / "b.parquet").write_bytes(b"no table")
    assert table_of([str(tmp_path / "b.parquet")]) == UNKNOWN_TABLE
    assert table_of(["a.json"]) == Table(0, 0)


def test_a_model_folder_that_does_not_exist_yet_counts_as_7b(tmp_path: Path) -> None:
    assert folder_weights(tmp_path / "missing", 2) == UNKNOWN_WEIGHTS


@pytest.mark.slow
def test_resources_of_the_command_line_override_those_of_the_rules(elsewhere: Path) -> None:
    command = [
        "snakemake",
        "-n",
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--configfile",
        str(ROOT / "config/config.yaml"),
    ]
    command += ["--set-resources", "train_adapter:mem_mb=1234", "train_adapter:runtime=7", "train_adapter:gpu=0"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path})
    of_rules = dict(
        re.findall(r"^rule (\w+):\n(?:    .*\n)*?    resources: (.*)$", done.stdout + done.stderr, re.MULTILINE)
    )
    assert {"mem_mb=1234", "runtime=7", "gpu=0"} <= set(of_rules["train_adapter"].split(", "))
    assert {"mem_mb=11900", "runtime=60", "gpu=1"} <= set(of_rules["compute_logprobs"].split(", "))
