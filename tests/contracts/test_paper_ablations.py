"""The ablations of the papers differ from the paper's experiment in the ablated values alone."""

from typing import Any

import pytest
from perceptune.planning import policies as planning
from perceptune.planning.policies import Plan

from tests.shipped import FOLDER, paper_with_ablations, raw_of


def values(plan: Plan, experiment: str) -> dict[str, Any]:
    """Every value that an experiment's result depends on, by its path; without names of blocks."""
    block = plan.config.experiments[experiment]
    found: dict[str, Any] = {"model": block.model, "dataset": block.dataset, "sampling": block.sampling}
    found |= {"rollout": block.rollout, "reward": block.reward, "rounds": block.rounds}
    found |= {"pair_generation": block.pair_generation}
    sections = (plan.config.selections, plan.config.filters, plan.config.dataset_preferences)
    names = (block.selection, block.filter, block.dataset_preference)
    parts = (section.get(name or "") for section, name in zip(sections, names, strict=True))
    for part in (plan.training(experiment), *parts):
        for key, value in part.model_dump().items() if part else ():
            inner = value if isinstance(value, dict) else {"": value}
            found |= {f"{key}.{name}".strip("."): one for name, one in inner.items()}
    return found


PERPO = {
    **{f"list-size-list_size_{n}": {"list_size": n, "pick": "first"} for n in (2, 4, 8, 12)},
    **{
        f"list-size-dpo-list_size_{n}": {"list_size": n, "pick": "first", "method": "dpo", "parameters.gamma": None}
        for n in (2, 4, 8, 12)
    },
    **{f"margin-min_margin_{m}": {"min_margin": m} for m in (0.2, 0.4, 0.6)},
    **{f"data-size-max_groups_{n}": {"max_groups": n} for n in (500, 1000, 2000)},
    **{f"beta-beta_{b}": {"parameters.beta": b} for b in (0.05, 0.2, 0.5)},
    **{f"gamma-gamma_{g}": {"parameters.gamma": g} for g in (0, 1, 2)},
    **{f"lora-{r}": {"lora.r": r, "lora.alpha": 2 * r} for r in (32, 64)},
    "dpo-blank": {"method": "dpo", "parameters.gamma": None, "view": "blank"},
}
P2DPO = {**{f"p2dpo-{n}": {"max_groups": n} for n in (1000, 2000, 4000)}, "p2dpo-epochs": {"keep_epochs": True}}
HUMAN = {f"dpo-rlhf-v-{n}": {"max_groups": n} for n in (1000, 2000, 4000)}
CPPO = {
    **{f"cppo-tokens-share_{s}": {"parameters.share": s} for s in (0.2, 0.4, 0.6, 0.8, 1.0)},
    "cppo-random": {"parameters.tokens": "random"},
    "cppo-all-tokens": {"parameters.tokens": "all"},
}


@pytest.mark.parametrize(
    ("paper", "of"),
    [("perpo", {"perpo": PERPO}), ("cppo", {"cppo": CPPO}), ("p2dpo", {"p2dpo": P2DPO, "dpo-rlhf-v": HUMAN})],
)
def test_an_ablation_changes_what_it_says(paper: str, of: dict[str, dict[str, dict[str, Any]]]) -> None:
    """`of` maps an experiment of the paper to its ablations, and these to what they change."""
    plan = planning.load(paper_with_ablations(paper))
    alone = planning.load(raw_of(FOLDER / f"papers/{paper}.yaml"))
    named = {name for ablations in of.values() for name in ablations}
    assert set(plan.config.experiments) - set(alone.config.experiments) == named
    for experiment, ablations in of.items():
        base = values(plan, experiment)
        assert base == values(alone, experiment)
        for name, changes in ablations.items():
            found = values(plan, name)
            assert {key: found.get(key) for key in base | found if found.get(key) != base.get(key)} == changes, name
