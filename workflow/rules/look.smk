"""Where a model looks, and what to cut out of an image because of it; what stands out in an image, whoever looks.

reads   examples, a policy
writes  attention: a map per example; crops: the salient box and its control; clips: CLIP scores of image and crops;
        saliency: the attention that patches receive in a DINOv2
"""


rule measure_attention:
    """Attention maps of one policy, without full attention matrices."""
    input:
        examples=paths.EXAMPLES,
        adapter=adapter_of,
    output:
        attention=paths.ATTENTION,
    log:
        paths.log(paths.ATTENTION),
    benchmark:
        paths.benchmark(paths.ATTENTION)
    retries: 2
    threads: threads_of_model
    resources:
        mem_mb=again_with_more(12000),
        runtime=again_with_more(240),
        gpu=1,
        attempt=attempt_number,
    params:
        *code_of("attention", "measure_attention"),
        plugins=plugins_of_family,
        settings=block("attention"),
        weights=of(plan.model_settings),
        model=model_of,
    script:
        "../scripts/measure_attention.py"


rule measure_saliency:
    """What stands out in images, which no policy has a say in."""
    input:
        examples=paths.EXAMPLES,
    output:
        saliency=paths.SALIENCY,
    log:
        paths.log(paths.SALIENCY),
    benchmark:
        paths.benchmark(paths.SALIENCY)
    retries: 2
    threads: 16
    resources:
        mem_mb=again_with_more(8000),
        runtime=again_with_more(240),
        gpu=1,
        attempt=attempt_number,
    params:
        *code_of("saliency", "measure_saliency"),
        settings=of(plan.saliency_settings, "saliency"),
        block=whole_block("saliency"),
    script:
        "../scripts/measure_saliency.py"


rule find_crops:
    """The adaptive crop of every example."""
    input:
        attention=attention_of_crop,
    output:
        crops=paths.CROPS,
    log:
        paths.log(paths.CROPS),
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *code_of("crops", "find_crops"),
        settings=crop_settings,
        block=whole_block("crop"),
    script:
        "../scripts/find_crops.py"


rule score_clips:
    """How well the question fits the image, its crop and the control."""
    input:
        examples=paths.EXAMPLES,
        crops=paths.CROPS,
    output:
        clips=paths.CLIPS,
    log:
        paths.log(paths.CLIPS),
    benchmark:
        paths.benchmark(paths.CLIPS)
    retries: 2
    threads: 16
    resources:
        mem_mb=again_with_more(8000),
        runtime=again_with_more(120),
        gpu=1,
        attempt=attempt_number,
    params:
        *code_of("clips", "score_clips"),
        settings=of(plan.clip_settings, "clip"),
        block=whole_block("clip"),
    script:
        "../scripts/score_clips.py"
