"""Trained policies as model folders, and their preferences in other trainers' formats.

reads   adapters, benchmark questions to compare answers on, metrics; preferences, examples
writes  models: merged weights, processor, parity report, lineage, model card; exports: data, images, lineage
"""


rule export_model:
    """A policy's merged weights, if vLLM and transformers find in them what base and adapter say."""
    input:
        adapter=adapter_of,
        requests=paths.BENCHMARK_REQUESTS,
        examples=examples_of_benchmarks,
    output:
        parity=paths.MODEL_PARITY,
        lineage=paths.MODEL_LINEAGE,
    log:
        paths.log(paths.MODEL_PARITY),
    benchmark:
        paths.benchmark(paths.MODEL_PARITY)
    wildcard_constraints:
        policy=one_of(plan.trained),
    retries: 2
    threads: threads_of_model
    resources:
        mem_mb=again_with_more(24000),
        runtime=again_with_more(120),
        gpu=gpus_of_engine,
        attempt=attempt_number,
    params:
        *code_of("model_export", "export_model"),
        plugins=plugins_of_export,
        settings=of(plan.model_settings),
        datasets=datasets_of_benchmarks,
        model=model_of,
    script:
        "../scripts/export_model.py"


rule write_model_card:
    """What an exported model is, how good, and what it was made of."""
    input:
        parity=paths.MODEL_PARITY,
        lineage=paths.MODEL_LINEAGE,
        training=training_of_policy,
        metrics=metrics_of_policy,
    output:
        card=paths.MODEL_CARD,
    log:
        paths.log(paths.MODEL_CARD),
    wildcard_constraints:
        policy=one_of(plan.trained),
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        *code_of("model_card", "write_model_card"),
        settings=of(card_settings),
        base=of(plan.base),
        model=model_of,
    script:
        "../scripts/write_model_card.py"


rule export_preferences:
    """The preferences of an experiment as another trainer reads them, with their images."""
    input:
        preferences=preferences_exported,
        examples=examples_exported,
    output:
        readme=paths.EXPORT,
        lineage=paths.EXPORT_LINEAGE,
    log:
        paths.log(paths.EXPORT),
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        *code_of("preference_export", "export_preferences"),
        plugins=plugins_of_preference_export,
        settings=export_settings,
    script:
        "../scripts/export_preferences.py"
