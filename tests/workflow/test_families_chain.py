"""Every model family completes the chain: sample, train, evaluate."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
import yaml
from perceptune.contracts import paths

from tests.tiny_models import BUILDERS
from tests.tiny_models import OTHERS as WITHOUT_FAMILY

from .inline import run_jobs

pytestmark = pytest.mark.slow

ALWAYS = ("qwen2_5_vl",)
"""Families tested by `make test`; the demo's chain covers LLaVA."""
AUTO = "mistral3"
"""An architecture without a family of its own, used through `family: auto`."""
OTHERS = (*sorted(BUILDERS.keys() - set(ALWAYS)), AUTO)


@pytest.fixture(scope="module")
def always(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("always"), ALWAYS)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("others"), OTHERS)


def trained(folder: Path, families: Sequence[str]) -> Path:
    """One run of several families, each with a tiny random-weight model, six training and four test
    questions.
    """
    for family in families:
        (BUILDERS | WITHOUT_FAMILY)[family](folder / "models" / family, 0)
    engine = {"enforce_eager": True, "max_num_seqs": 16}
    config = {
        "models": {
            name: {
                "path": f"models/{name}",
                "family": name if name in BUILDERS else "auto",
                "dtype": "float32",
                "max_model_len": 1024,
                "threads": 1,
                "engine": engine,
            }
            for name in families
        },
        "datasets": {"shapes": {"kind": "shapes", "train": {"ocr": 6}, "test": {"ocr": 4}}},
        "samplings": {"n4": {"n": 4, "max_tokens": 8}},
        "rewards": {"read": {"tasks": {"ocr": "edit_distance"}}},
        "selections": {"all": {"list_size": 4, "min_margin": 0.0}},
        "trainings": {
            "dpo": {
                "method": "dpo",
                "batch_size": 4,
                "learning_rate": 1.0e-3,
                "lora": {"r": 4, "alpha": 8},
                "epochs": 2,
            }
        },
        "benchmarks": {"read": {"dataset": "shapes", "reward": "read", "n": 0, "max_tokens": 8, "views": ["original"]}},
        "experiments": {
            f"dpo-{name}": {
                "model": name,
                "dataset": "shapes",
                "sampling": "n4",
                "reward": "read",
                "selection": "all",
                "training": "dpo",
                "benchmarks": ["read"],
            }
            for name in families
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    run_jobs(folder, [paths.ALL_METRICS])
    return folder


@pytest.mark.parametrize(
    ("run", "family"),
    [
        *(("always", family) for family in ALWAYS),
        *(pytest.param("others", family, marks=pytest.mark.extended) for family in OTHERS),
    ],
)
def test_a_family_samples_trains_and_is_tested(request: pytest.FixtureRequest, run: str, family: str) -> None:
    folder: Path = request.getfixturevalue(run)
    metrics = pl.read_parquet(folder / "results/metrics.parquet").filter(policy=f"dpo-{family}", metric="ned")
    assert metrics["n"].to_list() == [4]
    assert metrics["base_value"].is_finite().all()
    logs = pl.read_parquet(folder / f"results/training/dpo-{family}.parquet")
    loss = logs.filter(metric="loss").sort("step")["value"]
    assert loss[0] == pytest.approx(0.6931, abs=1e-3)  # the first step starts at the reference
    assert loss[-1] < loss[0]
    answers = pl.read_parquet(folder / f"results/responses/{family}/shapes/n4.parquet")
    assert answers.height == 24 and answers["reason"].is_null().all()
