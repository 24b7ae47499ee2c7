"""Jobs that compute attention maps, saliency maps, crops and CLIP scores."""

from __future__ import annotations

from perceptune.contracts import paths
from perceptune.planning import resources
from perceptune.planning.job import Job
from perceptune.planning.policies import Plan, tracked
from perceptune.planning.sizes import policy_weights, weights_of


def compute_attention_maps(plan: Plan, *, policy: str, dataset: str, attention_map: str) -> Job:
    return Job(
        inputs={"examples": paths.EXAMPLES.format(dataset=dataset), "adapter": plan.adapter(policy)},
        settings={"config": tracked(plan.config.attention_maps[attention_map]), "base": plan.model_settings(policy)},
        details={**plan.model_details(policy), "adapter": plan.adapter_folder(policy)},
        modules=(plan.family(policy),),
        threads=plan.threads(policy),
        gpus=1,
        needs=lambda read: resources.maps(policy_weights(plan, policy), read("examples").rows),
    )


def compute_saliency_maps(plan: Plan, *, dataset: str, saliency_map: str) -> Job:
    block = plan.config.saliency_maps[saliency_map]
    settings = plan.content_settings("saliency", saliency_map, block)
    return Job(
        inputs={"examples": paths.EXAMPLES.format(dataset=dataset)},
        settings=settings,
        details={"config": block.model_dump(mode="json"), "weights": settings["weights"]},
        threads=16,
        gpus=1,
        needs=lambda read: resources.maps(weights_of(plan, block), read("examples").rows),
    )


def find_crops(plan: Plan, *, policy: str, dataset: str, crop: str) -> Job:
    block = plan.config.crops[crop]
    table = paths.ATTENTION.format(policy=policy, dataset=dataset, attention_map=block.attention_map)
    settings = {key: value for key, value in tracked(block).items() if key != "attention_map"}  # an input
    return Job({"attention": table}, settings, {"config": block.model_dump(mode="json")})


def compute_clip_scores(plan: Plan, *, policy: str, dataset: str, crop: str, clip_score: str) -> Job:
    block = plan.config.clip_scores[clip_score]
    settings = plan.content_settings("clip", clip_score, block)
    return Job(
        inputs={
            "examples": paths.EXAMPLES.format(dataset=dataset),
            "crops": paths.CROPS.format(policy=policy, dataset=dataset, crop=crop),
        },
        settings=settings,
        details={"config": block.model_dump(mode="json"), "weights": settings["weights"]},
        threads=16,
        gpus=1,
        needs=lambda read: resources.maps(weights_of(plan, block), read("examples").rows),
    )
