"""Where a model looks, and what to cut out of an image because of it; what stands out in an image, whoever looks.

reads   examples, a policy
writes  attention: a map per example; crops: the salient box and its control; clips: CLIP scores of image and crops;
        saliency: the attention that patches receive in a DINOv2
"""


rule measure_attention:
    """Attention maps of one policy, without full attention matrices."""
    input:
        unpack(inputs("measure_attention")),
    output:
        attention=paths.ATTENTION,
    log:
        paths.log(paths.ATTENTION),
    benchmark:
        paths.benchmark(paths.ATTENTION)
    retries: 2
    threads: cores("measure_attention")
    resources:
        mem_mb=again_with_more(12000),
        runtime=again_with_more(240),
        gpu=gpus("measure_attention"),
        attempt=attempt_number,
    params:
        *code("measure_attention"),
        **parameters("measure_attention"),
    script:
        "../scripts/run_stage.py"


rule measure_saliency:
    """What stands out in images, which no policy has a say in."""
    input:
        unpack(inputs("measure_saliency")),
    output:
        saliency=paths.SALIENCY,
    log:
        paths.log(paths.SALIENCY),
    benchmark:
        paths.benchmark(paths.SALIENCY)
    retries: 2
    threads: cores("measure_saliency")
    resources:
        mem_mb=again_with_more(8000),
        runtime=again_with_more(240),
        gpu=gpus("measure_saliency"),
        attempt=attempt_number,
    params:
        *code("measure_saliency"),
        **parameters("measure_saliency"),
    script:
        "../scripts/run_stage.py"


rule find_crops:
    """The adaptive crop of every example."""
    input:
        unpack(inputs("find_crops")),
    output:
        crops=paths.CROPS,
    log:
        paths.log(paths.CROPS),
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *code("find_crops"),
        **parameters("find_crops"),
    script:
        "../scripts/run_stage.py"


rule score_clips:
    """How well the question fits the image, its crop and the control."""
    input:
        unpack(inputs("score_clips")),
    output:
        clips=paths.CLIPS,
    log:
        paths.log(paths.CLIPS),
    benchmark:
        paths.benchmark(paths.CLIPS)
    retries: 2
    threads: cores("score_clips")
    resources:
        mem_mb=again_with_more(8000),
        runtime=again_with_more(120),
        gpu=gpus("score_clips"),
        attempt=attempt_number,
    params:
        *code("score_clips"),
        **parameters("score_clips"),
    script:
        "../scripts/run_stage.py"
