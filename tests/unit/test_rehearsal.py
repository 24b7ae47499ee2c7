"""A rehearsal uses few examples of everything and lets them through."""

from pathlib import Path

import pytest
import yaml
from perceptune.contracts.errors import UserError
from perceptune.planning import policies as plan
from perceptune.planning.rehearsal import rehearsed

from tests.shipped import CONFIGS, raw_of


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_slice_of_every_config_takes_few_examples_of_everything(file: Path) -> None:
    raw = raw_of(file)
    config = plan.load({**raw, "rehearse": 20}).config
    for section in ("samplings", "pair_generations", "benchmarks", "attention_maps", "saliency_maps"):
        assert all(block.limit <= 20 for block in getattr(config, section).values()), section
    assert all(block.questions <= 20 for block in config.rollouts.values())
    assert all(block.keep is None and block.questions <= 20 for block in config.batch_selections.values())
    assert all(block.min_margin == 0 for block in config.selections.values())
    assert all(block.margin is None and block.max_ppl is None for block in config.filters.values())
    assert all(block.rounds is None or block.rounds <= 2 for block in config.experiments.values())
    if not any(
        isinstance(block.get("min_margin"), list) for block in raw.get("selections", {}).values()
    ):  # a sweep over what is disabled
        assert set(config.experiments) == set(plan.load(raw).config.experiments)


def test_smaller_limits_stay_and_without_a_slice_nothing_changes() -> None:
    raw = {
        "benchmarks": {"b": {"limit": 3}, "c": {}},
        "experiments": {"e": {"rounds": 1}},
        "batch_selections": {"x": {"keep": "reward"}},
    }
    cut = rehearsed({**raw, "rehearse": 20})
    assert cut["benchmarks"] == {"b": {"limit": 3}, "c": {"limit": 20}}
    assert cut["experiments"]["e"]["rounds"] == 1
    assert cut["batch_selections"]["x"] == {"keep": None, "questions": 20}
    assert rehearsed(raw) == raw
    assert raw["benchmarks"]["c"] == {}


@pytest.mark.parametrize("wrong", [0, -1, "twenty", 1.5])
def test_a_slice_is_a_number_of_examples(wrong: object) -> None:
    raw = yaml.safe_load(next(c for c in CONFIGS if c.name == "config.yaml").read_text())
    with pytest.raises(UserError, match="key `rehearse`"):
        plan.load({**raw, "rehearse": wrong})


@pytest.mark.parametrize(("report", "title"), [({"title": "P2-DPO"}, "P2-DPO, rehearsal"), (None, "Rehearsal")])
def test_the_page_of_a_rehearsal_says_that_it_is_one(report: dict[str, str] | None, title: str) -> None:
    cut = rehearsed({"rehearse": 20, "report": report})
    assert cut["report"] == {"title": f"{title}: 20 examples per task, numbers are meaningless"}
    assert rehearsed({"report": report}) == {"report": report}
