"""Attention maps, saliency maps, crops and CLIP scores.

reads   examples, a policy
writes  attention: a map per example; crops: the salient box and its inverse; clips: CLIP scores of
        image and crops; saliency: the attention that patches receive in a DINOv2
"""


rule compute_attention_maps:
    """Attention maps of a policy, without materialising full attention matrices."""
    input:
        unpack(inputs("compute_attention_maps")),
    output:
        attention=paths.ATTENTION,
    log:
        paths.log(paths.ATTENTION),
    benchmark:
        paths.benchmark(paths.ATTENTION)
    retries: 2
    threads: cores("compute_attention_maps")
    resources:
        mem_mb=memory("compute_attention_maps"),
        runtime=minutes("compute_attention_maps"),
        gpu=gpus("compute_attention_maps"),
        attempt=attempt_number,
    params:
        *code("compute_attention_maps"),
        **parameters("compute_attention_maps"),
    script:
        "../scripts/run_stage.py"


rule compute_saliency_maps:
    """Saliency maps of images, independent of any policy."""
    input:
        unpack(inputs("compute_saliency_maps")),
    output:
        saliency=paths.SALIENCY,
    log:
        paths.log(paths.SALIENCY),
    benchmark:
        paths.benchmark(paths.SALIENCY)
    retries: 2
    threads: cores("compute_saliency_maps")
    resources:
        mem_mb=memory("compute_saliency_maps"),
        runtime=minutes("compute_saliency_maps"),
        gpu=gpus("compute_saliency_maps"),
        attempt=attempt_number,
    params:
        *code("compute_saliency_maps"),
        **parameters("compute_saliency_maps"),
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
        mem_mb=memory("find_crops"),
        runtime=minutes("find_crops"),
    params:
        *code("find_crops"),
        **parameters("find_crops"),
    script:
        "../scripts/run_stage.py"


rule compute_clip_scores:
    """CLIP similarity of the question with the image, its crop and the inverse crop."""
    input:
        unpack(inputs("compute_clip_scores")),
    output:
        clips=paths.CLIPS,
    log:
        paths.log(paths.CLIPS),
    benchmark:
        paths.benchmark(paths.CLIPS)
    retries: 2
    threads: cores("compute_clip_scores")
    resources:
        mem_mb=memory("compute_clip_scores"),
        runtime=minutes("compute_clip_scores"),
        gpu=gpus("compute_clip_scores"),
        attempt=attempt_number,
    params:
        *code("compute_clip_scores"),
        **parameters("compute_clip_scores"),
    script:
        "../scripts/run_stage.py"
