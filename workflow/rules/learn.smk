"""Preferences, or the answers of a round, to an adapter.

reads   examples, preferences, in rounds also the policy before
writes  terms: log-probabilities that do not change while training; an adapter in PEFT format; its training curves
"""


rule compute_terms:
    """Log-probabilities of the base model or of the policy that answered, once for every method, beta and gamma."""
    input:
        preferences=groups_of,
        examples=paths.EXAMPLES,
        adapter=adapter_of_terms,
        saliencies=saliencies_of_terms,
    output:
        terms=paths.TERMS,
    log:
        paths.log(paths.TERMS),
    benchmark:
        paths.benchmark(paths.TERMS)
    retries: 2
    threads: threads_of_model
    resources:
        mem_mb=again_with_more(12000),
        runtime=again_with_more(240),
        gpu=1,
        attempt=attempt_number,
    params:
        *code_of("terms", "compute_terms"),
        plugins=plugins_of_terms,
        settings=of(plan.model_settings),
        views=blocks_of_views_stored,
        model=model_of,
        of_round=terms_are_of_a_round,
    script:
        "../scripts/compute_terms.py"


rule train_adapter:
    """A LoRA adapter; a killed run resumes from its newest checkpoint."""
    input:
        preferences=preferences_of,
        examples=examples_of_experiment,
        terms=terms_of,
        saliencies=saliencies_of_training,
    output:
        adapter=paths.ADAPTER,
        config=paths.ADAPTER_CONFIG,
        training=paths.TRAINING,
    log:
        paths.log(paths.TRAINING),
    benchmark:
        paths.benchmark(paths.TRAINING)
    wildcard_constraints:
        experiment=ONE_SHOT,
    retries: 2
    threads: threads_of_model
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


rule train_round:
    """The adapter of one round: a few steps from the one before, on answers of that one."""
    input:
        preferences=preferences_of,
        responses=responses_of_round,
        examples=examples_of_experiment,
        terms=terms_of_round,
        before=before_round,
        adapter_before=adapter_before_round,
        saliencies=saliencies_of_training,
    output:
        adapter=paths.ADAPTER,
        config=paths.ADAPTER_CONFIG,
        round=paths.ROUND,
        training=paths.TRAINING,
    log:
        paths.log(paths.TRAINING),
    benchmark:
        paths.benchmark(paths.TRAINING)
    wildcard_constraints:
        experiment=ROUND,
    retries: 2
    threads: threads_of_model
    resources:
        mem_mb=again_with_more(12000),
        runtime=again_with_more(1440),
        gpu=gpus_of_training,
        attempt=attempt_number,
    params:
        *code_of("train_round", "train_round"),
        plugins=plugins_of_training,
        settings=round_settings,
        weights=of(plan.model_settings, "experiment"),
        blocks=training_of,
        number=number_of_round,
        checkpoints=checkpoints_of,
    script:
        "../scripts/train_round.py"
