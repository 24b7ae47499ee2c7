"""Jobs that measure where a model looks, what stands out, and how well an image fits its question."""

from __future__ import annotations

from perceptune.contracts import paths
from perceptune.planning.job import Job
from perceptune.planning.policies import Plan, tracked


def measure_attention(plan: Plan, *, policy: str, dataset: str, attention: str) -> Job:
    return Job(
        inputs={"examples": paths.EXAMPLES.format(dataset=dataset), "adapter": plan.adapter(policy)},
        settings={"config": tracked(plan.config.attentions[attention]), "base": plan.model_settings(policy)},
        details={**plan.model_details(policy), "adapter": plan.adapter_folder(policy)},
        modules=(plan.family(policy),),
        threads=plan.threads(policy),
        gpus=1,
    )


def measure_saliency(plan: Plan, *, dataset: str, saliency: str) -> Job:
    block = plan.config.saliencies[saliency]
    settings = plan.content_settings("saliency", saliency, block)
    return Job(
        inputs={"examples": paths.EXAMPLES.format(dataset=dataset)},
        settings=settings,
        details={"config": block.model_dump(mode="json"), "weights": settings["weights"]},
        threads=16,
        gpus=1,
    )


def find_crops(plan: Plan, *, policy: str, dataset: str, crop: str) -> Job:
    block = plan.config.crops[crop]
    table = paths.ATTENTION.format(policy=policy, dataset=dataset, attention=block.attention)
    settings = {key: value for key, value in tracked(block).items() if key != "attention"}  # that is an input
    return Job({"attention": table}, settings, {"config": block.model_dump(mode="json")})


def score_clips(plan: Plan, *, policy: str, dataset: str, crop: str, clip: str) -> Job:
    block = plan.config.clips[clip]
    settings = plan.content_settings("clip", clip, block)
    return Job(
        inputs={
            "examples": paths.EXAMPLES.format(dataset=dataset),
            "crops": paths.CROPS.format(policy=policy, dataset=dataset, crop=crop),
        },
        settings=settings,
        details={"config": block.model_dump(mode="json"), "weights": settings["weights"]},
        threads=16,
        gpus=1,
    )
