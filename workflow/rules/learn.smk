"""Preferences to an adapter.

reads   examples, preferences
writes  terms: log-probabilities that do not change while training; an adapter in PEFT format; its training curves
"""


rule compute_terms:
    """Reference log-probabilities, once for every method, beta and gamma."""
    input:
        preferences=groups_of,
        examples=paths.EXAMPLES,
    output:
        terms=paths.TERMS,
    log:
        paths.log(paths.TERMS),
    benchmark:
        paths.benchmark(paths.TERMS)
    retries: 2
    threads: 16
    resources:
        mem_mb=again_with_more(12000),
        runtime=again_with_more(240),
        gpu=1,
        attempt=attempt_number,
    params:
        *code_of("terms", "compute_terms"),
        plugins=plugins_of_terms,
        settings=of(plan.model_settings),
        views=view_of_terms,
        model=model_of,
    script:
        "../scripts/compute_terms.py"


rule train_adapter:
    """A LoRA adapter; a killed run resumes from its newest checkpoint."""
    input:
        preferences=preferences_of,
        examples=examples_of_experiment,
        terms=terms_of,
    output:
        adapter=paths.ADAPTER,
        config=paths.ADAPTER_CONFIG,
        training=paths.TRAINING,
    log:
        paths.log(paths.TRAINING),
    benchmark:
        paths.benchmark(paths.TRAINING)
    retries: 2
    threads: 16
    resources:
        mem_mb=again_with_more(12000),
        runtime=again_with_more(1440),
        gpu=gpus_of_training,
        attempt=attempt_number,
    params:
        *code_of("train", "train_adapter"),
        plugins=plugins_of_training,
        settings=training_settings,
        weights=of(plan.model_settings, "experiment"),
        blocks=training_of,
        views=views_of_terms,
        checkpoints=checkpoints_of,
    script:
        "../scripts/train_adapter.py"
