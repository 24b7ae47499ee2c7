"""Trained policies as model folders, and their preferences in other trainers' formats.

reads   adapters, benchmark questions to compare answers on, metrics; preferences, examples
writes  models: merged weights, processor, parity report, lineage, model card; exports: data, images, lineage
"""


rule export_model:
    """A policy's merged weights, if vLLM and transformers find in them what base and adapter say."""
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
        mem_mb=again_with_more(24000),
        runtime=again_with_more(120),
        gpu=gpus("export_model"),
        attempt=attempt_number,
    params:
        *code("export_model"),
        **parameters("export_model"),
    script:
        "../scripts/run_stage.py"


rule write_model_card:
    """What an exported model is, how good, and what it was made of."""
    input:
        unpack(inputs("write_model_card")),
    output:
        card=paths.MODEL_CARD,
    log:
        paths.log(paths.MODEL_CARD),
    wildcard_constraints:
        **single["write_model_card"],
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        *code("write_model_card"),
        **parameters("write_model_card"),
    script:
        "../scripts/run_stage.py"


rule export_preferences:
    """The preferences of an experiment as another trainer reads them, with their images."""
    input:
        unpack(inputs("export_preferences")),
    output:
        readme=paths.EXPORT,
        lineage=paths.EXPORT_LINEAGE,
    log:
        paths.log(paths.EXPORT),
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        *code("export_preferences"),
        **parameters("export_preferences"),
    script:
        "../scripts/run_stage.py"
