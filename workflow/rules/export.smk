"""Export of trained policies as model folders, and of preferences in other trainers' formats.

reads   adapters, benchmark requests to compare answers on, metrics; preferences, examples
writes  models: merged weights, processor, parity report, lineage, model card
        exports: data, images, lineage
"""


rule export_model:
    """A policy's merged weights, verified with vLLM and transformers against base model and adapter."""
    input:
        unpack(inputs("export_model")),
    output:
        parity=paths.MODEL_PARITY,
        lineage=paths.MODEL_LINEAGE,
    log:
        paths.log(paths.MODEL_PARITY),
    benchmark:
        paths.benchmark(paths.MODEL_PARITY)
    wildcard_constraints:
        **single["export_model"],
    retries: 2
    threads: cores("export_model")
    resources:
        mem_mb=memory("export_model"),
        runtime=minutes("export_model"),
        gpu=gpus("export_model"),
        attempt=attempt_number,
    params:
        *code("export_model"),
        **parameters("export_model"),
    script:
        "../scripts/run_stage.py"


rule write_model_card:
    """Model card of an exported model: training, metrics and lineage."""
    input:
        unpack(inputs("write_model_card")),
    output:
        card=paths.MODEL_CARD,
    log:
        paths.log(paths.MODEL_CARD),
    wildcard_constraints:
        **single["write_model_card"],
    resources:
        mem_mb=memory("write_model_card"),
        runtime=minutes("write_model_card"),
    params:
        *code("write_model_card"),
        **parameters("write_model_card"),
    script:
        "../scripts/run_stage.py"


rule export_preferences:
    """Preferences of an experiment and their images, in another trainer's format."""
    input:
        unpack(inputs("export_preferences")),
    output:
        readme=paths.EXPORT,
        lineage=paths.EXPORT_LINEAGE,
    log:
        paths.log(paths.EXPORT),
    resources:
        mem_mb=memory("export_preferences"),
        runtime=minutes("export_preferences"),
    params:
        *code("export_preferences"),
        **parameters("export_preferences"),
    script:
        "../scripts/run_stage.py"
