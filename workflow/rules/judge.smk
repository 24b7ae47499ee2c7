"""Responses to numbers, and numbers to preferences.

reads   examples, requests, responses
writes  rewards: one row per response, unparsable ones with their reason; preferences: ranked lists, best first
"""


rule score_responses:
    """One reward per response, with the parsed answer."""
    input:
        requests=paths.REQUESTS,
        responses=paths.RESPONSES,
        examples=examples_of_plan,
    output:
        rewards=paths.REWARDS,
    log:
        paths.log(paths.REWARDS),
    benchmark:
        paths.benchmark(paths.REWARDS)
    threads: 2
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *code_of("rewards", "score_responses"),
        plugins=plugins_of_scoring,
        settings=scored_settings,
        block=whole_block("reward"),
        weights=of(plan.model_settings),
        model=model_of,
        datasets=datasets_of_plan,
    script:
        "../scripts/score_responses.py"


rule select_preferences:
    """Lists worth learning from, ranked best first, with the statistics of what was dropped."""
    input:
        requests=paths.SAMPLE_REQUESTS,
        responses=paths.SAMPLE_RESPONSES,
        rewards=paths.SAMPLE_REWARDS,
    output:
        preferences=paths.PREFERENCES,
        statistics=paths.PREFERENCE_STATISTICS,
    log:
        paths.log(paths.PREFERENCES),
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *code_of("preferences", "select_preferences"),
        settings=block("selection"),
    script:
        "../scripts/select_preferences.py"


rule take_given:
    """The answers that come with the data as ranked lists, in the tokens of the base model."""
    input:
        examples=paths.EXAMPLES,
    output:
        preferences=paths.GIVEN,
        statistics=paths.GIVEN_STATISTICS,
    log:
        paths.log(paths.GIVEN),
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        *code_of("given", "take_given"),
        plugins=plugins_of_family,
        settings=block("given"),
        weights=of(plan.model_settings),
        model=model_of,
    script:
        "../scripts/take_given.py"


rule select_batch:
    """The groups of a round that are learnt from, with the statistics of what was dropped."""
    input:
        requests=paths.ROUND_REQUESTS,
        responses=paths.ROUND_RESPONSES,
        rewards=paths.ROUND_REWARDS,
    output:
        preferences=paths.BATCH,
        statistics=paths.BATCH_STATISTICS,
    log:
        paths.log(paths.BATCH),
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *code_of("batches", "select_batch"),
        settings=block("batch"),
    script:
        "../scripts/select_batch.py"


rule make_pairs:
    """The chosen and the rejected answer of every example, and the views that they were made under."""
    input:
        requests=paths.PAIR_REQUESTS,
        responses=paths.PAIR_RESPONSES,
        examples=paths.EXAMPLES,
    output:
        pairs=paths.PAIRS,
    log:
        paths.log(paths.PAIRS),
    benchmark:
        paths.benchmark(paths.PAIRS)
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        *code_of("pairs", "make_pairs"),
        plugins=plugins_of_pairs,
        settings=losses_of_pairing,
        block=whole_block("pairing"),
    script:
        "../scripts/make_pairs.py"


rule filter_pairs:
    """Pairs worth learning from, with the statistics of what was dropped."""
    input:
        pairs=paths.PAIRS,
        terms=original_terms_of,
        clips=clips_of_filter,
    output:
        preferences=paths.FILTERED_PAIRS,
        statistics=paths.PAIR_STATISTICS,
    log:
        paths.log(paths.FILTERED_PAIRS),
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *code_of("filter", "filter_pairs"),
        settings=block("filter"),
    script:
        "../scripts/filter_pairs.py"
