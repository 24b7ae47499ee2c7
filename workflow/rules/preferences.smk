"""Responses to numbers, and numbers to preferences.

reads   examples, requests, responses
writes  rewards: one row per response, unparsable ones with their reason; preferences: ranked lists, best first
"""


rule score_responses:
    """One reward per response, with the parsed answer."""
    input:
        unpack(inputs("score_responses")),
    output:
        rewards=paths.REWARDS,
    log:
        paths.log(paths.REWARDS),
    benchmark:
        paths.benchmark(paths.REWARDS)
    threads: cores("score_responses")
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *code("score_responses"),
        **parameters("score_responses"),
    script:
        "../scripts/run_stage.py"


rule select_preferences:
    """Lists worth learning from, ranked best first, with the statistics of what was dropped."""
    input:
        unpack(inputs("select_preferences")),
    output:
        preferences=paths.PREFERENCES,
        statistics=paths.PREFERENCE_STATISTICS,
    log:
        paths.log(paths.PREFERENCES),
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *code("select_preferences"),
        **parameters("select_preferences"),
    script:
        "../scripts/run_stage.py"


rule use_dataset_preferences:
    """The answers that come with the data as ranked lists, in the tokens of the base model."""
    input:
        unpack(inputs("use_dataset_preferences")),
    output:
        preferences=paths.GIVEN,
        statistics=paths.GIVEN_STATISTICS,
    log:
        paths.log(paths.GIVEN),
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        *code("use_dataset_preferences"),
        **parameters("use_dataset_preferences"),
    script:
        "../scripts/run_stage.py"


rule select_batch:
    """The groups of a round that are learnt from, with the statistics of what was dropped."""
    input:
        unpack(inputs("select_batch")),
    output:
        preferences=paths.BATCH,
        statistics=paths.BATCH_STATISTICS,
    log:
        paths.log(paths.BATCH),
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *code("select_batch"),
        **parameters("select_batch"),
    script:
        "../scripts/run_stage.py"


rule make_pairs:
    """The chosen and the rejected answer of every example, and the views that they were made under."""
    input:
        unpack(inputs("make_pairs")),
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
        *code("make_pairs"),
        **parameters("make_pairs"),
    script:
        "../scripts/run_stage.py"


rule filter_pairs:
    """Pairs worth learning from, with the statistics of what was dropped."""
    input:
        unpack(inputs("filter_pairs")),
    output:
        preferences=paths.FILTERED_PAIRS,
        statistics=paths.PAIR_STATISTICS,
    log:
        paths.log(paths.FILTERED_PAIRS),
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *code("filter_pairs"),
        **parameters("filter_pairs"),
    script:
        "../scripts/run_stage.py"
