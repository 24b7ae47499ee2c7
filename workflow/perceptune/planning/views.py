"""Views of a policy: their blocks, code, and the tables that they need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from perceptune.contracts import plugins
from perceptune.contracts.config import PLAIN_VIEWS, BenchmarkBlock, PairingBlock, RolloutBlock, SamplingBlock
from perceptune.contracts.paths import CLIPS, CROPS, SALIENCY
from perceptune.contracts.plugins import module_of
from perceptune.planning.policies import Plan, tracked
from perceptune.planning.validation import views_named


def views_trained(plan: Plan, experiment: str) -> list[str]:
    """The views that an experiment's method uses, by their names in the config."""
    training, pairing = plan.training(experiment), plan.block(experiment).pair_generation
    method = plugins.load("method", training.method)
    seen = method.views(method.Parameters.model_validate(training.parameters), training.view)
    return [(pair_view(plan, pairing, view) if pairing else None) or view for view in seen]


def view_blocks(plan: Plan, *views: str) -> dict[str, Any]:
    """Tracked blocks of these views and of their choices; built-in views have none."""
    named = {v for view in views if view in plan.config.views for v in (view, *plan.config.views[view].choice)}
    return {view: tracked(plan.config.views[view]) for view in sorted(named) if view in plan.config.views}


def view_types(plan: Plan, view: str) -> list[str]:
    """The types behind a view: one, or those of its choices."""
    if view in PLAIN_VIEWS:
        return [view]
    block = plan.config.views[view]
    return [name for one in block.choice for name in view_types(plan, one)] if block.type is None else [block.type]


def view_modules(plan: Plan, views: Iterable[str]) -> list[str]:
    """The modules of these views."""
    return [module_of("view", name) for name in sorted({name for view in views for name in view_types(plan, view)})]


def requested_views(plan: Plan, policy: str, plan_name: str, dataset: str | None = None) -> list[str]:
    """Views in the requests of `plan_name`, as in `request_plans`, including those of amateurs.

    With `dataset`, only those in requests about its examples.
    """
    if plan_name == "benchmarks":
        blocks = [plan.config.benchmarks[b] for b in plan.benchmarks(policy)]
        return sorted({view for block in blocks if dataset in (None, block.dataset) for view in views_of(block)})
    return views_of(request_block(plan, plan_name.split("/")[1]))


def request_block(plan: Plan, name: str) -> SamplingBlock | PairingBlock | RolloutBlock:
    """The block of samplings, pair generations or rollouts with that name."""
    sections = (plan.config.samplings, plan.config.pair_generations, plan.config.rollouts)
    return next(section[name] for section in sections if name in section)


def crop_tables(plan: Plan, policy: str, dataset: str, views: list[str]) -> dict[str, str]:
    """Crop block to its table, for views that need one. Crops use the base model's
    attention."""
    named = {plan.config.views[view].crop for view in views if view in plan.config.views}
    base = plan.base(policy)
    return {c: CROPS.format(policy=base, dataset=dataset, crop=c) for c in sorted(n for n in named if n)}


def saliency_tables(plan: Plan, dataset: str, views: Iterable[str]) -> dict[str, str]:
    """Saliency block to its table, for views that need one. It is independent of policies."""
    named = {block["saliency_map"] for block in view_blocks(plan, *views).values()}
    return {name: SALIENCY.format(dataset=dataset, saliency_map=name) for name in sorted(n for n in named if n)}


def pair_crop(plan: Plan, pairing: str) -> str | None:
    """The crop block behind the chosen focus responses of a pair generation."""
    focus = plan.config.pair_generations[pairing].focus
    view = focus and plan.config.views.get(focus.chosen.view)
    return view.crop if view else None


def pair_view(plan: Plan, pairing: str, view: str) -> str | None:
    """The config's name of a pair view (`enhanced`, `degraded` or `noise`) in a pair generation.

    None for other views, and if `pairing` is not a pair generation.
    """
    if pairing not in plan.config.pair_generations:
        return None
    block = plan.config.pair_generations[pairing]
    answers = {
        "enhanced": block.focus and block.focus.chosen,
        "degraded": block.focus and block.focus.rejected,
        "noise": block.robust and block.robust.rejected,
    }
    answer = answers.get(view)
    return answer.view if answer else None


def clip_scores(plan: Plan, policy: str, dataset: str, pairing: str, filter: str) -> str | None:
    """The CLIP scores that a filter adds, if any."""
    clip, crop = plan.config.filters[filter].clip_score, pair_crop(plan, pairing)
    return CLIPS.format(policy=policy, dataset=dataset, crop=crop, clip_score=clip) if clip and crop else None


def views_of(block: SamplingBlock | PairingBlock | RolloutBlock | BenchmarkBlock) -> list[str]:
    """Views in a block's requests, including those of amateurs."""
    return sorted({view for _, view in views_named(block)})
